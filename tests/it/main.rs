//! The server in process, real TLS, certificates made in memory.

mod negative;

mod rig;

mod wire;

mod world;
