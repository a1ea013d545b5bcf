//! What can be changed in the registry, and why a change is refused.
//!
//! An [`Edit`] is one change as its author means it; the store makes it in one transaction or not at all. A refusal is
//! a sentence for the operator: it says what to do or whom to ask, never which other organisation is concerned. It knows
//! nothing of SQL.

use countersign_resource_server::time::UnixTime;

use super::certificate::{CertificateFacts, Replacement, RevocationReason};
use super::client::{Client, ClientState};
use super::entitlement::Entitlement;
use super::history::Change;
use super::participant::{Participant, ParticipantState};
use super::resource_server::ResourceServer;
use super::store::StoreUnavailable;
use super::token::{SigningKeyChange, TokenRevocation};
use super::trust_anchor::{NameSpace, TrustAnchor};
pub use crate::pki::bundle::Lost;
use crate::pki::spiffe::TrustDomain;

use super::{AnchorId, ClientId, EntitlementId, KeyHash, ParticipantId, RegistryVersion, ResourceServerId, Thumbprint};

/// One change of the registry.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A new organisation.
    AddParticipant(Participant),
    /// Everything about a participant but its id and state.
    ChangeParticipant(Participant),
    /// A participant's next state.
    SetParticipantState {
        /// Whose.
        id: ParticipantId,
        /// The state it gets.
        to: ParticipantState,
    },
    /// A new trust anchor. It vouches for nothing until it is granted.
    AddAnchor {
        /// The anchor.
        anchor: TrustAnchor,
        /// The DER of its subject.
        subject_der: Vec<u8>,
    },
    /// Lets an anchor vouch for a participant's names, or replaces which names.
    GrantAnchor {
        /// Whose names.
        participant: ParticipantId,
        /// Which anchor.
        anchor: AnchorId,
        /// Which names.
        name_space: NameSpace,
    },
    /// The anchor no longer vouches for this participant.
    WithdrawAnchor {
        /// Whose names.
        participant: ParticipantId,
        /// Which anchor.
        anchor: AnchorId,
    },
    /// Everything about an anchor but its id, owner and state.
    ChangeAnchor(TrustAnchor),
    /// The anchor vouches for nobody any more.
    RetireAnchor(AnchorId),
    /// A trust domain's next bundle. Tokens end that rest on a key it no longer has.
    ReplaceBundle {
        /// Which trust domain's.
        anchor: AnchorId,
        /// The bundle that was held when the next one was judged: another one by now, and nothing is done.
        held: String,
        /// The next one.
        bundle: String,
        /// What `held` stood by and `bundle` does not.
        lost: Lost,
    },
    /// A new client, with the certificates it is known by from the start.
    AddClient {
        /// The client.
        client: Client,
        /// Its certificates: for `self_signed_tls_client_auth` every `x5c[0]` of its JWKS (RFC 8705 §2.2.2).
        certificates: Vec<CertificateFacts>,
    },
    /// Everything about a client but its id, participant, environment and state.
    ChangeClient {
        /// The client as it is to be.
        client: Client,
        /// Certificates to enrol with it; those already enrolled are left alone.
        certificates: Vec<CertificateFacts>,
    },
    /// A client's next state.
    SetClientState {
        /// Whose.
        id: ClientId,
        /// The state it gets.
        to: ClientState,
    },
    /// Enrols a certificate before it is first seen.
    AddCertificate {
        /// Whose.
        client: ClientId,
        /// What is known of it.
        certificate: CertificateFacts,
        /// Whose place it takes once it is seen.
        replaces: Option<Replacement>,
    },
    /// The certificate is replaced: no new tokens from `at` on.
    SupersedeCertificate {
        /// Which.
        thumbprint: Thumbprint,
        /// The end of the overlap.
        at: UnixTime,
    },
    /// The certificate is revoked and, unless the reason is mild, its key for every client.
    RevokeCertificate {
        /// Which.
        certificate: CertificateSelector,
        /// Why.
        reason: RevocationReason,
    },
    /// Certificates that their issuer has revoked, each for the reason it gave. A key is revoked with its certificate only if
    /// the issuer says that it is compromised and the certificate has authenticated here: otherwise an issuer could put
    /// somebody else's key in a certificate, revoke that, and shut them out.
    RevokeByIssuer(Vec<(Thumbprint, RevocationReason)>),
    /// Tokens bound to these certificates are dead. What becomes of the certificates is for others to say: one whose
    /// issuer was revoked, or that its CA has put on hold.
    EndTokens(Vec<Thumbprint>),
    /// A key that no certificate of any client may have.
    RevokeKey(KeyHash),
    /// A new API.
    AddResourceServer(ResourceServer),
    /// Owner, lifetime and own identity of an API, and scopes it did not have before.
    ChangeResourceServer(ResourceServer),
    /// No more tokens for this API.
    RetireResourceServer(ResourceServerId),
    /// Which client may use which API for what.
    AddEntitlement(Entitlement),
    /// Scopes, dates and reason of an entitlement.
    ChangeEntitlement(Entitlement),
    /// Ends an entitlement, for good.
    EndEntitlement(EntitlementId),
    /// A token is dead before its time.
    RevokeToken(TokenRevocation),
    /// Signing keys take over, or are withdrawn with all that they signed.
    ChangeSigningKeys(Vec<SigningKeyChange>),
}

/// How many live certificates a client may have: announced, active, or superseded within the overlap, and in date.
pub const LIVE_CERTIFICATES: usize = 16;

/// How many active anchors of one subject name a participant may have.
pub const ANCHORS_OF_ONE_NAME: usize = 8;

/// How a certificate to be revoked is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSelector {
    /// By its issuer's key and its serial number, whatever DER they come in.
    IssuerAndSerial(KeyHash, String),
    /// By the SHA-256 of its DER.
    Thumbprint(Thumbprint),
}

/// What a change did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The version it made; absent where there was nothing to do.
    pub version: Option<RegistryVersion>,
    /// What it touched.
    pub changes: Vec<Change>,
}

/// Why a change is refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EditRefusal {
    /// There is one with this id.
    #[error("{kind} {id} exists already: change the one there is, or enter another one")]
    AlreadyExists {
        /// The kind of record.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
    /// One key, one owner: it is enrolled, and not for this one.
    #[error(
        "a trust anchor with this key is enrolled already and does not belong to who was named: ask the operator of the registry who answers for it. A CA that issues to several organisations is enrolled once, as the operator's, and granted to each"
    )]
    AnchorKeyTaken,
    /// An anchor of one organisation cannot vouch for another.
    #[error(
        "this trust anchor belongs to another organisation and can vouch for nobody else: ask the operator to enrol it as shared, if it is a public CA"
    )]
    AnchorOfAnother,
    /// Too many anchors with one name: paths would be costly to build.
    #[error("participant {participant} has {limit} active trust anchors of this name: withdraw one first")]
    AnchorLimit {
        /// Whose.
        participant: ParticipantId,
        /// How many there may be.
        limit: usize,
    },
    /// There is going to be one with this id.
    #[error("{kind} {id} is being imported: wait until that is done")]
    BeingImported {
        /// The kind of record.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
    /// Another client has enrolled it, or a resource server has.
    #[error(
        "this certificate is enrolled already, for a client or a resource server: each needs a certificate of its own"
    )]
    CertificateTaken,
    /// Too many live certificates.
    #[error("client {client} has {limit} live certificates: supersede or revoke some first")]
    CertificateLimit {
        /// Whose.
        client: ClientId,
        /// How many there may be.
        limit: usize,
    },
    /// The client's policy wants each certificate enrolled first.
    #[error("client {client} has every certificate enrolled beforehand, and this one is not")]
    EnrolmentRequired {
        /// Whose policy.
        client: ClientId,
    },
    /// The name is somebody else's.
    #[error(
        "this name ({attribute}) is already used under a trust anchor both would share, or by a resource server: ask the operator of the registry who holds it, or choose another name"
    )]
    IdentityTaken {
        /// Which attribute.
        attribute: &'static str,
    },
    /// The key was revoked.
    #[error("this certificate's key was revoked: the partner has to make a new key, not only a new certificate")]
    KeyRevoked,
    /// What was given contradicts itself or the registry.
    #[error("{0}")]
    Malformed(String),
    /// There is none with this id.
    #[error("there is no {kind} {id}")]
    NotFound {
        /// The kind of record.
        kind: RecordKind,
        /// Its id.
        id: String,
    },
    /// The same issuer key and serial in another DER (an ECDSA signature can be rewritten).
    #[error(
        "a certificate with this issuer key and serial number is on record already: the issuer has to issue one with a serial number of its own (RFC 5280 section 4.1.2.2)"
    )]
    SerialTaken,
    /// The certificate to be replaced is not one of this client's, whoever else may have it.
    #[error(
        "client {client} has no certificate {thumbprint} to replace: `countersign certificate list --client {client}` shows those it has"
    )]
    NothingToReplace {
        /// Whose it would have to be.
        client: ClientId,
        /// Which was named.
        thumbprint: Thumbprint,
    },
    /// Not from this state.
    #[error("{kind} {id} is {from}{}", if from == to { " already".to_owned() } else { format!(" and cannot become {to}") })]
    StateForbids {
        /// The kind of record.
        kind: RecordKind,
        /// Its id.
        id: String,
        /// The state it is in.
        from: &'static str,
        /// The state it was to get.
        to: &'static str,
    },
    /// The store did not answer.
    #[error(transparent)]
    Unavailable(#[from] StoreUnavailable),
    /// Somebody else has replaced the bundle since it was read.
    #[error("the bundle of this trust domain was replaced meanwhile: look at it again first")]
    BundleOvertaken,
    /// The client has had as many tokens revoked as it may, or all clients together have.
    #[error(
        "{limit} live tokens of client {client}, or of all clients, are revoked already: suspend a client, and all its tokens are dead at once"
    )]
    TokenLimit {
        /// Whose next one it would be.
        client: ClientId,
        /// How many there may be.
        limit: usize,
    },
    /// The trust domain has an owner.
    #[error(
        "trust domain {trust_domain} is enrolled already, or was retired for good, and has one owner: ask the operator of the registry who that is; \
         `countersign trust-domain refresh` brings a new bundle"
    )]
    TrustDomainTaken {
        /// Its name.
        trust_domain: TrustDomain,
    },
}

/// The kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// An anchor granted to a participant.
    AnchorGrant,
    /// A certificate.
    Certificate,
    /// A client.
    Client,
    /// An entitlement.
    Entitlement,
    /// An import: all the records that it has entered.
    Import,
    /// A key, for revocations.
    Key,
    /// A participant.
    Participant,
    /// A resource server.
    ResourceServer,
    /// A key of the server itself.
    SigningKey,
    /// A single token.
    Token,
    /// A trust anchor.
    TrustAnchor,
}

impl RecordKind {
    /// The name in histories.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AnchorGrant => "anchor_grant",
            Self::Certificate => "certificate",
            Self::Client => "client",
            Self::Entitlement => "entitlement",
            Self::Import => "import",
            Self::Key => "key",
            Self::Participant => "participant",
            Self::ResourceServer => "resource_server",
            Self::SigningKey => "signing_key",
            Self::Token => "token",
            Self::TrustAnchor => "anchor",
        }
    }

    /// How histories name one record: kind, colon, id.
    pub fn subject(self, id: &str) -> String {
        format!("{}:{id}", self.as_str())
    }
}

/// For sentences.
impl std::fmt::Display for RecordKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AnchorGrant => "grant of a trust anchor",
            Self::Certificate => "certificate",
            Self::Client => "client",
            Self::Entitlement => "entitlement",
            Self::Import => "import",
            Self::Key => "key",
            Self::Participant => "participant",
            Self::ResourceServer => "resource server",
            Self::SigningKey => "signing key",
            Self::Token => "token",
            Self::TrustAnchor => "trust anchor",
        })
    }
}
