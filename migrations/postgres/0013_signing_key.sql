-- Signing keys that nodes share, where a key-encryption key is configured (docs/signing-keys.md). Instants are Unix milliseconds.

-- One row once there are keys: which revision of all of them is the one that holds, proven with the key-encryption key.
CREATE TABLE signing_key_ring (
    singleton BIGINT NOT NULL PRIMARY KEY CHECK (singleton = 1),
    -- Grows with every change, by one.
    revision BIGINT NOT NULL,
    -- Names the key-encryption key, and says nothing of it.
    encrypted_by TEXT NOT NULL,
    -- Over this revision, and over which keys there are and the revision that each was written in.
    proof BYTEA NOT NULL
);

CREATE TABLE signing_key (
    -- The RFC 7638 thumbprint of its public half.
    kid TEXT NOT NULL PRIMARY KEY,
    alg TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    signs_from BIGINT,
    retired_at BIGINT,
    -- The revision in which the row was written.
    revision BIGINT NOT NULL,
    -- The private key, encrypted; all of the columns above are authenticated with it.
    sealed BYTEA NOT NULL
);
