-- How far the audit log has been sent on to each sink of the configuration. Instants are Unix milliseconds.

-- Whose turn it is to send to a sink; `lease` grows with each, so that an earlier holder moves no cursor.
CREATE TABLE audit_forward (
    sink TEXT NOT NULL PRIMARY KEY,
    lease BIGINT NOT NULL,
    holder TEXT NOT NULL,
    -- When others may take it; 0 once it was given back.
    leased_until BIGINT NOT NULL,
    -- The last checkpoint that was sent; 0 before the first.
    checkpoint BIGINT NOT NULL
);

-- The last record of each chain that was sent, with its hash.
CREATE TABLE audit_forward_cursor (
    sink TEXT NOT NULL,
    chain BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    PRIMARY KEY (sink, chain)
);
