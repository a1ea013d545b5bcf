-- The audit log as chains: docs/audit-log.md has the format, octet by octet. Instants are Unix milliseconds.

-- What was recorded before there were chains stays readable; nothing covers it.
DROP TRIGGER IF EXISTS audit_record_is_never_changed ON audit_record;
ALTER TABLE audit_record RENAME TO audit_record_without_chain;
ALTER INDEX IF EXISTS audit_record_pkey RENAME TO audit_record_without_chain_pkey;
DROP TABLE audit_writer;

CREATE TABLE audit_log (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    -- Which log this is: random bits in hexadecimal, part of the first hash of each chain.
    id TEXT NOT NULL,
    -- The last row of the history that is in a chain.
    history_version BIGINT NOT NULL,
    history_step BIGINT NOT NULL
);

INSERT INTO audit_log (singleton, id, history_version, history_step)
    VALUES (1, replace(gen_random_uuid()::text, '-', ''), 0, 0);

-- One row for each chain. Whoever holds its latest lease writes it; `lease` grows with each, so that an earlier holder is
-- noticed in the transaction that it writes in.
CREATE TABLE audit_chain (
    id BIGINT NOT NULL PRIMARY KEY,
    lease BIGINT NOT NULL,
    holder TEXT NOT NULL,
    -- When others may take it; 0 once it was given back.
    leased_until BIGINT NOT NULL,
    -- The last record that was exported and removed: 0, and the chain's first hash, where there is none.
    cut_sequence BIGINT NOT NULL,
    cut_hash BYTEA NOT NULL
);

CREATE TABLE audit_record (
    -- The chain's id times 2^40, plus the record's number in it, which begins with 1.
    position BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    body TEXT NOT NULL
);

CREATE TRIGGER audit_record_is_never_changed BEFORE UPDATE ON audit_record
FOR EACH ROW EXECUTE FUNCTION audit_record_is_never_changed();

-- The heads of all chains, signed (compact JWS), one after the other.
CREATE TABLE audit_checkpoint (
    number BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    statement TEXT NOT NULL
);
