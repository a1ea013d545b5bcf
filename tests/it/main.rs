//! The server in process, real TLS, certificates made in memory.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "all of it is test code: what cannot be done fails the test, and what was skipped is said aloud"
)]

mod wire;

mod year;

mod world;

mod rig;

mod token;

mod https;

mod success;

mod negative;

mod impersonation;

mod sessions;

mod ocsp;

mod revocation_lists;

mod circle;

mod revoke;

mod status_list;

mod introspect;

mod stale;

mod spiffe;

mod bundle_endpoint;

mod bulk;

mod change;

mod check;

mod durability;

mod cluster;

mod standby;

mod crash;

mod perimeter;

mod judge;

mod http2;

mod rates;

mod life;

mod operations;

mod audit_forward;

mod anchor;

mod audit_query;

mod receipt;

mod interop;

mod audit_verify;

mod backup;
