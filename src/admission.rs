//! May this client act now?

use crate::error::refusals;

refusals! {
    /// Why not.
    pub enum AdmissionRefusal at "admission" {
        /// Its participant is suspended.
        ParticipantSuspended => "participant_suspended",
    }
}
