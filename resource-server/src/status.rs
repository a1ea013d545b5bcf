//! Which issued tokens are dead before their time?
//!
//! Takes the authorization server's signed revocation list, gives a verdict on a token: by what it names (participant,
//! client, certificate, key, anchor, entitlement, resource server, signing key, `jti`) and its registry version. The
//! words of the list are here for both sides: the server writes [`RevocationListClaims`], the crate reads it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The `typ` of the signed revocation list's header: no other signed object of the server can be taken for it (RFC 8725 §3.11).
pub const REVOCATION_LIST_TYPE: &str = "countersign-revocations+jwt";

/// What a mark is about. The names are part of the hash, so they never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A trust anchor, by its id (the `anchor` claim).
    Anchor,
    /// A certificate, by its thumbprint in base64url (`cnf.x5t#S256`).
    Certificate,
    /// A client, by its `client_id`.
    Client,
    /// A client at one resource server: `client_id`, one space, audience.
    Entitlement,
    /// A single token, by its `jti`.
    Jti,
    /// A public key, by the SHA-256 of its SubjectPublicKeyInfo in base64url without padding.
    Key,
    /// An organisation, by its `participant_id`.
    Participant,
    /// An API, by its resource identifier (`aud`).
    ResourceServer,
    /// A key of the authorization server, by its `kid`.
    SigningKey,
}

impl MarkKind {
    /// The name, as it is hashed and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Certificate => "certificate",
            Self::Client => "client",
            Self::Entitlement => "entitlement",
            Self::Jti => "jti",
            Self::Key => "key",
            Self::Participant => "participant",
            Self::ResourceServer => "resource_server",
            Self::SigningKey => "signing_key",
        }
    }
}

/// A mark on the wire: the first 16 octets of SHA-256(salt, kind, 0x00, id), in base64url without padding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MarkHash(String);

impl MarkHash {
    /// The hash of `id` of this `kind` under a list's `salt`.
    pub fn of(salt: &str, kind: MarkKind, id: &str) -> Self {
        let digest =
            Sha256::new().chain_update(salt).chain_update(kind.as_str()).chain_update([0]).chain_update(id).finalize();
        Self(URL_SAFE_NO_PAD.encode(&digest[..16]))
    }
}

/// The claims of the signed revocation list.
///
/// A mark `hash -> V` says: a token that names this and carries a registry version below V is dead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationListClaims {
    /// The authorization server's issuer identifier.
    pub iss: String,
    /// The second the list was signed in.
    pub iat: i64,
    /// The list is not to be taken at or after this second.
    pub exp: i64,
    /// First part of the list's version: grows with a restore or a fail-over, and is then taken only with a later `iat`.
    pub epoch: i64,
    /// Second part of the list's version: the registry version it was drawn up at.
    pub number: i64,
    /// What the hashes are salted with.
    pub salt: String,
    /// The marks.
    pub marks: BTreeMap<MarkHash, i64>,
}
