use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::status::MarkKind;
use sqlx::Row;

use super::*;
use crate::audit::{AuditStore, Batch, Entry};
use crate::backup::Origin;
use crate::registry::fixture::{NOW, because, participant, participant_id};
use crate::registry::history::Actor;
use crate::registry::import::{self, ImportStore};
use crate::registry::participant::ParticipantState;
use crate::registry::store::RegistryStore;
use crate::store::contract::{Bench, contract};
use crate::store::registry::MARK_LIFETIME;
use crate::store::schema;

contract!(
    every_table_is_in_a_backup_or_made_again,
    every_column_of_them_is,
    what_was_restored_is_what_was_backed_up,
    an_import_that_a_restore_cuts_in_two_is_given_up,
    only_an_empty_store_is_filled,
    a_restore_that_was_killed_leaves_a_store_that_says_so,
    rows_that_do_not_fit_leave_nothing,
    nobody_serves_before_it_is_confirmed,
    a_lease_of_the_lost_store_is_worth_nothing,
    a_look_sees_one_moment,
    a_restore_by_a_fast_clock_keeps_no_mark_for_a_year,
    the_first_lease_says_how_long_the_marks_of_before_last,
    what_was_served_by_an_earlier_build_is_not_served_first_again,
    a_restore_by_a_slow_clock_ends_all_that_was_issued,
    assertions_count_from_the_first_lease_where_the_restore_was_by_a_slow_clock,
);

const LATER: UnixTime = UnixTime::from_seconds(1_900_000_000);

fn restoration() -> Restoration {
    Restoration {
        epoch: 1_900_000_000,
        first_version: 1_900_000_000 << 20,
        at: LATER,
        actor: operator(),
        origin: Origin {
            file: "backup.gz".to_owned(),
            sha256: String::new(),
            at: NOW,
            node: "node-1".to_owned(),
            registry: RegistryAt { epoch: 1, version: 0, changed_at: None },
        },
        unproven: Vec::new(),
        lost: None,
        confirmed: None,
        served_from: None,
    }
}

fn operator() -> Actor {
    Actor::Operator { system_user: "root".to_owned(), stated_name: None }
}

fn explanation() -> Explanation {
    Explanation { actor: operator(), at: LATER, why: Some("the disk is gone".to_owned()) }
}

/// A store with something in most tables.
async fn filled(bench: &Bench) {
    bench.populate().await;
    bench
        .registry
        .set_participant_state(participant_id("acme"), ParticipantState::Suspended, because("late"))
        .await
        .unwrap();
    let lease = bench.store.lease("node-1", NOW, NOW.after(Duration::from_secs(3_600))).await.unwrap();
    let entry = |number| Entry::new(NOW, format!("{{\"number\":{number}}}"));
    let entries = (0..1_200).map(entry).collect();
    let batch = Batch { lease, entries, given_back: Vec::new(), history: None };
    bench.store.append(Arc::new(batch)).await.unwrap();
    bench.run("INSERT INTO audit_record_without_chain (writer, sequence, at, body) VALUES ('a#1', 7, 3, '{}')").await;
    bench.run("INSERT INTO audit_checkpoint (number, at, statement) VALUES (1, 5, 'x.y.z')").await;
    bench
        .run("INSERT INTO audit_forward (sink, lease, holder, leased_until, checkpoint) VALUES ('f', 3, 'n', 9, 1)")
        .await;
    bench.run("INSERT INTO history (version, step, at, actor, action, subject) VALUES (900, 0, 1, '{}', 'Zürich \\ \"', '')").await;
}

/// Another empty store on each engine there is.
async fn targets(name: &str) -> Vec<Bench> {
    [Some(Bench::sqlite().await), Bench::postgres(name).await].into_iter().flatten().collect()
}

async fn parts(store: &Store) -> Vec<Part> {
    let mut look = store.snapshot().await.unwrap();
    let mut parts = Vec::new();
    while let Some(part) = look.next().await.unwrap() {
        parts.push(part);
    }
    parts
}

async fn fill(store: &Store, parts: Vec<Part>) -> Result<(), BackupFailure> {
    let mut loading = store.load().await?;
    for part in parts {
        loading.take(part).await?;
    }
    loading.commit(&restoration()).await
}

/// All rows, whatever order an engine has them in.
fn rows(parts: Vec<Part>) -> BTreeMap<String, BTreeSet<String>> {
    let mut tables = BTreeMap::new();
    let mut table = String::new();
    for part in parts {
        match part {
            Part::Table { name, .. } => {
                tables.insert(name.clone(), BTreeSet::new());
                table = name;
            }
            Part::Rows(rows) => {
                let rows = rows.iter().map(|row| serde_json::to_string(row).unwrap());
                tables.get_mut(&table).unwrap().extend(rows);
            }
        }
    }
    tables
}

async fn every_table_is_in_a_backup_or_made_again(bench: &Bench) {
    let migrations = match bench.store.engine {
        Engine::Postgres { .. } => crate::store::postgres::MIGRATIONS,
        Engine::Sqlite { .. } => crate::store::sqlite::MIGRATIONS,
    };
    let known: BTreeSet<&str> =
        TABLES.iter().map(|table| table.name).chain(tables::MADE_AGAIN.iter().copied()).collect();
    let mut made = schema::tables(migrations, i64::MAX);
    made.push("audit_record_without_chain"); // which was renamed
    // Whoever adds a table says here whether it is in backups.
    assert!(made.iter().all(|table| known.contains(table)), "{made:?}");
    assert!(TABLES.iter().all(|table| made.contains(&table.name)), "{made:?}");
}

async fn every_column_of_them_is(bench: &Bench) {
    for table in TABLES {
        let statement = match bench.store.engine {
            Engine::Postgres { .. } => {
                "SELECT CAST(column_name AS TEXT) FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = $1"
            }
            Engine::Sqlite { .. } => "SELECT name FROM pragma_table_info($1)",
        };
        let found = sqlx::query(statement).bind(table.name).fetch_all(&bench.store.readers).await.unwrap();
        let found: BTreeSet<String> = found.iter().map(|row| row.get(0)).collect();
        assert_eq!(found, table.column_names().into_iter().collect(), "{}", table.name);
    }
}

/// What it entered after the backup is lost.
async fn an_import_that_a_restore_cuts_in_two_is_given_up(bench: &Bench) {
    let until = NOW.after(Duration::from_secs(30));
    let origin = import::Origin { actor: operator(), begun_at: NOW, file: "-".to_owned() };
    let lease = bench.store.begin_import(origin, until).await.unwrap();
    let entry = import::Entry::Participant(participant("bulk"));
    let entries = vec![import::Numbered { line: 1, entry }];
    bench.store.stage(lease, entries, because("bulk"), until).await.unwrap();
    let before = parts(&bench.store).await;
    for target in targets("cut").await {
        target.store.begin_to_load(&restoration()).await.unwrap();
        fill(&target.store, before.clone()).await.unwrap();
        let staged = target.store.stage(lease, Vec::new(), because("bulk"), until).await;
        assert!(matches!(staged, Err(import::ImportRefusal::GivenUp)), "{staged:?}");
        let published = target.store.publish(lease, &import::Contents::default(), [].into(), because("bulk")).await;
        assert!(matches!(published, Err(import::ImportRefusal::GivenUp)), "{published:?}");
    }
}

async fn what_was_restored_is_what_was_backed_up(bench: &Bench) {
    filled(bench).await;
    let before = parts(&bench.store).await;
    for target in targets("restored").await {
        target.store.begin_to_load(&restoration()).await.unwrap();
        fill(&target.store, before.clone()).await.unwrap();
        let (mut has, mut had) = (rows(parts(&target.store).await), rows(before.clone()));
        // What a restore is for, and nothing else.
        for table in ["registry_state", "audit_chain", "audit_forward", "restoration"] {
            assert_ne!(has.remove(table), had.remove(table), "{table}");
        }
        let marks: BTreeSet<String> = has
            .remove("revocation_mark")
            .unwrap()
            .difference(&had.remove("revocation_mark").unwrap())
            .cloned()
            .collect();
        assert_eq!(marks.len(), 1, "{marks:?}");
        assert!(marks.first().unwrap().starts_with("[\"issuer\",\"*\",1992294400000000,"), "{marks:?}");
        assert_eq!(has, had);
        assert!(had["audit_record"].len() == 1_200 && had["client"].len() == 1 && had["history"].len() > 5, "{had:?}");
        let head = target.store.head().await.unwrap();
        assert_eq!((head.past.epoch, head.version.0), (1_900_000_000, 1_900_000_000 << 20));
    }
}

async fn only_an_empty_store_is_filled(bench: &Bench) {
    bench.populate().await;
    let refused = bench.store.begin_to_load(&restoration()).await;
    assert!(matches!(refused, Err(BackupFailure::NotEmpty(_))), "{refused:?}");
    assert_eq!(bench.store.standing().await.unwrap(), Standing::Served);
    // A single record of the log is something.
    for target in targets("one").await {
        target.store.lease("node-1", NOW, NOW).await.unwrap();
        let refused = target.store.begin_to_load(&restoration()).await;
        assert!(matches!(refused, Err(BackupFailure::NotEmpty(_))), "{refused:?}");
    }
}

async fn a_restore_that_was_killed_leaves_a_store_that_says_so(bench: &Bench) {
    filled(bench).await;
    let before = parts(&bench.store).await;
    for target in targets("killed").await {
        let store = &target.store;
        store.begin_to_load(&restoration()).await.unwrap();
        assert_eq!(store.standing().await.unwrap(), Standing::Loading, "before the first row");
        for stop in 0..before.len() {
            let mut loading = store.load().await.unwrap();
            for part in before.iter().take(stop).cloned() {
                loading.take(part).await.unwrap();
            }
            drop(loading);
            assert_eq!(store.standing().await.unwrap(), Standing::Loading, "after {stop} parts");
            assert_eq!(store.head().await.unwrap().version.0, 0, "after {stop} parts");
        }
        fill(store, before.clone()).await.unwrap();
        assert_eq!(store.standing().await.unwrap(), Standing::Loading, "before it is on record");
        // Again from the beginning.
        store.begin_to_load(&restoration()).await.unwrap();
        assert!(!rows(parts(store).await).contains_key("nothing"));
        assert_eq!(rows(parts(store).await)["participant"].len(), 0);
        fill(store, before.clone()).await.unwrap();
        store.clear().await.unwrap();
        assert_eq!(rows(parts(store).await)["participant"].len(), 0);
        assert_eq!(store.standing().await.unwrap(), Standing::Loading);
        fill(store, before.clone()).await.unwrap();
        store.finish(&restoration(), None, explanation()).await.unwrap();
        assert_eq!(store.standing().await.unwrap(), Standing::Unconfirmed(vec![restoration()]));
        let refused = store.clear().await;
        assert!(refused.is_err(), "what is all there is not emptied");
    }
}

async fn rows_that_do_not_fit_leave_nothing(bench: &Bench) {
    filled(bench).await;
    let before = parts(&bench.store).await;
    let with = |change: &dyn Fn(&mut Vec<Part>)| {
        let mut parts = before.clone();
        change(&mut parts);
        parts
    };
    let at = |name: &str| {
        before.iter().position(|part| matches!(part, Part::Table { name: found, .. } if found == name)).unwrap()
    };
    let (participant, certificate) = (at("participant"), at("client"));
    let bad = [
        with(&|parts| drop(parts.pop())),
        with(&|parts| drop(parts.remove(0))),
        with(&|parts| drop(parts.remove(participant + 1))), // its client refers to nobody
        with(&|parts| parts.swap(participant, certificate)),
        with(&|parts| {
            let again = parts[participant + 1].clone();
            parts.insert(participant + 1, again);
        }),
        with(&|parts| parts[participant + 1] = Part::Rows(vec![vec![Cell::Integer(1), Cell::Null, Cell::Null]])),
        with(&|parts| parts[participant + 1] = Part::Rows(vec![vec![Cell::Text("x".to_owned())]])),
        with(&|parts| parts[participant + 1] = Part::Rows(vec![vec![Cell::Null, Cell::Null, Cell::Null]])),
        with(&|parts| {
            let row = ["x", "no state", "{}"].map(|text| Cell::Text(text.to_owned()));
            parts[participant + 1] = Part::Rows(vec![row.to_vec()]);
        }),
    ];
    for target in targets("misfits").await {
        target.store.begin_to_load(&restoration()).await.unwrap();
        // The last part is rows of the log: without them it is another log, which its chains tell.
        for (number, parts) in bad.iter().enumerate().skip(1) {
            let refused = fill(&target.store, parts.clone()).await;
            assert!(matches!(refused, Err(BackupFailure::Refused(_))), "{number}: {refused:?}");
            assert_eq!(target.store.head().await.unwrap().version.0, 0, "{number}");
        }
    }
}

async fn nobody_serves_before_it_is_confirmed(bench: &Bench) {
    filled(bench).await;
    let before = parts(&bench.store).await;
    bench.store.may_serve(RegistryVersion(0)).await.unwrap();
    for target in targets("confirmed").await {
        let store = &target.store;
        store.begin_to_load(&restoration()).await.unwrap();
        assert!(store.may_serve(RegistryVersion(0)).await.is_err());
        fill(store, before.clone()).await.unwrap();
        assert!(store.may_serve(RegistryVersion(0)).await.is_err());
        store.finish(&restoration(), None, explanation()).await.unwrap();
        assert!(store.may_serve(RegistryVersion(0)).await.is_err());
        let everything = |state: crate::registry::RevocationState| {
            state.marks.into_iter().any(|mark| mark.kind == MarkKind::Issuer && mark.version.0 == 1_900_000_000 << 20)
        };
        assert!(everything(store.marks(LATER).await.unwrap()));

        // Where the clock is a year behind: that shortens nothing (below).
        let behind = Explanation { at: LATER.before(Duration::from_secs(365 * 86_400)), ..explanation() };
        let version = store.confirm(TokensOfBefore::End, behind).await.unwrap().unwrap();
        assert_eq!(version.0, (1_900_000_000 << 20) + 1);
        store.may_serve(version).await.unwrap();
        assert!(store.may_serve(RegistryVersion(version.0 + 1)).await.is_err(), "that is another store");
        assert_eq!(store.standing().await.unwrap(), Standing::Served);
        assert!(everything(store.marks(LATER).await.unwrap()));
        // Forgotten once no token of before can live.
        assert!(!everything(store.marks(LATER.after(Duration::from_secs(3_660))).await.unwrap()));
        assert!(everything(store.marks(LATER.after(Duration::from_secs(3_659))).await.unwrap()));
        assert_eq!(store.confirm(TokensOfBefore::Live, explanation()).await.unwrap(), None, "once");
        assert_eq!(store.head().await.unwrap().version, version);
        let history = store.history(RegistryVersion((1_900_000_000 << 20) - 1), None, 10).await.unwrap();
        let actions: Vec<&str> = history.iter().map(|entry| entry.action.as_str()).collect();
        assert_eq!(actions, ["registry.restore", "registry.confirm_restore"]);

        // Restored once more: whoever keeps tokens then does not keep those that were ended the first time.
        let mut transaction = store.begin_write().await.unwrap();
        let again = "INSERT INTO restoration (epoch, state, record, statement) \
                     SELECT epoch + 1, 'unconfirmed', record, statement FROM restoration";
        sqlx::query(again).execute(&mut *transaction).await.unwrap();
        sqlx::query("UPDATE revocation_mark SET version = version + 7").execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        assert!(!everything(store.marks(LATER).await.unwrap()));
        store.confirm(TokensOfBefore::Live, explanation()).await.unwrap().unwrap();
        assert!(everything(store.marks(LATER).await.unwrap()));
    }
}

async fn a_lease_of_the_lost_store_is_worth_nothing(bench: &Bench) {
    filled(bench).await;
    // Held while the backup was made, and in the lost store ever since.
    let until = NOW.after(Duration::from_secs(1_000_000_000));
    let lease = bench.store.lease("node-2", NOW, until).await.unwrap();
    let before = parts(&bench.store).await;
    for target in targets("leased").await {
        let store = &target.store;
        store.begin_to_load(&restoration()).await.unwrap();
        fill(store, before.clone()).await.unwrap();
        let entries = || vec![Entry::new(NOW, "{}".to_owned())];
        let batch = Batch { lease, entries: entries(), given_back: Vec::new(), history: None };
        let refused = store.append(Arc::new(batch)).await;
        assert!(matches!(refused, Err(crate::audit::AppendRefusal::LeaseLost)), "{refused:?}");
        assert!(!store.renew(lease.head.chain(), lease.number, until).await.unwrap());
        let new = store.lease("node-2", NOW, until).await.unwrap();
        assert!(new.number > 1_900_000_000 << 20, "{new:?}");
    }
}

async fn a_look_sees_one_moment(bench: &Bench) {
    filled(bench).await;
    let expected = rows(parts(&bench.store).await);
    let mut look = bench.store.snapshot().await.unwrap();
    let summary = look.summary().await.unwrap();
    let mut seen = Vec::new();
    while let Some(part) = look.next().await.unwrap() {
        seen.push(part);
        // Each writes as ever: nobody waits for the look.
        let (to, why) = match seen.len() % 2 {
            0 => (ParticipantState::Suspended, "again"),
            _ => (ParticipantState::Active, "back"),
        };
        bench.registry.set_participant_state(participant_id("acme"), to, because(why)).await.unwrap();
    }
    assert_eq!(rows(seen), expected);
    assert_ne!(summary.registry.version, bench.store.head().await.unwrap().version.0);
}

const HOUR: Duration = Duration::from_secs(3_600);

/// A store that was restored at [`LATER`] from what is on `bench`, and confirmed at the same time.
async fn restored(bench: &Bench, name: &str, tokens: TokensOfBefore) -> Vec<Bench> {
    let before = parts(&bench.store).await;
    let targets = targets(name).await;
    for target in &targets {
        target.store.begin_to_load(&restoration()).await.unwrap();
        fill(&target.store, before.clone()).await.unwrap();
        target.store.finish(&restoration(), None, explanation()).await.unwrap();
        target.store.confirm(tokens, explanation()).await.unwrap();
        target.registry.catch_up().await.unwrap();
    }
    targets
}

async fn marks_at(bench: &Bench, at: UnixTime) -> Vec<String> {
    let marks = bench.store.marks(at).await.unwrap().marks;
    marks.into_iter().map(|mark| format!("{}:{}", mark.kind.as_str(), mark.id)).collect()
}

/// The host that restores is five hours slow: what the lost store issued until the nodes came back dies all the same.
async fn a_restore_by_a_slow_clock_ends_all_that_was_issued(bench: &Bench) {
    filled(bench).await;
    bench.store.serves_until(LATER, LATER).await.unwrap();
    let now = LATER.after(5 * HOUR);
    let until = now.after(Duration::from_secs(30));
    for target in restored(bench, "slow", TokensOfBefore::End).await {
        assert_eq!(marks_at(&target, now).await, [] as [&str; 0], "by the host's clock they are long over");
        assert_eq!(target.store.serves_until(now, until).await.unwrap(), until);
        let end = until.after(MARK_LIFETIME);
        assert_eq!(marks_at(&target, end.before(Duration::from_millis(1))).await, ["issuer:*"]);
        assert_eq!(marks_at(&target, end).await, [] as [&str; 0]);
    }
}

/// Every mark made since the restore, once, and none of before.
async fn the_first_lease_says_how_long_the_marks_of_before_last(bench: &Bench) {
    filled(bench).await;
    // One of before, that is still there.
    bench.store.serves_until(LATER, LATER).await.unwrap();
    bench.registry.set_participant_state(participant_id("acme"), ParticipantState::Active, because("x")).await.unwrap();
    bench
        .registry
        .set_participant_state(participant_id("acme"), ParticipantState::Suspended, because("x"))
        .await
        .unwrap();
    for target in restored(bench, "first", TokensOfBefore::Live).await {
        // Revoked again by a command that is as slow as the restore, which let the tokens of before live.
        let client = crate::registry::fixture::client_id("acme-1");
        let slow = Explanation { at: LATER, ..because("again") };
        let suspended = crate::registry::client::ClientState::Suspended;
        target.registry.set_client_state(client, suspended, slow).await.unwrap();
        let both = ["client:acme-1", "participant:acme"];
        assert_eq!(marks_at(&target, LATER).await, both);
        // A client's own token, whose end is known: it has ended by now.
        let own = "INSERT INTO revocation_mark (kind, id, version, forget_after, client_id) \
                   SELECT 'jti', 'own', version, 1, 'acme-1' FROM registry_state";
        target.run(own).await;
        let now = LATER.after(5 * HOUR);
        target.store.serves_until(now, now).await.unwrap();
        let end = now.after(MARK_LIFETIME);
        assert_eq!(marks_at(&target, end.before(Duration::from_millis(1))).await, ["client:acme-1"]);
        // Those after it are a lease like any other.
        target.store.serves_until(now, now.after(5 * HOUR)).await.unwrap();
        assert_eq!(marks_at(&target, end).await, [] as [&str; 0]);
        let records = target.store.all_restorations().await.unwrap();
        assert_eq!(records.iter().map(|record| record.served_from).collect::<Vec<_>>(), [Some(now)]);
    }
}

/// By an earlier build, which noted nothing: its first lease was long ago, and is none now.
async fn what_was_served_by_an_earlier_build_is_not_served_first_again(bench: &Bench) {
    filled(bench).await;
    for target in restored(bench, "served", TokensOfBefore::End).await {
        target.run("UPDATE audit_chain SET lease = lease + 1").await;
        let now = LATER.after(5 * HOUR);
        target.store.serves_until(now, now).await.unwrap();
        assert_eq!(target.store.all_restorations().await.unwrap()[0].served_from, None);
        assert_eq!(marks_at(&target, now).await, [] as [&str; 0]);
    }
}

async fn assertions_count_from_the_first_lease_where_the_restore_was_by_a_slow_clock(bench: &Bench) {
    filled(bench).await;
    let second = Duration::from_secs(1);
    let now = LATER.after(5 * HOUR);
    for target in restored(bench, "assertions", TokensOfBefore::End).await {
        assert_eq!(target.registry.epoch_begun(now), LATER.after(second));
        target.store.serves_until(now, now.after(HOUR)).await.unwrap();
        target.registry.catch_up().await.unwrap();
        assert_eq!(target.registry.epoch_begun(now.after(HOUR)), now);
        // A node that is a year ahead was the first: no other waits for that year.
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(target.registry.epoch_begun(now.before(year)), now.before(year));
    }
}

/// The host that restores and confirms is a year fast: its marks stay a day longer at most, and later ones not at all.
async fn a_restore_by_a_fast_clock_keeps_no_mark_for_a_year(bench: &Bench) {
    filled(bench).await;
    let now = LATER.before(Duration::from_secs(365 * 86_400));
    bench.store.serves_until(now, now).await.unwrap();
    for target in restored(bench, "fast", TokensOfBefore::End).await {
        assert_eq!(target.store.serves_until(now, now.after(HOUR)).await.unwrap(), now.after(HOUR));
        let end = now.after(24 * HOUR).after(MARK_LIFETIME);
        assert_eq!(marks_at(&target, end.before(Duration::from_millis(1))).await, ["issuer:*"]);
        assert_eq!(marks_at(&target, end).await, [] as [&str; 0]);
    }
}
