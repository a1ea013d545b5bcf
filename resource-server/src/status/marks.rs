//! The words of the revocation list, for both sides: the server writes [`RevocationListClaims`], the crate reads it.
//!
//! Gives, of a token, the first mark that ends it. It knows nothing of signatures, nor of how old a list is.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::token::access_token::VerifiedToken;

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
    /// Everything an authorization server issued, by [`MarkKind::ANY_ISSUER`]: its registry was restored, and what it had
    /// issued before that may have been revoked since without anybody knowing.
    Issuer,
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
    /// What a mark of kind `issuer` names: a list is one issuer's, and so are the tokens it is held against.
    pub const ANY_ISSUER: &str = "*";

    /// The name, as it is hashed and stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Certificate => "certificate",
            Self::Client => "client",
            Self::Entitlement => "entitlement",
            Self::Issuer => "issuer",
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
/// A mark `hash -> V` says: a token that names this and carries a registry version below V is dead. One of a signing key says
/// so of every version: what a key says that is in other hands counts for nothing.
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

impl RevocationListClaims {
    /// What kind of mark says that `token` is dead, if one does. `key_hash` is the public key of the certificate that the
    /// token is bound to, where it is at hand: the token does not say it.
    pub fn mark_on(&self, token: &VerifiedToken, key_hash: Option<&str>) -> Option<MarkKind> {
        if self.marks.is_empty() {
            return None;
        }
        let claims = token.claims();
        let thumbprint = claims.cnf.x5t_s256.to_string();
        let entitlement = format!("{} {}", claims.client_id, claims.aud);
        let names = [
            (MarkKind::Issuer, Some(MarkKind::ANY_ISSUER)),
            (MarkKind::Participant, Some(claims.participant_id.as_str())),
            (MarkKind::Client, Some(&claims.client_id)),
            (MarkKind::Certificate, Some(&thumbprint)),
            (MarkKind::Key, key_hash),
            (MarkKind::Anchor, claims.anchor.as_deref()),
            (MarkKind::Entitlement, Some(&entitlement)),
            (MarkKind::ResourceServer, Some(&claims.aud)),
            (MarkKind::SigningKey, Some(token.kid())),
            (MarkKind::Jti, Some(&claims.jti)),
        ];
        names.into_iter().find_map(|(kind, id)| {
            let version = self.mark(kind, id?)?;
            // A withdrawn key never signs again, and whoever has it may write any version that he likes.
            (kind == MarkKind::SigningKey || claims.registry_version < version).then_some(kind)
        })
    }

    pub(super) fn mark(&self, kind: MarkKind, id: &str) -> Option<i64> {
        self.marks.get(&MarkHash::of(&self.salt, kind, id)).copied()
    }
}
