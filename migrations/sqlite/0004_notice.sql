-- What runs out, and who has been told.

CREATE INDEX certificate_by_expiry ON certificate (expires_at, thumbprint);

-- The intermediates in the paths of certificates that were seen, one row for each certificate: the record has them as well.
CREATE TABLE path_issuer (
    thumbprint TEXT NOT NULL REFERENCES certificate (thumbprint),
    -- Whose key signed the intermediate, and what that issuer calls it.
    issuer_key TEXT NOT NULL,
    serial TEXT NOT NULL,
    -- The first instant at which it is out of date.
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (thumbprint, issuer_key, serial)
) STRICT;
CREATE INDEX path_issuer_by_expiry ON path_issuer (expires_at, issuer_key, serial);

INSERT INTO path_issuer (thumbprint, issuer_key, serial, expires_at)
    SELECT certificate.thumbprint, json_extract(issuer.value, '$.issuer_key'), json_extract(issuer.value, '$.serial'),
        json_extract(issuer.value, '$.not_after') + 1000
    FROM certificate, json_each(certificate.record, '$.issuers') AS issuer
    WHERE true
    ON CONFLICT (thumbprint, issuer_key, serial) DO NOTHING;

-- One row for each thing that runs out and each threshold it has come within. Instants are Unix milliseconds.
CREATE TABLE notice (
    -- The hash of what the notice is about: it is raised once, by whichever node is first.
    id TEXT NOT NULL PRIMARY KEY,
    -- Whom it concerns; empty where that is the operator.
    participant_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'given_up', 'unaddressed')),
    raised_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    -- While somebody is delivering it: when others may take it to be left alone.
    next_attempt_at INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX notice_by_state ON notice (state, participant_id, next_attempt_at);
CREATE INDEX notice_by_age ON notice (raised_at);
