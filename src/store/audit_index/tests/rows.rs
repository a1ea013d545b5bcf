//! Rows of several places: found page by page, swept in part, written over, and not believed where they cannot be read.

use super::super::block::SPAN;
use super::*;

contract!(
    busy_ones_are_found_page_by_page,
    a_term_of_many_rows,
    rows_that_were_written_in_other_steps_before_are_written_over,
    what_is_left_of_a_row_may_begin_where_another_does,
    a_row_that_cannot_be_read_is_not_believed,
    numbers_that_cannot_be_added_are_not_believed,
    a_record_that_has_a_term_twice_is_indexed,
    what_is_removed_of_a_row_is_swept_out_of_it,
);

/// One client in every record, another in each fiftieth: decided together, in any order, on two chains, and an hour apart.
async fn busy_ones_are_found_page_by_page(bench: &Bench) {
    let store = &bench.store;
    let of = |client: &str, reason: &str| {
        json!({ "kind": "decision", "outcome": "refused", "client_id": client, "reason": reason }).to_string()
    };
    let record = |number: i64| {
        let client = if number % 50 == 0 { "seldom" } else { "often" };
        let reason = if number % 7 == 0 { "one" } else { "other" };
        let hour = if number % 1_000 < 500 { 0 } else { 3_600_000 };
        (hour + number / 9 - (number * 37) % 11, of(client, reason))
    };
    let (mut one, mut other) = (Chain::of(store).await, Chain::of(store).await);
    for round in 0..4 {
        one.write((0..500).map(|number| record(2 * (round * 500 + number)))).await;
        other.write((0..500).map(|number| record(2 * (round * 500 + number) + 1))).await;
    }
    let all = looked_for(store, &Filter::default()).await;
    for steps in [0, 700, 10_000] {
        store.advance(steps).await.unwrap();
        for (client, reason) in [("often", "one"), ("seldom", "other"), ("seldom", "one"), ("often", "other")] {
            let named = |kind, text: &str| (kind, text.to_owned());
            for names in [
                vec![named(TermKind::Client, client)],
                vec![named(TermKind::Reason, reason)],
                vec![named(TermKind::Client, client), named(TermKind::Reason, reason)],
            ] {
                for (since, until) in [(-90, 4_000_000), (17, 3_600_030), (100, 101), (500, 3_600_000)] {
                    let filter = Filter { names: names.clone(), since: at(since), until: at(until) };
                    let expected: Vec<_> = all.iter().filter(|entry| filter.meets(entry)).cloned().collect();
                    for limit in [1, 10, 999, 10_000] {
                        let found = search(store, &filter, limit).await.unwrap();
                        let shown = expected.len().min(limit);
                        assert_eq!(
                            (&found.entries[..], found.more),
                            (&expected[..shown], expected.len() > limit),
                            "{filter:?}"
                        );
                    }
                }
            }
        }
        let term = Term::of(TermKind::Client, "often");
        let counted = store.count(term, at(0)..at(50), 10_000).await.unwrap();
        let indexed = store.standing().await.unwrap();
        let of_often = Filter { since: at(0), until: at(50), ..Filter::naming(TermKind::Client, "often") };
        let expected = all.iter().filter(|entry| of_often.meets(entry) && indexed.is_indexed(entry.position)).count();
        // Rows are counted whole, and octets for places.
        assert!((expected..=2 * expected + 1_000).contains(&usize::try_from(counted).unwrap()), "{counted} {expected}");
        assert_eq!(store.count(term, at(0)..at(50), 3).await.unwrap(), counted.min(3));
    }
    // In less than a tenth of the rows that one for each place would be.
    let readers = store.index_readers().await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM audit_index_term").fetch_one(&readers).await.unwrap();
    assert_eq!(places(store).await, expected_places(store).await);
    assert!(usize::try_from(rows).unwrap() < places(store).await / 10, "{rows}");
    // Each page of places goes on where the one before ended.
    let term = [Term::of(TermKind::Client, "seldom")];
    let (mut after, mut paged) = (Place::before(UnixTime::from_millis(i64::MIN)), Vec::new());
    loop {
        let (page, looked_at) = store.places(&term, after, UnixTime::from_millis(i64::MAX), 7).await.unwrap();
        assert!(page.len() <= 7 && page.iter().all(|place| *place > after));
        paged.extend(page);
        let Some(looked_at) = looked_at else { break };
        assert!(paged.last().is_none_or(|last| *last <= looked_at) && looked_at > after);
        after = looked_at;
    }
    let seldom = Filter::naming(TermKind::Client, "seldom");
    let expected: Vec<_> = all.iter().filter(|entry| seldom.meets(entry)).map(AuditEntry::place).collect();
    assert_eq!(paged, expected);
}

/// More rows of one term than are read at once, on two chains of which one is behind the other.
async fn a_term_of_many_rows(bench: &Bench) {
    let store = &bench.store;
    let record = |number: i64, participant: &str| {
        let reason = if number % 5 == 0 { "one" } else { "other" };
        json!({ "kind": "decision", "outcome": "refused", "client_id": "c", "participant_id": participant,
            "reason": reason })
        .to_string()
    };
    let (mut one, mut other) = (Chain::of(store).await, Chain::of(store).await);
    one.write((0..900).map(|number| (number * SPAN, record(number, "p")))).await;
    other.write((0..900).map(|number| (number * SPAN - 300 * SPAN, record(number, "q")))).await;
    indexed(store).await;
    let all = looked_for(store, &Filter::default()).await;
    let named = |kind, text: &str| (kind, text.to_owned());
    for names in [
        vec![named(TermKind::Client, "c")],
        vec![named(TermKind::Client, "c"), named(TermKind::Reason, "one")],
        vec![named(TermKind::Reason, "one"), named(TermKind::Outcome, "refused")],
        vec![named(TermKind::Participant, "p"), named(TermKind::Reason, "other")],
        // Each has many rows, and none of them is beside one of the other.
        vec![named(TermKind::Participant, "p"), named(TermKind::Participant, "q")],
    ] {
        let filter = Filter { names, ..Filter::default() };
        let expected: Vec<_> = all.iter().filter(|entry| filter.meets(entry)).cloned().collect();
        for limit in [1, 15, 16, 17, 48, 300, 1_000, 10_000] {
            let found = search(store, &filter, limit).await.unwrap();
            let shown = expected.len().min(limit);
            assert_eq!((&found.entries[..], found.more), (&expected[..shown], expected.len() > limit), "{limit}");
        }
    }
    let counted = async |most| store.count(Term::of(TermKind::Client, "c"), at(0)..at(100 * SPAN), most).await.unwrap();
    assert_eq!((counted(10_000).await, counted(7).await), (200, 7));
}

async fn rows_that_were_written_in_other_steps_before_are_written_over(bench: &Bench) {
    let store = &bench.store;
    written(bench, 60).await;
    for (before, after) in [(7, 1_000), (1_000, 7), (13, 7), (5, 3)] {
        for table in ["audit_index_term", "audit_index_progress"] {
            on_index(store, format!("DELETE FROM {table}")).await;
        }
        while store.advance(before).await.unwrap() != Advanced::By(0) {}
        // The rows are all there, and nobody knows.
        on_index(store, "DELETE FROM audit_index_progress".to_owned()).await;
        store.advance(after).await.unwrap();
        agrees_on_all(store).await;
        while store.advance(after).await.unwrap() != Advanced::By(0) {}
        agrees_on_all(store).await;
    }
}

async fn what_is_left_of_a_row_may_begin_where_another_does(bench: &Bench) {
    let store = &bench.store;
    let another = open(&bench.url, Migrate::Check).await.unwrap();
    Chain::of(&another).await.write((0..10).map(|number| (number, body(0)))).await;
    another.close().await;
    assert_eq!(store.advance(5).await.unwrap(), Advanced::By(5));
    assert_eq!(store.advance(2).await.unwrap(), Advanced::By(2));
    on_index(store, "DELETE FROM audit_index_progress".to_owned()).await;
    // Over the row of the first five; that of the two after them stays.
    indexed(store).await;
    assert_eq!(places(store).await, expected_places(store).await / 10 * 12);
    for sequence in [5, 6, 8] {
        remove_up_to(bench, 1, sequence).await;
        while store.sweep(1_000).await.unwrap() {}
        agrees_on_all(store).await;
    }
    assert_eq!(places(store).await, expected_places(store).await);
}

async fn a_row_that_cannot_be_read_is_not_believed(bench: &Bench) {
    let store = &bench.store;
    written(bench, 60).await;
    indexed(store).await;
    let before = store.standing().await.unwrap().index;
    let odd = if is_sqlite(store) { "x'80'" } else { "'\\x80'::bytea" };
    let outcome = TermKind::Outcome as i64;
    on_index(store, format!("UPDATE audit_index_term SET places = {odd} WHERE kind = {outcome}")).await;
    agrees_on_all(store).await;
    assert_ne!(store.standing().await.unwrap().index, before);
    assert_eq!(store.standing().await.unwrap().behind(), 60);
    indexed(store).await;
    agrees_on_all(store).await;
    assert_eq!(places(store).await, expected_places(store).await);
    // And when it is swept.
    on_index(store, format!("UPDATE audit_index_term SET places = {odd} WHERE kind = {outcome}")).await;
    remove_up_to(bench, 1, 20).await;
    assert!(store.sweep(1_000).await.unwrap());
    indexed(store).await;
    agrees_on_all(store).await;
    assert_eq!(places(store).await, expected_places(store).await);
}

/// As nobody here writes them: at the ends of what a number can be.
async fn numbers_that_cannot_be_added_are_not_believed(bench: &Bench) {
    let store = &bench.store;
    written(bench, 60).await;
    let outcome = TermKind::Outcome as i64;
    for column in ["span", "reach"] {
        indexed(store).await;
        let most = i64::MAX;
        on_index(store, format!("UPDATE audit_index_term SET {column} = {most} WHERE kind = {outcome}")).await;
        agrees_on_all(store).await;
        remove_up_to(bench, 1, if column == "span" { 5 } else { 9 }).await;
        while store.sweep(1_000).await.unwrap() {
            indexed(store).await;
        }
        agrees_on_all(store).await;
    }
}

/// Two texts whose terms are one: what is cut of their digests is alike, and they name the same millisecond.
async fn a_record_that_has_a_term_twice_is_indexed(bench: &Bench) {
    let store = &bench.store;
    let id = |number: u32| format!("{:012x}{number}", NOW.as_millis());
    let mut seen = std::collections::HashMap::new();
    let (one, other) = (0..)
        .find_map(|number| Some((seen.insert(Term::of(TermKind::Jti, &id(number)).value, number)?, number)))
        .unwrap();
    let withheld = json!({ "kind": "withheld", "jti": id(one), "token": { "jti": id(other) }, "reason": "x" });
    let mut chain = Chain::of(store).await;
    chain.write([(5_000, withheld.to_string())]).await;
    indexed(store).await;
    for number in [one, other] {
        assert_eq!(agrees(store, &Filter::naming(TermKind::Jti, &id(number))).await, 1);
    }
}

async fn what_is_removed_of_a_row_is_swept_out_of_it(bench: &Bench) {
    let store = &bench.store;
    let mut chain = Chain::of(store).await;
    // Decided in another order than that of their places.
    chain.write((0..200).map(|number| ((number * 37) % 200, body(0)))).await;
    indexed(store).await;
    for (sequence, limit) in [(1, 1_000), (90, 1), (91, 1_000), (200, 1)] {
        remove_up_to(bench, 1, sequence).await;
        agrees_on_all(store).await;
        while store.sweep(limit).await.unwrap() {}
        assert!(!store.standing().await.unwrap().has_removed);
        assert_eq!(places(store).await, expected_places(store).await);
        agrees_on_all(store).await;
    }
    assert_eq!(places(store).await, 0);
}
