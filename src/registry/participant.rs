//! Organisations and their states.

use serde::{Deserialize, Serialize};

use super::ParticipantId;

/// An organisation that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Its id in this registry.
    pub id: ParticipantId,
    /// The name it is registered under.
    pub legal_name: String,
    /// Its number in a public register.
    pub registration_number: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// What it takes part as; the `roles` claim of its tokens.
    pub roles: Vec<String>,
    /// Whom to write to.
    pub contacts: Contacts,
    /// Whether it may act.
    pub state: ParticipantState,
}

/// Whom to write to at a participant: e-mail addresses, and one for programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contacts {
    /// For outages and expiring certificates.
    pub technical: Option<String>,
    /// For contracts.
    pub business: Option<String>,
    /// For incidents.
    pub security: Option<String>,
    /// Where signed notices about what is about to expire are pushed (RFC 8935): an `https` URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
}

/// The states of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParticipantState {
    /// Admitted by nobody yet.
    Pending,
    /// May act.
    Active,
    /// May not act for now.
    Suspended,
    /// Will never act again.
    Withdrawn,
}

impl ParticipantState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Active, Self::Suspended, Self::Withdrawn];

    /// The name in stores, histories and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// The table of states: whether this one may be followed by `next`.
    pub const fn can_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Active | Self::Withdrawn),
            Self::Active => matches!(next, Self::Suspended | Self::Withdrawn),
            Self::Suspended => matches!(next, Self::Active | Self::Withdrawn),
            Self::Withdrawn => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ParticipantState::{self, Active, Pending, Suspended, Withdrawn};

    #[test]
    fn every_edge_of_the_state_table() {
        let edges = [
            (Pending, Active),
            (Pending, Withdrawn),
            (Active, Suspended),
            (Active, Withdrawn),
            (Suspended, Active),
            (Suspended, Withdrawn),
        ];
        for from in ParticipantState::ALL {
            for to in ParticipantState::ALL {
                assert_eq!(from.can_become(to), edges.contains(&(from, to)), "{from:?} -> {to:?}");
            }
        }
    }
}
