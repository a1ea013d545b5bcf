-- How far the audit log has been sent on to each sink of the configuration. Instants are Unix milliseconds.

-- Whose turn it is to send to a sink; `lease` grows with each, so that an earlier holder moves no cursor.
CREATE TABLE audit_forward (
    sink TEXT NOT NULL PRIMARY KEY,
    lease INTEGER NOT NULL,
    holder TEXT NOT NULL,
    -- When others may take it; 0 once it was given back.
    leased_until INTEGER NOT NULL,
    -- The last checkpoint that was sent; 0 before the first.
    checkpoint INTEGER NOT NULL
) STRICT;

-- The last record of each chain that was sent, with its hash.
CREATE TABLE audit_forward_cursor (
    sink TEXT NOT NULL,
    chain INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL,
    PRIMARY KEY (sink, chain)
) STRICT, WITHOUT ROWID;
