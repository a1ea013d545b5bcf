//! What the cryptography alone costs on this machine in this minute.
//!
//! Takes nothing but the server's own TLS settings, gives the CPU time of one ES256 signature and of the server's side of one
//! mutual handshake, full and resumed: by the same library, in memory, counted on this thread alone, so that whoever else
//! uses the machine takes little away from it.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use countersign::config::TlsFiles;
use countersign::tls::{self, ClientCertificates, ServerCertificate};
use countersign_resource_server::time::{Clock, SystemClock};
use rustls::client::Resumption;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, version};
use rustls_pki_types::ServerName;

use crate::Failure;
use crate::machine::thread_time;
use crate::population::Population;

/// Handshakes that are carried through side by side, so that the clock is read seldom.
const BATCH: u32 = 50;

/// What one of each costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// An ES256 signature of something as long as a token.
    pub(crate) signature: Duration,
    /// The server's side of a full handshake, with a path from the client's certificate to its root.
    pub(crate) full: Duration,
    /// The same without that path: what the server's own settings leave to the handshake.
    pub(crate) possession: Duration,
    /// The server's side of a resumed one.
    pub(crate) resumed: Duration,
}

impl Floor {
    /// The middle between what was before a measurement and what was after it.
    pub(crate) fn between(before: Self, after: Self) -> Self {
        let middle = |one: Duration, other: Duration| (one + other) / 2;
        Self {
            signature: middle(before.signature, after.signature),
            full: middle(before.full, after.full),
            possession: middle(before.possession, after.possession),
            resumed: middle(before.resumed, after.resumed),
        }
    }
}

/// What is measured again and again.
pub(crate) struct Floors {
    signer: EcdsaKeyPair,
    with_path: Arc<ServerConfig>,
    possession: Arc<ServerConfig>,
    /// Without tickets.
    strangers: Vec<Arc<ClientConfig>>,
    /// Each with room for its own.
    returning: Vec<Arc<ClientConfig>>,
    length: Duration,
}

impl Floors {
    /// Ready to measure, each part for so long. The handshakes are between the population's server and its clients.
    pub(crate) fn new(population: &Population, length: Duration) -> Result<Self, Failure> {
        let possession = settings(population)?;
        let with_path = with_path(&possession, population.client_roots()?)?;
        let callers = |resumption: fn() -> Resumption| {
            let caller = |client: u32| Ok(Arc::new(population.caller(client, resumption())?));
            (0..BATCH).map(|at| caller(at % population.size())).collect::<Result<Vec<_>, Failure>>()
        };
        Ok(Self {
            signer: new_signer()?,
            with_path,
            possession,
            strangers: callers(Resumption::disabled)?,
            returning: callers(|| Resumption::in_memory_sessions(8))?,
            length,
        })
    }

    /// What one of each costs now.
    pub(crate) fn measure(&self) -> Result<Floor, Failure> {
        // Each has a ticket afterwards, and a new one after every handshake.
        shake_hands(&self.returning, &self.with_path, None)?;
        Ok(Floor {
            signature: signature(&self.signer, self.length)?,
            full: self.handshake(&self.strangers, &self.with_path, HandshakeKind::Full)?,
            possession: self.handshake(&self.strangers, &self.possession, HandshakeKind::Full)?,
            resumed: self.handshake(&self.returning, &self.with_path, HandshakeKind::Resumed)?,
        })
    }

    fn handshake(
        &self,
        clients: &[Arc<ClientConfig>],
        server: &Arc<ServerConfig>,
        kind: HandshakeKind,
    ) -> Result<Duration, Failure> {
        let (mut used, mut count) = (Duration::ZERO, 0);
        while used < self.length {
            used += shake_hands(clients, server, Some(kind))?;
            count += BATCH;
        }
        Ok(used / count)
    }
}

/// The server's own settings.
fn settings(population: &Population) -> Result<Arc<ServerConfig>, Failure> {
    let files = TlsFiles { certificate: population.server_certificate(), key: population.server_key() };
    let certificate = ServerCertificate::load(files, vec!["localhost".to_owned()], SystemClock::new().now())?;
    Ok(tls::server_config(certificate, ClientCertificates::Asked)?)
}

/// The same, but with a verifier that lets nobody in whose certificate does not lead to the population's authority.
pub(crate) fn settings_with_path(population: &Population) -> Result<Arc<ServerConfig>, Failure> {
    with_path(&settings(population)?, population.client_roots()?)
}

fn with_path(settings: &Arc<ServerConfig>, roots: RootCertStore) -> Result<Arc<ServerConfig>, Failure> {
    let provider = Arc::clone(settings.crypto_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&settings.cert_resolver));
    config.alpn_protocols.clone_from(&settings.alpn_protocols);
    config.ticketer = Arc::clone(&settings.ticketer);
    config.session_storage = Arc::clone(&settings.session_storage);
    config.send_tls13_tickets = settings.send_tls13_tickets;
    config.ignore_client_order = settings.ignore_client_order;
    Ok(Arc::new(config))
}

/// One handshake of each client, side by side: the CPU time of the server's part of all of them.
fn shake_hands(
    clients: &[Arc<ClientConfig>],
    server: &Arc<ServerConfig>,
    wanted: Option<HandshakeKind>,
) -> Result<Duration, Failure> {
    let name = ServerName::try_from("localhost")?;
    let mut callers = Vec::new();
    for client in clients {
        let mut caller = ClientConnection::new(Arc::clone(client), name.clone())?;
        let mut hello = Vec::new();
        caller.write_tls(&mut hello)?;
        callers.push((caller, hello));
    }

    let begun = thread_time();
    let mut answering = Vec::with_capacity(callers.len());
    for (_, hello) in &callers {
        let mut connection = ServerConnection::new(Arc::clone(server))?;
        let answer = hear(&mut connection, hello)?;
        answering.push((connection, answer));
    }
    let mut used = thread_time() - begun;

    let mut finishing = Vec::new();
    for ((caller, _), (_, answer)) in callers.iter_mut().zip(&answering) {
        caller.read_tls(&mut Cursor::new(answer))?;
        caller.process_new_packets()?;
        let mut rest = Vec::new();
        caller.write_tls(&mut rest)?;
        finishing.push(rest);
    }

    let begun = thread_time();
    let mut tickets = Vec::with_capacity(answering.len());
    for ((connection, _), rest) in answering.iter_mut().zip(&finishing) {
        tickets.push(hear(connection, rest)?);
    }
    used += thread_time() - begun;

    for (((mut caller, _), (connection, _)), ticket) in callers.into_iter().zip(&answering).zip(&tickets) {
        caller.read_tls(&mut Cursor::new(ticket))?;
        caller.process_new_packets()?;
        let kind = connection.handshake_kind();
        if connection.is_handshaking() || connection.peer_certificates().is_none() {
            return Err("a handshake in memory did not come to its end".into());
        }
        if wanted.is_some() && kind != wanted {
            return Err(format!("a handshake in memory was {kind:?}, {wanted:?} was wanted").into());
        }
    }
    Ok(used)
}

/// What the server answers.
fn hear(server: &mut ServerConnection, octets: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut cursor = Cursor::new(octets);
    while cursor.position() < octets.len() as u64 {
        server.read_tls(&mut cursor)?;
        server.process_new_packets()?;
    }
    let mut answer = Vec::with_capacity(4_096);
    while server.wants_write() {
        server.write_tls(&mut answer)?;
    }
    Ok(answer)
}

/// How many ES256 signatures one core makes in a second when it does nothing else.
pub(crate) fn signatures_per_second() -> Result<f64, Failure> {
    Ok(1.0 / signature(&new_signer()?, Duration::from_secs(1))?.as_secs_f64())
}

/// A key to sign with.
pub(crate) fn new_signer() -> Result<EcdsaKeyPair, Failure> {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?;
    Ok(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref())?)
}

/// What one signature of something as long as a token costs.
fn signature(key: &EcdsaKeyPair, length: Duration) -> Result<Duration, Failure> {
    let random = SystemRandom::new();
    let message = [0x5A_u8; 700];
    let (begun, mut count) = (thread_time(), 0);
    loop {
        for _ in 0..100 {
            key.sign(&random, &message)?;
        }
        count += 100;
        let used = thread_time() - begun;
        if used >= length {
            return Ok(used / count);
        }
    }
}
