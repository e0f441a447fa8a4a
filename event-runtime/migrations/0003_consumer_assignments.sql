-- Who has a partition. A row that outlives its owner tells the next one that the owner died.
CREATE TABLE consumer_assignments (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition BIGINT NOT NULL,
    owner TEXT NOT NULL,
    assigned_at BIGINT NOT NULL,
    -- The offset of the record that is attempted alone.
    attempting BIGINT,
    -- How many owners in a row died before the partition was handled beyond the offset below.
    deaths BIGINT NOT NULL DEFAULT 0,
    reached BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (consumer_group, topic, partition)
);

-- How often a record ended the process that attempted it alone.
CREATE TABLE consumer_crashes (
    consumer_group TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition BIGINT NOT NULL,
    record_offset BIGINT NOT NULL,
    crashes BIGINT NOT NULL,
    crashed_at BIGINT NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition, record_offset)
);
