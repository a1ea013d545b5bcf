-- The audit log: what was decided, by writer, in the order it was written. Instants are Unix milliseconds.

-- How often each node has begun to write: an id for each start, never given twice.
CREATE TABLE audit_writer (
    node TEXT NOT NULL PRIMARY KEY,
    starts INTEGER NOT NULL
) STRICT;

CREATE TABLE audit_record (
    position INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    writer TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (writer, sequence)
) STRICT;

CREATE TRIGGER audit_record_is_never_changed BEFORE UPDATE ON audit_record
BEGIN
    SELECT RAISE(ABORT, 'an audit record is never changed');
END;

-- Client assertions that were used up, by the hash of client and jti.
CREATE TABLE used_assertion (
    digest BLOB NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX used_assertion_by_expiry ON used_assertion (expires_at);
