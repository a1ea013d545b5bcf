//! Write it down and sign it.

use crate::error::refusals;

refusals! {
    /// Why not.
    pub enum MintRefusal at "mint" {
        /// There is no key to sign with.
        NoSigningKey => "no_signing_key",
    }
}
