//! Everything that is registered, as it is at one moment.
//!
//! Gives the records of all kinds, some at a time, each after those that it refers to. It knows nothing of how they are written.

use super::RegistryVersion;
use super::import::Entry;
use super::store::Answer;

/// Where all records can be read.
pub trait ExportStore: Send + Sync {
    /// The registry at this moment. Whoever changes it goes on beside it.
    fn look(&self) -> Answer<'_, Box<dyn Look>>;
}

/// The registry at one moment.
pub trait Look: Send {
    /// Which one.
    fn version(&self) -> RegistryVersion;

    /// The next records; none where there are no more.
    fn next(&mut self) -> Answer<'_, Vec<Entry>>;
}
