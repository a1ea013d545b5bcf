//! What the watch asks of storage.
//!
//! Takes windows of time and notices, gives what expires within and which notices are new or due. It knows nothing of how a
//! notice is delivered.

use std::fmt;

use countersign_resource_server::time::UnixTime;

use super::Window;
use super::notice::{Notice, NoticeId};
use crate::registry::certificate::Certificate;
use crate::registry::client::Client;
use crate::registry::participant::Participant;
use crate::registry::store::Answer;
use crate::registry::{ClientId, KeyHash, ParticipantId};

/// Storage of what expires and of who was told.
pub trait ExpiryStore: fmt::Debug + Send + Sync + 'static {
    /// Clients' certificates that are announced or active and expire within `window`, soonest first, from a place in that
    /// order on. One that cannot be read is passed over, and the log says so.
    fn leaves(&self, window: Window, after: Option<Place>, limit: u32) -> Answer<'_, LeafPage>;

    /// Intermediates that expire within `window` and that active certificates which expire later than `window` begins
    /// depend on, once for each participant, soonest first.
    fn path_issuers(&self, window: Window, limit: u32) -> Answer<'_, Vec<ExpiringIssuer>>;

    /// What expires first after `now`.
    fn soonest(&self, now: UnixTime) -> Answer<'_, Soonest>;

    /// Puts notices on record that are not there yet; says which those were.
    fn raise(&self, notices: Vec<NewNotice>) -> Answer<'_, Vec<NoticeId>>;

    /// Participants with notices that are due at `now`: first those whose notices were tried least often.
    fn due(&self, now: UnixTime, limit: u32) -> Answer<'_, Vec<ParticipantId>>;

    /// Takes one due notice of `participant`, so that nobody else does before `until`.
    fn claim<'a>(
        &'a self,
        participant: &'a ParticipantId,
        now: UnixTime,
        until: UnixTime,
    ) -> Answer<'a, Option<Claimed>>;

    /// What became of a notice that was taken; nothing where somebody else has taken it since.
    fn settle<'a>(&'a self, claimed: &'a Claimed, outcome: Settled) -> Answer<'a, ()>;

    /// Drops notices raised before `before`: what they were about is long over.
    fn forget(&self, before: UnixTime) -> Answer<'_, ()>;
}

/// A place in the order of ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The end of the last certificate before it.
    pub expires_at: UnixTime,
    /// That certificate's thumbprint.
    pub thumbprint: String,
}

/// Certificates in the order of their ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeafPage {
    /// These.
    pub leaves: Vec<ExpiringLeaf>,
    /// Where the next ones begin, if there may be any.
    pub next: Option<Place>,
}

/// A client's certificate, and what is needed to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiringLeaf {
    /// The certificate.
    pub certificate: Certificate,
    /// Whose it is.
    pub client: Client,
    /// Whose that is.
    pub participant: Participant,
    /// The client's certificates that are announced or active and expire later, by thumbprint.
    pub later: Vec<Certificate>,
}

/// An intermediate, as one participant depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiringIssuer {
    /// Whose key signed it.
    pub issuer_key: KeyHash,
    /// What that issuer calls it.
    pub serial: String,
    /// The first instant at which it is out of date.
    pub expires_at: UnixTime,
    /// Whose clients depend on it.
    pub participant: Participant,
    /// One of them.
    pub client: ClientId,
    /// How many certificates do.
    pub certificates: i64,
    /// When one of those was last seen.
    pub last_seen: Option<UnixTime>,
}

/// What expires first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Soonest {
    /// Of clients' certificates that are announced or active.
    pub leaf: Option<UnixTime>,
    /// Of intermediates that active certificates depend on.
    pub intermediate: Option<UnixTime>,
}

/// A notice that may be on record already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNotice {
    /// What it says.
    pub notice: Notice,
    /// Whether there is anybody to push it to.
    pub addressed: bool,
}

/// A notice that is being delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// What it says.
    pub notice: Notice,
    /// How often it has been tried, this time included.
    pub attempt: i64,
    /// Where it is pushed to, as the participant has it now.
    pub webhook: Option<String>,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// To be tried again then.
    Again(UnixTime),
    /// Taken by the receiver.
    Delivered,
    /// Not to be tried any more.
    GivenUp,
    /// There is nobody to push it to any more.
    Unaddressed,
}
