-- Where the registry stands, and which process of the database says so: a file has none.
CREATE VIEW registry_head AS
    SELECT epoch, version, 0 AS server
    FROM registry_state;
