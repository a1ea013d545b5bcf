-- Where the registry stands, and which process of the database says so: after a fail-over it is another one, which may have lost
-- changes and made others under their numbers.
CREATE VIEW registry_head AS
    SELECT epoch, version, CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS BIGINT) AS server
    FROM registry_state;
