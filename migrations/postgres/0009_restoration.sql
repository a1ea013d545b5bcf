-- What this store was restored from: one row for each time. Nothing is served while one of them is not confirmed.

CREATE TABLE restoration (
    -- The epoch it begins, later than every one before it.
    epoch BIGINT NOT NULL PRIMARY KEY,
    state TEXT NOT NULL CHECK (state IN ('loading', 'unconfirmed', 'confirmed')),
    record TEXT NOT NULL,
    -- The same for the audit log, signed (compact JWS): what of it was lost. None while it is loading.
    statement TEXT
);
