//! The server in process, real TLS, certificates made in memory.
