CREATE TABLE inbox (
    consumer_group TEXT NOT NULL,
    event_id TEXT NOT NULL,
    handled_at BIGINT NOT NULL,
    PRIMARY KEY (consumer_group, event_id)
);
CREATE INDEX inbox_by_age ON inbox (handled_at);

CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    record_key TEXT NOT NULL,
    headers TEXT NOT NULL,
    value BLOB NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE outbox_delayed (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    record_key TEXT NOT NULL,
    headers TEXT NOT NULL,
    value BLOB NOT NULL,
    not_before BIGINT NOT NULL
);
CREATE INDEX outbox_delayed_by_due ON outbox_delayed (not_before, seq);

CREATE TABLE outbox_poison (
    seq BIGINT PRIMARY KEY,
    event_id TEXT NOT NULL,
    topic TEXT NOT NULL,
    record_key TEXT NOT NULL,
    headers TEXT NOT NULL,
    value BLOB NOT NULL,
    created_at BIGINT NOT NULL,
    reason TEXT NOT NULL,
    set_aside_at BIGINT NOT NULL
);

CREATE TABLE outbox_lease (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    fence BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
