//! The judge: what a target is asked, and what is said of its answers.
//!
//! Takes a target file, gives a [`Report`]: [`run`] reads from top to bottom. Requirements are data (`cases/`); this knows only
//! how to send and to compare. Everything a target answers is bounded in time and size, and believed in nothing.

/// The target file.
pub(crate) mod target;

/// What the target says of itself.
mod facts;

/// The cases built in.
pub mod catalogue;

/// What a case does, in words.
mod explain;

/// A case as it is written.
pub(crate) mod case;

/// One case against the target.
mod bench;

/// Whose certificate a connection carries.
mod certificate;

/// Tokens forged as a case says.
mod token;

/// `${…}` in a case's texts.
mod template;

/// One request and its answer.
pub(crate) mod wire;

/// Compact JWS, read and verified.
mod jws;

/// What may come back.
mod expectation;

/// What was sent and what came back, secrets masked.
mod exchange;

/// The issuer that the judge plays, and the trap.
mod issuer;

/// All cases, one after the other.
mod run;

/// What is said at the end.
pub mod report;

pub use catalogue::Catalogue;
pub use report::Report;
pub use run::{Choice, Progress, run};
pub use target::{RealClient, TargetError};
