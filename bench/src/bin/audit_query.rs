//! Measures the index of the audit log: what it costs to keep up with, and how fast records are found through it.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]
#![expect(clippy::disallowed_methods, reason = "a benchmark reads clocks")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use countersign::audit::index::{Advanced, AuditIndex, Named, TermKind};
use countersign::audit::query::{Filter, search};
use countersign::audit::{AuditStore, Batch, Entry};
use countersign::store::{self, Migrate, Store};
use countersign_resource_server::time::UnixTime;
use rustix::time::{ClockId, clock_gettime};

type Failure = Box<dyn Error + Send + Sync>;

/// When the last record is decided.
const END: i64 = 1_800_000_000_000;

/// One record every so many milliseconds: a hundred thousand an hour.
const STEP: i64 = 36;

/// Clients, each with one certificate.
const CLIENTS: i64 = 2_000;

#[derive(Parser)]
struct Arguments {
    /// `sqlite:PATH` or `postgres://…`
    store: String,
    /// How many records there are.
    #[arg(long, global = true, default_value_t = 10_000_000)]
    records: i64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write records.
    Fill {
        /// Without what the certificates say, where the disk is small.
        #[arg(long)]
        short: bool,
    },
    /// Bring the index up to them.
    Index,
    /// Ask what operators ask.
    Ask {
        /// How often each.
        #[arg(long, default_value_t = 10)]
        times: u32,
    },
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let store = store::open(&arguments.store, Migrate::Apply).await?;
    match arguments.command {
        Command::Fill { short } => fill(&store, arguments.records, short).await?,
        Command::Index => index(&store).await?,
        Command::Ask { times } => ask(&store, arguments.records, times).await?,
    }
    store.close().await;
    Ok(())
}

/// Octets that look random, the same for the same number.
fn mixed(number: i64) -> [u8; 16] {
    let number = u128::try_from(number).unwrap_or(0) + 1;
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).rotate_left(61).to_be_bytes()
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// As base64url writes 256 bits.
fn thumbprint(client: i64) -> String {
    let letters = [mixed(client * 7), mixed(client * 7 + 1), mixed(client * 7 + 2)].concat();
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let letter = |octet: &u8| char::from(alphabet.get(usize::from(octet & 63)).copied().unwrap_or(b'A'));
    letters.iter().take(43).map(letter).collect()
}

/// One client in twenty requests is the busy one.
fn client_of(number: i64) -> i64 {
    if number % 20 == 0 { 0 } else { i64::from(u16::from_be_bytes([mixed(number)[3], mixed(number)[4]])) % CLIENTS }
}

fn jti(number: i64, at: i64) -> String {
    format!("{at:012x}{}", &hexadecimal(&mixed(number * 3))[..16])
}

fn body(number: i64, at: i64, short: bool) -> String {
    let client = client_of(number);
    let (request, thumbprint, jti) = (hexadecimal(&mixed(number)), thumbprint(client), jti(number, at));
    let outcome = if number % 10 == 3 {
        let reason =
            ["client_suspended", "scope_not_registered", "peer_expired"][usize::try_from(number / 10 % 3).unwrap_or(0)];
        format!(r#""outcome":"refused","stage":"admission","reason":"{reason}""#)
    } else {
        let exp = at / 1_000 + 300;
        format!(
            r#""outcome":"issued","token":{{"jti":"{jti}","aud":"https://accounts.example/api/v1","scope":"accounts:read payments:write","exp":{exp},"kid":"Wm3sC6bkQ4vqNDbLrB5dVbG9Q9d5K3m4eKqg0tX7w1s"}}"#
        )
    };
    let certificate = format!(
        r#","certificate":{{"subject":"CN=client-{client}.participant.example,O=Participant Ltd,C=DE","issuer":"CN=Issuing CA 3,O=Example Trust,C=DE","subject_alt_names":["DNS:client-{client}.participant.example"],"serial":"{}","key_hash":"{thumbprint}","not_before":1790000000000,"not_after":1830000000000}}"#,
        &request[..32],
    );
    let certificate = if short { "" } else { &certificate };
    format!(
        r#"{{"kind":"decision","at":{at},"node":"node-1","request_id":"{at:012x}{}","peer":{{"remote":"192.0.2.17:43210","protocol":"TLSv1.3","resumed":true,"thumbprint":"{thumbprint}"{certificate}}},"asked":{{"grant_type":"client_credentials","client_id":"client-{client}","with_assertion":false,"scope":"accounts:read payments:write","resource":["https://accounts.example/api/v1"]}},"authenticated":true,"client_id":"client-{client}","participant_id":"participant-{}","environment":"production","authentication":"tls_client_auth","anchor":"example-trust-ca-3","registry_version":4711,{outcome}}}"#,
        &request[..20],
        client % 200,
    )
}

async fn fill(store: &Store, records: i64, short: bool) -> Result<(), Failure> {
    const BATCH: i64 = 4_096;
    let (begun, day) = (Instant::now(), Duration::from_secs(86_400));
    let now = UnixTime::from_millis(END);
    let mut leases = [store.lease("one", now, now.after(day)).await?, store.lease("two", now, now.after(day)).await?];
    let mut octets = 0;
    for (round, first) in (0..records).step_by(4_096).enumerate() {
        let entry = |number| {
            let at = END - (records - number) * STEP;
            Entry::new(UnixTime::from_millis(at), body(number, at, short))
        };
        let entries: Vec<Entry> = (first..records.min(first + BATCH)).map(entry).collect();
        octets += entries.iter().map(|entry| entry.body.len()).sum::<usize>();
        let lease = &mut leases[round % 2];
        let batch = Batch { lease: *lease, entries, given_back: Vec::new(), history: None };
        lease.head = store.append(Arc::new(batch)).await?.head;
    }
    println!("{records} records, {octets} octets of bodies, in {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

async fn index(store: &Store) -> Result<(), Failure> {
    let (begun, busy) = (Instant::now(), cpu());
    let mut records = 0;
    loop {
        match store.advance(16_384).await? {
            Advanced::By(0) => break,
            Advanced::By(some) => records += some,
            Advanced::Busy | Advanced::Emptied => {}
        }
    }
    let count = u32::try_from(records).unwrap_or(u32::MAX).max(1);
    println!(
        "{records} records in {:.1} s: {:?} of processor time and {:?} each",
        begun.elapsed().as_secs_f64(),
        (cpu() - busy) / count,
        begun.elapsed() / count
    );
    let sample = body(1, END, false);
    let (begun, mut named) = (Instant::now(), 0);
    for _ in 0..100_000 {
        named += Named::of(std::hint::black_box(&sample)).rows(UnixTime::from_millis(END)).count();
    }
    println!(
        "of that to read one body of {} octets, for {} rows: {:?}",
        sample.len(),
        named / 100_000,
        begun.elapsed() / 100_000
    );
    Ok(())
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

async fn ask(store: &Store, records: i64, times: u32) -> Result<(), Failure> {
    let hour = UnixTime::from_millis(END - 3_600_000);
    let last = |filter: Filter| Filter { since: hour, ..filter };
    let both = |one: (TermKind, &str), other: (TermKind, &str)| Filter {
        names: vec![(one.0, one.1.to_owned()), (other.0, other.1.to_owned())],
        ..Filter::default()
    };
    let (one, busy) = (thumbprint(1_234), thumbprint(0));
    // One that was issued, somewhat before the end.
    let number = records - records / 10 + 1;
    let token = jti(number, END - (records - number) * STEP);
    let questions = [
        ("one certificate's last hour", last(Filter::naming(TermKind::Thumbprint, &one)), 1_000),
        ("the busy certificate's last hour", last(Filter::naming(TermKind::Thumbprint, &busy)), 1_000),
        ("one certificate, its first thousand", Filter::naming(TermKind::Thumbprint, &one), 1_000),
        ("a token", Filter::naming(TermKind::Jti, &token), 1_000),
        ("the last hour", last(Filter::default()), 1_000),
        ("the last hour's refusals", last(Filter::naming(TermKind::Outcome, "refused")), 1_000),
        (
            "one client's for one reason",
            both((TermKind::Client, "client-1234"), (TermKind::Reason, "peer_expired")),
            1_000,
        ),
        (
            "the busy client's for one reason",
            both((TermKind::Client, "client-0"), (TermKind::Reason, "peer_expired")),
            1_000,
        ),
        ("a client that is not there", Filter::naming(TermKind::Client, "nobody"), 1_000),
    ];
    for (name, filter, limit) in questions {
        let mut taken = Vec::new();
        let mut found = 0;
        for _ in 0..times {
            let begun = Instant::now();
            found = search(store, &filter, limit).await?.entries.len();
            taken.push(begun.elapsed());
        }
        let first = taken.first().copied().unwrap_or_default();
        taken.sort_unstable();
        let median = taken.get(taken.len() / 2).copied().unwrap_or_default();
        println!("{name}: {found} records, {first:.1?} first, {median:.1?} median");
    }
    Ok(())
}
