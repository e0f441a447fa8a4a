-- One mail an order and ending: a second event that says the same sends none.
CREATE TABLE mails (
    order_id TEXT NOT NULL,
    -- The type of the event the mail tells of.
    about TEXT NOT NULL,
    message_id TEXT NOT NULL,
    recipient TEXT NOT NULL,
    subject TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sending', 'sent', 'failed')),
    -- Why it was given up.
    error TEXT,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (order_id, about)
);
CREATE INDEX mails_by_time ON mails (changed_at);
