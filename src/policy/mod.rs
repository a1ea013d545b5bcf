//! May it have this?

use crate::error::{ErrorCode, refusals};

refusals! {
    /// Why not.
    pub enum PolicyRefusal at "policy" {
        /// Another grant type.
        GrantTypeUnsupported => "grant_type_unsupported",
    }
}

impl PolicyRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::GrantTypeUnsupported => ErrorCode::UnsupportedGrantType,
        }
    }
}
