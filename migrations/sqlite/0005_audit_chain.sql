-- The audit log as chains: docs/audit-log.md has the format, octet by octet. Instants are Unix milliseconds.

-- What was recorded before there were chains stays readable; nothing covers it.
DROP TRIGGER IF EXISTS audit_record_is_never_changed;
ALTER TABLE audit_record RENAME TO audit_record_without_chain;
DROP TABLE audit_writer;

CREATE TABLE audit_log (
    singleton INTEGER NOT NULL PRIMARY KEY CHECK (singleton = 1),
    -- Which log this is: 128 random bits in hexadecimal, part of the first hash of each chain.
    id TEXT NOT NULL,
    -- The last row of the history that is in a chain.
    history_version INTEGER NOT NULL,
    history_step INTEGER NOT NULL
) STRICT;

INSERT INTO audit_log (singleton, id, history_version, history_step) VALUES (1, lower(hex(randomblob(16))), 0, 0);

-- One row for each chain. Whoever holds its latest lease writes it; `lease` grows with each, so that an earlier holder is
-- noticed in the transaction that it writes in.
CREATE TABLE audit_chain (
    id INTEGER NOT NULL PRIMARY KEY,
    lease INTEGER NOT NULL,
    holder TEXT NOT NULL,
    -- When others may take it; 0 once it was given back.
    leased_until INTEGER NOT NULL,
    -- The last record that was exported and removed: 0, and the chain's first hash, where there is none.
    cut_sequence INTEGER NOT NULL,
    cut_hash BLOB NOT NULL
) STRICT;

CREATE TABLE audit_record (
    -- The chain's id times 2^40, plus the record's number in it, which begins with 1.
    position INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body TEXT NOT NULL
) STRICT;

CREATE TRIGGER audit_record_is_never_changed BEFORE UPDATE ON audit_record
BEGIN
    SELECT RAISE(ABORT, 'an audit record is never changed');
END;

-- The heads of all chains, signed (compact JWS), one after the other.
CREATE TABLE audit_checkpoint (
    number INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL,
    statement TEXT NOT NULL
) STRICT;
