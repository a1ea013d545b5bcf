use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::block::Block;
use super::*;
use crate::audit::index::{Named, TermKind, catch_up, keep};
use crate::audit::query::{Filter, Found, search};
use crate::audit::{AuditStore, Batch, Entry, Lease};
use crate::registry::fixture::NOW;
use crate::store::contract::{Bench, contract};
use crate::store::{Migrate, open};

/// What is done to its file, with SQLite.
mod as_a_file;

/// Places that share a row.
mod rows;

contract!(
    each_name_and_each_pair_finds_what_a_look_at_every_record_finds,
    both_edges_of_a_span,
    the_earliest_are_shown_and_that_there_are_more,
    a_text_with_the_same_value_is_not_taken_for_the_other,
    odd_texts_are_found,
    an_index_that_was_emptied_is_filled_again,
    an_index_that_fell_back_goes_on_from_there,
    an_index_of_another_past_begins_anew,
    a_store_put_back_behind_its_index_begins_it_anew,
    a_step_that_was_cut_off_leaves_nothing_or_all,
    two_indexers_share_the_work_and_double_nothing,
    rows_of_removed_records_lead_nowhere_and_are_swept,
    a_chain_that_was_removed_before_it_was_indexed,
    the_keeper_keeps_up,
    a_search_that_loses_its_index_halfway_begins_anew,
    what_begins_with_its_time_is_found_without_a_row_of_its_own,
    what_is_known_by_its_kind_alone_is_found_together_with_the_rest,
    close_together_or_far_apart,
    what_is_no_record_hides_no_other,
    what_this_process_has_written_is_not_read_again,
    what_is_not_in_memory_is_read_and_what_follows_it_is_taken_from_memory,
    what_another_has_indexed_is_not_indexed_again_from_memory,
    what_was_written_before_a_store_was_put_back_is_not_taken_for_what_is_there,
);

fn at(milliseconds: i64) -> UnixTime {
    UnixTime::from_millis(NOW.as_millis() + milliseconds)
}

/// A chain that a test writes.
struct Chain<'a> {
    store: &'a Store,
    lease: Lease,
}

impl<'a> Chain<'a> {
    async fn of(store: &'a Store) -> Self {
        Self { store, lease: store.lease("node", NOW, NOW.after(Duration::from_secs(30))).await.unwrap() }
    }

    async fn write(&mut self, records: impl IntoIterator<Item = (i64, String)>) {
        let entry = |(milliseconds, body)| Entry::new(at(milliseconds), body);
        let entries = records.into_iter().map(entry).collect();
        let batch = Batch { lease: self.lease, entries, given_back: Vec::new(), history: None };
        self.lease.head = self.store.append(Arc::new(batch)).await.unwrap().head;
    }
}

/// Records of every kind: few different texts, so that all come together.
fn body(number: i64) -> String {
    let (client, participant) = (format!("client-{}", number % 5), format!("participant-{}", number % 2));
    let (thumbprint, request) = (format!("thumbprint-{}", number % 7), format!("{:012x}{number:020x}", number / 3));
    let jti = format!("{:012x}jti{number}", number / 4);
    let reason = ["client_suspended", "peer_expired", "not_delivered"][usize::try_from(number / 9 % 3).unwrap()];
    let peer = json!({ "remote": "192.0.2.1:1", "thumbprint": thumbprint });
    let body = match number % 9 {
        0 | 1 => json!({ "kind": "decision", "request_id": request, "peer": peer, "client_id": client,
            "participant_id": participant, "outcome": "issued", "token": { "jti": jti } }),
        2 => json!({ "kind": "decision", "request_id": request, "peer": peer, "client_id": client,
            "participant_id": participant, "outcome": "refused", "reason": reason }),
        3 => json!({ "kind": "withheld", "request_id": request, "reason": reason,
            "jti": format!("{:012x}jti{}", (number - 3) / 4, number - 3) }),
        4 => json!({ "kind": "check", "request_id": request, "peer": peer, "client_id": client, "outcome": "checked" }),
        5 => json!({ "kind": "refusals", "count": 3, "reason": reason, "thumbprint": thumbprint,
            "claimed_client_id": client, "first": { "request_id": request, "peer": peer } }),
        6 => json!({ "kind": "change", "subject": format!("certificate:{thumbprint}"),
            "after": { "client_id": client } }),
        7 => json!({ "kind": "reading", "actor": { "kind": "operator" }, "what": { "client": client } }),
        _ => json!({ "kind": "opened", "node": "node" }),
    };
    body.to_string()
}

/// Two chains that another process has written at the same time: the index reads them.
async fn written(bench: &Bench, records: i64) {
    let another = open(&bench.url, Migrate::Check).await.unwrap();
    written_to(&another, records).await;
    another.close().await;
}

async fn written_to(store: &Store, records: i64) {
    let (mut one, mut other) = (Chain::of(store).await, Chain::of(store).await);
    one.write((0..records).step_by(2).map(|number| (number * 10, body(number)))).await;
    other.write((1..records).step_by(2).map(|number| (number * 10, body(number)))).await;
}

async fn indexed(store: &Store) {
    catch_up(store, 0, |_| ()).await.unwrap();
    assert_eq!(store.standing().await.unwrap().behind(), 0);
}

/// What a look at every record finds.
async fn looked_for(store: &Store, filter: &Filter) -> Vec<AuditEntry> {
    let mut all = store.recent(100_000).await.unwrap();
    all.reverse();
    all.retain(|entry| filter.meets(entry));
    all
}

async fn agrees(store: &Store, filter: &Filter) -> usize {
    let expected = looked_for(store, filter).await;
    agrees_with(store, filter, &expected).await
}

async fn agrees_with(store: &Store, filter: &Filter, expected: &[AuditEntry]) -> usize {
    let found = search(store, filter, 100_000).await.unwrap();
    assert_eq!((found.entries.as_slice(), found.more), (expected, false), "{filter:?}");
    expected.len()
}

async fn agrees_on_all(store: &Store) {
    for (kind, text) in some_names() {
        agrees(store, &Filter::naming(kind, text)).await;
    }
    agrees(store, &Filter::default()).await;
}

fn some_names() -> [(TermKind, &'static str); 12] {
    [
        (TermKind::Jti, "000000000000jti0"),
        (TermKind::Jti, "000000000002jti9"),
        (TermKind::Request, "00000000000300000000000000000009"),
        (TermKind::Thumbprint, "thumbprint-3"),
        (TermKind::Client, "client-2"),
        (TermKind::Client, "nobody"),
        (TermKind::Participant, "participant-1"),
        (TermKind::Reason, "peer_expired"),
        (TermKind::Outcome, "issued"),
        (TermKind::Outcome, "refused"),
        (TermKind::Outcome, "withheld"),
        (TermKind::Kind, "decision"),
    ]
}

async fn each_name_and_each_pair_finds_what_a_look_at_every_record_finds(bench: &Bench) {
    written(bench, 130).await;
    let store = &bench.store;
    let all = looked_for(store, &Filter::default()).await;
    let agrees = async |filter: &Filter| {
        let expected: Vec<AuditEntry> = all.iter().filter(|entry| filter.meets(entry)).cloned().collect();
        agrees_with(store, filter, &expected).await
    };
    // None of it indexed, some, and all.
    for step in [0, 17, 1_000] {
        assert!(matches!(store.advance(step).await.unwrap(), Advanced::By(_)));
        let mut found_of_pairs = 0;
        for (index, one) in some_names().into_iter().enumerate() {
            let found = agrees(&Filter::naming(one.0, one.1)).await;
            assert_eq!(found == 0, one.1 == "nobody", "{one:?}");
            for other in some_names().into_iter().skip(index) {
                let names = [one, other].map(|(kind, text)| (kind, text.to_owned())).to_vec();
                found_of_pairs += agrees(&Filter { names, ..Filter::default() }).await;
            }
        }
        assert!(found_of_pairs > 100, "{found_of_pairs}");
    }
    // A token that was issued and then withheld is one story.
    let story = search(store, &Filter::naming(TermKind::Jti, "000000000002jti9"), 10).await.unwrap().entries;
    let kinds: Vec<Value> = story.iter().map(|entry| serde_json::from_str(&entry.body).unwrap()).collect();
    assert_eq!(kinds.iter().map(|body| &body["kind"]).collect::<Vec<_>>(), ["decision", "withheld"]);
}

async fn both_edges_of_a_span(bench: &Bench) {
    written(bench, 40).await;
    for is_indexed in [false, true] {
        if is_indexed {
            indexed(&bench.store).await;
        }
        for names in [Vec::new(), vec![(TermKind::Client, "client-0".to_owned())]] {
            let found = async |since, until| {
                let filter = Filter { names: names.clone(), since: at(since), until: at(until) };
                agrees(&bench.store, &filter).await
            };
            // Record 10 of client-0 is decided at 100.
            assert_eq!(found(100, 101).await, 1);
            assert_eq!(found(101, 110).await, 0);
            assert_eq!(found(99, 100).await, 0);
            assert_eq!(found(100, 100).await, 0);
            assert_eq!(found(200, 100).await, 0);
        }
    }
}

async fn the_earliest_are_shown_and_that_there_are_more(bench: &Bench) {
    let mut one = Chain::of(&bench.store).await;
    let mut other = Chain::of(&bench.store).await;
    // Many at one instant: chains and numbers decide.
    one.write((0..30).map(|number| (number / 10, body(0)))).await;
    other.write((0..30).map(|number| (number / 10, body(0)))).await;
    let filter = Filter::naming(TermKind::Client, "client-0");
    let all = looked_for(&bench.store, &filter).await;
    assert_eq!(all.len(), 60);
    for steps in [0, 25, 1_000] {
        bench.store.advance(steps).await.unwrap();
        for limit in [1, 2, 29, 59, 60, 61, 1_000] {
            let Found { entries, more } = search(&bench.store, &filter, limit).await.unwrap();
            assert_eq!((entries.as_slice(), more), (&all[..limit.min(60)], limit < 60), "{limit}");
        }
    }
}

async fn a_text_with_the_same_value_is_not_taken_for_the_other(bench: &Bench) {
    written(bench, 20).await;
    indexed(&bench.store).await;
    let Term { kind, value } = Term::of(TermKind::Client, "another");
    let empty = if is_sqlite(&bench.store) { "x''" } else { "''::bytea" };
    for Place { at, position } in looked_for(&bench.store, &Filter::default()).await.iter().map(AuditEntry::place) {
        let (kind, at) = (kind as i64, at.as_millis());
        on_index(
            &bench.store,
            format!("INSERT INTO audit_index_term VALUES ({kind}, {value}, {at}, {position}, 0, 0, {empty})"),
        )
        .await;
    }
    let filter = Filter::naming(TermKind::Client, "another");
    let places = bench.store.places(&[Term::of(kind, "another")], Place::before(at(0)), at(1_000), 100).await.unwrap();
    assert_eq!((places.0.len(), places.1), (20, None));
    assert_eq!(search(&bench.store, &filter, 10).await.unwrap(), Found::default());
}

async fn odd_texts_are_found(bench: &Bench) {
    let long = "x".repeat(5_000);
    let odd = ["'; DROP TABLE audit_record; --", "\"", "\u{1b}[2J", "Zürich \u{10FFFF}", "%_\\", " ", "0", &long];
    let mut chain = Chain::of(&bench.store).await;
    let claimed = |text: &&str| (0, json!({ "kind": "refusals", "claimed_client_id": text }).to_string());
    chain.write(odd.iter().map(claimed)).await;
    // And what is none of ours.
    chain.write([(0, String::new()), (0, "[]".to_owned()), (0, "{\"kind\":7}".to_owned())]).await;
    for is_indexed in [false, true] {
        if is_indexed {
            indexed(&bench.store).await;
        }
        for text in odd {
            for kind in [TermKind::Client, TermKind::Jti, TermKind::Request] {
                let found = agrees(&bench.store, &Filter::naming(kind, text)).await;
                assert_eq!(found, usize::from(kind == TermKind::Client), "{text}");
            }
        }
        assert_eq!(agrees(&bench.store, &Filter::default()).await, odd.len() + 3);
    }
}

async fn an_index_that_was_emptied_is_filled_again(bench: &Bench) {
    written(bench, 40).await;
    indexed(&bench.store).await;
    for table in ["audit_index_term", "audit_index_progress"] {
        on_index(&bench.store, format!("DELETE FROM {table}")).await;
    }
    assert_eq!(bench.store.standing().await.unwrap().behind(), 40);
    agrees_on_all(&bench.store).await;
    indexed(&bench.store).await;
    agrees_on_all(&bench.store).await;
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
}

async fn an_index_that_fell_back_goes_on_from_there(bench: &Bench) {
    written(bench, 40).await;
    bench.store.advance(11).await.unwrap();
    let progress: Vec<(i64, i64, Vec<u8>)> = sqlx::query_as("SELECT chain, position, hash FROM audit_index_progress")
        .fetch_all(&bench.store.index_readers().await.unwrap())
        .await
        .unwrap();
    indexed(&bench.store).await;
    // As where the last steps were not on disk yet, but for some of their rows.
    on_index(&bench.store, "DELETE FROM audit_index_progress".to_owned()).await;
    for (chain, position, hash) in progress {
        let hash = hex::encode(hash);
        let hash = if is_sqlite(&bench.store) { format!("x'{hash}'") } else { format!("'\\x{hash}'::bytea") };
        on_index(&bench.store, format!("INSERT INTO audit_index_progress VALUES ({chain}, {position}, {hash}, 0, 0)"))
            .await;
    }
    assert_eq!(bench.store.standing().await.unwrap().behind(), 29);
    agrees_on_all(&bench.store).await;
    indexed(&bench.store).await;
    agrees_on_all(&bench.store).await;
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
}

async fn an_index_of_another_past_begins_anew(bench: &Bench) {
    written(bench, 40).await;
    indexed(&bench.store).await;
    let before = bench.store.standing().await.unwrap();
    let wrong = if is_sqlite(&bench.store) { "x'00'" } else { "'\\x00'::bytea" };
    on_index(&bench.store, format!("UPDATE audit_index_progress SET hash = {wrong} WHERE chain = 2")).await;
    // Nothing that it says is believed from then on.
    on_index(&bench.store, "DELETE FROM audit_index_term".to_owned()).await;
    assert_eq!(bench.store.standing().await.unwrap().behind(), 40);
    agrees_on_all(&bench.store).await;
    assert_eq!(bench.store.advance(1_000).await.unwrap(), Advanced::Emptied);
    assert_ne!(bench.store.standing().await.unwrap().index, before.index);
    indexed(&bench.store).await;
    agrees_on_all(&bench.store).await;
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
}

async fn a_store_put_back_behind_its_index_begins_it_anew(bench: &Bench) {
    written(bench, 40).await;
    indexed(&bench.store).await;
    let mut chain = Chain { store: &bench.store, lease: bench.store.lease("node", NOW, NOW).await.unwrap() };
    let before = chain.lease.head;
    chain.write([(1_000, body(1)), (1_001, body(2))]).await;
    indexed(&bench.store).await;
    let position = before.position.number();
    on_store(
        &bench.store,
        format!("DELETE FROM audit_record WHERE position > {position} AND position < {position} + 10"),
    )
    .await;
    assert!(bench.store.standing().await.unwrap().behind() > 0, "nothing of it is believed");
    agrees_on_all(&bench.store).await;
    // And where the chain has gone on by then: another record has that number.
    chain.lease.head = before;
    chain.write([(2_000, body(3)), (2_001, body(4)), (2_002, body(5))]).await;
    assert_eq!(
        bench.store.standing().await.unwrap().behind(),
        bench.store.standing().await.unwrap().chains.iter().map(|chain| chain.last.sequence()).sum::<i64>()
    );
    agrees_on_all(&bench.store).await;
    indexed(&bench.store).await;
    agrees_on_all(&bench.store).await;
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
}

async fn a_step_that_was_cut_off_leaves_nothing_or_all(bench: &Bench) {
    written(bench, 60).await;
    for polls in 0..40 {
        let mut step = bench.store.advance(5);
        for _ in 0..polls {
            // Somewhere between its first and its last await.
            if (&mut step).now_or_never().is_some() {
                break;
            }
            tokio::task::yield_now().await;
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(step);
        agrees(&bench.store, &Filter::naming(TermKind::Client, "client-2")).await;
    }
    indexed(&bench.store).await;
    agrees_on_all(&bench.store).await;
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
}

async fn two_indexers_share_the_work_and_double_nothing(bench: &Bench) {
    written(bench, 400).await;
    let another = open(&bench.url, Migrate::Check).await.unwrap();
    let work = async |store: &Store| {
        let mut done = 0;
        while store.standing().await.unwrap().behind() > 0 {
            match store.advance(7).await.unwrap() {
                Advanced::By(some) => done += some,
                Advanced::Busy => tokio::task::yield_now().await,
                Advanced::Emptied => panic!("for no reason"),
            }
        }
        done
    };
    let (one, other) = tokio::join!(work(&bench.store), work(&another));
    assert_eq!(one + other, 400);
    agrees_on_all(&another).await;
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
    another.close().await;
}

async fn rows_of_removed_records_lead_nowhere_and_are_swept(bench: &Bench) {
    written(bench, 60).await;
    indexed(&bench.store).await;
    assert!(!bench.store.standing().await.unwrap().has_removed);
    assert!(!bench.store.sweep(10).await.unwrap());
    remove_up_to(bench, 1, 20).await;
    agrees_on_all(&bench.store).await;
    assert!(bench.store.standing().await.unwrap().has_removed);
    let mut steps = 0;
    while bench.store.sweep(2).await.unwrap() {
        steps += 1;
        agrees(&bench.store, &Filter::naming(TermKind::Client, "client-2")).await;
        if steps == 5 {
            // More is removed meanwhile.
            remove_up_to(bench, 2, 30).await;
        }
    }
    assert!(steps > 20, "{steps}");
    assert!(bench.store.standing().await.unwrap().has_removed, "that of the second one");
    while bench.store.sweep(1_000).await.unwrap() {}
    assert!(!bench.store.standing().await.unwrap().has_removed);
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
    agrees_on_all(&bench.store).await;
    assert_eq!(bench.store.standing().await.unwrap().behind(), 0);
}

async fn a_chain_that_was_removed_before_it_was_indexed(bench: &Bench) {
    written(bench, 60).await;
    remove_up_to(bench, 1, 30).await;
    remove_up_to(bench, 2, 10).await;
    assert_eq!(bench.store.standing().await.unwrap().behind(), 20);
    indexed(&bench.store).await;
    assert!(!bench.store.standing().await.unwrap().has_removed, "nothing of it was ever indexed");
    agrees_on_all(&bench.store).await;
    assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
}

async fn the_keeper_keeps_up(bench: &Bench) {
    let keeping = keep(Arc::new(bench.store.clone()));
    for round in 0..3 {
        written(bench, 30).await;
        let standing = async || bench.store.standing().await.unwrap();
        let kept_up = async {
            while standing().await.behind() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), kept_up).await.unwrap();
        assert_eq!(standing().await.chains.len(), 2 * (round + 1));
    }
    agrees_on_all(&bench.store).await;
    keeping.abort();
}

async fn a_search_that_loses_its_index_halfway_begins_anew(bench: &Bench) {
    written(bench, 60).await;
    indexed(&bench.store).await;
    let losing = Losing { store: bench.store.clone(), asked: AtomicU32::new(0) };
    let filter = Filter::naming(TermKind::Client, "client-2");
    let found = search(&losing, &filter, 1_000).await.unwrap();
    assert_eq!(found.entries, looked_for(&bench.store, &filter).await);
    assert!(losing.asked.load(Ordering::SeqCst) > 1);
}

async fn what_begins_with_its_time_is_found_without_a_row_of_its_own(bench: &Bench) {
    let id = |milliseconds: i64, rest: &str| format!("{:012x}{rest}", at(milliseconds).as_millis());
    let issued = |number: i64, request: i64, jti: i64| {
        json!({ "kind": "decision", "request_id": id(request, &format!("r{number}")), "client_id": "client-0",
            "outcome": "issued", "token": { "jti": id(jti, &format!("j{number}")) } })
        .to_string()
    };
    let mut chain = Chain::of(&bench.store).await;
    // Both edges, before and after them, and each without the other.
    let times = [(0, 0), (-1, 0), (-15, -15), (-16, 0), (0, -16), (1, 0), (0, 1), (-90, -90)];
    for (number, (request, jti)) in (0..).zip(times) {
        chain.write([(100, issued(number, 100 + request, 100 + jti))]).await;
    }
    // Withheld much later, and one of the same instant that is nobody's.
    let withheld = json!({ "kind": "withheld", "request_id": id(100, "r0"), "jti": id(100, "j0"), "reason": "x" });
    chain.write([(2_100, withheld.to_string()), (100, "{}".to_owned())]).await;
    for is_indexed in [false, true] {
        if is_indexed {
            indexed(&bench.store).await;
        }
        for (number, (request, jti)) in (0..).zip(times) {
            let request = (TermKind::Request, id(100 + request, &format!("r{number}")));
            let jti = (TermKind::Jti, id(100 + jti, &format!("j{number}")));
            let expected = if number == 0 { 2 } else { 1 };
            for names in [vec![request.clone()], vec![jti.clone()], vec![request, jti]] {
                let filter = Filter { names: names.clone(), ..Filter::default() };
                assert_eq!(agrees(&bench.store, &filter).await, expected, "{names:?}");
                let within = Filter { since: at(100), until: at(101), ..filter.clone() };
                assert_eq!(agrees(&bench.store, &within).await, 1, "{names:?}");
                let beyond = Filter { since: at(101), until: at(2_100), ..filter.clone() };
                assert_eq!(agrees(&bench.store, &beyond).await, 0, "{names:?}");
                let client = (TermKind::Client, "client-0".to_owned());
                let of_client = Filter { names: [names, vec![client]].concat(), ..filter };
                assert_eq!(agrees(&bench.store, &of_client).await, 1);
            }
        }
        assert_eq!(agrees(&bench.store, &Filter::naming(TermKind::Jti, &id(100, "j9"))).await, 0);
        // A time that no record can have.
        assert_eq!(agrees(&bench.store, &Filter::naming(TermKind::Jti, "ffffffffffff")).await, 0);
    }
}

async fn what_is_known_by_its_kind_alone_is_found_together_with_the_rest(bench: &Bench) {
    let bodies = [
        r#"{"kind":"decision","outcome":"issued","client_id":"c"}"#,
        r#"{"kind":"decision","outcome":"refused","client_id":"c"}"#,
        r#"{"kind":"decision"}"#,
        // Of another release, or of nobody's.
        r#"{"kind":"check","outcome":"issued","client_id":"c"}"#,
        r#"{"kind":"another","outcome":"issued"}"#,
        r#"{"kind":"another"}"#,
        r#"{"outcome":"issued"}"#,
        "{}",
        "",
    ];
    let mut chain = Chain::of(&bench.store).await;
    for round in 0..4 {
        chain.write(bodies.iter().map(|body| (round, (*body).to_owned()))).await;
    }
    for is_indexed in [false, true] {
        if is_indexed {
            indexed(&bench.store).await;
        }
        let of = |names: &[(TermKind, &str)]| Filter {
            names: names.iter().map(|(kind, text)| (*kind, (*text).to_owned())).collect(),
            ..Filter::default()
        };
        let (decision, issued) = ((TermKind::Kind, "decision"), (TermKind::Outcome, "issued"));
        for (names, expected) in [
            (&[][..], 36),
            (&[decision], 12),
            (&[issued], 16),
            (&[decision, issued], 4),
            (&[decision, (TermKind::Client, "c")], 8),
            (&[decision, decision, (TermKind::Outcome, "refused")], 4),
            (&[(TermKind::Kind, "another")], 8),
            (&[(TermKind::Kind, "another"), issued], 4),
            (&[(TermKind::Kind, "check"), issued], 4),
        ] {
            let filter = of(names);
            assert_eq!(agrees(&bench.store, &filter).await, expected, "{names:?}");
            let all = looked_for(&bench.store, &filter).await;
            for limit in [1, 3, expected - 1, expected] {
                let found = search(&bench.store, &filter, limit).await.unwrap();
                assert_eq!((found.entries.as_slice(), found.more), (&all[..limit], limit < expected), "{names:?}");
            }
        }
    }
}

async fn close_together_or_far_apart(bench: &Bench) {
    written(bench, 600).await;
    indexed(&bench.store).await;
    let place = |chain: i64, number: i64| Position::from_number(chain * (1 << 40) + number).unwrap();
    for (positions, expected) in [
        (vec![], 0),
        (vec![place(1, 7)], 1),
        ((1..300).step_by(7).map(|number| place(1, number)).collect(), 43),
        (vec![place(1, 1), place(1, 130)], 2),
        (vec![place(2, 1), place(2, 300), place(1, 300), place(1, 1)], 4),
        // Not there: beyond the end, and of no chain.
        (vec![place(1, 300), place(1, 301), place(3, 1)], 1),
        (vec![place(1, 5), place(1, 5)], 1),
    ] {
        let records = bench.store.records(&positions).await.unwrap();
        assert_eq!(records.len(), expected, "{positions:?}");
        assert!(records.is_sorted_by_key(|record| record.position));
        assert!(records.iter().all(|record| positions.contains(&record.position)));
    }
}

/// Whoever can write to the store puts what is no record in the midst of others: `audit verify` finds it, and a search finds all
/// the rest, by the index and without.
async fn what_is_no_record_hides_no_other(bench: &Bench) {
    let store = &bench.store;
    written(bench, 90).await;
    let everything = Filter::default();
    let whole = search(store, &everything, 1_000).await.unwrap().entries;
    assert_eq!(whole.len(), 90);
    let (hash, odd) = if is_sqlite(store) { ("x'00'", "CAST(x'7bff' AS TEXT)") } else { ("'\\x00'::bytea", "'{'") };
    let place = |chain: i64, sequence: i64| chain * (1 << 40) + sequence;
    // One in the midst of each chain, and the last of one.
    let odd_ones = [place(1, 7), place(2, 20), place(2, 45)];
    let spoil = async |indexed_before: bool| {
        for position in odd_ones {
            let at = whole.iter().find(|entry| entry.position.number() == position).unwrap().at.as_millis();
            on_store(store, format!("DELETE FROM audit_record WHERE position = {position}")).await;
            let insert = "INSERT INTO audit_record (position, at, hash, body) VALUES";
            on_store(store, format!("{insert} ({position}, {at}, {hash}, {odd})")).await;
        }
        let mut expected = whole.clone();
        expected.retain(|entry| !odd_ones.contains(&entry.position.number()));
        assert_eq!(search(store, &everything, 1_000).await.unwrap().entries, expected, "indexed: {indexed_before}");
        let of_client = Filter::naming(TermKind::Client, "client-1");
        expected.retain(|entry| of_client.meets(entry));
        assert!(!expected.is_empty());
        assert_eq!(search(store, &of_client, 1_000).await.unwrap().entries, expected, "indexed: {indexed_before}");
    };
    // Without an index, as it comes.
    spoil(false).await;
    catch_up(store, 0, |_| ()).await.unwrap();
    // Only what is behind the last record of a chain is left.
    assert_eq!(store.standing().await.unwrap().behind(), 1);
    spoil(true).await;
}

async fn what_this_process_has_written_is_not_read_again(bench: &Bench) {
    let store = &bench.store;
    written_to(store, 60).await;
    let expected = expected_places(store).await;
    // Whoever reads it now finds the last record of each chain, and no other.
    let last = "SELECT MAX(position) FROM audit_record GROUP BY position / 1099511627776";
    on_store(store, format!("DELETE FROM audit_record WHERE position NOT IN ({last})")).await;
    assert_eq!(store.advance(1_000).await.unwrap(), Advanced::By(60));
    assert_eq!(places(store).await, expected);
    assert_eq!(store.standing().await.unwrap().behind(), 0);
    assert_eq!(store.advance(1_000).await.unwrap(), Advanced::By(0));
}

async fn what_is_not_in_memory_is_read_and_what_follows_it_is_taken_from_memory(bench: &Bench) {
    let store = &bench.store;
    let another = open(&bench.url, Migrate::Check).await.unwrap();
    let mut chain = Chain::of(store).await;
    for round in 0..4 {
        // Each time the chain goes from hand to hand.
        let writer = if round % 2 == 0 { store } else { &another };
        let mut written = Chain { store: writer, lease: chain.lease };
        written.write((0..10).map(|number| (round * 1_000 + number, body(round * 10 + number)))).await;
        chain.lease = written.lease;
    }
    indexed(store).await;
    assert_eq!(places(store).await, expected_places(store).await);
    agrees_on_all(store).await;
    another.close().await;
}

async fn what_another_has_indexed_is_not_indexed_again_from_memory(bench: &Bench) {
    let store = &bench.store;
    written_to(store, 40).await;
    let another = open(&bench.url, Migrate::Check).await.unwrap();
    indexed(&another).await;
    assert_eq!(store.advance(1_000).await.unwrap(), Advanced::By(0));
    assert!(store.recent.is_empty());
    assert_eq!(places(store).await, expected_places(store).await);
    another.close().await;
}

async fn what_was_written_before_a_store_was_put_back_is_not_taken_for_what_is_there(bench: &Bench) {
    let store = &bench.store;
    let mut chain = Chain::of(store).await;
    chain.write([(0, body(0))]).await;
    indexed(store).await;
    let put_back = chain.lease;
    chain.write((1..20).map(|number| (number, body(number)))).await;
    store.look_through();
    // The store as it was before them, and others in their place.
    on_store(store, format!("DELETE FROM audit_record WHERE position > {}", put_back.head.position.number())).await;
    let another = open(&bench.url, Migrate::Check).await.unwrap();
    // More than there was.
    Chain { store: &another, lease: put_back }.write((1..40).map(|number| (number, body(number + 100)))).await;
    let index = store.standing().await.unwrap().index;
    assert_eq!(store.advance(1_000).await.unwrap(), Advanced::By(39));
    agrees_on_all(store).await;
    indexed(store).await;
    assert_eq!(store.standing().await.unwrap().index, index, "it was not built anew");
    agrees_on_all(store).await;
    assert_eq!(places(store).await, expected_places(store).await);
    another.close().await;
}

/// An index that is thrown away while it is asked.
#[derive(Debug)]
struct Losing {
    store: Store,
    asked: AtomicU32,
}

impl AuditIndex for Losing {
    fn standing(&self) -> BoxFuture<'_, Result<Standing, StoreUnavailable>> {
        self.store.standing()
    }

    fn advance(&self, limit: usize) -> BoxFuture<'_, Result<Advanced, StoreUnavailable>> {
        self.store.advance(limit)
    }

    fn look_through(&self) {
        self.store.look_through();
    }

    fn sweep(&self, limit: u32) -> BoxFuture<'_, Result<bool, StoreUnavailable>> {
        self.store.sweep(limit)
    }

    fn count(&self, term: Term, span: Range<UnixTime>, most: u32) -> BoxFuture<'_, Result<u32, StoreUnavailable>> {
        self.store.count(term, span, most)
    }

    fn places<'a>(
        &'a self,
        terms: &'a [Term],
        after: Place,
        until: UnixTime,
        limit: u32,
    ) -> BoxFuture<'a, Result<Seen, StoreUnavailable>> {
        Box::pin(async move {
            if self.asked.fetch_add(1, Ordering::SeqCst) == 0 {
                let wrong = if is_sqlite(&self.store) { "x'00'" } else { "'\\x00'::bytea" };
                on_index(&self.store, format!("UPDATE audit_index_progress SET hash = {wrong}")).await;
                assert_eq!(self.store.advance(1).await.unwrap(), Advanced::Emptied);
            }
            self.store.places(terms, after, until, limit).await
        })
    }

    fn records<'a>(&'a self, positions: &'a [Position]) -> BoxFuture<'a, Result<Vec<AuditEntry>, StoreUnavailable>> {
        self.store.records(positions)
    }

    fn stretch(&self, after: Position, to: Position, limit: u32) -> BoxFuture<'_, Result<Stretch, StoreUnavailable>> {
        self.store.stretch(after, to, limit)
    }
}

/// As an export and a prune leave it.
async fn remove_up_to(bench: &Bench, chain: i64, sequence: i64) {
    let position = chain * (1 << 40) + sequence;
    on_store(
        &bench.store,
        format!(
            "UPDATE audit_chain SET cut_sequence = {sequence}, \
             cut_hash = (SELECT hash FROM audit_record WHERE position = {position}) WHERE id = {chain}"
        ),
    )
    .await;
    let first = chain * (1 << 40);
    on_store(&bench.store, format!("DELETE FROM audit_record WHERE position > {first} AND position <= {position}"))
        .await;
}

fn is_sqlite(store: &Store) -> bool {
    matches!(store.engine, Engine::Sqlite { .. })
}

/// Runs a statement that only a test would.
async fn on_store(store: &Store, statement: String) {
    let mut transaction = store.begin_write().await.unwrap();
    sqlx::query(AssertSqlSafe(statement)).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

/// The same, where the index is.
async fn on_index(store: &Store, statement: String) {
    let statement = sqlx::query(AssertSqlSafe(statement));
    match &store.engine {
        Engine::Sqlite { index, .. } => {
            statement.execute(&index.opened().await.unwrap().sweeper).await.unwrap();
        }
        Engine::Postgres { .. } => {
            statement.execute(&store.writers).await.unwrap();
        }
    }
}

/// The places in all rows.
async fn places(store: &Store) -> usize {
    let readers = store.index_readers().await.unwrap();
    let rows: Vec<Block> =
        sqlx::query_as("SELECT at, position, places FROM audit_index_term").fetch_all(&readers).await.unwrap();
    rows.iter().map(|row| row.places().unwrap().len()).sum()
}

/// One for each thing that each record can be found by.
async fn expected_places(store: &Store) -> usize {
    let all = store.recent(100_000).await.unwrap();
    all.iter().map(|entry| Named::of(&entry.body).rows(entry.at).count()).sum()
}

#[tokio::test]
async fn tables_of_an_earlier_format_begin_anew() {
    let Some(bench) = Bench::postgres("earlier_format").await else { return };
    written(&bench, 40).await;
    let empty = bench.store.standing().await.unwrap();
    // Without rows they are not of any format yet.
    assert_eq!(bench.store.advance(30).await.unwrap(), Advanced::By(30));
    assert_eq!(bench.store.standing().await.unwrap().index, empty.index);
    for earlier in [1, 2] {
        written(&bench, 3).await;
        on_index(&bench.store, format!("UPDATE audit_index SET format = {earlier}")).await;
        assert_eq!(bench.store.advance(1_000).await.unwrap(), Advanced::Emptied);
        indexed(&bench.store).await;
        agrees_on_all(&bench.store).await;
        assert_eq!(places(&bench.store).await, expected_places(&bench.store).await);
    }
    // A later one is left alone, and nothing is found by it.
    on_index(&bench.store, "UPDATE audit_index SET format = 4".to_owned()).await;
    on_index(&bench.store, "DELETE FROM audit_index_term".to_owned()).await;
    assert_eq!(bench.store.advance(1_000).await.unwrap(), Advanced::Busy);
    agrees_on_all(&bench.store).await;
}
