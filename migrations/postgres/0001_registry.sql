-- The registry. A record is one JSON document, written by the types of src/registry; what is searched, joined or
-- constrained stands beside it in columns of its own, derived from the same value in the same statement.
-- Instants are Unix milliseconds. Records are never deleted: they end.

CREATE TABLE registry_state (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    epoch BIGINT NOT NULL,
    version BIGINT NOT NULL
);

INSERT INTO registry_state (singleton, epoch, version) VALUES (1, 1, 0);

CREATE TABLE participant (
    id TEXT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'suspended', 'withdrawn')),
    record TEXT NOT NULL
);

CREATE TABLE trust_anchor (
    id TEXT NOT NULL PRIMARY KEY,
    owner_participant_id TEXT REFERENCES participant (id),
    -- SHA-256 of the DER of its subject: anchors of one name cost a path builder the most.
    subject_hash TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'retired')),
    record TEXT NOT NULL
);

CREATE TABLE anchor_grant (
    participant_id TEXT NOT NULL REFERENCES participant (id),
    anchor_id TEXT NOT NULL REFERENCES trust_anchor (id),
    state TEXT NOT NULL CHECK (state IN ('granted', 'withdrawn')),
    record TEXT NOT NULL,
    PRIMARY KEY (participant_id, anchor_id)
);
CREATE INDEX anchor_grant_by_anchor ON anchor_grant (anchor_id);

CREATE TABLE client (
    id TEXT NOT NULL PRIMARY KEY,
    participant_id TEXT NOT NULL REFERENCES participant (id),
    rule_attribute TEXT,
    rule_canonical TEXT,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'suspended', 'retired')),
    record TEXT NOT NULL
);
CREATE INDEX client_by_participant ON client (participant_id, id);
CREATE INDEX client_by_rule ON client (rule_canonical, rule_attribute);

CREATE TABLE certificate (
    thumbprint TEXT NOT NULL PRIMARY KEY,
    client_id TEXT NOT NULL REFERENCES client (id),
    key_hash TEXT NOT NULL,
    issuer_key TEXT,
    serial TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('announced', 'active', 'superseded', 'revoked')),
    -- The first instant at which it is out of date.
    expires_at BIGINT NOT NULL,
    -- The first instant at which it no longer counts against its client's limit.
    live_until BIGINT NOT NULL,
    -- Kept outside the record: seeing a certificate again is no change of the registry.
    last_seen BIGINT NOT NULL DEFAULT -1,
    record TEXT NOT NULL
);
CREATE INDEX certificate_by_client ON certificate (client_id, expires_at);
CREATE INDEX certificate_by_key ON certificate (key_hash);
CREATE INDEX certificate_by_serial ON certificate (serial);
CREATE UNIQUE INDEX certificate_by_issuer_and_serial ON certificate (issuer_key, serial);

CREATE TABLE resource_server (
    id TEXT NOT NULL PRIMARY KEY,
    resource TEXT NOT NULL UNIQUE,
    owner_participant_id TEXT REFERENCES participant (id),
    rule_attribute TEXT,
    rule_canonical TEXT,
    certificate_thumbprint TEXT,
    state TEXT NOT NULL CHECK (state IN ('active', 'retired')),
    record TEXT NOT NULL
);
CREATE INDEX resource_server_by_rule ON resource_server (rule_canonical, rule_attribute);
CREATE INDEX resource_server_by_certificate ON resource_server (certificate_thumbprint);

CREATE TABLE entitlement (
    id TEXT NOT NULL PRIMARY KEY,
    client_id TEXT NOT NULL REFERENCES client (id),
    resource_server_id TEXT NOT NULL REFERENCES resource_server (id),
    record TEXT NOT NULL
);
CREATE INDEX entitlement_by_client ON entitlement (client_id, id);
CREATE INDEX entitlement_by_resource_server ON entitlement (resource_server_id, id);

-- Public keys that no certificate of any client may have again.
CREATE TABLE revoked_key (
    key_hash TEXT NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    revoked_at BIGINT NOT NULL,
    reason TEXT NOT NULL
);

-- "Tokens that name this and carry a registry version below `version` are dead."
CREATE TABLE revocation_mark (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    version BIGINT NOT NULL,
    forget_after BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX revocation_mark_by_end ON revocation_mark (forget_after);

CREATE TABLE history (
    version BIGINT NOT NULL,
    step BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    record_before TEXT,
    record_after TEXT,
    why TEXT,
    PRIMARY KEY (version, step)
);
CREATE INDEX history_by_subject ON history (subject, version);

-- What each version touched, for whoever keeps records in memory. Every version has at least one row.
CREATE TABLE registry_change (
    version BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('anchor', 'client', 'key', 'participant', 'resource_server')),
    id TEXT NOT NULL,
    PRIMARY KEY (version, kind, id)
);
