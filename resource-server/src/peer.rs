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
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower_service::Service;
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::confirmation::CertificateThumbprint;
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
}

impl PeerAcceptor {
    /// An acceptor with this configuration, of [`server_config`] or one that asks for client certificates in its own way,
    /// that gives up on a handshake after 5 seconds.
    pub fn new(config: Arc<ServerConfig>) -> Self {
        Self { tls: TlsAcceptor::from(config), handshake_timeout: Duration::from_secs(5) }
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
        f.debug_struct("PeerAcceptor").field("handshake_timeout", &self.handshake_timeout).finish_non_exhaustive()
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for PeerAcceptor {
    type Stream = TlsStream<TcpStream>;
    type Service = WithPeer<S>;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Self { tls, handshake_timeout } = self.clone();
        Box::pin(async move {
            stream.set_nodelay(true)?;
            let accepted = tokio::time::timeout(handshake_timeout, tls.accept(stream)).await;
            let stream = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).inspect_err(|error| {
                metrics::counter!("countersign_guard_failed_handshakes_total").increment(1);
                tracing::debug!(%error, "handshake failed");
            })?;
            let peer = of_connection(stream.get_ref().1);
            Ok((stream, WithPeer { peer, inner: service }))
        })
    }
}

/// A service whose requests all carry the peer's certificate, if there is one.
#[derive(Clone, Debug)]
pub struct WithPeer<S> {
    peer: Option<PeerCertificate>,
    inner: S,
}

impl<S, B> Service<http::Request<B>> for WithPeer<S>
where
    S: Service<http::Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> S::Future {
        if let Some(peer) = &self.peer {
            request.extensions_mut().insert(peer.clone());
        }
        self.inner.call(request)
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
