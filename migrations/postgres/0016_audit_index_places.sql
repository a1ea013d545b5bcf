-- A row of the index has several places of a term: those of a chain that lie together (src/store/audit_index/block.rs). Without more it
-- has one, which is what an earlier release writes and reads.
ALTER TABLE audit_index_term
    -- How much later than `at` the latest of them was decided, in milliseconds.
    ADD COLUMN span BIGINT NOT NULL DEFAULT 0,
    -- How much further than `position` the last of them is.
    ADD COLUMN reach BIGINT NOT NULL DEFAULT 0,
    -- All of them, where there is more than one.
    ADD COLUMN places BYTEA NOT NULL DEFAULT ''::bytea;
