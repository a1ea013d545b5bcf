-- The audit log: what was decided, by writer, in the order it was written. Instants are Unix milliseconds.

-- How often each node has begun to write: an id for each start, never given twice.
CREATE TABLE audit_writer (
    node TEXT NOT NULL PRIMARY KEY,
    starts BIGINT NOT NULL
);

CREATE TABLE audit_record (
    position BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    writer TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    body TEXT NOT NULL,
    UNIQUE (writer, sequence)
);

CREATE FUNCTION audit_record_is_never_changed() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'an audit record is never changed'; END $$;

CREATE TRIGGER audit_record_is_never_changed BEFORE UPDATE ON audit_record
FOR EACH ROW EXECUTE FUNCTION audit_record_is_never_changed();

-- Client assertions that were used up, by the hash of client and jti.
CREATE TABLE used_assertion (
    digest BYTEA NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);
CREATE INDEX used_assertion_by_expiry ON used_assertion (expires_at);
