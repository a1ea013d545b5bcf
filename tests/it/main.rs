//! The server in process, real TLS, certificates made in memory.

mod wire;

mod world;

mod rig;

mod token;

mod success;

mod negative;

mod sessions;

mod circle;

mod change;

mod judge;

mod interop;
