//! The log with a store that does as it is told: slow, full, gone, in doubt.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use countersign_resource_server::time::{ManualClock, UnixTime};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::Semaphore;

use super::chain::{ChainId, Head, LogId};
use super::*;
use crate::mint::fixture::{self, NOW};
use crate::mint::{Mint, MintRefusal};
use crate::pki::{Handshake, PresentedChain};
use crate::policy::PolicyRefusal;
use crate::registry::history::{Change, Touched};
use crate::registry::{ClientId, FoundClient, LookupRefusal, ParticipantId, RegistryVersion};

/// How the store answers the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// As it should.
    Right,
    /// It fails, and has written nothing.
    Fails,
    /// It fails, and has written all of it.
    FailsAfterCommit,
}

#[derive(Debug)]
struct FakeStore {
    answer: Mutex<Answer>,
    /// A batch needs a permit.
    gate: Semaphore,
    batches: AtomicUsize,
    /// What batches wait for the gate.
    arrived: Semaphore,
    version: AtomicI64,
    written: Mutex<Vec<AuditEntry>>,
    used: Mutex<HashSet<AssertionUse>>,
    /// The latest lease of each chain.
    leases: Mutex<HashMap<i64, i64>>,
    /// After the record that opened the chain.
    opened: Mutex<Option<Head>>,
    /// The registry's history, and how far it is in a chain.
    history: Mutex<HistoryLeft>,
    /// How far it was noted that tokens are issued.
    noted: Mutex<Option<UnixTime>>,
}

const OPENED: &str = r#"{"kind":"opened""#;

impl FakeStore {
    fn open() -> Arc<Self> {
        Self::with_permits(Semaphore::MAX_PERMITS)
    }

    fn closed() -> Arc<Self> {
        Self::with_permits(0)
    }

    fn with_permits(permits: usize) -> Arc<Self> {
        Arc::new(Self {
            answer: Mutex::new(Answer::Right),
            gate: Semaphore::new(permits),
            batches: AtomicUsize::new(0),
            arrived: Semaphore::new(0),
            version: AtomicI64::new(7),
            written: Mutex::default(),
            used: Mutex::default(),
            leases: Mutex::default(),
            opened: Mutex::default(),
            history: Mutex::default(),
            noted: Mutex::default(),
        })
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    fn let_pass(&self, batches: usize) {
        self.gate.add_permits(batches);
    }

    /// Waits until the store has been asked to write one batch more.
    async fn asked(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    fn bodies(&self) -> Vec<Value> {
        self.written.lock().unwrap().iter().map(|entry| serde_json::from_str(&entry.body).unwrap()).collect()
    }

    fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.bodies().into_iter().filter(|body| body["kind"] == kind).collect()
    }

    fn write(&self, batch: &Batch) -> Appended {
        let mut used = self.used.lock().unwrap();
        for given_back in &batch.given_back {
            used.remove(given_back);
        }
        let mut replayed = Vec::new();
        for (index, entry) in batch.entries.iter().enumerate() {
            if let Some((assertion, _)) = &entry.assertion
                && !used.insert(assertion.clone())
            {
                replayed.push(index);
            }
        }
        let sealed = batch.sealed(&replayed).unwrap();
        let head = sealed.last().map_or(batch.lease.head, |last| last.head);
        self.written.lock().unwrap().extend(sealed.iter().map(|record| AuditEntry {
            position: record.head.position,
            at: record.at,
            hash: record.head.hash,
            body: record.body.to_owned(),
        }));
        Appended { replayed, version: RegistryVersion(self.version.load(Ordering::SeqCst)), head }
    }
}

/// The trait is for `Arc<FakeStore>` so that a batch can outlive its caller.
#[derive(Clone, Debug)]
struct Shared(Arc<FakeStore>);

impl AuditStore for Shared {
    fn lease<'a>(
        &'a self,
        _holder: &'a str,
        _now: UnixTime,
        _until: UnixTime,
    ) -> BoxFuture<'a, Result<Lease, StoreUnavailable>> {
        Box::pin(async move {
            if *self.0.answer.lock().unwrap() == Answer::Fails {
                return Err(StoreUnavailable::because("told to"));
            }
            let log = LogId::parse(&"0".repeat(32)).unwrap();
            let mut leases = self.0.leases.lock().unwrap();
            let chain = leases.keys().max().map_or(1, |last: &i64| last + 1);
            leases.insert(chain, 1);
            Ok(Lease { number: 1, head: Head::before_first(log, ChainId::new(chain).unwrap()) })
        })
    }

    fn may_serve(&self, _known: RegistryVersion) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn serves_until(&self, _now: UnixTime, until: UnixTime) -> BoxFuture<'_, Result<UnixTime, StoreUnavailable>> {
        Box::pin(async move {
            if *self.0.answer.lock().unwrap() == Answer::Fails {
                return Err(StoreUnavailable::because("told to"));
            }
            let mut noted = self.0.noted.lock().unwrap();
            *noted = (*noted).max(Some(until));
            Ok(noted.unwrap_or(until))
        })
    }

    fn renew(&self, chain: ChainId, lease: i64, _until: UnixTime) -> BoxFuture<'_, Result<bool, StoreUnavailable>> {
        Box::pin(async move { Ok(self.0.leases.lock().unwrap().get(&chain.number()) == Some(&lease)) })
    }

    fn recover(&self, doubt: Arc<Batch>) -> BoxFuture<'_, Result<Recovered, StoreUnavailable>> {
        Box::pin(async move {
            let chain = doubt.lease.head.chain();
            let mut leases = self.0.leases.lock().unwrap();
            let latest = leases.get_mut(&chain.number()).unwrap();
            let is_own = *latest == doubt.lease.number;
            *latest += i64::from(is_own);
            let written = self.0.written.lock().unwrap();
            let own = || written.iter().filter(|entry| entry.position.chain() == chain);
            let is_first = |entry: &AuditEntry| entry.position.number() == doubt.lease.head.position.number() + 1;
            let is_written = own().any(|entry| is_first(entry) && doubt.may_begin_with(&entry.body));
            let last = own().next_back().map(|entry| Head { position: entry.position, hash: entry.hash });
            let head = last.or(*self.0.opened.lock().unwrap()).unwrap_or(doubt.lease.head);
            Ok(Recovered { lease: is_own.then_some(Lease { number: *latest, head }), is_written })
        })
    }

    fn append(&self, batch: Arc<Batch>) -> BoxFuture<'static, Result<Appended, AppendRefusal>> {
        let store = Arc::clone(&self.0);
        Box::pin(async move {
            let lease = &batch.lease;
            if store.leases.lock().unwrap().get(&lease.head.chain().number()) != Some(&lease.number) {
                return Err(AppendRefusal::LeaseLost);
            }
            if batch.entries.first().is_some_and(|entry| entry.body.starts_with(OPENED)) {
                // Always goes through, and stays out of the way of what a test counts.
                let head = batch.sealed(&[]).unwrap()[0].head;
                *store.opened.lock().unwrap() = Some(head);
                return Ok(Appended { replayed: Vec::new(), version: RegistryVersion(0), head });
            }
            if let Some((after, to)) = batch.history {
                let mut left = store.history.lock().unwrap();
                if left.after != after {
                    return Err(AppendRefusal::HistoryTaken);
                }
                left.after = to;
                left.rows.retain(|row| row.place > to);
            }
            store.arrived.add_permits(1);
            store.gate.acquire().await.unwrap().forget();
            store.batches.fetch_add(1, Ordering::SeqCst);
            let answer = *store.answer.lock().unwrap();
            match answer {
                Answer::Right => Ok(store.write(&batch)),
                Answer::Fails => Err(StoreUnavailable::because("told to").into()),
                Answer::FailsAfterCommit => {
                    store.write(&batch);
                    Err(StoreUnavailable::because("told to").into())
                }
            }
        })
    }

    fn history_left(&self, limit: u32) -> BoxFuture<'_, Result<HistoryLeft, StoreUnavailable>> {
        Box::pin(async move {
            let mut left = self.0.history.lock().unwrap().clone();
            left.rows.truncate(limit as usize);
            Ok(left)
        })
    }

    fn forget_assertions(&self, _before: UnixTime) -> BoxFuture<'_, Result<(), StoreUnavailable>> {
        Box::pin(async { Ok(()) })
    }

    fn recent(&self, limit: u32) -> BoxFuture<'_, Result<Vec<AuditEntry>, StoreUnavailable>> {
        Box::pin(async move { Ok(self.0.written.lock().unwrap().iter().rev().take(limit as usize).cloned().collect()) })
    }

    fn of_request<'a>(&'a self, request: &'a RequestId) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>> {
        Box::pin(async move {
            let written = self.0.written.lock().unwrap();
            Ok(written.iter().filter(|entry| entry.body.contains(request.as_str())).cloned().collect())
        })
    }
}

#[derive(Debug, Default)]
struct FakeChanges(Mutex<Option<Vec<Change>>>);

impl FakeChanges {
    fn none() -> Arc<Self> {
        Self::of(Vec::new())
    }

    fn of(changes: Vec<Change>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(changes))))
    }

    fn unread() -> Arc<Self> {
        Arc::new(Self(Mutex::new(None)))
    }
}

impl ChangeFeed for FakeChanges {
    fn changes_since(&self, version: RegistryVersion) -> BoxFuture<'_, Result<Vec<Change>, StoreUnavailable>> {
        let changes = self.0.lock().unwrap().clone();
        Box::pin(async move {
            let changes = changes.ok_or_else(|| StoreUnavailable::because("told to"))?;
            Ok(changes.into_iter().filter(|change| change.version > version).collect())
        })
    }
}

async fn log_with(store: &Arc<FakeStore>, changes: Arc<FakeChanges>, limits: AuditLimits) -> Arc<AuditLog> {
    let clock = Arc::new(ManualClock::at(NOW));
    let log = AuditLog::open(Arc::new(Shared(Arc::clone(store))), changes, "node", clock, limits).await.unwrap();
    Arc::new(log)
}

async fn log(store: &Arc<FakeStore>) -> Arc<AuditLog> {
    log_with(store, FakeChanges::none(), AuditLimits::default()).await
}

/// Patience short enough for a test to lose it.
fn impatient() -> AuditLimits {
    AuditLimits { patience: Duration::from_millis(50), ..AuditLimits::default() }
}

fn mint() -> Mint {
    fixture::mint()
}

fn peer_at(remote: &str) -> Arc<PresentedChain> {
    let remote: SocketAddr = remote.parse().unwrap();
    Arc::new(PresentedChain::new(Handshake { remote, protocol: "TLSv1.3", resumed: false }, Vec::new()))
}

fn trail_of(client: &FoundClient) -> Trail {
    let mut trail = Trail::begin(&peer_at("192.0.2.1:4711"), RequestId::random(NOW), NOW);
    trail.found(client);
    trail.authenticated(client);
    trail
}

fn stranger(remote: &str) -> Trail {
    Trail::begin(&peer_at(remote), RequestId::random(NOW), NOW)
}

/// A client whose record was current at the store's version.
fn client() -> FoundClient {
    fixture::client("client", "partner", 7)
}

fn token(mint: &Mint, client: &FoundClient) -> SignedToken {
    mint.sign_grant(fixture::grant(client.clone()), NOW).unwrap()
}

fn token_with_assertion(mint: &Mint, client: &FoundClient, jti: &str) -> SignedToken {
    let mut grant = fixture::grant(client.clone());
    let client_id = client.record.client.id.clone();
    grant.assertion = Some(AssertionUse { client_id, jti: jti.to_owned(), expires_at: NOW });
    mint.sign_grant(grant, NOW).unwrap()
}

fn answer(fenced: Fenced) -> Result<AccessToken, Refusal> {
    match fenced {
        Fenced::Held(recorded) => recorded.into_answer(),
        Fenced::Stale => panic!("stale"),
    }
}

fn refusal(fenced: Fenced) -> &'static str {
    answer(fenced).expect_err("refused").reason()
}

const UNKNOWN: Refusal = Refusal::Lookup(LookupRefusal::ClientUnknown);

#[tokio::test]
async fn a_token_is_released_only_once_its_record_is_durable() {
    let store = FakeStore::closed();
    let log = log(&store).await;
    let client = client();
    let token = token(&mint(), &client);
    let jti = token.jti().to_owned();
    let trail = trail_of(&client);
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.record(trail, Ok(token)).await }
    });
    store.asked().await;
    assert!(!waiting.is_finished());
    assert!(store.bodies().is_empty());
    store.let_pass(1);
    let released = answer(waiting.await.unwrap()).unwrap();
    assert_eq!((released.jti.as_str(), released.expires_in), (jti.as_str(), 300));
    let body = &store.bodies()[0];
    assert_eq!((&body["outcome"], &body["token"]["jti"]), (&"issued".into(), &jti.into()));
    assert_eq!(body["registry_version"], 7);
}

#[tokio::test]
async fn a_record_says_what_was_asked_and_found() {
    let store = FakeStore::open();
    let log = log(&store).await;
    let client = client();
    let mut trail = trail_of(&client);
    trail.asked(&crate::request::TokenRequest {
        grant_type: "g".repeat(2_000),
        client_id: ClientId::parse("client").unwrap(),
        client_assertion: Some(crate::request::ClientAssertion::JwtBearer("secret".to_owned())),
        scope: Some("read".to_owned()),
        resources: vec!["https://api.example".to_owned()],
    });
    let refused = Refusal::Policy(PolicyRefusal::ScopeNotEntitled);
    let request = trail.request_id().clone();
    assert_eq!(refusal(log.record(trail, Err(refused)).await), "scope_not_entitled");
    let entries = log.of_request(&request).await.unwrap();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    let body: Value = serde_json::from_str(&entry.body).unwrap();
    assert_eq!((entry.position.to_string().as_str(), entry.at), ("1/2", NOW), "after the record that opened the chain");
    for (path, expected) in [
        ("/outcome", Value::from("refused")),
        ("/reason", "scope_not_entitled".into()),
        ("/stage", "policy".into()),
        ("/at", NOW.as_millis().into()),
        ("/node", "node".into()),
        ("/client_id", "client".into()),
        ("/participant_id", "partner".into()),
        ("/environment", "production".into()),
        ("/authentication", "self_signed_tls_client_auth".into()),
        ("/authenticated", true.into()),
        ("/peer/remote", "192.0.2.1:4711".into()),
        ("/peer/protocol", "TLSv1.3".into()),
        ("/asked/scope", "read".into()),
        ("/asked/with_assertion", true.into()),
        ("/asked/resource/0", "https://api.example".into()),
    ] {
        assert_eq!(body.pointer(path), Some(&expected), "{path}");
    }
    assert_eq!(body["asked"]["grant_type"].as_str().unwrap().chars().count(), 513);
    assert!(!entry.body.contains("secret"), "an assertion is never part of a record");
}

#[tokio::test]
async fn decisions_that_come_together_share_a_commit() {
    let store = FakeStore::closed();
    let log = log(&store).await;
    let client = client();
    let mint = mint();
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let (log, trail, token) = (Arc::clone(&log), trail_of(&client), token(&mint, &client));
        waiting.push(tokio::spawn(async move { log.record(trail, Ok(token)).await }));
    }
    store.asked().await;
    tokio::task::yield_now().await;
    store.let_pass(Semaphore::MAX_PERMITS >> 1);
    for waiting in waiting {
        answer(waiting.await.unwrap()).unwrap();
    }
    assert!(store.batches.load(Ordering::SeqCst) <= 3, "{:?}", store.batches);
    let sequences: Vec<i64> = store.written.lock().unwrap().iter().map(|entry| entry.position.sequence()).collect();
    assert_eq!(sequences, (2..=101).collect::<Vec<_>>());
}

#[tokio::test]
async fn those_that_are_still_being_decided_share_the_commit_of_the_first() {
    let (store, mint) = (FakeStore::open(), mint());
    let log = log(&store).await;
    let opened = store.batches.load(Ordering::SeqCst);
    // Each comes a round of the runtime after the one before it, and none of them waits for a commit.
    let deciding = (0..8).map(|rounds| {
        let (log, mint) = (&log, &mint);
        async move {
            for _ in 0..rounds {
                tokio::task::yield_now().await;
            }
            answer(log.record(trail_of(&client()), Ok(token(mint, &client()))).await)
        }
    });
    let decided = futures_util::future::join_all(deciding).await;
    assert!(decided.iter().all(Result::is_ok));
    assert_eq!(store.batches.load(Ordering::SeqCst) - opened, 1);
}

/// Whether a decision that comes long after all else has run shares the commit of the one before, where so many are expected.
async fn shares_a_commit(announced: usize) -> bool {
    let (store, mint) = (FakeStore::open(), mint());
    let log = log(&store).await;
    let opened = store.batches.load(Ordering::SeqCst);
    let _announced: Vec<_> = (0..announced).map(|_| log.announce()).collect();
    let deciding = [0, 100].map(|rounds| {
        let (log, mint) = (&log, &mint);
        async move {
            for _ in 0..rounds {
                tokio::task::yield_now().await;
            }
            answer(log.record(trail_of(&client()), Ok(token(mint, &client()))).await).unwrap();
        }
    });
    futures_util::future::join_all(deciding).await;
    store.batches.load(Ordering::SeqCst) - opened == 1
}

#[tokio::test]
async fn where_several_peers_are_expected_the_commit_waits_for_them() {
    assert!(!shares_a_commit(0).await);
    assert!(!shares_a_commit(4).await, "the one who decided was announced too: three others are too few");
    // A machine that is busy may take longer than the wait for a hundred rounds.
    for tried in 1.. {
        if shares_a_commit(5).await {
            break;
        }
        assert!(tried < 100, "nobody was waited for");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let store = FakeStore::closed();
    let log = log_with(&store, FakeChanges::none(), AuditLimits { queue: 2, batch: 1, ..AuditLimits::default() }).await;
    let client = client();
    let mint = mint();
    let mut waiting = Vec::new();
    let record = || {
        let (log, trail, token) = (Arc::clone(&log), trail_of(&client), token(&mint, &client));
        tokio::spawn(async move { log.record(trail, Ok(token)).await })
    };
    waiting.push(record());
    store.asked().await;
    // One is being written, two wait.
    waiting.extend([record(), record()]);
    tokio::task::yield_now().await;
    assert_eq!(refusal(record().await.unwrap()), "audit_queue_full");
    store.let_pass(3);
    for waiting in waiting {
        answer(waiting.await.unwrap()).unwrap();
    }
    assert_eq!(store.bodies().len(), 3);
}

#[tokio::test]
async fn a_store_that_fails_gives_no_token_and_service_resumes() {
    let store = FakeStore::open();
    let log = log(&store).await;
    let (client, mint) = (client(), mint());
    store.answers(Answer::Fails);
    for _ in 0..3 {
        let fenced = log.record(trail_of(&client), Ok(token(&mint, &client))).await;
        assert_eq!(refusal(fenced), "audit_unavailable");
    }
    assert!(store.bodies().is_empty());
    store.answers(Answer::Right);
    answer(log.record(trail_of(&client), Ok(token(&mint, &client))).await).unwrap();
    assert_eq!(store.written.lock().unwrap()[0].position.sequence(), 2, "numbers have no gap");
}

#[tokio::test]
async fn whether_it_is_written_is_known_without_another_decision() {
    let store = FakeStore::open();
    let limits = AuditLimits { tally: Duration::from_millis(5), ..AuditLimits::default() };
    let log = log_with(&store, FakeChanges::none(), limits).await;
    let (client, mint) = (client(), mint());
    assert!(log.is_written());
    for answered in [Answer::Fails, Answer::FailsAfterCommit] {
        store.answers(answered);
        assert_eq!(refusal(log.record(trail_of(&client), Ok(token(&mint, &client))).await), "audit_unavailable");
        assert!(!log.is_written());
        store.answers(Answer::Right);
        let recovered = async {
            while !log.is_written() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), recovered).await.unwrap();
    }
    log.flush().await;
    assert_eq!(store.of_kind("dropped").iter().map(|body| body["decisions"].as_u64().unwrap()).sum::<u64>(), 1);
    log.close().await;
    assert!(!log.is_written());
}

#[tokio::test]
async fn a_commit_that_hangs_is_noticed() {
    let store = FakeStore::closed();
    let clock = Arc::new(ManualClock::at(NOW));
    let shared = Arc::new(Shared(Arc::clone(&store)));
    let limits = AuditLimits::default();
    let log = AuditLog::open(shared, FakeChanges::none(), "node", Arc::<ManualClock>::clone(&clock), limits).await;
    let log = Arc::new(log.unwrap());
    let (client, mint) = (client(), mint());
    let waiting = tokio::spawn({
        let (log, trail, token) = (Arc::clone(&log), trail_of(&client), token(&mint, &client));
        async move { log.record(trail, Ok(token)).await }
    });
    store.asked().await;
    clock.advance(limits.patience);
    assert!(log.is_written());
    clock.advance(Duration::from_millis(1));
    assert!(!log.is_written());
    store.let_pass(1);
    answer(waiting.await.unwrap()).unwrap();
    assert!(log.is_written());
}

/// Between two renewals of its lease: no mark that another clock makes meanwhile ends before what is issued here.
#[tokio::test]
async fn a_node_whose_clock_is_set_forward_notes_that_before_it_writes() {
    let store = FakeStore::closed();
    let clock = Arc::new(ManualClock::at(NOW));
    let shared = Arc::new(Shared(Arc::clone(&store)));
    // No round between: it would try what the store refuses.
    let limits = AuditLimits { tally: Duration::from_secs(3_600), ..AuditLimits::default() };
    let log = AuditLog::open(shared, FakeChanges::none(), "node", Arc::<ManualClock>::clone(&clock), limits).await;
    let log = Arc::new(log.unwrap());
    let (client, mint) = (client(), mint());
    let (lease, hour) = (Duration::from_secs(30), Duration::from_secs(3_600));
    // At the very end of what was noted; far past it; and signed before the clock was set back to where it was.
    for (here, signed) in [(NOW.after(lease), NOW), (NOW.after(2 * hour), NOW), (NOW, NOW.after(5 * hour))] {
        clock.step_to(here);
        let mut trail = Trail::begin(&peer_at("192.0.2.1:4711"), RequestId::random(NOW), signed);
        trail.found(&client);
        trail.authenticated(&client);
        let waiting = tokio::spawn({
            let (log, token) = (Arc::clone(&log), token(&mint, &client));
            async move { log.record(trail, Ok(token)).await }
        });
        store.asked().await;
        assert_eq!(*store.noted.lock().unwrap(), Some(here.max(signed).after(lease)), "before it is written");
        store.let_pass(1);
        answer(waiting.await.unwrap()).unwrap();
    }
    // What cannot be noted is not issued.
    let batches = store.batches.load(Ordering::SeqCst);
    store.answers(Answer::Fails);
    clock.step_to(NOW.after(6 * hour));
    store.let_pass(1);
    assert_eq!(refusal(log.record(trail_of(&client), Ok(token(&mint, &client))).await), "audit_unavailable");
    assert_eq!(store.batches.load(Ordering::SeqCst), batches, "nothing was tried");
}

/// It could write nothing if it were asked to, so it does not say that it could.
#[tokio::test]
async fn a_node_that_nobody_asks_says_that_its_lease_cannot_be_kept() {
    let store = FakeStore::open();
    let clock = Arc::new(ManualClock::at(NOW));
    let shared: Arc<dyn AuditStore> = Arc::new(Shared(Arc::clone(&store)));
    let limits = AuditLimits::default();
    let tally = Arc::new(Tally::new(limits.tally_rows));
    let here: Arc<dyn Clock> = Arc::<ManualClock>::clone(&clock);
    let mut committer = Committer::new(shared, FakeChanges::none(), here, "node".into(), tally, limits);
    committer.open().await.unwrap();
    let health = committer.health();
    let mut renewed = async |after: u64| {
        clock.advance(Duration::from_secs(after));
        committer.renew().await;
        health.is_good(clock.monotonic(), limits.hang)
    };
    assert!(renewed(10).await);
    store.answers(Answer::Fails);
    assert!(renewed(29).await, "what was noted has not ended");
    assert!(!renewed(1).await);
    store.answers(Answer::Right);
    assert!(renewed(10).await, "and again when it can");
}

/// Somebody took the chain, as after a pause that was longer than the lease.
fn steal(store: &FakeStore) {
    *store.leases.lock().unwrap().iter_mut().max_by_key(|(chain, _)| **chain).unwrap().1 += 1;
}

#[tokio::test]
async fn a_node_that_lost_its_chain_goes_on_in_another_and_no_request_notices() {
    let store = FakeStore::open();
    // No round between: it would try what the store refuses.
    let limits = AuditLimits { tally: Duration::from_secs(3600), ..AuditLimits::default() };
    let log = log_with(&store, FakeChanges::none(), limits).await;
    let (client, mint) = (client(), mint());
    for jti in ["a", "b"] {
        let signed = token_with_assertion(&mint, &client, jti);
        answer(log.record(trail_of(&client), Ok(signed)).await).unwrap();
        steal(&store);
    }
    let places: Vec<String> = store.written.lock().unwrap().iter().map(|entry| entry.position.to_string()).collect();
    assert_eq!(places, ["1/2", "2/2"], "each after the record that opened its chain");
    // Even where it is not known whether the last batch was written.
    store.answers(Answer::FailsAfterCommit);
    assert_eq!(refusal(log.record(trail_of(&client), Ok(token(&mint, &client))).await), "audit_unavailable");
    steal(&store);
    store.answers(Answer::Right);
    answer(log.record(trail_of(&client), Ok(token(&mint, &client))).await).unwrap();
    log.flush().await;
    let withheld = store.of_kind("withheld");
    assert_eq!((withheld.len(), &withheld[0]["of_chain"], &withheld[0]["of_sequence"]), (1, &3.into(), &2.into()));
}

#[tokio::test]
async fn a_chain_that_cannot_be_taken_is_an_outage_like_any_other() {
    let store = FakeStore::open();
    let limits = AuditLimits { tally: Duration::from_millis(5), ..AuditLimits::default() };
    let log = log_with(&store, FakeChanges::none(), limits).await;
    let (client, mint) = (client(), mint());
    steal(&store);
    store.answers(Answer::Fails);
    assert_eq!(refusal(log.record(trail_of(&client), Ok(token(&mint, &client))).await), "audit_unavailable");
    assert!(!log.is_written());
    store.answers(Answer::Right);
    let recovered = async {
        while !log.is_written() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), recovered).await.unwrap();
    answer(log.record(trail_of(&client), Ok(token(&mint, &client))).await).unwrap();
}

#[tokio::test]
async fn refusals_whose_answer_was_lost_are_on_record_once() {
    let store = FakeStore::open();
    let limits = AuditLimits { tally: Duration::from_secs(3600), ..AuditLimits::default() };
    let log = log_with(&store, FakeChanges::none(), limits).await;
    assert_eq!(refusal(log.record(stranger("192.0.2.9:1"), Err(UNKNOWN)).await), "client_unknown");
    store.answers(Answer::FailsAfterCommit);
    log.flush().await;
    store.answers(Answer::Right);
    log.flush().await;
    assert_eq!(store.of_kind("refusals").len(), 1);
}

fn history_row(version: i64, after: &str) -> HistoryRow {
    HistoryRow {
        place: (version, 0),
        at: NOW,
        actor: r#"{"kind":"server","node":"node"}"#.to_owned(),
        action: "client.suspend".to_owned(),
        subject: "client:client".to_owned(),
        before: None,
        after: Some(after.to_owned()),
        why: Some("a \"reason\"".to_owned()),
    }
}

#[tokio::test]
async fn what_the_registry_changed_is_put_in_a_chain_in_order() {
    let store = FakeStore::open();
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(64 * 1024));
    let whole = r#"{"id": "client",  "state":"suspended"}"#;
    let mut rows: Vec<HistoryRow> = (1..=40).map(|version| history_row(version, whole)).collect();
    rows.push(history_row(41, &long));
    rows.push(history_row(42, "no JSON"));
    *store.history.lock().unwrap() = HistoryLeft { after: (0, 0), rows };
    let log = log(&store).await;
    log.flush().await;
    let changes = store.of_kind("change");
    let versions: Vec<i64> = changes.iter().map(|body| body["registry_version"].as_i64().unwrap()).collect();
    assert_eq!(versions, (1..=42).collect::<Vec<_>>());
    assert_eq!((&changes[0]["why"], &changes[0]["actor"]["kind"]), (&"a \"reason\"".into(), &"server".into()));
    let first = store.written.lock().unwrap()[0].body.clone();
    assert!(first.contains(whole), "the very text: {first}");
    assert_eq!(changes[40]["after"]["bytes"], long.len());
    assert_eq!(changes[40]["after"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(changes[41]["after"]["bytes"], 7);
}

#[tokio::test]
async fn what_was_written_after_all_is_followed_by_withheld() {
    let store = FakeStore::open();
    let log = log(&store).await;
    let (client, mint) = (client(), mint());
    store.answers(Answer::FailsAfterCommit);
    let signed = token(&mint, &client);
    let jti = signed.jti().to_owned();
    let trail = trail_of(&client);
    let request = trail.request_id().clone();
    assert_eq!(refusal(log.record(trail, Ok(signed)).await), "audit_unavailable");
    store.answers(Answer::Right);
    answer(log.record(trail_of(&client), Ok(token(&mint, &client))).await).unwrap();
    log.flush().await;
    let withheld = store.of_kind("withheld");
    assert_eq!(withheld.len(), 1);
    assert_eq!(withheld[0]["request_id"], request.as_str());
    assert_eq!((&withheld[0]["jti"], &withheld[0]["of_sequence"]), (&jti.into(), &2.into()));
    assert_eq!(withheld[0]["reason"], "not_delivered");
    let sequences: Vec<i64> = store.written.lock().unwrap().iter().map(|entry| entry.position.sequence()).collect();
    assert_eq!(sequences, [2, 3, 4], "no number is given twice");
}

#[tokio::test]
async fn a_record_that_comes_too_late_is_followed_by_withheld() {
    let store = FakeStore::closed();
    let log = log_with(&store, FakeChanges::none(), impatient()).await;
    let (client, mint) = (client(), mint());
    let trail = trail_of(&client);
    let request = trail.request_id().clone();
    assert_eq!(refusal(log.record(trail, Ok(token(&mint, &client))).await), "audit_unavailable");
    store.let_pass(Semaphore::MAX_PERMITS >> 1);
    log.flush().await;
    let kinds: Vec<_> = store.bodies().iter().map(|body| body["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, ["decision", "withheld"]);
    assert_eq!(store.of_kind("withheld")[0]["request_id"], request.as_str());
}

#[tokio::test]
async fn a_requester_that_leaves_still_has_its_record() {
    let store = FakeStore::closed();
    let log = log(&store).await;
    let (client, mint) = (client(), mint());
    let (trail, signed) = (trail_of(&client), token(&mint, &client));
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.record(trail, Ok(signed)).await }
    });
    store.asked().await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    store.let_pass(Semaphore::MAX_PERMITS >> 1);
    log.flush().await;
    assert_eq!(store.of_kind("decision")[0]["outcome"], "issued");
    assert_eq!(store.of_kind("withheld")[0]["reason"], "not_delivered");
}

#[tokio::test]
async fn those_who_gave_up_during_an_outage_are_not_written_but_counted() {
    let store = FakeStore::closed();
    let limits = AuditLimits { batch: 1, ..impatient() };
    let log = log_with(&store, FakeChanges::none(), limits).await;
    let (client, mint) = (client(), mint());
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let (log, trail, token) = (Arc::clone(&log), trail_of(&client), token(&mint, &client));
            tokio::spawn(async move { log.record(trail, Ok(token)).await })
        })
        .collect();
    for waiting in waiting {
        assert_eq!(refusal(waiting.await.unwrap()), "audit_unavailable");
    }
    store.let_pass(Semaphore::MAX_PERMITS >> 1);
    log.flush().await;
    assert_eq!(store.of_kind("decision").len(), 1, "the one that was being written");
    assert_eq!(store.of_kind("withheld").len(), 1);
    assert_eq!(store.of_kind("dropped")[0]["decisions"], 4);
}

#[tokio::test]
async fn an_assertion_is_used_once() {
    let store = FakeStore::open();
    let log = log(&store).await;
    let (client, mint) = (client(), mint());
    answer(log.record(trail_of(&client), Ok(token_with_assertion(&mint, &client, "a"))).await).unwrap();
    let again = trail_of(&client);
    let request = again.request_id().clone();
    assert_eq!(refusal(log.record(again, Ok(token_with_assertion(&mint, &client, "a"))).await), "assertion_replayed");
    let entries = log.of_request(&request).await.unwrap();
    let body: Value = serde_json::from_str(&entries[0].body).unwrap();
    assert_eq!((&body["outcome"], &body["reason"]), (&"refused".into(), &"assertion_replayed".into()));
    assert!(body.get("token").is_none(), "nothing was issued");
    answer(log.record(trail_of(&client), Ok(token_with_assertion(&mint, &client, "b"))).await).unwrap();
}

fn change(version: i64, touched: Touched) -> Change {
    Change { version: RegistryVersion(version), touched }
}

#[tokio::test]
async fn a_token_resting_on_what_changed_meanwhile_is_withheld() {
    for touched in [
        Touched::Client(ClientId::parse("client").unwrap()),
        Touched::Participant(ParticipantId::parse("partner").unwrap()),
    ] {
        let store = FakeStore::open();
        let log = log_with(&store, FakeChanges::of(vec![change(8, touched)]), AuditLimits::default()).await;
        let (client, mint) = (client(), mint());
        store.version.store(8, Ordering::SeqCst);
        let signed = token_with_assertion(&mint, &client, "a");
        let jti = signed.jti().to_owned();
        assert!(matches!(log.record(trail_of(&client), Ok(signed)).await, Fenced::Stale));
        let withheld = store.of_kind("withheld");
        assert_eq!((&withheld[0]["reason"], &withheld[0]["jti"]), (&"registry_changed".into(), &jti.into()));
        // Decided again under the new version, with the same assertion.
        let later = fixture::client("client", "partner", 8);
        answer(log.record(trail_of(&later), Ok(token_with_assertion(&mint, &later, "a"))).await).unwrap();
    }
}

#[tokio::test]
async fn a_change_of_something_else_leaves_a_token_alone() {
    let store = FakeStore::open();
    let other = Touched::Client(ClientId::parse("other").unwrap());
    // The same record, changed before the decision: that is what it was taken under.
    let before = Touched::Client(ClientId::parse("client").unwrap());
    let changes = FakeChanges::of(vec![change(7, before), change(8, other)]);
    let log = log_with(&store, changes, AuditLimits::default()).await;
    store.version.store(8, Ordering::SeqCst);
    let (client, mint) = (client(), mint());
    answer(log.record(trail_of(&client), Ok(token(&mint, &client))).await).unwrap();
    assert!(store.of_kind("withheld").is_empty());
}

#[tokio::test]
async fn without_the_registrys_changes_no_older_token_leaves() {
    let store = FakeStore::open();
    let log = log_with(&store, FakeChanges::unread(), AuditLimits::default()).await;
    store.version.store(8, Ordering::SeqCst);
    let (client, mint) = (client(), mint());
    let fenced = log.record(trail_of(&client), Ok(token(&mint, &client))).await;
    assert_eq!(refusal(fenced), "audit_unavailable");
    assert_eq!(store.of_kind("withheld")[0]["reason"], "registry_unread");
    // A refusal harms nobody by being older.
    let refused = Err(Refusal::Mint(MintRefusal::NothingLeft));
    assert_eq!(refusal(log.record(trail_of(&client), refused).await), "token_lifetime_exhausted");
}

#[tokio::test]
async fn a_registry_that_went_back_withholds_what_was_decided_ahead_of_it() {
    let store = FakeStore::open();
    let log = log(&store).await;
    store.version.store(6, Ordering::SeqCst);
    let (client, mint) = (client(), mint());
    assert!(matches!(log.record(trail_of(&client), Ok(token(&mint, &client))).await, Fenced::Stale));
}

#[tokio::test]
async fn nothing_is_released_for_a_client_that_was_not_authenticated() {
    let store = FakeStore::open();
    let log = log(&store).await;
    let client = client();
    let fenced = log.record(stranger("192.0.2.1:1"), Ok(token(&mint(), &client))).await;
    assert_eq!(refusal(fenced), "audit_unavailable");
}

#[tokio::test]
async fn strangers_are_answered_at_once_and_counted() {
    let store = FakeStore::closed();
    let log = log(&store).await;
    for port in 1..=50 {
        let fenced = log.record(stranger(&format!("192.0.2.1:{port}")), Err(UNKNOWN)).await;
        assert_eq!(refusal(fenced), "client_unknown");
    }
    log.refused_handshake(&RefusedHandshake {
        remote: "192.0.2.2:5".parse().unwrap(),
        reason: "handshake_timeout",
        claimed: None,
    });
    store.let_pass(Semaphore::MAX_PERMITS >> 1);
    log.flush().await;
    let rows = store.of_kind("refusals");
    assert_eq!(rows.len(), 2, "{rows:?}");
    let of = |reason: &str| rows.iter().find(|row| row["reason"] == reason).unwrap();
    assert_eq!((&of("client_unknown")["count"], &of("client_unknown")["address"]), (&50.into(), &"192.0.2.1".into()));
    assert_eq!(of("client_unknown")["first"]["peer"]["remote"], "192.0.2.1:1");
    assert_eq!(of("handshake_timeout")["stage"], "tls");
}

#[tokio::test]
async fn strangers_do_not_crowd_out_tokens() {
    let store = FakeStore::open();
    let log = log_with(&store, FakeChanges::none(), AuditLimits { queue: 1, ..AuditLimits::default() }).await;
    let (client, mint) = (client(), mint());
    for port in 1..=10_000_u16 {
        drop(log.record(stranger(&format!("192.0.2.1:{port}")), Err(UNKNOWN)).await);
    }
    answer(log.record(trail_of(&client), Ok(token(&mint, &client))).await).unwrap();
}

#[tokio::test]
async fn what_is_left_is_written_before_the_end_and_nothing_after() {
    let store = FakeStore::open();
    let log = log(&store).await;
    let (client, mint) = (client(), mint());
    drop(log.record(stranger("192.0.2.1:1"), Err(UNKNOWN)).await);
    log.close().await;
    assert_eq!(store.of_kind("refusals").len(), 1);
    let fenced = log.record(trail_of(&client), Ok(token(&mint, &client))).await;
    assert_eq!(refusal(fenced), "audit_unavailable");
    assert!(store.of_kind("decision").is_empty());
}

#[tokio::test]
async fn a_check_of_a_clients_own_certificate_is_durable_before_its_answer() {
    let store = FakeStore::closed();
    let log = log(&store).await;
    let mut trail = trail_of(&client());
    trail.asked_about(&ClientId::parse("client").unwrap());
    let found = Refusal::from(PolicyRefusal::NoEntitlement);
    let waiting = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.record_check(trail, Some(&found), "answer").await }
    });
    store.asked().await;
    assert!(!waiting.is_finished());
    store.let_pass(1);
    assert_eq!(waiting.await.unwrap().into_answer(), Ok("answer"));
    let body = &store.bodies()[0];
    assert_eq!((&body["kind"], &body["outcome"]), (&"check".into(), &"checked".into()));
    assert_eq!((&body["stage"], &body["reason"]), (&"policy".into(), &"no_entitlement".into()));
    assert_eq!(body["asked"], serde_json::json!({ "client_id": "client", "with_assertion": false }));
}

#[tokio::test]
async fn a_check_that_cannot_be_written_is_not_answered() {
    let store = FakeStore::closed();
    let log = log_with(&store, FakeChanges::none(), impatient()).await;
    let unanswered = log.record_check(trail_of(&client()), None, "answer").await.into_answer();
    assert_eq!(unanswered, Err(AuditUnavailable::Unavailable.into()));
    store.let_pass(Semaphore::MAX_PERMITS >> 1);
    log.flush().await;
    assert_eq!(store.of_kind("withheld").len(), store.of_kind("check").len(), "what was written late is followed up");
}

#[tokio::test]
async fn checks_of_strangers_are_counted_apart_from_refusals() {
    let store = FakeStore::open();
    let log = log(&store).await;
    for _ in 0..3 {
        assert_eq!(log.count_check(&stranger("192.0.2.9:1"), &UNKNOWN, Ok("answer")).into_answer(), Ok("answer"));
    }
    assert_eq!(refusal(log.record(stranger("192.0.2.9:1"), Err(UNKNOWN)).await), "client_unknown");
    log.flush().await;
    let (checks, refusals) = (store.of_kind("checks"), store.of_kind("refusals"));
    assert_eq!((checks.len(), refusals.len()), (1, 1));
    assert_eq!((&checks[0]["count"], &checks[0]["outcome"]), (&3.into(), &"checked".into()));
    assert_eq!((&checks[0]["first"]["kind"], &refusals[0]["first"]["kind"]), (&"check".into(), &"decision".into()));
    assert_eq!((&refusals[0]["count"], refusals[0].get("outcome")), (&1.into(), None));
}
