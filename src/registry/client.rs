//! Participants' applications: how each proves itself and what it may ask for.

use std::num::NonZeroU32;

use countersign_resource_server::token::jws::SigningAlgorithm;
use serde::{Deserialize, Serialize};

use super::{ClientId, ParticipantId};

/// A participant's application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// RFC 6749 §2.2.
    pub id: ClientId,
    /// Whose it is.
    pub participant_id: ParticipantId,
    /// Where it may act.
    pub environment: Environment,
    /// Whom to write to.
    pub contact: Option<String>,
    /// How it proves itself, and the only way it can.
    pub authentication: ClientAuthentication,
    /// The algorithm its access tokens are signed with.
    pub access_token_signing_alg: SigningAlgorithm,
    /// How long its tokens live, in seconds, where shorter than the default.
    pub access_token_lifetime_seconds: Option<i64>,
    /// What happens to a certificate that was never seen before.
    pub enrolment: Enrolment,
    /// How long its other certificates may still be used once a new one was enrolled when first seen, in seconds; where
    /// it is not said they are left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_overlap_seconds: Option<u64>,
    /// How many requests a second it may make, where that is not what the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<NonZeroU32>,
    /// RFC 7591 §2.
    pub software_id: Option<String>,
    /// Whether it may act.
    pub state: ClientState,
}

impl Client {
    /// Whether a certificate never seen before is enrolled when it first authenticates. Self-signed certificates are
    /// always enrolled first.
    pub const fn enrols_on_first_use(&self) -> bool {
        match self.authentication {
            ClientAuthentication::SelfSignedTlsClientAuth { .. } => false,
            ClientAuthentication::TlsClientAuth { .. }
            | ClientAuthentication::PrivateKeyJwt { .. }
            | ClientAuthentication::SpiffeX509 { .. }
            | ClientAuthentication::SpiffeJwt { .. } => {
                matches!(self.enrolment, Enrolment::OnFirstUse)
            }
        }
    }
}

/// The `token_endpoint_auth_method` with what it is checked against.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "token_endpoint_auth_method", rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// RFC 8705 §2.1.
    TlsClientAuth {
        /// The one registered name.
        subject: SubjectRule,
    },
    /// RFC 8705 §2.2.
    SelfSignedTlsClientAuth {
        /// The registered JWK Set, by value; each key carries `x5c`.
        jwks: String,
    },
    /// RFC 7523 §2.2.
    PrivateKeyJwt {
        /// The registered JWK Set, by value.
        jwks: String,
        /// `token_endpoint_auth_signing_alg` (RFC 7591 §2): the one algorithm its assertions may use.
        signing_alg: SigningAlgorithm,
        /// The name its certificate must carry if that certificate is not enrolled.
        subject: Option<SubjectRule>,
    },
    /// draft-schwenkschuster-oauth-spiffe-client-auth §3.2: an X509-SVID.
    SpiffeX509 {
        /// The SPIFFE ID, as the URI that the certificate carries: so that it is unique across methods.
        subject: SubjectRule,
    },
    /// draft-schwenkschuster-oauth-spiffe-client-auth §3.1: a JWT-SVID.
    SpiffeJwt {
        /// The SPIFFE ID: what `sub` is, and what a certificate carries that is not enrolled.
        subject: SubjectRule,
    },
}

impl ClientAuthentication {
    /// The name of the method on the wire.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::TlsClientAuth { .. } => "tls_client_auth",
            Self::SelfSignedTlsClientAuth { .. } => "self_signed_tls_client_auth",
            Self::PrivateKeyJwt { .. } => "private_key_jwt",
            Self::SpiffeX509 { .. } => "spiffe_x509",
            Self::SpiffeJwt { .. } => "spiffe_jwt",
        }
    }

    /// Whether an assertion has to come with each token request.
    pub const fn asks_for_assertion(&self) -> bool {
        match self {
            Self::PrivateKeyJwt { .. } | Self::SpiffeJwt { .. } => true,
            Self::TlsClientAuth { .. } | Self::SelfSignedTlsClientAuth { .. } | Self::SpiffeX509 { .. } => false,
        }
    }

    /// The registered keys, where there are any.
    pub fn jwks(&self) -> Option<&str> {
        match self {
            Self::SelfSignedTlsClientAuth { jwks } | Self::PrivateKeyJwt { jwks, .. } => Some(jwks),
            Self::TlsClientAuth { .. } | Self::SpiffeX509 { .. } | Self::SpiffeJwt { .. } => None,
        }
    }

    /// The registered name, where there is one.
    pub const fn subject(&self) -> Option<&SubjectRule> {
        match self {
            Self::TlsClientAuth { subject } | Self::SpiffeX509 { subject } | Self::SpiffeJwt { subject } => {
                Some(subject)
            }
            Self::PrivateKeyJwt { subject, .. } => subject.as_ref(),
            Self::SelfSignedTlsClientAuth { .. } => None,
        }
    }
}

/// The one attribute of the certificate that names the client (RFC 8705 §2.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SubjectRule {
    /// Which attribute.
    pub attribute: SubjectAttribute,
    /// The value as the operator wrote it.
    pub value: String,
    /// The value in the form that is compared: equal if and only if the names match. `pki::identity` makes it.
    pub canonical: String,
}

/// The client metadata of RFC 8705 §2.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectAttribute {
    /// The subject distinguished name.
    TlsClientAuthSubjectDn,
    /// A dNSName.
    TlsClientAuthSanDns,
    /// A uniformResourceIdentifier.
    TlsClientAuthSanUri,
    /// An iPAddress.
    TlsClientAuthSanIp,
    /// An rfc822Name.
    TlsClientAuthSanEmail,
}

impl SubjectAttribute {
    /// The name of the metadata field.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsClientAuthSubjectDn => "tls_client_auth_subject_dn",
            Self::TlsClientAuthSanDns => "tls_client_auth_san_dns",
            Self::TlsClientAuthSanUri => "tls_client_auth_san_uri",
            Self::TlsClientAuthSanIp => "tls_client_auth_san_ip",
            Self::TlsClientAuthSanEmail => "tls_client_auth_san_email",
        }
    }
}

/// Where a client may act. A server serves one environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// The real thing.
    Production,
    /// For trying out.
    Sandbox,
}

impl Environment {
    /// The name in tokens and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Sandbox => "sandbox",
        }
    }
}

/// What happens to a certificate that was never seen before but carries the registered name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enrolment {
    /// It is enrolled when it is first seen. The default.
    OnFirstUse,
    /// It is refused.
    Required,
}

/// The states of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientState {
    /// Admitted by nobody yet.
    Pending,
    /// May act.
    Active,
    /// May not act for now.
    Suspended,
    /// Will never act again.
    Retired,
}

impl ClientState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Active, Self::Suspended, Self::Retired];

    /// The name in stores, histories and commands.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Retired => "retired",
        }
    }

    /// The table of states: whether this one may be followed by `next`.
    pub const fn can_become(self, next: Self) -> bool {
        match self {
            Self::Pending => matches!(next, Self::Active | Self::Retired),
            Self::Active => matches!(next, Self::Suspended | Self::Retired),
            Self::Suspended => matches!(next, Self::Active | Self::Retired),
            Self::Retired => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::Client;
    use super::ClientState::{self, Active, Pending, Retired, Suspended};

    /// As an earlier release wrote it, and as one is written that says nothing of it.
    #[test]
    fn a_record_without_a_rate_is_read_and_one_of_nothing_is_not() {
        let record = |rate: &str| {
            serde_json::from_str::<Client>(&format!(
                r#"{{"id":"a","participant_id":"p","environment":"sandbox","contact":null,
                    "authentication":{{"token_endpoint_auth_method":"self_signed_tls_client_auth","jwks":"{{}}"}},
                    "access_token_signing_alg":"ES256","access_token_lifetime_seconds":null,"enrolment":"required",
                    "software_id":null,{rate}"state":"active"}}"#
            ))
        };
        let silent = record("").unwrap();
        assert_eq!(silent.requests_per_second, None);
        assert!(!serde_json::to_string(&silent).unwrap().contains("requests_per_second"));
        let own = record(r#""requests_per_second":7,"#).unwrap();
        assert_eq!(own.requests_per_second, NonZeroU32::new(7));
        assert_eq!(serde_json::from_str::<Client>(&serde_json::to_string(&own).unwrap()).unwrap(), own);
        assert!(record(r#""requests_per_second":0,"#).is_err());
    }

    #[test]
    fn every_edge_of_the_state_table() {
        let edges = [
            (Pending, Active),
            (Pending, Retired),
            (Active, Suspended),
            (Active, Retired),
            (Suspended, Active),
            (Suspended, Retired),
        ];
        for from in ClientState::ALL {
            for to in ClientState::ALL {
                assert_eq!(from.can_become(to), edges.contains(&(from, to)), "{from:?} -> {to:?}");
            }
        }
    }
}
