-- Token status lists (docs/status-list.md). Instants are Unix milliseconds.

-- One row for each list in which a token that is still live may have its place.
CREATE TABLE status_list (
    -- 128 random bits, the last part of its URI: it says nothing of whose list it is.
    id TEXT NOT NULL PRIMARY KEY,
    -- The API whose tokens it is about, as they name it in `aud`.
    audience TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    -- The secret by which its places are scattered over its indexes.
    scatter BLOB NOT NULL,
    -- How many of its places have been given out. None is ever given out twice.
    placed INTEGER NOT NULL,
    -- How many are, at most: drawn at random, so that when the next list begins says little of how many were used.
    capacity INTEGER NOT NULL,
    opened_at INTEGER NOT NULL,
    -- When the last token that can have a place in it has expired.
    ends_at INTEGER NOT NULL
) STRICT;
CREATE INDEX status_list_by_audience ON status_list (audience, opened_at);

-- Consecutive places of a list, given to one node for the tokens of one grant: what they name is what a mark can be about.
CREATE TABLE status_block (
    list_id TEXT NOT NULL REFERENCES status_list (id),
    place INTEGER NOT NULL,
    places INTEGER NOT NULL,
    -- Dead once a mark with a later version is about it.
    version INTEGER NOT NULL,
    ends_at INTEGER NOT NULL,
    participant_id TEXT NOT NULL,
    client_id TEXT NOT NULL,
    certificate TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    anchor_id TEXT,
    entitlement TEXT NOT NULL,
    signing_key TEXT NOT NULL,
    PRIMARY KEY (list_id, place)
) STRICT;
CREATE INDEX status_block_by_end ON status_block (ends_at);
CREATE INDEX status_block_by_participant ON status_block (participant_id);
CREATE INDEX status_block_by_client ON status_block (client_id);
CREATE INDEX status_block_by_certificate ON status_block (certificate);
CREATE INDEX status_block_by_key ON status_block (key_hash);
CREATE INDEX status_block_by_anchor ON status_block (anchor_id);
CREATE INDEX status_block_by_entitlement ON status_block (entitlement);
CREATE INDEX status_block_by_signing_key ON status_block (signing_key);

-- A mark about a single token: its index, and in which list.
ALTER TABLE revocation_mark ADD COLUMN status_list_id TEXT;
ALTER TABLE revocation_mark ADD COLUMN status_index INTEGER;
