//! From a TCP connection to a stream whose peer is known.
//!
//! Takes connections from axum-server, gives TLS streams with deadlines and a service that puts the connection's
//! [`PresentedChain`] into every request. axum-server drops what its acceptor refuses without a word, so permits, the
//! handshake's time and the record of its failures are held here.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::Version;
use axum_server::accept::Accept;
use futures_util::future::BoxFuture;
use pin_project_lite::pin_project;
use rustls::{CertificateError, Error, HandshakeKind, PeerIncompatible, ProtocolVersion, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::Service;

use super::connection::{Activity, BodyRoom, LimitedStream, Permit, Permits, UnderWay};
use super::gathered::Gathered;
use super::verifier::CLAIMED;
use super::{Announcement, HandshakeObserver, HandshakeRefusal, PerimeterGuard, RefusedHandshake};
use crate::config::Limits;
use crate::pki::{Handshake, PresentedChain, RecentLists};
use crate::registry::Thumbprint;
use crate::telemetry;

/// Accepts TLS connections: permit, handshake, perimeter.
#[derive(Clone)]
pub struct TlsAcceptor {
    tls: tokio_rustls::TlsAcceptor,
    gate: Gate,
    perimeter: Option<Arc<dyn PerimeterGuard>>,
    lists: RecentLists,
}

impl TlsAcceptor {
    /// An acceptor that speaks TLS by `config`; with a `perimeter` for strict ones only.
    pub fn new(
        config: Arc<ServerConfig>,
        limits: &Limits,
        permits: Arc<Permits>,
        observer: Arc<dyn HandshakeObserver>,
        perimeter: Option<Arc<dyn PerimeterGuard>>,
    ) -> Self {
        let gate = Gate { limits: Arc::new(limits.clone()), permits, observer };
        Self { tls: config.into(), gate, perimeter, lists: RecentLists::default() }
    }

    async fn connect<S>(self, stream: TcpStream, service: S) -> io::Result<(LimitedTls, PeerService<S>)> {
        let (remote, permit) = self.gate.enter(&stream)?;
        let claimed = RefCell::new(None);
        let handshake = async {
            let outcome = self.shake_hands(stream, remote).await;
            let claimed = CLAIMED.with(RefCell::take);
            (outcome, claimed)
        };
        // The handshake's time includes the perimeter's question.
        let handshake = tokio::time::timeout(self.gate.limits.handshake, CLAIMED.scope(claimed, handshake));
        let (mut stream, peer, announcement) = match handshake.await {
            Ok((Ok(connected), _)) => connected,
            Ok((Err(refusal), claimed)) => return Err(self.gate.refuse(remote, refusal, claimed.as_deref())),
            Err(_) => return Err(self.gate.refuse(remote, HandshakeRefusal::TimedOut, None)),
        };
        let activity = Activity::new(announcement);
        stream.get_mut().0.open(activity.clone());
        Ok(self.gate.open(stream, permit, peer, activity, service))
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Result<(TlsStream<Gathered>, Arc<PresentedChain>, Option<Announcement>), HandshakeRefusal> {
        // Whoever says nothing takes nobody's turn, and is not expected to ask for anything.
        stream.readable().await.map_err(|_| HandshakeRefusal::Disconnected)?;
        let announcement = self.gate.observer.begun();
        let handshake = self.gate.permits.turns().take_turns(remote.ip(), self.tls.accept(Gathered::new(stream)));
        let mut stream = handshake.await?.map_err(|error| refusal(&error))?;
        if stream.get_ref().1.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
            // There it is the server who finishes (RFC 5246 §7.3), and a client that has asked before (RFC 7918) waits for that.
            stream.get_mut().0.send().await.map_err(|_| HandshakeRefusal::Disconnected)?;
        }
        let (_, connection) = stream.get_ref();
        let protocol = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let certificates = connection.peer_certificates().unwrap_or_default();
        let with_certificate = !certificates.is_empty();
        metrics::counter!(
            telemetry::HANDSHAKES,
            "protocol" => protocol,
            "resumed" => if resumed { "yes" } else { "no" },
            "certificate" => if with_certificate { "yes" } else { "no" },
        )
        .increment(1);
        let peer = Arc::new(self.lists.presented(Handshake { remote, protocol, resumed }, certificates));
        match &self.perimeter {
            // A resumed session is asked about as well: its certificate may have ended since.
            Some(perimeter) if with_certificate && !perimeter.admits(&peer).await => {
                // What rustls' callback would have put there is gone after a resumption.
                let leaf = peer.certificates().first().cloned();
                CLAIMED.with(|claimed| claimed.replace(leaf));
                Err(HandshakeRefusal::PerimeterClosed)
            }
            // Without a certificate nobody gets anything that is on record one by one.
            _ => Ok((stream, peer, announcement.filter(|_| with_certificate))),
        }
    }
}

type LimitedTls = LimitedStream<TlsStream<Gathered>>;

impl<S: Send + 'static> Accept<TcpStream, S> for TlsAcceptor {
    type Stream = LimitedTls;
    type Service = PeerService<S>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        Box::pin(self.clone().connect(stream, service))
    }
}

/// Accepts plain connections, for the operations listener: the same permits and deadlines, and nobody is known.
#[derive(Clone)]
pub struct PlainAcceptor {
    gate: Gate,
}

impl PlainAcceptor {
    /// An acceptor with permits of its own, so that strangers cannot use up the operator's.
    pub fn new(limits: &Limits) -> Self {
        let observer: Arc<dyn HandshakeObserver> = Arc::new(());
        Self { gate: Gate { limits: Arc::new(limits.clone()), permits: Permits::new(limits), observer } }
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for PlainAcceptor {
    type Stream = LimitedStream<TcpStream>;
    type Service = PeerService<S>;
    type Future = std::future::Ready<io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        std::future::ready(self.gate.enter(&stream).map(|(remote, permit)| {
            let handshake = Handshake { remote, protocol: "none", resumed: false };
            let nobody = Arc::new(PresentedChain::new(handshake, Vec::new()));
            self.gate.open(stream, permit, nobody, Activity::new(None), service)
        }))
    }
}

/// What both acceptors do before and after.
#[derive(Clone)]
struct Gate {
    limits: Arc<Limits>,
    permits: Arc<Permits>,
    observer: Arc<dyn HandshakeObserver>,
}

impl Gate {
    fn enter(&self, stream: &TcpStream) -> io::Result<(SocketAddr, Permit)> {
        let remote = stream.peer_addr()?;
        // Tokens are small: waiting to fill a segment would only delay them.
        stream.set_nodelay(true)?;
        let permit = self.permits.take(remote.ip()).map_err(|refusal| self.refuse(remote, refusal, None))?;
        Ok((remote, permit))
    }

    fn open<T, S>(
        &self,
        stream: T,
        permit: Permit,
        peer: Arc<PresentedChain>,
        activity: Arc<Activity>,
        service: S,
    ) -> (LimitedStream<T>, PeerService<S>) {
        let stream = LimitedStream::new(stream, activity.clone(), &self.limits, permit);
        (stream, PeerService { inner: service, peer, activity, most_body_bytes: self.limits.http2_body_bytes })
    }

    fn refuse(&self, remote: SocketAddr, refusal: HandshakeRefusal, claimed: Option<&[u8]>) -> io::Error {
        metrics::counter!(telemetry::HANDSHAKES_REFUSED, "reason" => refusal.reason()).increment(1);
        let handshake = RefusedHandshake { remote, refusal, claimed: claimed.map(Thumbprint::of) };
        tracing::debug!(%remote, refusal = handshake.refusal.reason(), "handshake refused");
        self.observer.refused(&handshake);
        io::Error::other(handshake.refusal)
    }
}

/// What rustls' error means for the record.
fn refusal(error: &io::Error) -> HandshakeRefusal {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return HandshakeRefusal::Disconnected;
    };
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            other.0.downcast_ref::<HandshakeRefusal>().cloned().unwrap_or(HandshakeRefusal::CertificateMalformed)
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => HandshakeRefusal::PossessionNotProven,
        // The key is of a kind the signature's scheme has no algorithm for.
        Error::InvalidCertificate(
            CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
            | CertificateError::UnsupportedSignatureAlgorithmContext { .. },
        ) => HandshakeRefusal::KeyNotAccepted,
        Error::InvalidCertificate(_) => HandshakeRefusal::CertificateMalformed,
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            // Clients older than TLS 1.2 have no such extension (RFC 5246 §7.4.1.4.1), and rustls looks for it first.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired,
        ) => HandshakeRefusal::NoSharedVersion,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => HandshakeRefusal::NoSharedParameters,
        Error::InvalidMessage(
            rustls::InvalidMessage::InvalidContentType | rustls::InvalidMessage::UnknownProtocolVersion,
        ) => HandshakeRefusal::NotTls,
        Error::AlertReceived(_) => HandshakeRefusal::AlertReceived,
        Error::FailedToGetRandomBytes | Error::FailedToGetCurrentTime | Error::General(_) => HandshakeRefusal::Failed,
        _ => HandshakeRefusal::ProtocolViolated,
    }
}

/// Puts the connection's [`PresentedChain`] into every request, and tells the stream when requests begin and end.
#[derive(Clone, Debug)]
pub struct PeerService<S> {
    inner: S,
    peer: Arc<PresentedChain>,
    activity: Arc<Activity>,
    most_body_bytes: usize,
}

impl<S, B> Service<Request<B>> for PeerService<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = PeerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let under_way = self.activity.begin();
        if request.version() == Version::HTTP_2 {
            // On HTTP/1.1 there is one body at a time.
            request.extensions_mut().insert(BodyRoom::of(self.activity.clone(), self.most_body_bytes));
        }
        request.extensions_mut().insert(self.peer.clone());
        PeerFuture { answer: self.inner.call(request), under_way }
    }
}

pin_project! {
    /// The answer to come; until it is there, the request is under way.
    #[derive(Debug)]
    pub struct PeerFuture<F> {
        #[pin]
        answer: F,
        under_way: UnderWay,
    }
}

impl<F: Future> Future for PeerFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().answer.poll(cx)
    }
}
