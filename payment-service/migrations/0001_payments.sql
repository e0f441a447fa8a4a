-- One row an order, from the moment its charge or its cancellation is first heard of.
CREATE TABLE payments (
    order_id TEXT NOT NULL PRIMARY KEY,
    payment_id TEXT NOT NULL,
    state TEXT NOT NULL,
    -- What was or is to be charged; unknown for an order that was cancelled before it was created here.
    amount_minor BIGINT,
    currency TEXT,
    -- The gateway's id of the charge.
    charge_id TEXT,
    reason TEXT,
    -- How often the gateway may have been asked to charge.
    attempts BIGINT NOT NULL,
    -- Since when the gateway may be charging without anybody waiting for its answer.
    unsettled_since BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    version BIGINT NOT NULL
);

CREATE INDEX payments_by_state ON payments (state, order_id);
