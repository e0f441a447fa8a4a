CREATE TABLE orders (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    reason TEXT,
    payment TEXT NOT NULL,
    payment_id TEXT,
    stock TEXT NOT NULL,
    customer TEXT NOT NULL,
    items TEXT NOT NULL,
    total_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    -- The Idempotency-Key of the request that placed the order, and the fingerprint of its body. Kept with the order, so
    -- that the key and the order come to be in one statement and a key is remembered as long as its order.
    idempotency_key TEXT UNIQUE,
    fingerprint TEXT NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX orders_by_state ON orders (state, id);

CREATE TABLE order_timeline (
    event_id TEXT NOT NULL,
    -- Empty for the event itself, the consumer group for its dead letter.
    dead_letter_of TEXT NOT NULL,
    order_id TEXT NOT NULL,
    happened_at BIGINT NOT NULL,
    service TEXT NOT NULL,
    event TEXT NOT NULL,
    topic TEXT NOT NULL,
    -- Unknown until the relay has published the event.
    log_partition BIGINT,
    log_offset BIGINT,
    attempt BIGINT,
    trace_id TEXT,
    detail TEXT,
    PRIMARY KEY (event_id, dead_letter_of)
);
CREATE INDEX order_timeline_by_order ON order_timeline (order_id);
