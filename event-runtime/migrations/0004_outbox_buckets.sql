-- NULL: not sorted into a bucket yet. Rows from before this column, and from instances of the version before, are given one
-- by a relay.
ALTER TABLE outbox ADD COLUMN bucket BIGINT CHECK (bucket BETWEEN 0 AND 15);
ALTER TABLE outbox_delayed ADD COLUMN bucket BIGINT CHECK (bucket BETWEEN 0 AND 15);
CREATE INDEX outbox_by_bucket ON outbox (bucket, seq);

CREATE TABLE outbox_bucket (
    bucket BIGINT PRIMARY KEY,
    owner TEXT NOT NULL,
    fence BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
INSERT INTO outbox_bucket (bucket, owner, fence, expires_at) VALUES
    (0, '', 0, 0), (1, '', 0, 0), (2, '', 0, 0), (3, '', 0, 0), (4, '', 0, 0), (5, '', 0, 0), (6, '', 0, 0), (7, '', 0, 0),
    (8, '', 0, 0), (9, '', 0, 0), (10, '', 0, 0), (11, '', 0, 0), (12, '', 0, 0), (13, '', 0, 0), (14, '', 0, 0),
    (15, '', 0, 0);

CREATE TABLE outbox_relay (
    name TEXT PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

-- A relay of the version before publishes nothing without it, and so nothing twice beside the new ones.
DROP TABLE outbox_lease;
