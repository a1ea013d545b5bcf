//! Which certificate is at the other end of this connection, and is it in date?
//!
//! Takes a TLS connection whose handshake has proven possession of a key, gives a [`PeerCertificate`]: computed once per
//! connection, handed to every request of it. It does not ask who issued the certificate: a bound token names the one
//! certificate it is good with (RFC 8705 §3), and the authorization server has judged the chain.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum_server::accept::Accept;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer, UnixTime as HandshakeTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, PeerMisbehaved, ServerConfig,
    SignatureScheme,
};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower_service::Service;
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::confirmation::CertificateThumbprint;
use crate::connection::{Activity, Answer, Answering, Unidle};
use crate::error::PeerRefusal;
use crate::time::UnixTime;

/// The most certificates a peer may send: a leaf and four intermediates.
pub const MAX_CERTIFICATES: usize = 5;

/// The most bytes they may have together.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// What a request needs to know of the certificate on its connection. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct PeerCertificate(Arc<Facts>);

#[derive(PartialEq, Eq)]
struct Facts {
    thumbprint: CertificateThumbprint,
    key_hash: String,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl PeerCertificate {
    /// Reads the certificate with this DER encoding.
    ///
    /// # Errors
    /// [`UnreadableCertificate`] if it is not exactly one X.509 certificate, of any version.
    pub fn parse(der: &[u8]) -> Result<Self, UnreadableCertificate> {
        let certificate = parse(der).ok_or(UnreadableCertificate)?;
        let validity = certificate.validity();
        Ok(Self(Arc::new(Facts {
            thumbprint: CertificateThumbprint::of(der),
            key_hash: URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.tbs_certificate.subject_pki.raw)),
            not_before: UnixTime::from_seconds(validity.not_before.timestamp()),
            not_after: UnixTime::from_seconds(validity.not_after.timestamp()),
        })))
    }

    /// The thumbprint of the whole certificate (RFC 8705 §3.1).
    pub fn thumbprint(&self) -> &CertificateThumbprint {
        &self.0.thumbprint
    }

    /// The SHA-256 of its SubjectPublicKeyInfo, in base64url without padding.
    pub fn key_hash(&self) -> &str {
        &self.0.key_hash
    }

    /// The first second of its validity.
    pub fn not_before(&self) -> UnixTime {
        self.0.not_before
    }

    /// The last second of its validity.
    pub fn not_after(&self) -> UnixTime {
        self.0.not_after
    }
}

impl fmt::Debug for PeerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerCertificate({})", self.0.thumbprint)
    }
}

/// The bytes are not exactly one X.509 certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a certificate")]
pub struct UnreadableCertificate;

/// A certificate that is in date, on a connection that has proven possession of its key.
#[derive(Clone, Debug)]
pub struct CurrentPeer(PeerCertificate);

impl CurrentPeer {
    /// The certificate.
    pub const fn certificate(&self) -> &PeerCertificate {
        &self.0
    }
}

/// Asks whether the connection has a certificate that is in date now: connections outlive certificates.
///
/// # Errors
/// Every [`PeerRefusal`].
pub fn judge(certificate: Option<&PeerCertificate>, now: UnixTime) -> Result<CurrentPeer, PeerRefusal> {
    let certificate = certificate.ok_or(PeerRefusal::NoCertificate)?;
    // RFC 5280 §4.1.2.5: from notBefore through notAfter, inclusive, in whole seconds.
    if now.as_seconds() < certificate.not_before().as_seconds() {
        return Err(PeerRefusal::NotYetValid);
    }
    if now.as_seconds() > certificate.not_after().as_seconds() {
        return Err(PeerRefusal::Expired);
    }
    Ok(CurrentPeer(certificate.clone()))
}

/// The SubjectPublicKeyInfo of a certificate, as encoded in it; `None` if `der` is not exactly one certificate.
pub fn subject_public_key_info(der: &[u8]) -> Option<&[u8]> {
    parse(der).map(|certificate| certificate.tbs_certificate.subject_pki.raw)
}

/// A TLS configuration for an API that is called with bound tokens: asks every caller for a certificate without
/// demanding one, TLS 1.3 and 1.2 (RFC 9325), HTTP/2 and HTTP/1.1.
///
/// # Errors
/// [`rustls::Error`] if the private key is not that of the first certificate, or of a kind that is not supported.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(provider());
    let verifier = Arc::new(PossessionVerifier::new(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.require_ems = true; // RFC 7627: without it a TLS 1.2 session is not bound to its certificate
    config.cert_decompressors = Vec::new(); // RFC 8879 §5: a few octets shall not become a megabyte of certificates
    config.max_early_data_size = 0; // RFC 8446 §8: early data can be replayed
    config.send_tls13_tickets = 1;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// aws-lc-rs with the suites of TLS 1.3 and, for TLS 1.2, the four of RFC 9325 §4.2.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        )
    });
    provider
}

/// Proves possession of the key in whatever certificate the caller sends, and bounds the work; decides nothing else.
///
/// Self-signed, X.509 v1 and CA certificates are taken: RFC 8705 §2.2 knows the first, its appendix A shows the second.
#[derive(Debug)]
pub struct PossessionVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl PossessionVerifier {
    /// A verifier with the signature algorithms of `provider`.
    pub const fn new(provider: &CryptoProvider) -> Self {
        Self { algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for PossessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // RFC 8446 §4.2.4: no names, so that the caller sends the certificate it has
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: HandshakeTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bytes = end_entity.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>();
        if intermediates.len() >= MAX_CERTIFICATES || bytes > MAX_CERTIFICATE_BYTES {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        let certificate = parse(end_entity).ok_or(CertificateError::BadEncoding)?;
        match certificate.public_key().parsed() {
            Ok(PublicKey::RSA(key)) if !(2048..=4096).contains(&bits(key.modulus)) => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            _ => Ok(ClientCertVerified::assertion()), // other kinds fail where the signature is checked
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let spki = raw_key(certificate)?;
        let key = RawPublicKeyEntity::try_from(&spki).map_err(|_| CertificateError::BadEncoding)?;
        let candidates = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let (_, candidates) = candidates.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        // In TLS 1.2 a scheme does not say the curve (RFC 8422 §5.1.1): the one that fits the key counts.
        if candidates.iter().any(|algorithm| key.verify_signature(*algorithm, message, signed.signature()).is_ok()) {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature_with_raw_key(message, &raw_key(certificate)?, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts TLS connections for axum-server and hands the peer's certificate to every request of the connection, as a
/// [`PeerCertificate`] in the request's extensions.
#[derive(Clone)]
pub struct PeerAcceptor {
    tls: TlsAcceptor,
    handshake_timeout: Duration,
    idle_timeout: Duration,
    connections: Arc<Semaphore>,
}

impl PeerAcceptor {
    /// An acceptor with this configuration, of [`server_config`] or one that asks for client certificates in its own way,
    /// that gives up on a handshake after 5 seconds and on an idle connection after 60, and holds at most 10,000.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self {
            tls: TlsAcceptor::from(config),
            handshake_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            connections: Arc::new(Semaphore::new(10_000)),
        }
    }

    /// The same acceptor with room for another number of connections; one more is closed unheard.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.connections = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        self
    }

    /// The same acceptor with another patience for connections on which no call is being answered: because none came, or
    /// not to its end, or because the caller does not fetch the answer. However long a handler takes is no matter. A
    /// connection that was upgraded to another protocol counts as one without calls.
    #[must_use]
    pub const fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// The same acceptor with another patience for handshakes.
    #[must_use]
    pub const fn with_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }
}

impl fmt::Debug for PeerAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerAcceptor")
            .field("handshake_timeout", &self.handshake_timeout)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for PeerAcceptor {
    type Stream = Unidle<TlsStream<TcpStream>>;
    type Service = WithPeer<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Self { tls, handshake_timeout, idle_timeout, connections } = self.clone();
        Box::pin(async move {
            let place = connections.try_acquire_owned().map_err(io::Error::other)?;
            stream.set_nodelay(true)?;
            let accepted = tokio::time::timeout(handshake_timeout, tls.accept(stream)).await;
            let stream = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).inspect_err(|error| {
                metrics::counter!("countersign_guard_failed_handshakes_total").increment(1);
                tracing::debug!(%error, "handshake failed");
            })?;
            let peer = of_connection(stream.get_ref().1);
            let activity = Activity::new();
            let stream = Unidle::new(stream, Arc::clone(&activity), idle_timeout);
            Ok((stream, WithPeer { peer, inner: service, activity, _place: Arc::new(place) }))
        })
    }
}

/// A service whose requests all carry the peer's certificate, if there is one.
#[derive(Clone, Debug)]
pub struct WithPeer<S> {
    peer: Option<PeerCertificate>,
    inner: S,
    activity: Arc<Activity>,
    /// Given back when the connection and its last request have ended.
    _place: Arc<OwnedSemaphorePermit>,
}

impl<S, B, R> Service<http::Request<B>> for WithPeer<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
{
    type Response = http::Response<Answer<R>>;
    type Error = S::Error;
    type Future = Answering<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let work = self.activity.begin();
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        Answering::new(self.inner.call(request), work)
    }
}

/// The certificate of a finished handshake, a resumed one included; `None` if the peer sent none that can be read.
pub fn of_connection(connection: &rustls::ServerConnection) -> Option<PeerCertificate> {
    let leaf = connection.peer_certificates()?.first()?;
    PeerCertificate::parse(leaf).ok()
}

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Some(certificate),
        _ => None,
    }
}

fn raw_key<'a>(certificate: &'a CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'a>, rustls::Error> {
    subject_public_key_info(certificate)
        .map(SubjectPublicKeyInfoDer::from)
        .ok_or_else(|| CertificateError::BadEncoding.into())
}

fn bits(magnitude: &[u8]) -> usize {
    let significant = &magnitude[magnitude.iter().take_while(|octet| **octet == 0).count()..];
    significant.first().map_or(0, |first| significant.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use countersign_conformance::KeyKind;
    use countersign_conformance::pki::{Authority, Credential, Defect, Name, Template};
    use proptest::prelude::*;
    use rustls::client::ResolvesClientCert;
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, ServerConnection};

    use super::*;
    use crate::time::{Clock, SystemClock};

    /// The handshake of a client verifies the server's certificate by the machine's clock, so certificates are made from it.
    fn now() -> i64 {
        SystemClock::new().now().as_seconds()
    }

    struct Rig {
        server: Arc<ServerConfig>,
        roots: Arc<RootCertStore>,
    }

    #[derive(Debug)]
    struct Presents(Option<Arc<CertifiedKey>>);

    /// Presents whatever it is told to, where rustls would refuse to: it reads its own certificate with webpki.
    impl ResolvesClientCert for Presents {
        fn resolve(&self, hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            assert!(hints.is_empty(), "names of certificate authorities were sent");
            self.0.clone()
        }

        fn has_certs(&self) -> bool {
            true
        }
    }

    impl Rig {
        fn new() -> Self {
            let authority = Authority::root("Server CA", now());
            let credential = authority.issue(&Template::server(&["localhost"], now()), KeyKind::P256);
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(authority.to_pem().as_bytes()).flatten());
            let chain = credential.chain.into_iter().map(CertificateDer::from).collect();
            let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()).into();
            Self { server: Arc::new(server_config(chain, key).unwrap()), roots: Arc::new(roots) }
        }

        fn client(
            &self,
            version: &'static rustls::SupportedProtocolVersion,
            credential: Option<&Credential>,
        ) -> Arc<ClientConfig> {
            let certified = credential.map(|credential| {
                let key = PrivatePkcs8KeyDer::from(credential.key.pkcs8().to_vec()).into();
                let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
                Arc::new(CertifiedKey::new(credential.chain.iter().cloned().map(CertificateDer::from).collect(), key))
            });
            let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(Arc::clone(&self.roots))
                .with_client_cert_resolver(Arc::new(Presents(certified)));
            Arc::new(config)
        }

        /// Both ends of a finished handshake, made in memory.
        fn shake(&self, client: &Arc<ClientConfig>) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
            let mut server = ServerConnection::new(Arc::clone(&self.server)).unwrap();
            for _ in 0..10 {
                let mut wire = Vec::new();
                while client.wants_write() {
                    client.write_tls(&mut wire).unwrap();
                }
                let mut unread = &wire[..];
                while !unread.is_empty() {
                    server.read_tls(&mut unread).unwrap();
                    server.process_new_packets()?;
                }
                let mut wire = Vec::new();
                while server.wants_write() {
                    server.write_tls(&mut wire).unwrap();
                }
                let mut unread = &wire[..];
                while !unread.is_empty() {
                    client.read_tls(&mut unread).unwrap();
                    client.process_new_packets()?;
                }
            }
            assert!(!client.is_handshaking() && !server.is_handshaking());
            Ok((client, server))
        }
    }

    use rustls::pki_types::pem::PemObject;
    const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

    #[test]
    fn without_a_certificate_the_connection_stands_and_has_none() {
        let rig = Rig::new();
        for version in VERSIONS {
            let (_, server) = rig.shake(&rig.client(version, None)).unwrap();
            assert_eq!(of_connection(&server), None);
        }
    }

    #[test]
    fn whatever_certificate_whose_key_is_proven() {
        let rig = Rig::new();
        let authority = Authority::root("Partner CA", now());
        let template = || Template::client(Name::common("client"), now());
        let mut credentials: Vec<Credential> =
            [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa2048]
                .into_iter()
                .flat_map(|kind| [authority.issue(&template(), kind), Credential::self_signed(&template(), kind)])
                .collect();
        // Version 1 and CA:TRUE among them, which webpki would not read; out of date, which is asked with each request.
        credentials
            .extend(Defect::ALL.iter().map(|defect| authority.issue(&template().with(*defect, now()), KeyKind::P256)));
        for version in VERSIONS {
            for credential in &credentials {
                let (_, server) = rig.shake(&rig.client(version, Some(credential))).unwrap();
                let peer = of_connection(&server).unwrap();
                assert_eq!(peer.thumbprint().to_string(), credential.thumbprint());
            }
        }
    }

    #[test]
    fn a_certificate_whose_key_is_not_proven() {
        let rig = Rig::new();
        let authority = Authority::root("Partner CA", now());
        for kind in [KeyKind::P256, KeyKind::Ed25519, KeyKind::Rsa2048] {
            let template = Template::client(Name::common("client"), now());
            let (victim, thief) = (authority.issue(&template, kind), authority.issue(&template, kind));
            let stolen = Credential { key: thief.key, ..victim };
            for version in VERSIONS {
                assert!(rig.shake(&rig.client(version, Some(&stolen))).is_err(), "{kind:?}");
            }
        }
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let rig = Rig::new();
        let good = Authority::root("Partner CA", now()).client("client");
        let with = |more: usize| Credential {
            chain: std::iter::repeat_n(good.certificate().to_vec(), 1 + more).collect(),
            ..good.clone()
        };
        let long = Template::client(Name::common(&"x".repeat(MAX_CERTIFICATE_BYTES)), now());
        for version in VERSIONS {
            assert!(rig.shake(&rig.client(version, Some(&with(4)))).is_ok());
            assert!(rig.shake(&rig.client(version, Some(&with(5)))).is_err());
            let long = Credential::self_signed(&long, KeyKind::P256);
            assert!(rig.shake(&rig.client(version, Some(&long))).is_err());
        }
    }

    #[test]
    fn rsa_keys_too_short_or_too_long_are_refused() {
        let provider = provider();
        let verifier = PossessionVerifier::new(&provider);
        let authority = Authority::root("CA", now());
        for (kind, good) in [(KeyKind::Rsa1024, false), (KeyKind::Rsa2048, true), (KeyKind::Rsa4224, false)] {
            let credential = authority.issue(&Template::client(Name::common("c"), now()), kind);
            let leaf = CertificateDer::from(credential.certificate());
            let verdict = verifier.verify_client_cert(&leaf, &[], HandshakeTime::since_unix_epoch(Duration::ZERO));
            assert_eq!(verdict.is_ok(), good, "{kind:?}");
        }
    }

    #[test]
    fn a_resumed_session_keeps_its_certificate() {
        let rig = Rig::new();
        let credential = Authority::root("Partner CA", now()).client("client");
        for version in VERSIONS {
            let config = rig.client(version, Some(&credential));
            let (_, first) = rig.shake(&config).unwrap();
            let (_, again) = rig.shake(&config).unwrap();
            assert_eq!(again.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
            assert_eq!(of_connection(&first), of_connection(&again));
            assert!(of_connection(&again).is_some());
        }
    }

    #[test]
    fn only_suites_of_rfc_9325() {
        let rig = Rig::new();
        for suite in aws_lc_rs::ALL_CIPHER_SUITES {
            let provider = CryptoProvider { cipher_suites: vec![*suite], ..aws_lc_rs::default_provider() };
            let config = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_protocol_versions(if suite.tls13().is_some() { &VERSIONS[..1] } else { &VERSIONS[1..] })
                .unwrap()
                .with_root_certificates(Arc::clone(&rig.roots))
                .with_no_client_auth();
            let outcome = rig.shake(&Arc::new(config));
            // The server's key is ECDSA, so suites with RSA find no certificate; the four are named in `provider`.
            let name = format!("{:?}", suite.suite());
            let expected = suite.tls13().is_some() || (name.contains("ECDSA") && name.contains("GCM"));
            assert_eq!(outcome.is_ok(), expected, "{name}");
            if let Ok((_, server)) = outcome {
                let version = if suite.tls13().is_some() { ProtocolVersion::TLSv1_3 } else { ProtocolVersion::TLSv1_2 };
                assert_eq!(server.protocol_version(), Some(version));
            }
        }
    }

    #[test]
    fn dates_are_inclusive_seconds() {
        let now = now();
        let template = Template { not_before: now, not_after: now + 10, ..Template::client(Name::common("c"), now) };
        let credential = Credential::self_signed(&template, KeyKind::P256);
        let peer = PeerCertificate::parse(credential.certificate()).unwrap();
        let verdict = |millis: i64| judge(Some(&peer), UnixTime::from_millis(millis)).map(|_| ());
        assert_eq!(verdict(now * 1000 - 1), Err(PeerRefusal::NotYetValid));
        assert_eq!(verdict(now * 1000), Ok(()));
        assert_eq!(verdict((now + 10) * 1000 + 999), Ok(()));
        assert_eq!(verdict((now + 11) * 1000), Err(PeerRefusal::Expired));
        assert!(matches!(judge(None, UnixTime::from_seconds(now)), Err(PeerRefusal::NoCertificate)));
    }

    #[test]
    fn the_key_hash_is_that_of_the_key() {
        let credential = Authority::root("CA", now()).client("c");
        let peer = PeerCertificate::parse(credential.certificate()).unwrap();
        assert_eq!(peer.key_hash(), URL_SAFE_NO_PAD.encode(Sha256::digest(credential.key.spki())));
    }

    #[test]
    fn only_one_certificate_and_nothing_after_it() {
        let der = Authority::root("CA", now()).client("c").certificate().to_vec();
        assert!(PeerCertificate::parse(&der).is_ok());
        assert_eq!(PeerCertificate::parse(&[&der[..], &[0]].concat()), Err(UnreadableCertificate));
        for length in 0..der.len() {
            assert_eq!(PeerCertificate::parse(&der[..length]), Err(UnreadableCertificate));
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_answered(at in 0_usize..400, octet in any::<u8>()) {
            let mut der = sample().to_vec();
            let at = at % der.len();
            der[at] = octet;
            // Whatever it is: an answer, and the same from both readers.
            prop_assert_eq!(PeerCertificate::parse(&der).is_ok(), subject_public_key_info(&der).is_some());
        }
    }

    fn sample() -> &'static [u8] {
        static SAMPLE: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        SAMPLE.get_or_init(|| Authority::root("CA", now()).client("c").certificate().to_vec())
    }
}
