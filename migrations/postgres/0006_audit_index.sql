-- By what audit records are found: src/audit/index. It follows behind the log, and is built again where it is missing.

CREATE TABLE audit_index (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    -- What the terms are made of. Where it is not what a later release makes them of, they are made again.
    format BIGINT NOT NULL,
    -- Which index this is: another one whenever it begins anew.
    id TEXT NOT NULL
);

INSERT INTO audit_index (singleton, format, id) VALUES (1, 1, gen_random_uuid()::text);

CREATE TABLE audit_index_progress (
    chain BIGINT NOT NULL PRIMARY KEY,
    -- The last record that is indexed.
    position BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    -- Up to where rows of removed records have been removed.
    swept BIGINT NOT NULL,
    -- Up to where that is under way.
    sweeping BIGINT NOT NULL
);

-- One row for each thing that a record can be found by. `value` is 64 bits of it: two may share them.
CREATE TABLE audit_index_term (
    kind BIGINT NOT NULL,
    value BIGINT NOT NULL,
    at BIGINT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (kind, value, at, position)
);

-- Where the sweeping of rows of removed records has come to.
CREATE TABLE audit_index_sweep (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    kind BIGINT NOT NULL,
    value BIGINT NOT NULL,
    at BIGINT NOT NULL,
    position BIGINT NOT NULL
);
