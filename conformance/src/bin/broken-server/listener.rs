//! Connections: TLS and HTTP.
//!
//! The handshake proves that the peer holds the key of the certificate it sent; what that certificate is worth is asked on
//! each request.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use countersign_conformance::clock;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature_with_raw_key};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, PeerMisbehaved, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use webpki::RawPublicKeyEntity;

use crate::certificate::{Peer, public_key};
use crate::defect::Defect;
use crate::http::{Answer, Asked, text_answer};
use crate::world::World;
use crate::{Failure, hello, route};

/// A longer body is not read.
const LARGEST_BODY_BYTES: usize = 64 * 1024;

/// A port, listened on.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Listener {
    /// Listens on a port of the system's choice.
    ///
    /// # Errors
    /// Where the system has none.
    pub(crate) async fn bind() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    /// Which port it is.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Serves each connection.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub(crate) async fn serve(self, world: Arc<World>) -> Result<(), Failure> {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(&world)?));
        loop {
            // A connection that ended before it was taken is nobody's loss.
            let Ok((stream, _)) = self.listener.accept().await else { continue };
            let (world, acceptor) = (Arc::clone(&world), acceptor.clone());
            tokio::spawn(async move {
                let _the_peer_went_away = serve_connection(stream, &acceptor, world).await;
            });
        }
    }
}

async fn serve_connection(mut stream: TcpStream, acceptor: &TlsAcceptor, world: Arc<World>) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    if hello::answered(&mut stream, &world.broken).await? {
        return Ok(());
    }
    let stream = acceptor.accept(stream).await?;
    let peer = stream.get_ref().1.peer_certificates().and_then(Peer::of);
    let service = service_fn(|request| answer(Arc::clone(&world), peer.clone(), request));
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await?;
    Ok(())
}

async fn answer(world: Arc<World>, peer: Option<Peer>, request: Request<Incoming>) -> io::Result<Answer> {
    let (head, body) = request.into_parts();
    let body: Bytes = match Limited::new(body, LARGEST_BODY_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(text_answer(413, "text/plain", String::new())),
    };
    let asked = Asked {
        method: head.method,
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        peer,
    };
    let answer = route::answer(&world, &asked, clock::now()).await;
    let parameter: &[u8] = b"client_assertion=";
    let brings_a_token = asked.headers.contains_key(AUTHORIZATION)
        || asked.body.windows(parameter.len()).any(|octets| octets == parameter);
    if brings_a_token && answer.status().is_client_error() && world.broken.is(Defect::DropsTheConnectionOnABadToken) {
        // hyper ends the connection of a service that fails.
        return Err(io::ErrorKind::ConnectionAborted.into());
    }
    Ok(answer)
}

fn server_config(world: &World) -> Result<ServerConfig, Failure> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.retain(|suite| suite.tls13().is_some() || is_recommended(suite.suite()));
    let versions: &[_] = match world.broken.is(Defect::Tls12Only) {
        true => &[&rustls::version::TLS12],
        false => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let algorithms = provider.signature_verification_algorithms;
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions)?;
    let builder = match world.broken.is(Defect::CertificateNotAskedFor) {
        true => builder.with_no_client_auth(),
        false => builder.with_client_cert_verifier(Arc::new(Possession { algorithms })),
    };
    let chain = world.server.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivatePkcs8KeyDer::from(world.server.key.pkcs8().to_vec());
    Ok(builder.with_single_cert(chain, key.into())?)
}

/// RFC 9325 §4.2, and so FAPI 2.0 §5.2.2: with TLS 1.2 these four suites.
fn is_recommended(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
    )
}

/// Proves possession, and nothing else.
#[derive(Debug)]
struct Possession {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = key_of(certificate)?;
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let (_, candidates) = self
            .algorithms
            .mapping
            .iter()
            .find(|(scheme, _)| *scheme == signed.scheme)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
        match candidates.iter().any(|algorithm| key.verify_signature(*algorithm, message, signed.signature()).is_ok()) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature_with_raw_key(message, &key_of(certificate)?, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<SubjectPublicKeyInfoDer<'static>, Error> {
    Ok(SubjectPublicKeyInfoDer::from(public_key(certificate).ok_or(CertificateError::BadEncoding)?))
}
