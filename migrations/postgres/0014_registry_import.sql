-- Imports of many records (docs/registry-import.md). What an import enters is in the tables at once, where whoever looks for
-- conflicts finds it; readers ask the views, which have it from the moment on that its import is published.

CREATE TABLE registry_import (
    id BIGINT NOT NULL PRIMARY KEY,
    -- Under way; in force; given up, its rows still there; given up, and nothing left of it.
    state TEXT NOT NULL CHECK (state IN ('staging', 'published', 'abandoned', 'swept')),
    -- When others may take it for given up, in Unix milliseconds.
    leased_until BIGINT NOT NULL,
    -- The registry version when it began; when it was published, the one it made.
    version BIGINT NOT NULL,
    -- Who, and from where.
    record TEXT NOT NULL
);

-- Which import entered it; 0 for what no import did.
ALTER TABLE participant ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE trust_anchor ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE anchor_grant ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE client ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE certificate ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE resource_server ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE entitlement ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;
ALTER TABLE revoked_key ADD COLUMN import_id BIGINT NOT NULL DEFAULT 0;

CREATE VIEW visible_participant AS
    SELECT id, state, record, import_id
    FROM participant
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');

CREATE VIEW visible_trust_anchor AS
    SELECT id, owner_participant_id, subject_hash, state, record, import_id
    FROM trust_anchor
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');

CREATE VIEW visible_anchor_grant AS
    SELECT participant_id, anchor_id, state, record, import_id
    FROM anchor_grant
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');

CREATE VIEW visible_client AS
    SELECT id, participant_id, rule_attribute, rule_canonical, state, record, import_id
    FROM client
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');

CREATE VIEW visible_certificate AS
    SELECT thumbprint, client_id, key_hash, issuer_key, serial, state, expires_at, live_until, last_seen,
        record, anchor_id, import_id
    FROM certificate
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');

CREATE VIEW visible_resource_server AS
    SELECT id, resource, owner_participant_id, rule_attribute, rule_canonical, certificate_thumbprint, state,
        record, import_id
    FROM resource_server
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');

CREATE VIEW visible_entitlement AS
    SELECT id, client_id, resource_server_id, record, import_id
    FROM entitlement
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');

CREATE VIEW visible_revoked_key AS
    SELECT key_hash, version, revoked_at, reason, import_id
    FROM revoked_key
    WHERE import_id = 0 OR import_id IN (SELECT id FROM registry_import WHERE state = 'published');
