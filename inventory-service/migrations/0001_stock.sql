CREATE TABLE stock (
    sku TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    price_minor BIGINT NOT NULL,
    currency TEXT NOT NULL,
    -- What came in: at the start, and since then by hand.
    seeded BIGINT NOT NULL CHECK (seeded >= 0),
    adjustments BIGINT NOT NULL,
    -- Where it is now.
    available BIGINT NOT NULL CHECK (available >= 0),
    reserved BIGINT NOT NULL CHECK (reserved >= 0),
    sold BIGINT NOT NULL CHECK (sold >= 0),
    -- The last line of defence: no statement can make or lose a piece.
    CHECK (seeded + adjustments = available + reserved + sold)
);

CREATE TABLE reservations (
    order_id TEXT PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('open', 'reserved', 'rejected', 'released', 'committed', 'cancelled')),
    -- JSON: what is or was set aside, by sku.
    items TEXT NOT NULL,
    -- Why it was rejected.
    reason TEXT,
    changed_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);
