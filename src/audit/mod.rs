//! What happened, durable before it is answered.

use crate::error::refusals;

refusals! {
    /// Why not.
    pub enum AuditUnavailable at "audit" {
        /// More decisions wait for the log than it can take.
        QueueFull => "audit_queue_full",
    }
}
