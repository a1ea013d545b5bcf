//! Which client does it prove?

use crate::error::refusals;

refusals! {
    /// Why not.
    pub enum ClientAuthRefusal at "client_auth" {
        /// The registered name is not in the certificate.
        SubjectMismatch => "subject_mismatch",
    }
}
