//! May this client act now?
//!
//! Takes an [`AuthenticatedClient`], gives an [`AdmittedClient`]: proof that participant, client, environment,
//! certificate and trust anchor are all good at this request's `now`. Entitlement and resource server, the other two
//! parts of the decision, depend on what is asked and are [`crate::policy`]'s. It knows nothing of how the client
//! proved itself.

use countersign_resource_server::time::UnixTime;

use crate::client_auth::AuthenticatedClient;
use crate::error::refusals;
use crate::pki::VerifiedPeer;
use crate::registry::ClientRecord;
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::{ClientState, Environment};
use crate::registry::participant::ParticipantState;
use crate::registry::trust_anchor::AnchorState;

refusals! {
    /// Why a client may not act now.
    pub enum AdmissionRefusal at "admission" {
        /// Its participant was never admitted.
        ParticipantPending => "participant_pending",
        /// Its participant is suspended.
        ParticipantSuspended => "participant_suspended",
        /// Its participant has left.
        ParticipantWithdrawn => "participant_withdrawn",
        /// It was never admitted.
        ClientPending => "client_pending",
        /// It is suspended.
        ClientSuspended => "client_suspended",
        /// It is retired.
        ClientRetired => "client_retired",
        /// It belongs to another environment than this server.
        EnvironmentMismatch => "environment_mismatch",
        /// Its certificate is not on record as seen: no decision can rest on it.
        CertificateNotOnRecord => "certificate_not_on_record",
        /// Its certificate was replaced and the overlap is over.
        CertificateSuperseded { /** The end of the overlap. */ at: UnixTime } => "certificate_superseded",
        /// Its certificate is revoked.
        CertificateRevoked { /** Since when. */ at: UnixTime } => "certificate_revoked",
        /// The anchor that vouched for its certificate no longer does.
        AnchorRetired => "anchor_retired",
    }
}

/// A client that may act now. Made by [`admit`] alone.
#[derive(Debug)]
pub struct AdmittedClient {
    client: AuthenticatedClient,
}

impl AdmittedClient {
    /// The client, as it authenticated.
    pub const fn authenticated(&self) -> &AuthenticatedClient {
        &self.client
    }
}

/// Looks at every state the client depends on. A suspension cascades by being looked at: no row below it is rewritten.
///
/// # Errors
/// The first state that is not good, from the organisation down to the certificate.
pub fn admit(
    client: AuthenticatedClient,
    environment: Environment,
    now: UnixTime,
) -> Result<AdmittedClient, AdmissionRefusal> {
    examine(&client.client().record, client.peer(), environment, now)?;
    Ok(AdmittedClient { client })
}

/// The same, asked of a record and a certificate that need not have proven anything.
///
/// # Errors
/// As [`admit`].
pub fn examine(
    record: &ClientRecord,
    peer: &VerifiedPeer,
    environment: Environment,
    now: UnixTime,
) -> Result<(), AdmissionRefusal> {
    examine_client(record, environment)?;
    let certificate = record.certificate(peer.thumbprint()).ok_or(AdmissionRefusal::CertificateNotOnRecord)?;
    certificate_is_good(certificate, now)?;
    anchor_is_active(record, peer.anchor().or(certificate.anchor.as_ref()))
}

/// The part of it that rests on no certificate.
///
/// # Errors
/// The first state that is not good, of organisation and client.
pub fn examine_client(record: &ClientRecord, environment: Environment) -> Result<(), AdmissionRefusal> {
    participant_is_active(record.participant.state)?;
    client_is_active(record.client.state)?;
    if record.client.environment == environment { Ok(()) } else { Err(AdmissionRefusal::EnvironmentMismatch) }
}

const fn participant_is_active(state: ParticipantState) -> Result<(), AdmissionRefusal> {
    match state {
        ParticipantState::Active => Ok(()),
        ParticipantState::Pending => Err(AdmissionRefusal::ParticipantPending),
        ParticipantState::Suspended => Err(AdmissionRefusal::ParticipantSuspended),
        ParticipantState::Withdrawn => Err(AdmissionRefusal::ParticipantWithdrawn),
    }
}

const fn client_is_active(state: ClientState) -> Result<(), AdmissionRefusal> {
    match state {
        ClientState::Active => Ok(()),
        ClientState::Pending => Err(AdmissionRefusal::ClientPending),
        ClientState::Suspended => Err(AdmissionRefusal::ClientSuspended),
        ClientState::Retired => Err(AdmissionRefusal::ClientRetired),
    }
}

/// Whether a certificate on record may be used.
///
/// # Errors
/// What its state means.
pub fn certificate_is_good(certificate: &Certificate, now: UnixTime) -> Result<(), AdmissionRefusal> {
    match certificate.state {
        CertificateState::Active => Ok(()),
        // Authentication puts a sighting on record before this stage; one that is not there was not believed.
        CertificateState::Announced => Err(AdmissionRefusal::CertificateNotOnRecord),
        CertificateState::Superseded { at } if now < at => Ok(()),
        CertificateState::Superseded { at } => Err(AdmissionRefusal::CertificateSuperseded { at }),
        CertificateState::Revoked { at, .. } => Err(AdmissionRefusal::CertificateRevoked { at }),
    }
}

/// An anchor the certificate leads to has to be granted still, and active. A certificate registered for itself
/// (RFC 8705 §2.2) leads to none.
fn anchor_is_active(record: &ClientRecord, anchor: Option<&crate::registry::AnchorId>) -> Result<(), AdmissionRefusal> {
    let Some(id) = anchor else { return Ok(()) };
    record
        .anchors
        .iter()
        .find(|granted| granted.anchor.id == *id && granted.anchor.state == AnchorState::Active)
        .map(|_| ())
        .ok_or(AdmissionRefusal::AnchorRetired)
}
