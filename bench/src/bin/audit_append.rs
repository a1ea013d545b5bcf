//! Measures what a record costs that is durable before its answer: records per second of many requests at once, and of one
//! alone, beside how often this disk writes through at all.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::error::Error;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use countersign::audit::{AuditLimits, AuditLog, AuditStore, RequestId, Trail};
use countersign::pki::{Handshake, PresentedChain};
use countersign::registry::client::{
    Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute, SubjectRule,
};
use countersign::registry::history::{Actor, Explanation};
use countersign::registry::participant::{Contacts, Participant, ParticipantState};
use countersign::registry::{ClientId, FoundClient, MemorySize, ParticipantId, Registry};
use countersign::store::{self, Migrate};
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{AltName, Authority, Name, Template};
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use countersign_resource_server::token::jws::SigningAlgorithm;
use rustls_pki_types::CertificateDer;

type Failure = Box<dyn Error + Send + Sync>;

/// The log alone: no TLS, no signatures. Everything is written to a new store.
#[derive(Parser)]
struct Arguments {
    /// A directory for the SQLite file, on the disk that is meant.
    #[arg(long, default_value = ".")]
    directory: PathBuf,
    /// A PostgreSQL database instead, empty: postgres://…
    #[arg(long)]
    postgres: Option<String>,
    /// Requests at once.
    #[arg(long, default_value_t = 64)]
    writers: usize,
    /// How long each measurement lasts, in seconds.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Measurements; the median is reported.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let directory = tempfile::tempdir_in(&arguments.directory)?;
    let url = match &arguments.postgres {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", directory.path().join("bench.db").display()),
    };
    let store = store::open(&url, Migrate::Apply).await?;
    let registry = Registry::new(Arc::new(store.clone()), MemorySize::default(), "bench").await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let client = client(&registry, clock.now()).await?;
    let writing = Arc::new(store.clone());
    let log = AuditLog::open(writing, registry, "bench", Arc::clone(&clock), AuditLimits::default()).await?;
    let log = Arc::new(log);
    let length = Duration::from_secs(arguments.seconds);
    let (mut many, mut alone, mut syncs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        // In one round, because the machine is shared.
        syncs.push(sync_rate(directory.path(), length / 2)?);
        alone.push(rate(&log, &clock, &client, 1, length / 2).await);
        many.push(rate(&log, &clock, &client, arguments.writers, length).await);
        syncs.push(sync_rate(directory.path(), length / 2)?);
    }
    log.close().await;
    let newest = store.recent(1).await?;
    let bytes = newest.first().map_or(0, |entry| entry.body.len());
    let many = median_of(many);
    println!(
        "records of {bytes} octets; 4 KiB written through to {}: {:.0}/s",
        directory.path().display(),
        median(syncs)
    );
    println!(
        "{} requests at once: {:.0} records/s, {:.1} us of CPU each",
        arguments.writers, many.rate, many.cpu_micros
    );
    let alone = median_of(alone);
    println!("one alone: {:.0} records/s, {:.2} ms each", alone.rate, 1_000.0 / alone.rate);
    store.close().await;
    Ok(())
}

struct Measured {
    rate: f64,
    cpu_micros: f64,
}

/// Records per second of so many requests at once, each waiting for its own before the next.
async fn rate(
    log: &Arc<AuditLog>,
    clock: &Arc<dyn Clock>,
    client: &Found,
    writers: usize,
    length: Duration,
) -> Measured {
    let begun = Instant::now();
    let cpu = cpu_seconds();
    let writers: Vec<_> = (0..writers)
        .map(|_| {
            let (log, clock, client) = (Arc::clone(log), Arc::clone(clock), client.clone());
            tokio::spawn(async move {
                let mut written = 0_u64;
                while begun.elapsed() < length {
                    let mut trail = Trail::begin(&client.peer, RequestId::random(clock.now()), clock.now());
                    trail.authenticated(&client.found);
                    written += u64::from(log.record_check(trail, None, ()).await.into_answer().is_ok());
                }
                written
            })
        })
        .collect();
    let mut written = 0;
    for writer in writers {
        written += writer.await.unwrap_or_default();
    }
    let cpu_micros = (cpu_seconds() - cpu) * 1e6 / written.max(1) as f64;
    Measured { rate: written as f64 / begun.elapsed().as_secs_f64(), cpu_micros }
}

/// How often 4 KiB reach the disk, one after the other, appended to one file that has its size already.
fn sync_rate(directory: &Path, length: Duration) -> Result<f64, Failure> {
    let mut file = std::fs::File::create(directory.join("syncs"))?;
    let page = [0x5A; 4_096];
    for _ in 0..1_024 {
        file.write_all(&page)?;
    }
    file.sync_all()?;
    let begun = Instant::now();
    let mut written = 0_u64;
    while begun.elapsed() < length {
        if written.is_multiple_of(1_024) {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&page)?;
        file.sync_data()?;
        written += 1;
    }
    Ok(written as f64 / begun.elapsed().as_secs_f64())
}

/// A client that has proved itself, with a certificate as partners have them.
#[derive(Clone)]
struct Found {
    found: FoundClient,
    peer: Arc<PresentedChain>,
}

async fn client(registry: &Registry, now: UnixTime) -> Result<Found, Failure> {
    let actor = Actor::Operator { system_user: "bench".to_owned(), stated_name: None };
    let explanation = Explanation { actor, at: now, why: None };
    let (participant_id, id) = (ParticipantId::parse("bench-partner")?, ClientId::parse("bench-partner-payments")?);
    let participant = Participant {
        id: participant_id.clone(),
        legal_name: "Bench Partner AG".to_owned(),
        registration_number: None,
        country: None,
        roles: vec!["supplier".to_owned()],
        contacts: Contacts::default(),
        state: ParticipantState::Active,
    };
    registry.add_participant(participant, explanation.clone()).await?;
    let name = "payments.bench-partner.example";
    let subject = SubjectRule {
        attribute: SubjectAttribute::TlsClientAuthSanDns,
        value: name.to_owned(),
        canonical: name.to_owned(),
    };
    let client = Client {
        id: id.clone(),
        participant_id,
        environment: Environment::Production,
        contact: None,
        authentication: ClientAuthentication::TlsClientAuth { subject },
        access_token_signing_alg: SigningAlgorithm::ES256,
        access_token_lifetime_seconds: None,
        enrolment: Enrolment::OnFirstUse,
        renewal_overlap_seconds: None,
        requests_per_second: None,
        software_id: None,
        state: ClientState::Active,
    };
    registry.add_client(client, Vec::new(), explanation).await?;
    let found = registry.client(&id).await.map_err(|refusal| refusal.reason())?;
    let issuing = Authority::root("Bench Partner Root CA", now.as_seconds()).intermediate("Bench Partner Issuing CA 3");
    let subject = Name::of(&[("C", "DE"), ("O", "Bench Partner AG"), ("OU", "Payments"), ("CN", name)]);
    let template = Template::client(subject, now.as_seconds()).with_alt_names([AltName::Dns(name.to_owned())]);
    let credential = issuing.issue(&template, KeyKind::P256);
    let handshake = Handshake { remote: "192.0.2.17:49152".parse()?, protocol: "TLSv1.3", resumed: false };
    let chain = credential.chain.into_iter().map(CertificateDer::from).collect();
    Ok(Found { found, peer: Arc::new(PresentedChain::new(handshake, chain)) })
}

/// Of all threads of this process.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn median_of(mut measured: Vec<Measured>) -> Measured {
    measured.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let middle = measured.len() / 2;
    measured.into_iter().nth(middle).unwrap_or(Measured { rate: 0.0, cpu_micros: 0.0 })
}
