//! The audit log tampered with behind the program's back: every way there is, one at a time and at random.

mod scene;

mod tampering;

/// Each kind of tampering, with what is said of it.
mod named;

/// By somebody who can write to the store and has not the keys.
mod forged;

/// At random, by the thousand.
mod random;

/// While servers write, and while records are removed.
mod live;

/// Files, and what is removed once they are written.
mod export;
