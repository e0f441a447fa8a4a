-- NULL: handled. Otherwise the replay that was dead-lettered last, 0 for the record itself. Rows from before this column
-- may be either, and let a replay through as they did then.
ALTER TABLE inbox ADD COLUMN dead_replay BIGINT DEFAULT 0;
