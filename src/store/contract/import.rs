//! Many records entered at one moment.

use std::collections::HashSet;

use super::*;
use crate::expiry::Window;
use crate::expiry::store::{ExpiryStore, Soonest};
use crate::registry::certificate::PathIssuer;
use crate::registry::entitlement::Entitlement;
use crate::registry::export::ExportStore;
use crate::registry::import::{
    Contents, Entry, ImportId, ImportRefusal, ImportStore, Lease, Numbered, Origin, RevokedKey, Staged,
};
use crate::registry::trust_anchor::AnchorGrant;

contract!(
    what_is_staged_is_visible_to_nobody,
    what_was_published_is_there_at_one_version,
    a_client_asked_for_in_vain_is_found_after_the_import,
    what_an_import_gives_a_registered_client_is_in_force,
    what_was_abandoned_leaves_nothing,
    an_import_that_gives_no_sign_of_life_is_given_up,
    an_import_that_is_silent_between_two_looks_is_given_up,
    whoever_adds_what_is_being_imported_is_refused,
    what_is_registered_is_not_imported_again,
    what_comes_twice_in_one_lot_is_entered_once,
    a_name_of_another_participant_is_refused_in_an_import,
    a_seventeenth_live_certificate_is_refused_in_an_import,
    a_key_revoked_meanwhile_stops_the_import,
    a_key_that_an_import_revokes_is_revoked_by_hand_for_good,
    nothing_is_imported_for_what_has_ended_in_the_registry,
    what_has_ended_is_imported_with_what_refers_to_it,
    the_history_of_an_imported_record_names_its_import,
    more_concerned_than_may_be_is_refused,
    a_certificate_enrolled_on_first_use_overtakes_an_import,
    a_certificate_that_no_import_concerns_overtakes_none,
    a_certificate_out_of_reach_of_its_issuer_is_refused,
    a_lot_that_the_database_has_lost_is_noticed,
);

/// When others may give up an import that began at [`NOW`].
const UNTIL: UnixTime = UnixTime::from_seconds(NOW.as_seconds() + 30);

async fn begin(bench: &Bench) -> ImportId {
    bench.store.begin_import(origin(NOW), UNTIL).await.unwrap().import
}

fn origin(begun_at: UnixTime) -> Origin {
    Origin { actor: because("x").actor, begun_at, file: "partners.jsonl".to_owned() }
}

const fn of(import: ImportId) -> Lease {
    Lease { import, until: UNTIL }
}

/// Enters these, one line each.
async fn stage(bench: &Bench, import: ImportId, entries: Vec<Entry>) -> Result<Staged, ImportRefusal> {
    let number = |(line, entry)| Numbered { line, entry };
    let entries = (1..).zip(entries).map(number).collect();
    bench.store.stage(of(import), entries, because("bulk"), UNTIL).await
}

async fn publish(bench: &Bench, import: ImportId, staged: Staged) -> Result<RegistryVersion, ImportRefusal> {
    let mut concerns = staged.concerns;
    concerns.extend(staged.newcomer.map(Touched::Participant));
    bench.store.publish(of(import), &Contents::default(), concerns, because("bulk")).await
}

/// Why the only one of these that is refused is.
fn only(staged: &Staged) -> (u64, &EditRefusal) {
    let [refused] = staged.refused.as_slice() else { panic!("{staged:?}") };
    (refused.line, &refused.refusal)
}

fn a_client(id: &str, participant: &str) -> Entry {
    Entry::Client(Box::new(client(id, participant)), vec![])
}

fn a_certificate(number: u32, client: &str) -> Entry {
    Entry::Certificate(Box::new(facts(number).announced(client_id(client), NOW)))
}

fn a_grant(participant: &str, anchor: &str) -> Entry {
    let (participant_id, anchor_id) = (participant_id(participant), anchor_id(anchor));
    Entry::Grant(AnchorGrant { participant_id, anchor_id, name_space: any_name() })
}

/// One of each kind, about participant `bulk`.
fn one_of_each() -> Vec<Entry> {
    vec![
        Entry::Participant(participant("bulk")),
        Entry::Anchor { anchor: anchor("bulk-ca"), subject_der: b"bulk-ca".to_vec() },
        a_grant("bulk", "bulk-ca"),
        Entry::ResourceServer(resource_server("bulk-api")),
        a_client("bulk-1", "bulk"),
        a_certificate(900, "bulk-1"),
        Entry::Entitlement(entitlement("bulk-e", "bulk-1", "bulk-api")),
        Entry::RevokedKey(RevokedKey {
            key_hash: KeyHash::of(b"lost"),
            revoked_at: NOW,
            reason: RevocationReason::KeyCompromise,
        }),
    ]
}

/// How many rows of imports there are, in all tables.
async fn rows_of_imports(bench: &Bench) -> i64 {
    let mut rows = 0;
    for table in [
        "participant",
        "trust_anchor",
        "anchor_grant",
        "client",
        "certificate",
        "resource_server",
        "entitlement",
        "revoked_key",
    ] {
        let count = format!("SELECT COUNT(*) FROM {table} WHERE import_id <> 0");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&bench.store.readers).await.unwrap();
        rows += count;
    }
    rows
}

/// How many records an export has, and how many of them are of `bulk`.
async fn exported(bench: &Bench) -> (usize, usize) {
    let mut look = bench.store.look().await.unwrap();
    let (mut all, mut bulk) = (0, 0);
    loop {
        let entries = look.next().await.unwrap();
        if entries.is_empty() {
            return (all, bulk);
        }
        all += entries.len();
        bulk += entries.iter().filter(|entry| entry.subject().1.contains("bulk")).count();
    }
}

async fn what_is_staged_is_visible_to_nobody(bench: &Bench) {
    bench.populate().await;
    let (before, records) = (bench.store.head().await.unwrap(), exported(bench).await);
    let import = begin(bench).await;
    let staged = stage(bench, import, one_of_each()).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
    assert_eq!(rows_of_imports(bench).await, 8);
    let mut in_use = facts(901).announced(client_id("bulk-1"), NOW);
    (in_use.state, in_use.anchor) = (CertificateState::Active, Some(anchor_id("bulk-ca")));
    let (key_hash, issuer_key) = (KeyHash::of(b"intermediate"), KeyHash::of(b"root"));
    in_use.issuers = vec![PathIssuer { key_hash, issuer_key, serial: "0a".to_owned(), not_after: in_use.not_after }];
    let staged = stage(bench, import, vec![Entry::Certificate(Box::new(in_use))]).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
    nothing_is_listed(bench).await;

    let registry = &bench.registry;
    assert!(matches!(registry.client(&client_id("bulk-1")).await, Err(LookupRefusal::ClientUnknown)));
    assert_eq!(registry.participant(&participant_id("bulk")).await.unwrap(), None);
    assert_eq!(registry.anchor(&anchor_id("bulk-ca")).await.unwrap(), None);
    assert_eq!(registry.grants(&participant_id("bulk"), Page::first(9)).await.unwrap(), []);
    assert_eq!(registry.resource_server(&resource_server_id("bulk-api")).await.unwrap(), None);
    assert_eq!(registry.certificate(&facts(900).thumbprint).await.unwrap(), None);
    assert_eq!(registry.entitlement(&entitlement_id("bulk-e")).await.unwrap(), None);
    assert_eq!(registry.certificate_of(&KeyHash::of(b"issuer"), &facts(900).serial).await.unwrap(), None);
    assert!(!registry.knows(&facts(900).thumbprint, &[]).await.unwrap());
    let names = [(SubjectAttribute::TlsClientAuthSanDns, "bulk-1.example".to_owned())];
    assert!(!registry.knows(&Thumbprint::of(b"x"), &names).await.unwrap());
    let asker = registry.asker(&facts(900).thumbprint, &KeyHash::of(b"lost")).await.unwrap();
    assert!(!asker.is_a_client && !asker.key_is_revoked);
    assert_eq!((bench.store.head().await.unwrap(), exported(bench).await), (before, records));
    assert_eq!(registry.history(before.version, None, 9).await.unwrap(), []);
}

/// By whoever asks for many, or for what is to be done about them.
async fn nothing_is_listed(bench: &Bench) {
    let (bulk, store) = (participant_id("bulk"), &bench.store);
    for selection in [
        Selection::Anchors,
        Selection::Certificates(None),
        Selection::Certificates(Some(client_id("bulk-1"))),
        Selection::CertificatesBySerial(facts(901).serial),
        Selection::CertificatesUnder(anchor_id("bulk-ca")),
        Selection::Clients(None),
        Selection::Clients(Some(bulk.clone())),
        Selection::Entitlements(None),
        Selection::Entitlements(Some(client_id("bulk-1"))),
        Selection::Grants(bulk),
        Selection::Participants,
        Selection::ResourceServers,
    ] {
        let listed = store.list(selection.clone(), Page::first(99)).await.unwrap();
        assert!(listed.iter().all(|document| !document.record.contains("bulk")), "{selection:?}");
    }
    assert_eq!(store.live_serials(&KeyHash::of(b"issuer"), String::new(), 99).await.unwrap(), []);
    let window = Window { from: NOW, until: facts(901).not_after.after(Duration::from_secs(1)) };
    assert_eq!(store.leaves(window, None, 99).await.unwrap().leaves, []);
    assert_eq!(store.path_issuers(window, 99).await.unwrap(), []);
    assert_eq!(store.soonest(NOW).await.unwrap(), Soonest::default());
    // One that is staged for somebody else, and its key with it.
    let seen = bench.registry.would_be_sighted(&client_id("acme-1"), &sighting(900, "ca"), NOW).await.unwrap();
    assert!(seen.certificate(&facts(900).thumbprint).is_some());
}

async fn what_was_published_is_there_at_one_version(bench: &Bench) {
    bench.populate().await;
    let before = bench.store.head().await.unwrap().version;
    let import = begin(bench).await;
    let staged = stage(bench, import, one_of_each()).await.unwrap();
    let version = publish(bench, import, staged).await.unwrap();
    assert_eq!(version.0, before.0 + 1);
    bench.registry.catch_up().await.unwrap();
    let record = bench.record("bulk-1").await;
    assert_eq!((record.as_of, record.client.clone()), (version, client("bulk-1", "bulk")));
    assert_eq!(record.certificates.len(), 1);
    assert_eq!(record.anchors.len(), 1);
    assert_eq!(record.entitlements.len(), 1);
    let asker = bench.registry.asker(&facts(900).thumbprint, &KeyHash::of(b"lost")).await.unwrap();
    assert!(asker.is_a_client && asker.key_is_revoked);
    // It changes like any other.
    bench.registry.set_client_state(client_id("bulk-1"), ClientState::Suspended, because("x")).await.unwrap();
    assert_eq!(bench.record("bulk-1").await.client.state, ClientState::Suspended);
}

async fn a_client_asked_for_in_vain_is_found_after_the_import(bench: &Bench) {
    bench.populate().await;
    let node = bench.another().await;
    assert!(matches!(node.client(&client_id("bulk-1")).await, Err(LookupRefusal::ClientUnknown)));
    let import = begin(bench).await;
    let staged = stage(bench, import, one_of_each()).await.unwrap();
    publish(bench, import, staged).await.unwrap();
    node.catch_up().await.unwrap();
    assert!(node.client(&client_id("bulk-1")).await.is_ok());
}

async fn what_an_import_gives_a_registered_client_is_in_force(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_resource_server(resource_server("more"), because("new API")).await.unwrap();
    bench.join("other", &["other-1"], "ca").await;
    let node = bench.another().await;
    let before = node.client(&client_id("acme-1")).await.unwrap().record;
    let untouched = node.client(&client_id("other-1")).await.unwrap().record;
    let import = begin(bench).await;
    let entries = vec![Entry::Entitlement(entitlement("more-1", "acme-1", "more")), a_certificate(7, "acme-1")];
    let staged = stage(bench, import, entries).await.unwrap();
    // Loaded while it is under way.
    assert_eq!(bench.record("acme-1").await.entitlements.len(), 1);
    publish(bench, import, staged).await.unwrap();
    node.catch_up().await.unwrap();
    let after = node.client(&client_id("acme-1")).await.unwrap().record;
    assert_eq!((before.entitlements.len(), after.entitlements.len(), after.certificates.len()), (1, 2, 1));
    assert!(Arc::ptr_eq(&untouched, &node.client(&client_id("other-1")).await.unwrap().record));
}

async fn what_was_abandoned_leaves_nothing(bench: &Bench) {
    bench.populate().await;
    let records = exported(bench).await;
    let import = begin(bench).await;
    let staged = stage(bench, import, one_of_each()).await.unwrap();
    assert_eq!(bench.store.abandon(import).await.unwrap(), None);
    assert!(matches!(publish(bench, import, staged).await, Err(ImportRefusal::GivenUp)));
    assert!(matches!(stage(bench, import, one_of_each()).await, Err(ImportRefusal::GivenUp)));
    assert_eq!(exported(bench).await, records);
    assert!(bench.store.sweep_imports(None).await.unwrap());
    assert_eq!(rows_of_imports(bench).await, 0);
    assert!(!bench.store.sweep_imports(None).await.unwrap());
    // All of it is free again.
    let import = begin(bench).await;
    let staged = stage(bench, import, one_of_each()).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
    let version = publish(bench, import, staged).await.unwrap();
    // Nor given up by whoever has not heard that it is in force. What is in force is not swept.
    assert_eq!(bench.store.abandon(import).await.unwrap(), Some(version));
    assert!(!bench.store.sweep_imports(Some(of(import))).await.unwrap());
    assert_eq!(rows_of_imports(bench).await, 8);
}

async fn an_import_that_gives_no_sign_of_life_is_given_up(bench: &Bench) {
    let first = begin(bench).await;
    stage(bench, first, one_of_each()).await.unwrap();
    let just_before = UNTIL.before(Duration::from_millis(1));
    let refused = bench.store.begin_import(origin(just_before), UNTIL).await.unwrap_err();
    assert!(matches!(refused, ImportRefusal::AnotherUnderWay { .. }), "{refused}");
    assert!(!bench.store.sweep_imports(None).await.unwrap());
    assert_eq!(rows_of_imports(bench).await, 8);

    let second = bench.store.begin_import(origin(UNTIL), UNTIL.after(Duration::from_secs(30))).await.unwrap();
    assert!(second.import > first);
    assert_eq!(rows_of_imports(bench).await, 0);
    // The first wakes up.
    assert!(matches!(stage(bench, first, one_of_each()).await, Err(ImportRefusal::GivenUp)));
    assert!(matches!(publish(bench, first, Staged::default()).await, Err(ImportRefusal::GivenUp)));
    assert_eq!(rows_of_imports(bench).await, 0);
}

/// Whatever the calendar says.
async fn an_import_that_is_silent_between_two_looks_is_given_up(bench: &Bench) {
    assert_eq!(bench.store.import_under_way().await.unwrap(), None);
    let import = begin(bench).await;
    stage(bench, import, one_of_each()).await.unwrap();
    let first = bench.store.import_under_way().await.unwrap();
    assert_eq!(first, Some(of(import)));
    let until = UNTIL.after(Duration::from_millis(1));
    bench.store.stage(of(import), vec![], because("bulk"), until).await.unwrap();
    assert!(!bench.store.sweep_imports(first).await.unwrap());
    assert_eq!(rows_of_imports(bench).await, 8);
    let second = bench.store.import_under_way().await.unwrap();
    assert_eq!(second, Some(Lease { import, until }));
    assert!(bench.store.sweep_imports(second).await.unwrap());
    assert_eq!(rows_of_imports(bench).await, 0);
    assert_eq!(bench.store.import_under_way().await.unwrap(), None);
    assert!(!bench.store.sweep_imports(second).await.unwrap());
}

async fn whoever_adds_what_is_being_imported_is_refused(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    let mut entries = one_of_each();
    // A name under an anchor that is shared with a participant of the registry.
    entries.push(a_grant("bulk", "ca"));
    let staged = stage(bench, import, entries).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
    let registry = &bench.registry;
    let being_imported =
        |refusal: EditRefusal| assert!(matches!(refusal, EditRefusal::BeingImported { .. }), "{refusal}");
    being_imported(registry.add_participant(participant("bulk"), because("x")).await.unwrap_err());
    being_imported(registry.add_client(client("bulk-1", "acme"), vec![], because("x")).await.unwrap_err());
    being_imported(registry.add_resource_server(resource_server("bulk-api"), because("x")).await.unwrap_err());
    being_imported(registry.add_entitlement(entitlement("bulk-e", "acme-1", "api"), because("x")).await.unwrap_err());
    let added = registry.add_certificate(client_id("acme-1"), facts(900), because("x")).await;
    assert!(matches!(added, Err(EditRefusal::CertificateTaken)), "{added:?}");
    let mut namesake = client("acme-2", "acme");
    namesake.authentication = ClientAuthentication::TlsClientAuth { subject: dns("bulk-1.example") };
    let added = registry.add_client(namesake, vec![], because("x")).await;
    assert!(matches!(added, Err(EditRefusal::IdentityTaken { .. })), "{added:?}");
    // Nor is anything given to what is not there yet.
    let added = registry.add_certificate(client_id("bulk-1"), facts(1), because("x")).await;
    assert!(matches!(added, Err(EditRefusal::NotFound { .. })), "{added:?}");
    let added = registry.add_client(client("acme-3", "bulk"), vec![], because("x")).await;
    assert!(matches!(added, Err(EditRefusal::NotFound { .. })), "{added:?}");
    publish(bench, import, staged).await.unwrap();
}

async fn what_is_registered_is_not_imported_again(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("x")).await.unwrap();
    let import = begin(bench).await;
    for entry in [
        Entry::Participant(participant("acme")),
        Entry::Anchor { anchor: anchor("ca"), subject_der: b"ca".to_vec() },
        a_grant("acme", "ca"),
        Entry::ResourceServer(resource_server("api")),
        a_client("acme-1", "acme"),
        Entry::Entitlement(entitlement("e1", "acme-1", "api")),
    ] {
        let staged = stage(bench, import, vec![entry]).await.unwrap();
        assert!(matches!(only(&staged), (1, EditRefusal::AlreadyExists { .. })), "{staged:?}");
    }
    let staged = stage(bench, import, vec![a_certificate(1, "acme-1")]).await.unwrap();
    assert!(matches!(only(&staged), (1, EditRefusal::CertificateTaken)), "{staged:?}");
    assert_eq!(rows_of_imports(bench).await, 0);
}

async fn what_comes_twice_in_one_lot_is_entered_once(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    for (first, second) in [
        (a_client("bulk-1", "acme"), a_client("bulk-1", "acme")),
        (a_certificate(1, "acme-1"), a_certificate(1, "acme-1")),
        (
            Entry::Entitlement(entitlement("bulk-e", "acme-1", "api")),
            Entry::Entitlement(entitlement("bulk-e", "acme-1", "api")),
        ),
    ] {
        let staged = stage(bench, import, vec![first, second]).await.unwrap();
        assert_eq!(only(&staged).0, 2, "{staged:?}");
    }
    // The same issuer key and serial number in another DER.
    let mut rewritten = facts(2).announced(client_id("acme-1"), NOW);
    rewritten.thumbprint = Thumbprint::of(b"rewritten");
    let entries = vec![a_certificate(2, "acme-1"), Entry::Certificate(Box::new(rewritten))];
    let staged = stage(bench, import, entries).await.unwrap();
    assert!(matches!(only(&staged), (2, EditRefusal::SerialTaken)), "{staged:?}");
    assert_eq!(rows_of_imports(bench).await, 4);
}

async fn a_name_of_another_participant_is_refused_in_an_import(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    let mut entries = vec![Entry::Participant(participant("bulk")), a_grant("bulk", "ca")];
    let mut namesake = client("bulk-1", "bulk");
    namesake.authentication = ClientAuthentication::TlsClientAuth { subject: dns("acme-1.example") };
    entries.push(Entry::Client(Box::new(namesake), vec![]));
    let staged = stage(bench, import, entries).await.unwrap();
    assert!(matches!(only(&staged), (3, EditRefusal::IdentityTaken { .. })), "{staged:?}");
    // In one lot: two participants under one anchor.
    let twin = |id: &str, participant: &str| {
        let mut twin = client(id, participant);
        twin.authentication = ClientAuthentication::TlsClientAuth { subject: dns("twin.example") };
        Entry::Client(Box::new(twin), vec![])
    };
    let staged = stage(bench, import, vec![twin("twin-1", "bulk"), twin("twin-2", "acme")]).await.unwrap();
    assert!(matches!(only(&staged), (2, EditRefusal::IdentityTaken { .. })), "{staged:?}");
    // Two clients of one participant may have one name.
    let staged = stage(bench, import, vec![twin("twin-3", "bulk")]).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
}

async fn a_seventeenth_live_certificate_is_refused_in_an_import(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(100), because("x")).await.unwrap();
    let import = begin(bench).await;
    let lot = |from: u32, to: u32| (from..to).map(|number| a_certificate(number, "acme-1")).collect::<Vec<_>>();
    assert!(stage(bench, import, lot(0, 10)).await.unwrap().refused.is_empty());
    // Six more come to sixteen with the one that is registered.
    let staged = stage(bench, import, lot(10, 16)).await.unwrap();
    assert!(matches!(only(&staged), (6, EditRefusal::CertificateLimit { .. })), "{staged:?}");
    // One that is over takes no room.
    let mut over = facts(50).announced(client_id("acme-1"), NOW);
    over.state = CertificateState::Superseded { at: NOW };
    let staged = stage(bench, import, vec![Entry::Certificate(Box::new(over))]).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
}

async fn a_key_revoked_meanwhile_stops_the_import(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    let staged = stage(bench, import, vec![a_certificate(1, "acme-1")]).await.unwrap();
    bench.registry.revoke_key(facts(1).key_hash, because("found on the street")).await.unwrap();
    let refused = publish(bench, import, staged).await.unwrap_err();
    assert!(matches!(refused, ImportRefusal::KeyRevoked { .. }), "{refused}");
    bench.store.abandon(import).await.unwrap();
    bench.store.sweep_imports(None).await.unwrap();
    // Revoked it is.
    let import = begin(bench).await;
    let staged = stage(bench, import, vec![a_certificate(1, "acme-1")]).await.unwrap();
    assert!(matches!(only(&staged), (1, EditRefusal::KeyRevoked)), "{staged:?}");
}

async fn a_key_that_an_import_revokes_is_revoked_by_hand_for_good(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    let key_hash = facts(1).key_hash;
    let key = RevokedKey { key_hash, revoked_at: NOW, reason: RevocationReason::KeyCompromise };
    stage(bench, import, vec![Entry::RevokedKey(key)]).await.unwrap();
    bench.registry.revoke_key(key_hash, because("in a hurry")).await.unwrap();
    bench.store.abandon(import).await.unwrap();
    bench.store.sweep_imports(None).await.unwrap();
    let added = bench.registry.add_certificate(client_id("acme-1"), facts(1), because("x")).await;
    assert!(matches!(added, Err(EditRefusal::KeyRevoked)), "{added:?}");
}

async fn nothing_is_imported_for_what_has_ended_in_the_registry(bench: &Bench) {
    bench.populate().await;
    bench.join("gone", &["gone-1"], "ca").await;
    bench.registry.set_client_state(client_id("acme-1"), ClientState::Retired, because("x")).await.unwrap();
    let gone = participant_id("gone");
    bench.registry.set_participant_state(gone, ParticipantState::Withdrawn, because("x")).await.unwrap();
    bench.registry.retire_resource_server(resource_server_id("api"), because("x")).await.unwrap();
    let import = begin(bench).await;
    for entry in [
        a_certificate(1, "acme-1"),
        Entry::Entitlement(entitlement("e2", "acme-1", "api")),
        Entry::Entitlement(entitlement("e3", "gone-1", "api")),
        a_client("gone-2", "gone"),
    ] {
        let staged = stage(bench, import, vec![entry]).await.unwrap();
        assert!(matches!(only(&staged), (1, EditRefusal::StateForbids { .. })), "{staged:?}");
    }
    let staged = stage(bench, import, vec![a_certificate(1, "nobody")]).await.unwrap();
    assert!(matches!(only(&staged), (1, EditRefusal::NotFound { .. })), "{staged:?}");
}

async fn what_has_ended_is_imported_with_what_refers_to_it(bench: &Bench) {
    let import = begin(bench).await;
    let mut withdrawn = participant("bulk");
    withdrawn.state = ParticipantState::Withdrawn;
    let mut retired = client("bulk-1", "bulk");
    retired.state = ClientState::Retired;
    let mut api = resource_server("bulk-api");
    api.state = crate::registry::resource_server::ResourceServerState::Retired;
    let mut revoked = facts(1).announced(client_id("bulk-1"), NOW);
    revoked.state = CertificateState::Revoked { at: NOW, reason: RevocationReason::KeyCompromise };
    let key_hash = revoked.key_hash;
    let ended = Entitlement { ended_at: Some(NOW), ..entitlement("bulk-e", "bulk-1", "bulk-api") };
    let entries = vec![
        Entry::Participant(withdrawn),
        Entry::ResourceServer(api),
        Entry::Client(Box::new(retired), vec![]),
        a_client("bulk-2", "bulk"),
        Entry::Certificate(Box::new(revoked)),
        Entry::Entitlement(ended),
        Entry::RevokedKey(RevokedKey { key_hash, revoked_at: NOW, reason: RevocationReason::KeyCompromise }),
    ];
    let staged = stage(bench, import, entries).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
    // A certificate in use cannot have a key that was revoked.
    let mut twin = facts(2).announced(client_id("bulk-2"), NOW);
    twin.key_hash = key_hash;
    let refused = stage(bench, import, vec![Entry::Certificate(Box::new(twin))]).await.unwrap();
    assert!(matches!(only(&refused), (1, EditRefusal::KeyRevoked)), "{refused:?}");
    publish(bench, import, staged).await.unwrap();
}

async fn the_history_of_an_imported_record_names_its_import(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    let staged = stage(bench, import, one_of_each()).await.unwrap();
    let version = publish(bench, import, staged).await.unwrap();
    bench.registry.set_client_state(client_id("bulk-1"), ClientState::Suspended, because("x")).await.unwrap();
    let of = async |subject: &str| {
        let entries = bench.registry.history(RegistryVersion(0), Some(subject.to_owned()), 9).await.unwrap();
        entries.into_iter().map(|entry| entry.action).collect::<Vec<_>>()
    };
    assert_eq!(of("client:bulk-1").await, ["registry.import", "client.suspend"]);
    for subject in [
        "participant:bulk",
        "anchor:bulk-ca",
        "anchor_grant:bulk bulk-ca",
        "resource_server:bulk-api",
        "entitlement:bulk-e",
    ] {
        assert_eq!(of(subject).await, ["registry.import"], "{subject}");
    }
    assert_eq!(of("client:acme-1").await, ["client.add"]);
    let entry = bench.registry.history(RegistryVersion(version.0 - 1), None, 1).await.unwrap().remove(0);
    assert_eq!((entry.version, entry.subject.as_str()), (version, "import:1"));
    assert_eq!(entry.why.as_deref(), Some("bulk"));
}

async fn a_certificate_enrolled_on_first_use_overtakes_an_import(bench: &Bench) {
    bench.populate().await;
    let mut rewritten = facts(3).announced(client_id("bulk-1"), NOW);
    rewritten.thumbprint = Thumbprint::of(b"rewritten");
    let key_hash = facts(4).key_hash;
    let key = RevokedKey { key_hash, revoked_at: NOW, reason: RevocationReason::KeyCompromise };
    let mut api = resource_server("bulk-api");
    api.certificates = vec![facts(5).thumbprint, facts(6).thumbprint];
    // The certificate itself, for another client too; one with its serial number; one with a key that is to be revoked; one of a
    // resource server.
    for (number, entry) in [
        (1, a_certificate(1, "acme-1")),
        (2, a_certificate(2, "bulk-1")),
        (3, Entry::Certificate(Box::new(rewritten))),
        (4, Entry::RevokedKey(key)),
        (5, Entry::ResourceServer(api)),
    ] {
        let import = begin(bench).await;
        let staged =
            stage(bench, import, vec![Entry::Participant(participant("bulk")), a_client("bulk-1", "bulk"), entry]);
        let staged = staged.await.unwrap();
        assert!(staged.refused.is_empty(), "{staged:?}");
        let seen = bench.sighted("acme-1", &sighting(number, "ca"), NOW).await.unwrap();
        assert!(seen.record.certificate(&facts(number).thumbprint).is_some());
        assert!(matches!(publish(bench, import, staged).await, Err(ImportRefusal::GivenUp)), "{number}");
        assert!(bench.store.sweep_imports(None).await.unwrap());
        assert_eq!(rows_of_imports(bench).await, 0);
        assert!(bench.registry.certificate(&facts(number).thumbprint).await.unwrap().is_some());
    }
}

async fn a_certificate_that_no_import_concerns_overtakes_none(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    let staged = stage(bench, import, one_of_each()).await.unwrap();
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    publish(bench, import, staged).await.unwrap();
}

async fn more_concerned_than_may_be_is_refused(bench: &Bench) {
    let import = begin(bench).await;
    let touched = |number: usize| Touched::Participant(participant_id(&format!("p{number}")));
    let limit = crate::registry::import::CONCERNED;
    let too_many = Staged { concerns: (0..=limit).map(touched).collect(), ..Staged::default() };
    let refused = publish(bench, import, too_many).await.unwrap_err();
    assert!(matches!(refused, ImportRefusal::ConcernsTooMany { .. }), "{refused}");
    // New anchors do not count.
    let anchor = Touched::Anchor(anchor_id("bulk-ca"));
    let enough = Staged { concerns: (0..limit).map(touched).chain([anchor]).collect(), ..Staged::default() };
    publish(bench, import, enough).await.unwrap();
    bench.registry.catch_up().await.unwrap();
}

/// Nothing more is learnt of a certificate once it was seen: its issuer could revoke it, and nobody would find it.
async fn a_certificate_out_of_reach_of_its_issuer_is_refused(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    let of_no_issuer = |number: u32, client: &str, state: CertificateState| {
        let mut certificate = facts(number).announced(client_id(client), NOW);
        (certificate.issuer_key, certificate.state) = (None, state);
        certificate
    };
    let second = Duration::from_secs(1);
    let superseded = |at: UnixTime| CertificateState::Superseded { at };
    for state in [CertificateState::Active, superseded(NOW.after(second))] {
        let certificate = of_no_issuer(1, "acme-1", state);
        let staged = stage(bench, import, vec![Entry::Certificate(Box::new(certificate.clone()))]).await.unwrap();
        assert!(matches!(only(&staged), (1, EditRefusal::Malformed(_))), "{staged:?}");
        let known = Certificate { issuer_key: facts(1).issuer_key, ..certificate };
        let number = if known.state == CertificateState::Active { 2 } else { 3 };
        let known = Certificate { thumbprint: facts(number).thumbprint, serial: facts(number).serial, ..known };
        let staged = stage(bench, import, vec![Entry::Certificate(Box::new(known))]).await.unwrap();
        assert!(staged.refused.is_empty(), "{staged:?}");
    }
    let mut itself = client("acme-2", "acme");
    itself.authentication = ClientAuthentication::SelfSignedTlsClientAuth { jwks: r#"{"keys":[]}"#.to_owned() };
    let mut expired = of_no_issuer(7, "acme-1", CertificateState::Active);
    expired.not_after = NOW.before(second);
    let entries = vec![
        Entry::Client(Box::new(itself), vec![]),
        Entry::Certificate(Box::new(of_no_issuer(4, "acme-2", CertificateState::Active))),
        Entry::Certificate(Box::new(of_no_issuer(5, "acme-1", CertificateState::Announced))),
        Entry::Certificate(Box::new(of_no_issuer(6, "acme-1", superseded(NOW)))),
        Entry::Certificate(Box::new(expired)),
    ];
    let staged = stage(bench, import, entries).await.unwrap();
    assert!(staged.refused.is_empty(), "{staged:?}");
}

/// A fail-over to a node that had not heard of the last lot: the store has the sign of life before it.
async fn a_lot_that_the_database_has_lost_is_noticed(bench: &Bench) {
    bench.populate().await;
    let import = begin(bench).await;
    stage(bench, import, one_of_each()).await.unwrap();
    let later = Lease { import, until: UNTIL.after(Duration::from_millis(1)) };
    let staged = bench.store.stage(later, vec![], because("bulk"), UNTIL.after(Duration::from_secs(30))).await;
    assert!(matches!(staged, Err(ImportRefusal::Lost)), "{staged:?}");
    let published = bench.store.publish(later, &Contents::default(), HashSet::new(), because("bulk")).await;
    assert!(matches!(published, Err(ImportRefusal::Lost)), "{published:?}");
    let unknown = Lease { import: ImportId(import.0 + 1), until: UNTIL };
    let published = bench.store.publish(unknown, &Contents::default(), HashSet::new(), because("bulk")).await;
    assert!(matches!(published, Err(ImportRefusal::Lost)), "{published:?}");
    // With what the store has it goes on, and from then on with the next alone.
    let until = UNTIL.after(Duration::from_secs(30));
    bench.store.stage(of(import), vec![], because("bulk"), until).await.unwrap();
    let staged = bench.store.stage(of(import), vec![], because("bulk"), until).await;
    assert!(matches!(staged, Err(ImportRefusal::Lost)), "{staged:?}");
    bench.store.publish(Lease { import, until }, &Contents::default(), HashSet::new(), because("bulk")).await.unwrap();
}
