-- Who has taken the revocation list (docs/token-revocation.md). Instants are Unix milliseconds.

-- One row for each run of a node that hands the list out: what those who ask it for the list have. It is written anew every
-- few seconds; one that is not is of a node that is gone.
CREATE TABLE list_follower (
    -- 128 random bits: two nodes may bear one name by mistake.
    id TEXT NOT NULL PRIMARY KEY,
    node TEXT NOT NULL,
    -- The version of the list that all of this is about.
    epoch INTEGER NOT NULL,
    number INTEGER NOT NULL,
    -- How many resource servers have it.
    taken INTEGER NOT NULL,
    -- How many others ask, who do not say who they are.
    others INTEGER NOT NULL,
    -- Resource servers that do not have it, in JSON: no more than are worth naming.
    behind TEXT NOT NULL,
    -- All resource servers that ask, whether or not they have it: of each, 8 octets of SHA-256 of its resource identifier.
    heard BLOB,
    -- By the clock of the database.
    seen_at INTEGER NOT NULL
) STRICT;
