//! Places that nobody has twice, what kills them, and the lists that say so: on both engines.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use countersign_resource_server::time::ManualClock;
use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws::{Expectation, KeyChoice, SigningAlgorithm, Untyped, verify};
use serde_json::Value;

use super::allotment::{FIRST_BLOCK, LARGEST_BLOCK, Place};
use super::array::{StatusArray, Width};
use super::scatter::{SIZE, Scatter};
use super::store::{DeadBlock, ListsState, NewList, Reservation, Reserved, StoredList};
use super::*;
use crate::mint::fixture;
use crate::registry::RegistryVersion;
use crate::registry::fixture::{NOW, because, client_id, participant_id, resource_server};
use crate::registry::resource_server::StatusClaim;
use crate::registry::store::Answer;
use crate::registry::token::{AskedBy, KnownToken, TokenRevocation};
use crate::store::contract::{Bench, contract};

contract!(
    no_place_is_given_out_twice,
    each_kind_of_mark_kills_what_names_it,
    a_block_dies_of_later_marks_alone,
    what_has_ended_is_dead_no_more_and_in_time_forgotten,
    a_full_list_is_followed_by_another,
    an_old_list_is_followed_by_another,
    another_epoch_begins_lists_of_its_own,
    a_single_token_dies_by_its_index,
    every_node_draws_the_same_bits,
    a_list_that_another_node_began_is_found,
);

const HOUR: Duration = Duration::from_secs(3_600);

fn facts(client: &str) -> BlockFacts {
    BlockFacts {
        audience: "https://api.example".to_owned(),
        participant_id: "partner".to_owned(),
        client_id: client.to_owned(),
        certificate: format!("{client}-certificate"),
        key_hash: format!("{client}-key"),
        anchor_id: Some("anchor".to_owned()),
        signing_key: "kid".to_owned(),
    }
}

fn reservation(facts: BlockFacts, list: &str) -> Reservation {
    Reservation {
        facts,
        version: RegistryVersion(5),
        places: 16,
        at: NOW,
        ends_at: NOW.after(HOUR),
        begun_after: NOW.before(HOUR),
        new_list: NewList { id: list.to_owned(), scatter: *b"sixteen octets !", capacity: SIZE },
    }
}

async fn mark(bench: &Bench, kind: &str, id: &str, version: i64) {
    let until = NOW.after(HOUR).as_millis();
    bench
        .tamper(&format!(
            "INSERT INTO revocation_mark (kind, id, version, forget_after) VALUES ('{kind}', '{id}', {version}, {until})"
        ))
        .await;
}

async fn dead(bench: &Bench) -> Vec<(String, u32, u32)> {
    let state = bench.store.status_lists(NOW).await.unwrap();
    state.dead.into_iter().map(|block| (block.list, block.place, block.places)).collect()
}

fn allotment(store: Arc<dyn StatusListStore>) -> Arc<Allotment> {
    Arc::new(Allotment::new(store, Arc::default()))
}

/// Two nodes, several grants, many at a time: the property that everything else rests on.
async fn no_place_is_given_out_twice(bench: &Bench) {
    let nodes = [allotment(Arc::new(bench.store.clone())), allotment(Arc::new(bench.store.clone()))];
    let mut takers = Vec::new();
    for taker in 0..16 {
        let node = Arc::clone(&nodes[taker % 2]);
        takers.push(tokio::spawn(async move {
            let mut places = Vec::new();
            for token in 0..100 {
                let facts = facts(&format!("client-{}", (taker + token) % 5));
                let place = node.place(facts, RegistryVersion(5), NOW.after(HOUR), NOW).await.unwrap();
                places.push((place.list, place.index));
            }
            places
        }));
    }
    let mut seen = HashSet::new();
    for taker in takers {
        for place in taker.await.unwrap() {
            assert!(place.1 < SIZE);
            assert!(seen.insert(place.clone()), "{place:?} twice");
        }
    }
    assert_eq!(seen.len(), 1_600);
}

async fn each_kind_of_mark_kills_what_names_it(bench: &Bench) {
    let mut other = facts("other");
    other.audience = "https://other.example".to_owned();
    other.participant_id = "another".to_owned();
    other.anchor_id = None;
    other.signing_key = "another-kid".to_owned();
    bench.store.reserve(&reservation(facts("client"), "one")).await.unwrap();
    bench.store.reserve(&reservation(other, "two")).await.unwrap();
    for (kind, id) in [
        ("participant", "partner"),
        ("client", "client"),
        ("certificate", "client-certificate"),
        ("key", "client-key"),
        ("anchor", "anchor"),
        ("entitlement", "client https://api.example"),
        ("resource_server", "https://api.example"),
        ("signing_key", "kid"),
    ] {
        assert_eq!(dead(bench).await, [], "before {kind}");
        mark(bench, kind, &format!("{id}x"), 6).await;
        assert_eq!(dead(bench).await, [], "{kind} of somebody else");
        mark(bench, kind, id, 6).await;
        assert_eq!(dead(bench).await, [("one".to_owned(), 0, 16)], "{kind}");
        bench.tamper("DELETE FROM revocation_mark").await;
    }
    for (kind, id) in [("client", "partner"), ("participant", "client"), ("jti", "client"), ("entitlement", "client")] {
        mark(bench, kind, id, 6).await;
        assert_eq!(dead(bench).await, [], "{kind} {id}");
    }
}

/// The same comparison as the revocation list makes: below the mark's version, not at it.
async fn a_block_dies_of_later_marks_alone(bench: &Bench) {
    bench.store.reserve(&reservation(facts("client"), "one")).await.unwrap();
    mark(bench, "client", "client", 5).await;
    assert_eq!(dead(bench).await, []);
    bench.tamper("UPDATE revocation_mark SET version = 6").await;
    assert_eq!(dead(bench).await.len(), 1);
    // Reinstated: what is reserved from then on is alive, and what was before stays dead.
    let later = Reservation { version: RegistryVersion(6), ..reservation(facts("client"), "unused") };
    let reserved = bench.store.reserve(&later).await.unwrap();
    assert_eq!((reserved.list.id.as_str(), reserved.place), ("one", 16));
    assert_eq!(dead(bench).await, [("one".to_owned(), 0, 16)]);
    // Marked twice over, it is one block still.
    mark(bench, "participant", "partner", 6).await;
    assert_eq!(dead(bench).await, [("one".to_owned(), 0, 16)]);
}

async fn what_has_ended_is_dead_no_more_and_in_time_forgotten(bench: &Bench) {
    let (store, end, moment) = (&bench.store, NOW.after(HOUR), Duration::from_millis(1));
    store.reserve(&reservation(facts("client"), "one")).await.unwrap();
    mark(bench, "client", "client", 6).await;
    bench.tamper("UPDATE revocation_mark SET forget_after = forget_after + 1000").await;
    let last = store.status_lists(end.before(moment)).await.unwrap();
    assert_eq!((last.lists.len(), last.dead.len()), (1, 1));
    // Dead for an hour longer than anything in it lives: a calendar that is ahead brings nothing back where others keep the
    // list up.
    let after = store.status_lists(end).await.unwrap();
    assert_eq!((after.lists.len(), after.dead.len()), (0, 1));
    let long_after = store.status_lists(end.after(HOUR)).await.unwrap();
    assert_eq!((long_after.lists.len(), long_after.dead.len()), (0, 0));

    // Still there, and taken up again by the next who needs a place.
    assert!(!store.forget_status(end.before(moment)).await.unwrap());
    let again = Reservation { ends_at: end.after(HOUR), ..reservation(facts("client"), "unused") };
    assert_eq!(store.reserve(&again).await.unwrap().place, 16);
    assert!(!store.forget_status(end).await.unwrap());
    let state = store.status_lists(NOW).await.unwrap();
    assert_eq!((state.lists.len(), state.dead), (1, vec![DeadBlock { list: "one".to_owned(), place: 16, places: 16 }]));

    assert!(!store.forget_status(end.after(HOUR)).await.unwrap());
    assert_eq!(store.status_lists(NOW).await.unwrap().lists, []);
    let next = store.reserve(&reservation(facts("client"), "two")).await.unwrap();
    assert_eq!((next.list.id.as_str(), next.place), ("two", 0), "a list does not come back under its id");
}

async fn a_full_list_is_followed_by_another(bench: &Bench) {
    let store = &bench.store;
    store.reserve(&reservation(facts("client"), "one")).await.unwrap();
    bench.tamper(&format!("UPDATE status_list SET placed = {}", SIZE - 16)).await;
    let much = Reservation { places: 17, ..reservation(facts("client"), "much") };
    assert_eq!(store.reserve(&much).await.unwrap().list.id, "much", "one place too many");
    bench.tamper("DELETE FROM status_block WHERE list_id = 'much'").await;
    bench.tamper("DELETE FROM status_list WHERE id = 'much'").await;
    let last = store.reserve(&reservation(facts("client"), "two")).await.unwrap();
    assert_eq!((last.list.id.as_str(), last.place, last.list.placed), ("one", SIZE - 16, SIZE));
    let next = store.reserve(&reservation(facts("client"), "two")).await.unwrap();
    assert_eq!((next.list.id.as_str(), next.place), ("two", 0));
    // Another API has lists of its own.
    let elsewhere = BlockFacts { audience: "https://other.example".to_owned(), ..facts("client") };
    assert_eq!(store.reserve(&reservation(elsewhere, "three")).await.unwrap().list.id, "three");
}

/// However little it holds: how long a list lasts must not say how much others use.
async fn an_old_list_is_followed_by_another(bench: &Bench) {
    let (store, moment) = (&bench.store, Duration::from_millis(1));
    store.reserve(&reservation(facts("client"), "one")).await.unwrap();
    let at = |begun_after| Reservation { begun_after, ..reservation(facts("client"), "two") };
    assert_eq!(store.reserve(&at(NOW.before(moment))).await.unwrap().list.id, "one");
    assert_eq!(store.reserve(&at(NOW)).await.unwrap().list.id, "two");
}

/// A restored store may not know of places that were given out: they are dead, and none is given out again.
async fn another_epoch_begins_lists_of_its_own(bench: &Bench) {
    let lists = status_lists(bench).await;
    let before = lists.place(&draft("client"), NOW).await.unwrap().unwrap();
    bench.tamper("UPDATE registry_state SET epoch = epoch + 1").await;
    lists.renew().await.unwrap();
    let after = lists.place(&draft("client"), NOW).await.unwrap().unwrap();
    assert_ne!(before.status_list.uri, after.status_list.uri);

    let id = before.status_list.uri.rsplit('/').next().unwrap();
    let array = read(&lists.list(id).await.unwrap().unwrap().compact);
    let alive: Vec<u32> = (0..SIZE).filter(|index| array.get(*index as usize) == Some(0)).collect();
    assert_eq!(alive.len(), FIRST_BLOCK as usize, "what the store knows of");
    assert!(alive.contains(&u32::try_from(before.status_list.idx).unwrap()));
}

async fn a_single_token_dies_by_its_index(bench: &Bench) {
    let lists = status_lists(bench).await;
    let dead = lists.place(&draft("client"), NOW).await.unwrap().unwrap().status_list;
    let alive = lists.place(&draft("client"), NOW).await.unwrap().unwrap().status_list;
    let id = dead.uri.rsplit('/').next().unwrap();
    let revocation = TokenRevocation {
        jti: "a-token".to_owned(),
        token: Some(KnownToken {
            client_id: client_id("client"),
            participant_id: participant_id("partner"),
            aud: resource_server("api").resource,
            expires_at: NOW.after(HOUR),
            status_list: Some(dead.clone()),
        }),
        asked_by: AskedBy::Client,
    };
    bench.registry.revoke_token(revocation, because("stolen")).await.unwrap();
    lists.renew().await.unwrap();
    let array = read(&lists.list(id).await.unwrap().unwrap().compact);
    assert_eq!(array.get(usize::try_from(dead.idx).unwrap()), Some(1));
    assert_eq!(array.get(usize::try_from(alive.idx).unwrap()), Some(0));
}

async fn every_node_draws_the_same_bits(bench: &Bench) {
    let (here, there) = (status_lists(bench).await, status_lists(bench).await);
    let one = here.place(&draft("client"), NOW).await.unwrap().unwrap().status_list;
    let two = there.place(&draft("client"), NOW).await.unwrap().unwrap().status_list;
    let three = there.place(&draft("other"), NOW).await.unwrap().unwrap().status_list;
    assert_eq!((&one.uri, &one.uri), (&two.uri, &three.uri));
    mark(bench, "client", "client", 8).await;
    let id = one.uri.rsplit('/').next().unwrap();
    let mut drawn = Vec::new();
    for node in [&here, &there] {
        node.renew().await.unwrap();
        drawn.push(read(&node.list(id).await.unwrap().unwrap().compact));
    }
    assert_eq!(drawn[0], drawn[1]);
    let status = |idx: u64| drawn[0].get(usize::try_from(idx).unwrap()).unwrap();
    assert_eq!((status(one.idx), status(two.idx), status(three.idx)), (1, 1, 0));
    // The places of both blocks, and nothing else.
    assert_eq!((0..SIZE).filter(|index| drawn[0].get(*index as usize) == Some(1)).count(), 2 * FIRST_BLOCK as usize);
}

/// A reader may ask any node, in the moment after a token was issued.
async fn a_list_that_another_node_began_is_found(bench: &Bench) {
    let (here, there) = (status_lists(bench).await, Arc::new(status_lists(bench).await));
    let keeping = there.keep_fresh();
    let place = here.place(&draft("client"), NOW).await.unwrap().unwrap().status_list;
    let id = place.uri.rsplit('/').next().unwrap();
    let list = there.list(id).await.unwrap().expect("the list of another node");
    assert_eq!(claims(&list.compact)["sub"], place.uri.as_str());
    assert_eq!(
        serde_json::from_str::<Value>(&there.aggregation().json).unwrap(),
        serde_json::json!({ "status_lists": [place.uri] })
    );
    assert!(there.list("AAAAAAAAAAAAAAAAAAAAAA").await.unwrap().is_none());
    assert!(there.list("no/id").await.unwrap().is_none());
    keeping.abort();
}

async fn status_lists(bench: &Bench) -> StatusLists {
    let clock = Arc::new(ManualClock::at(NOW));
    let store = Arc::new(bench.store.clone());
    let marks: Arc<dyn MarkSource> = Arc::clone(&bench.registry) as _;
    StatusLists::open(fixture::ISSUER, store, marks, fixture::ring(), clock).await.unwrap()
}

/// What a token of this client would say, for an API that wants its status in a list.
fn draft(client: &str) -> Draft {
    let mut grant = fixture::grant(fixture::client(client, "partner", 7));
    grant.status = StatusClaim::StatusList;
    fixture::mint().draft_grant(grant, NOW).unwrap()
}

fn claims(compact: &str) -> Value {
    let keys = KeySet::parse(fixture::ring().published(NOW).body.as_bytes()).unwrap();
    let expected = Expectation {
        algorithms: &[SigningAlgorithm::ES256],
        types: &[STATUS_LIST_TYPE],
        untyped: Untyped::Refuse,
        key: KeyChoice::ByKid,
        max_bytes: 1 << 20,
    };
    verify(compact, &keys, &expected).unwrap().claims().unwrap()
}

/// The bits of a list whose signature holds.
fn read(compact: &str) -> StatusArray {
    let list = &claims(compact)["status_list"];
    assert_eq!(list["bits"], 1);
    StatusArray::read(Width::One, list["lst"].as_str().unwrap())
}

/// A store that counts, and that can be away.
#[derive(Debug, Default)]
struct Counting {
    reserved: Mutex<Vec<Reservation>>,
    away: AtomicBool,
    hangs: AtomicBool,
    epoch: AtomicUsize,
}

impl Counting {
    fn reservations(&self) -> usize {
        self.reserved.lock().unwrap().len()
    }

    fn last(&self) -> Reservation {
        self.reserved.lock().unwrap().last().unwrap().clone()
    }
}

impl StatusListStore for Counting {
    fn reserve<'a>(&'a self, reservation: &'a Reservation) -> Answer<'a, Reserved> {
        Box::pin(async move {
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            // Others run meanwhile.
            tokio::task::yield_now().await;
            if self.away.load(Ordering::SeqCst) {
                return Err(StoreUnavailable::because("it is away"));
            }
            let mut reserved = self.reserved.lock().unwrap();
            let place = reserved.iter().map(|before| before.places).sum();
            reserved.push(reservation.clone());
            let epoch = i64::try_from(self.epoch.load(Ordering::SeqCst)).unwrap();
            let placed = place + reservation.places;
            let list = StoredList { id: "one".to_owned(), epoch, scatter: b"secret".to_vec(), placed };
            Ok(Reserved { list, place })
        })
    }

    fn status_list_ids(&self, _: UnixTime) -> Answer<'_, Vec<String>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn status_lists(&self, _: UnixTime) -> Answer<'_, ListsState> {
        Box::pin(async { Ok(ListsState::default()) })
    }

    fn forget_status(&self, _: UnixTime) -> Answer<'_, bool> {
        Box::pin(async { Ok(false) })
    }
}

async fn take(allotment: &Allotment, version: i64, expires_at: UnixTime) -> Place {
    allotment.place(facts("client"), RegistryVersion(version), expires_at, NOW).await.unwrap()
}

#[tokio::test]
async fn a_token_costs_no_write_and_a_busy_client_few() {
    let store = Arc::new(Counting::default());
    let allotment = allotment(Arc::clone(&store) as _);
    let soon = NOW.after(Duration::from_secs(300));
    for token in 0..FIRST_BLOCK {
        let place = take(&allotment, 5, soon).await;
        assert_eq!(place.index, Scatter::new(b"secret").index(token));
    }
    assert_eq!(store.reservations(), 1);
    for _ in 0..20_000 {
        take(&allotment, 5, soon).await;
    }
    let sizes: Vec<u32> = store.reserved.lock().unwrap().iter().map(|one| one.places).collect();
    assert_eq!(sizes[..5], [16, 64, 256, 1_024, LARGEST_BLOCK]);
    assert!(sizes[5..].iter().all(|places| *places == LARGEST_BLOCK) && sizes.len() == 9, "{sizes:?}");
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_share_a_block() {
    let store = Arc::new(Counting::default());
    let allotment = allotment(Arc::clone(&store) as _);
    let soon = NOW.after(Duration::from_secs(300));
    let all = (0..FIRST_BLOCK).map(|_| take(&allotment, 5, soon));
    let places: HashSet<u32> = futures_util::future::join_all(all).await.into_iter().map(|place| place.index).collect();
    assert_eq!((places.len(), store.reservations()), (FIRST_BLOCK as usize, 1));
}

/// When a list that fills up is followed by the next is blurred, and no list has more places than indexes.
#[tokio::test]
async fn nobody_knows_how_many_places_a_list_gives_out() {
    let store = Arc::new(Counting::default());
    let allotment = allotment(Arc::clone(&store) as _);
    for client in 0..200 {
        let facts = facts(&format!("client-{client}"));
        allotment.place(facts, RegistryVersion(5), NOW.after(HOUR), NOW).await.unwrap();
    }
    let reserved = store.reserved.lock().unwrap();
    let capacities: Vec<u32> = reserved.iter().map(|one| one.new_list.capacity).collect();
    assert!(capacities.iter().all(|capacity| (SIZE / 2..SIZE).contains(capacity)), "{capacities:?}");
    let upper = capacities.iter().filter(|capacity| **capacity >= SIZE / 4 * 3).count();
    assert!((40..160).contains(&upper), "{upper} of 200 in the upper half");
}

#[tokio::test]
async fn a_block_serves_one_reading_of_the_record() {
    let store = Arc::new(Counting::default());
    let allotment = allotment(Arc::clone(&store) as _);
    let soon = NOW.after(Duration::from_secs(300));
    take(&allotment, 5, soon).await;
    take(&allotment, 6, soon).await;
    assert_eq!((store.reservations(), store.last().version), (2, RegistryVersion(6)));
    // Not a size larger: little of the first was used.
    assert_eq!(store.last().places, FIRST_BLOCK);
}

#[tokio::test]
async fn a_block_outlives_every_token_of_it() {
    let store = Arc::new(Counting::default());
    let allotment = allotment(Arc::clone(&store) as _);
    take(&allotment, 5, NOW.after(Duration::from_secs(300))).await;
    let covers = NOW.after(Duration::from_secs(900));
    assert_eq!(store.last().ends_at, covers.after(Duration::from_secs(60)));
    take(&allotment, 5, covers).await;
    assert_eq!(store.reservations(), 1);
    take(&allotment, 5, covers.after(Duration::from_secs(1))).await;
    assert_eq!(store.reservations(), 2);
}

#[tokio::test]
async fn no_token_is_given_a_place_that_is_known_to_be_dead() {
    let store = Arc::new(Counting::default());
    let known = Arc::new(ArcSwap::from_pointee(Dead::default()));
    let allotment = Allotment::new(Arc::clone(&store) as _, Arc::clone(&known));
    let soon = NOW.after(Duration::from_secs(300));
    take(&allotment, 5, soon).await;
    known.store(Arc::new(Dead { epoch: 0, blocks: HashSet::from([("one".to_owned(), 16)]) }));
    take(&allotment, 5, soon).await;
    assert_eq!(store.reservations(), 1, "another block is dead");
    known.store(Arc::new(Dead { epoch: 0, blocks: HashSet::from([("one".to_owned(), 0)]) }));
    take(&allotment, 5, soon).await;
    assert_eq!(store.reservations(), 2);
    // The same after a restore: the store may have forgotten it.
    store.epoch.store(1, Ordering::SeqCst);
    known.store(Arc::new(Dead { epoch: 1, blocks: HashSet::new() }));
    take(&allotment, 5, soon).await;
    take(&allotment, 5, soon).await;
    assert_eq!(store.reservations(), 3);
}

#[tokio::test]
async fn a_store_that_is_away_refuses_those_who_need_it_and_no_one_else() {
    let store = Arc::new(Counting::default());
    let allotment = allotment(Arc::clone(&store) as _);
    let soon = NOW.after(Duration::from_secs(300));
    take(&allotment, 5, soon).await;
    store.away.store(true, Ordering::SeqCst);
    take(&allotment, 5, soon).await;
    let refused = allotment.place(facts("another"), RegistryVersion(5), soon, NOW).await;
    assert_eq!(refused, Err(StatusListUnavailable));
    store.hangs.store(true, Ordering::SeqCst);
    // All of them at once wait no longer than one.
    let began = tokio::time::Instant::now();
    let all = (0..50).map(|_| allotment.place(facts("another"), RegistryVersion(5), soon, NOW));
    assert!(futures_util::future::join_all(all).await.iter().all(|one| *one == Err(StatusListUnavailable)));
    assert!((2..10).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    store.away.store(false, Ordering::SeqCst);
    store.hangs.store(false, Ordering::SeqCst);
    assert!(allotment.place(facts("another"), RegistryVersion(5), soon, NOW).await.is_ok());
}

#[test]
fn no_token_is_signed_without_the_index_it_needs() {
    assert_eq!(draft("client").sign(None).unwrap_err(), MintRefusal::StatusIndexUnavailable);
    let status =
        Status { status_list: StatusReference { idx: 1, uri: "https://as.example/status-lists/x".to_owned() } };
    assert_eq!(draft("client").sign(Some(status.clone())).unwrap().status(), Some(&status));
    let unasked = fixture::mint().draft_grant(fixture::grant(fixture::client("client", "partner", 7)), NOW).unwrap();
    assert_eq!(unasked.sign(Some(status)).unwrap_err(), MintRefusal::StatusIndexUnavailable);
}

#[test]
fn secrets_are_not_printed() {
    let new = NewList { id: "id".to_owned(), scatter: [0xAB; 16], capacity: 1 };
    let kept = StoredList { id: "id".to_owned(), epoch: 1, scatter: vec![0xAB; 16], placed: 0 };
    let printed = format!("{new:?} {kept:?} {:?}", Scatter::new(&[0xAB; 16]));
    assert!(!printed.contains("171"), "{printed}");
}
