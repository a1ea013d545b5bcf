//! The parties, their keys and certificates, what each may have, and what was issued.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_conformance::pki::{Authority, Credential, Name, Template};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value};
use tokio::net::TcpSocket;

use crate::Failure;
use crate::certificate::{self, Subject};
use crate::defect::Broken;

/// The scope that clients may have.
pub(crate) const SCOPE: &str = "accounts:read";
/// Another that both of the first two clients may have, so that a resource can be met without the one it needs.
pub(crate) const SECOND_SCOPE: &str = "accounts:list";
/// One that exists, and that no client may have.
pub(crate) const OTHER_SCOPE: &str = "payments:write";

/// Everything an endpoint may look at.
#[derive(Debug)]
pub(crate) struct World {
    /// What is wrong with this server.
    pub(crate) broken: Broken,
    /// The issuer, which is also where everything is.
    pub(crate) issuer: String,
    /// The protected resource, by URL and as the audience of its tokens.
    pub(crate) resource: String,
    /// What signs.
    pub(crate) signing: Arc<Key>,
    /// A second published key, of another kind.
    pub(crate) spare: Arc<Key>,
    /// The server's certificate.
    pub(crate) server: Credential,
    /// Who may ask for what.
    pub(crate) clients: Vec<Client>,
    /// Which authority vouches for clients.
    pub(crate) client_root: CertificateDer<'static>,
    /// Which authority vouches for servers.
    pub(crate) server_root: CertificateDer<'static>,
    /// The second protected resource, and whom it trusts.
    pub(crate) forged: Forged,
    issued: Mutex<Issued>,
}

/// A client, or a protected resource that introspects.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its id.
    pub(crate) id: &'static str,
    /// How it proves that it is.
    pub(crate) method: Method,
    /// What it may ask for.
    pub(crate) scopes: &'static [&'static str],
    /// Whether it may introspect.
    pub(crate) introspects: bool,
}

/// How a client proves who it is.
#[derive(Debug)]
pub(crate) enum Method {
    /// RFC 8705 §2.1: a certificate with this subject.
    TlsClientAuth(Subject),
    /// RFC 8705 §2.2: this certificate.
    SelfSignedTlsClientAuth(CertificateDer<'static>),
    /// RFC 7523: an assertion by this key. The key has `kid` and `alg`.
    PrivateKeyJwt(Value),
}

/// The second protected resource, whose issuer the judge plays.
#[derive(Debug, Default)]
pub(crate) struct Forged {
    /// The issuer.
    pub(crate) issuer: String,
    /// Where it listens.
    pub(crate) listen: String,
    /// The resource, by URL and as the audience of its tokens.
    pub(crate) resource: String,
}

/// What has to be remembered.
#[derive(Debug, Default)]
pub(crate) struct Issued {
    /// The `jti` of revoked tokens.
    pub(crate) revoked: BTreeSet<String>,
    /// The `jti` of assertions, each with its client.
    pub(crate) assertions: BTreeSet<(String, String)>,
    /// Each token, with the claims it ought to have: a token that was minted wrongly still works at this server.
    pub(crate) minted: BTreeMap<String, Map<String, Value>>,
    /// The keys of the issuer that the judge plays, as last fetched.
    pub(crate) judge_keys: Vec<Value>,
}

/// What the parties hold themselves, for the target file.
#[derive(Debug)]
pub(crate) struct Parties {
    /// Vouches for servers.
    pub(crate) server_authority: Authority,
    /// Vouches for clients.
    pub(crate) client_authority: Authority,
    /// `tls_client_auth`
    pub(crate) client: Credential,
    /// `tls_client_auth`, another organisation.
    pub(crate) client2: Credential,
    /// `self_signed_tls_client_auth`
    pub(crate) self_signed: Credential,
    /// `private_key_jwt`: its certificate, for binding.
    pub(crate) jwt: Credential,
    /// `private_key_jwt`: what signs its assertions.
    pub(crate) jwt_key: Key,
    /// The protected resource that introspects.
    pub(crate) introspector: Credential,
    /// The certificate of the issuer that the judge plays.
    pub(crate) judge: Credential,
}

impl World {
    /// A world of its own, on this port, at this second.
    ///
    /// # Errors
    /// Where a certificate of this package's factory cannot be read.
    pub(crate) fn make(broken: Broken, port: u16, now: i64) -> Result<(Self, Parties), Failure> {
        let server_authority = Authority::root("Broken Server CA", now);
        let client_authority = Authority::root("Broken Clients CA", now);
        let hosts = Template::server(&["localhost", "127.0.0.1"], now);
        let of = |attributes| client_authority.issue(&Template::client(Name::of(attributes), now), KeyKind::P256);
        let parties = Parties {
            client: of(&[("C", "DE"), ("O", "Partner A"), ("CN", "client-a")]),
            client2: of(&[("C", "FR"), ("O", "Partner B"), ("CN", "client-b")]),
            self_signed: Credential::self_signed(&Template::client(Name::common("client-s"), now), KeyKind::P256),
            jwt: of(&[("C", "DE"), ("O", "Partner J"), ("CN", "client-j")]),
            jwt_key: Key::generate(KeyKind::P256),
            introspector: of(&[("C", "DE"), ("O", "Accounts"), ("CN", "accounts")]),
            judge: server_authority.issue(&hosts, KeyKind::P256),
            server_authority,
            client_authority,
        };
        let issuer = format!("https://localhost:{port}");
        let world = Self {
            broken,
            resource: format!("{issuer}/accounts"),
            issuer,
            signing: Arc::new(Key::generate(KeyKind::P256)),
            spare: Arc::new(Key::generate(KeyKind::Ed25519)),
            server: parties.server_authority.issue(&hosts, KeyKind::P256),
            clients: clients(&parties).ok_or("a certificate of the factory cannot be read")?,
            client_root: CertificateDer::from(parties.client_authority.certificate.clone()),
            server_root: CertificateDer::from(parties.server_authority.certificate.clone()),
            forged: Forged::default(),
            issued: Mutex::default(),
        };
        Ok((world, parties))
    }

    /// With the second resource, that trusts the issuer which the judge plays on this port.
    pub(crate) fn trusting_the_judge_at(mut self, port: u16) -> Self {
        self.forged = Forged {
            issuer: format!("https://localhost:{port}"),
            listen: format!("127.0.0.1:{port}"),
            resource: format!("{}/forged", self.issuer),
        };
        self
    }

    /// The client of this id.
    pub(crate) fn client(&self, id: &str) -> Option<&Client> {
        self.clients.iter().find(|client| client.id == id)
    }

    /// What was issued.
    pub(crate) fn issued(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clients(parties: &Parties) -> Option<Vec<Client>> {
    const SCOPES: &[&str] = &[SCOPE, SECOND_SCOPE];
    let by_name = |credential: &Credential| {
        Some(Method::TlsClientAuth(certificate::subject(&CertificateDer::from(credential.certificate()))?))
    };
    let client =
        |id, method, introspects| Client { id, method, scopes: if introspects { &[] } else { SCOPES }, introspects };
    let mut jwk = parties.jwt_key.jwk();
    jwk["kid"] = parties.jwt_key.jwk_thumbprint().into();
    jwk["alg"] = JwsAlgorithm::Es256.as_str().into();
    let registered = CertificateDer::from(parties.self_signed.certificate().to_vec());
    Some(vec![
        client("client-a", by_name(&parties.client)?, false),
        client("client-b", by_name(&parties.client2)?, false),
        client("client-s", Method::SelfSignedTlsClientAuth(registered), false),
        client("client-j", Method::PrivateKeyJwt(jwk), false),
        client("accounts", by_name(&parties.introspector)?, true),
    ])
}

/// A port that nobody else is given while this is held, and on which another process may listen.
///
/// # Errors
/// Where the system has none.
pub(crate) fn reserve_port() -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    Ok(socket)
}
