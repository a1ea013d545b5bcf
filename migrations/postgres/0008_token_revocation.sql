-- Single tokens, revoked and asked about.

-- The client that had its token revoked, where it was its own request: it may have so many live ones. NULL for every other mark.
ALTER TABLE revocation_mark ADD COLUMN client_id TEXT;
CREATE INDEX revocation_mark_by_client ON revocation_mark (client_id, forget_after);

-- By which certificates a resource server proves itself where it asks about tokens. Rows of active ones only.
CREATE TABLE resource_server_certificate (
    thumbprint TEXT NOT NULL PRIMARY KEY,
    resource_server_id TEXT NOT NULL REFERENCES resource_server (id)
);
CREATE INDEX resource_server_certificate_by_server ON resource_server_certificate (resource_server_id);

INSERT INTO resource_server_certificate (thumbprint, resource_server_id)
    SELECT certificate_thumbprint, id FROM resource_server
    WHERE certificate_thumbprint IS NOT NULL AND state = 'active';
