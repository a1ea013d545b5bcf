//! Measures what verifying the audit log costs: records per second from the store, and from an export.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use clap::Parser;
use countersign::audit::checkpoint::{CHECKPOINT_TYPE, CheckpointStore, StoredCheckpoint};
use countersign::audit::export;
use countersign::audit::verify::{self, AuditReading};
use countersign::audit::{AuditStore, Batch, Entry};
use countersign::store::{Migrate, Store, open};
use countersign_conformance::forge::{Members, Token};
use countersign_conformance::{JwsAlgorithm, Key, KeyKind};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::KeySet;
use tikv_jemallocator::Jemalloc;

/// As in the server's own program.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

type Failure = Box<dyn Error + Send + Sync>;

/// When everything happens.
const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

/// Fills a log where it is empty, and verifies it.
#[derive(Parser)]
struct Arguments {
    /// `sqlite:PATH` or `postgres://…`: a database of its own.
    store: String,
    /// How many records.
    #[arg(long, default_value_t = 1_000_000)]
    records: usize,
    /// In how many chains.
    #[arg(long, default_value_t = 2)]
    chains: usize,
    /// The octets of each body.
    #[arg(long, default_value_t = 1_000)]
    bytes: usize,
    /// How often it is verified.
    #[arg(long, default_value_t = 3)]
    times: u32,
    /// Write it to this file, too, and verify that.
    #[arg(long)]
    export: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let store = open(&arguments.store, Migrate::Apply).await?;
    let key = Key::generate(KeyKind::P256);
    fill(&store, &arguments, &key).await?;
    let source: Arc<dyn AuditReading> = Arc::new(store.clone());
    let mut jwk = key.jwk();
    jwk["kid"] = "bench".into();
    let keys = KeySet::parse(format!(r#"{{"keys":[{jwk}]}}"#).as_bytes())?.into();
    for _ in 0..arguments.times {
        let begun = Instant::now();
        let report = verify::verify(&source, &keys, &[], &Arc::new(AtomicU64::new(0))).await?;
        let took = begun.elapsed();
        let findings = report.findings.iter().map(|finding| finding.kind.as_str()).collect::<Vec<_>>();
        println!(
            "store: {} records in {took:.2?}: {} a second; findings {findings:?}",
            report.records,
            rate(report.records, took)
        );
    }
    if let Some(file) = arguments.export {
        let begun = Instant::now();
        let selected = export::select(&source, NOW, &keys).await?;
        let exported = export::write(&source, &selected, &file, &Arc::new(AtomicU64::new(0))).await?;
        let took = begun.elapsed();
        let megabytes = std::fs::metadata(&file)?.len() / 1_000_000;
        println!(
            "export: {} records in {took:.2?}: {} a second, {megabytes} MB",
            exported.records,
            rate(exported.records, took)
        );
        for _ in 0..arguments.times {
            let begun = Instant::now();
            let read = export::read(&file, &keys, &[], &Arc::new(AtomicU64::new(0)))?;
            let took = begun.elapsed();
            let records = read.report.records;
            println!(
                "file: {records} records in {took:.2?}: {} a second; {} findings",
                rate(records, took),
                read.report.findings.len()
            );
        }
    }
    store.close().await;
    Ok(())
}

fn rate(records: u64, took: Duration) -> u64 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    records.saturating_mul(1_000_000) / micros
}

async fn fill(store: &Store, arguments: &Arguments, key: &Key) -> Result<(), Failure> {
    let (_, heads) = store.heads().await?;
    if heads.is_empty() {
        let each = arguments.records / arguments.chains.max(1);
        for chain in 0..arguments.chains {
            let mut lease = store.lease(&format!("node-{chain}"), NOW, NOW.after(Duration::from_secs(86_400))).await?;
            let mut left = each;
            while left > 0 {
                let entries: Vec<Entry> =
                    (0..left.min(512)).map(|index| entry(left - index, arguments.bytes)).collect();
                left -= entries.len();
                let batch = Batch { lease, entries, given_back: Vec::new(), history: None };
                lease.head = store.append(Arc::new(batch)).await?.head;
            }
        }
    }
    let (log, heads) = store.heads().await?;
    let chains: Vec<String> = heads
        .iter()
        .map(|head| {
            let (chain, sequence) = (head.chain(), head.position.sequence());
            format!(r#"{{"chain":{chain},"sequence":{sequence},"hash":"{}"}}"#, head.hash)
        })
        .collect();
    let token = Token {
        header: Members::new().with("typ", CHECKPOINT_TYPE).with("alg", "ES256").with("kid", "bench"),
        claims: Members::new()
            .with("iss", "https://as.example")
            .with("log", log.to_string())
            .with("number", 1)
            .with("at", NOW.as_millis())
            .with_raw("chains", &format!("[{}]", chains.join(","))),
        algorithm: JwsAlgorithm::Es256,
        key,
    };
    // The key is a new one each time.
    AuditReading::forget_statements(store, 2).await?;
    store.put_checkpoint(&StoredCheckpoint { number: 1, at: NOW, statement: token.compact() }).await?;
    Ok(())
}

/// As long as a decision's record, and as little like the one before it.
fn entry(number: usize, bytes: usize) -> Entry {
    let mixed = u128::try_from(number).unwrap_or(0).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let mut body = format!(
        r#"{{"kind":"decision","at":{},"node":"node-1","request_id":"{mixed:032x}","filler":""#,
        NOW.as_millis()
    );
    while body.len() + 2 < bytes {
        body.push_str(if body.len() % 3 == 0 { "certificate " } else { "participant " });
    }
    body.push_str("\"}");
    Entry::new(NOW, body)
}
