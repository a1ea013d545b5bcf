//! Would this certificate be let in, and if not, why?
//!
//! Takes what a peer presented and the id of a client, gives an [`Explanation`]: the path of a token request step by step,
//! in words that somebody can act on. It calls the same stages as [`crate::issuance`] and decides nothing itself; nothing
//! is enrolled by it, no sighting noted, no assertion used. It knows nothing of HTTP.

/// What to do about a refusal, and who has to do it.
pub mod advice;

/// What is said of each step.
mod account;

/// The answer to a peer that asks about its own certificate.
mod check;

pub use advice::Advice;
pub use check::{Answer, STRANGERS_WAIT, check};

use std::sync::Arc;

use countersign_resource_server::time::UnixTime;
use serde::{Serialize, Serializer};

use crate::client_auth::{self, RegisteredKeys};
use crate::error::Refusal;
use crate::pki::{Asks, Kinship, PresentedChain, Verifier};
use crate::registry::client::Environment;
use crate::registry::{ClientId, FoundClient, LookupRefusal, Registry};
use crate::tls::{HandshakeRefusal, check_bounds};
use crate::{admission, policy};
use account::Account;

/// What an explanation rests on: what issuance rests on.
#[derive(Clone, Copy, Debug)]
pub struct Basis<'a> {
    /// The book of participants.
    pub registry: &'a Registry,
    /// Is this certificate good?
    pub pki: &'a Verifier,
    /// The clients' JWK Sets, parsed.
    pub keys: &'a RegisteredKeys,
    /// The one environment that is served.
    pub environment: Environment,
}

/// Whether a certificate would be let in as a client, step by step.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Whether nothing stands in its way. Of a client that signs assertions: nothing but the assertion.
    pub would_be_let_in: bool,
    /// The instant it is judged at.
    #[serde(serialize_with = "as_text")]
    pub at: UnixTime,
    /// As whom.
    pub client_id: ClientId,
    /// What the certificate says of itself.
    pub certificate: Option<OwnFacts>,
    /// The path of a token request. After the first refusal nothing is examined.
    pub steps: Vec<Step>,
    /// What else would be refused, whatever becomes of the first refusal.
    pub besides: Vec<Finding>,
    /// The first refusal.
    #[serde(skip)]
    pub refusal: Option<Refusal>,
    /// Whose certificate it is.
    #[serde(skip)]
    pub standing: Standing,
    /// The client that was found.
    #[serde(skip)]
    pub client: Option<FoundClient>,
}

impl Explanation {
    /// The short reason that stands in its way first, in the order of a connection.
    pub fn first_reason(&self) -> Option<&'static str> {
        let handshake = self.besides.iter().find(|finding| finding.stage == HandshakeRefusal::STAGE);
        handshake.map(|finding| finding.reason).or_else(|| self.refusal.as_ref().map(Refusal::reason))
    }

    /// Whether the certificate authenticates the client, with nothing else asked for.
    fn is_proven_by_certificate(&self) -> bool {
        let passed =
            |step: StepName| self.steps.iter().any(|told| told.step == step && told.outcome == Outcome::Passed);
        passed(StepName::Proof) && !self.steps.iter().any(|told| told.step == StepName::Assertion)
    }
}

/// Whose certificate it is, as far as possession of its key and the word of an anchor tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Enrolled for the client, or under an anchor of its participant with the client's registered name.
    OfTheClient,
    /// Another certificate of the same participant.
    OfTheParticipant,
    /// Neither, or there is no such client.
    Stranger,
}

/// One step of the path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub step: StepName,
    /// What became of it.
    pub outcome: Outcome,
    /// The stage that refused, as the audit log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    /// The short reason, as the audit log has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// In words.
    pub says: String,
    /// What was compared with what.
    #[serde(skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<Advice>,
}

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// The client is looked up.
    Client,
    /// The certificate is judged: dates, path, purposes, name space.
    Certificate,
    /// The assertion, of a client that signs one.
    Assertion,
    /// The certificate is compared with what is registered.
    Proof,
    /// The certificate is, or can be put, on record as the client's.
    Enrolment,
    /// Participant, client, environment, certificate and anchor are good now.
    Admission,
    /// There is something the client may have.
    Entitlement,
}

impl StepName {
    const ALL: [Self; 7] = [
        Self::Client,
        Self::Certificate,
        Self::Assertion,
        Self::Proof,
        Self::Enrolment,
        Self::Admission,
        Self::Entitlement,
    ];

    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Certificate => "certificate",
            Self::Assertion => "assertion",
            Self::Proof => "proof",
            Self::Enrolment => "enrolment",
            Self::Admission => "admission",
            Self::Entitlement => "entitlement",
        }
    }
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nobody looked.
    NotExamined,
    /// It is good.
    Passed,
    /// It is not.
    Refused,
}

/// Something that would be refused as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The stage that would refuse, as the audit log has it.
    pub stage: &'static str,
    /// The short reason, as the audit log has it.
    pub reason: &'static str,
    /// In words.
    pub says: String,
    /// What was compared with what.
    #[serde(skip_serializing_if = "Facts::is_empty")]
    pub facts: Facts,
    /// What to do.
    pub advice: Advice,
}

/// Named facts, in the order they were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(pub Vec<(&'static str, String)>);

impl Facts {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Facts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// What a certificate says of itself; believed only where somebody vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OwnFacts {
    /// SHA-256 of the DER, as tokens have it in `cnf`.
    pub thumbprint: String,
    /// What could be read of it.
    #[serde(flatten)]
    pub read: Option<ReadFacts>,
    /// How many certificates came with it.
    pub issuers_presented: usize,
}

/// The same, where it can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReadFacts {
    /// By RFC 4514, for people.
    pub subject: String,
    /// By RFC 4514, for people.
    pub issuer: String,
    /// `DNS:…`, `URI:…`, `IP:…`, `email:…`.
    pub subject_alt_names: Vec<String>,
    /// Hexadecimal.
    pub serial: String,
    /// SHA-256 of the public key.
    pub key_hash: String,
    /// First second of its validity.
    #[serde(serialize_with = "as_text")]
    pub not_before: UnixTime,
    /// Last second of its validity.
    #[serde(serialize_with = "as_text")]
    pub not_after: UnixTime,
    /// What it is for.
    pub extended_key_usage: &'static str,
}

impl OwnFacts {
    /// What was presented says; none, where nothing was.
    pub fn of(peer: &PresentedChain) -> Option<Self> {
        let read = peer.leaf().map(|leaf| ReadFacts {
            subject: leaf.subject_text().to_owned(),
            issuer: leaf.issuer_text().to_owned(),
            subject_alt_names: leaf.subject_alt_names_text().to_vec(),
            serial: leaf.serial().to_owned(),
            key_hash: leaf.key_hash().to_string(),
            not_before: leaf.not_before(),
            not_after: leaf.not_after(),
            extended_key_usage: leaf.purposes_text(),
        });
        let issuers_presented = peer.certificates().len().saturating_sub(1);
        Some(Self { thumbprint: peer.thumbprint()?.to_string(), read, issuers_presented })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
pub(crate) fn as_text<S: Serializer>(at: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The operator: everything.
    Operator,
    /// Whoever has the certificate's key: of another certificate of its participant, not the states of the client.
    Peer,
}

/// Explains what would become of the certificates of `peer` as those of a client.
pub async fn explain(
    basis: &Basis<'_>,
    peer: &Arc<PresentedChain>,
    client_id: &ClientId,
    audience: Audience,
    now: UnixTime,
) -> Explanation {
    let found = basis.registry.client(client_id).await;
    // Whose it is comes first: about a stranger's certificate nobody is asked anything.
    let kinship = found.as_ref().ok().and_then(|client| basis.pki.kinship(peer, &client.record, now));
    let standing = standing_of(peer, found.as_ref().ok(), kinship.as_ref());
    let asks = match (audience, standing) {
        (Audience::Peer, Standing::Stranger) => Asks::Nobody,
        (Audience::Operator, _) | (_, Standing::OfTheClient | Standing::OfTheParticipant) => Asks::Others,
    };
    let mut account = Account::new(now);
    let outcome = examine(basis, peer, client_id, found, asks, now, &mut account).await;
    let tells_all = audience == Audience::Operator || standing == Standing::OfTheClient;
    let refusal = outcome.err();
    let mut besides = match &refusal {
        None => Vec::new(),
        Some(refusal) => {
            let sources = |client: &FoundClient| {
                let kinship = kinship.as_ref().filter(|_| tells_all)?;
                Some(basis.pki.revocation_sources(peer, &client.record, kinship, now))
            };
            let sources = account.client().and_then(sources).unwrap_or_default();
            account.refused(refusal, basis.environment, peer, kinship.as_ref(), sources, tells_all)
        }
    };
    // Of a connection that stands the handshake is past.
    if audience == Audience::Operator
        && let Some((leaf, issuers)) = peer.certificates().split_first()
        && let Err(refusal) = check_bounds(leaf, issuers)
    {
        besides.insert(0, account::of_the_handshake(&refusal));
    }
    let tls = |finding: &Finding| finding.stage == HandshakeRefusal::STAGE;
    let (steps, client) = account.finish();
    Explanation {
        would_be_let_in: refusal.is_none() && !besides.iter().any(tls),
        at: now,
        client_id: client_id.clone(),
        certificate: OwnFacts::of(peer),
        steps,
        besides,
        refusal,
        standing,
        client,
    }
}

/// The path of [`crate::issuance`], but for what it writes.
async fn examine(
    basis: &Basis<'_>,
    peer: &Arc<PresentedChain>,
    client_id: &ClientId,
    found: Result<FoundClient, LookupRefusal>,
    asks: Asks,
    now: UnixTime,
    account: &mut Account,
) -> Result<(), Refusal> {
    let client = found?;
    account.found(&client);
    let peer = basis.pki.verify_asking(peer, &client, asks, now).await?;
    account.verified(&peer, &client.record);
    let sighting = client_auth::examine(&client.record, &peer, basis.keys)?;
    account.proven(&peer, &client.record);
    let record = match &sighting {
        None => Arc::clone(&client.record),
        Some(sighting) => basis.registry.would_be_sighted(client_id, sighting, now).await?,
    };
    account.enrolled(&peer, &client.record, sighting.is_some());
    admission::examine(&record, &peer, basis.environment, now)?;
    account.admitted(&record);
    account.entitled(&policy::examine(&record, &peer, now)?);
    Ok(())
}

/// Whose certificate it is (design §8). A stranger is whoever is neither on record as this client's nor vouched for by an
/// anchor that tells its participant from all others.
fn standing_of(peer: &PresentedChain, client: Option<&FoundClient>, kinship: Option<&Kinship>) -> Standing {
    let (Some(client), Some(thumbprint)) = (client, peer.thumbprint()) else { return Standing::Stranger };
    if client.record.certificate(thumbprint).is_some() {
        return Standing::OfTheClient;
    }
    match kinship {
        Some(kinship) if kinship.is_of_the_participant && kinship.names_the_client => Standing::OfTheClient,
        Some(kinship) if kinship.is_of_the_participant => Standing::OfTheParticipant,
        Some(_) | None => Standing::Stranger,
    }
}
