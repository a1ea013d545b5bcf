//! The tests each back end passes: what storage of the registry is.
//!
//! SQLite always; PostgreSQL where `COUNTERSIGN_TEST_POSTGRES` holds the URL of a database in which schemas may be made.
//! Every test has a database of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::status::MarkKind;
use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use sqlx::{Connection, Executor, PgConnection, Row, SqliteConnection};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use super::{Engine, Migrate, OpenError, Store, open};
use crate::registry::certificate::{Certificate, CertificateState, RevocationReason, Sighting};
use crate::registry::client::{Client, ClientAuthentication, ClientState, Enrolment, SubjectAttribute};
use crate::registry::edit::{Applied, CertificateSelector, Edit, EditRefusal, RecordKind};
use crate::registry::fixture::{
    NOW, anchor, anchor_id, any_name, because, because_at, client, client_id, dns, entitlement, entitlement_id, facts,
    participant, participant_id, resource_server, resource_server_id, sighting,
};
use crate::registry::history::{Actor, Change, Explanation, HistoryEntry, Touched};
use crate::registry::participant::ParticipantState;
use crate::registry::resource_server::Asker;
use crate::registry::store::{Answer, Document, Head, RegistryStore, Since, Watch};
use crate::registry::trust_anchor::{AnchorOwner, NameSpace};
use crate::registry::{
    ClientId, ClientRecord, FoundClient, KeyHash, LookupRefusal, MemorySize, Page, Registry, RegistryVersion,
    RevocationState, Selection, SightingRefusal, Stand, Thumbprint,
};

/// Each of these tests on each engine, on a database of its own.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            use super::Bench;
            $(
                #[tokio::test]
                async fn $name() {
                    super::$name(&Bench::sqlite().await).await;
                }
            )*
        }

        mod postgres {
            use super::Bench;
            $(
                #[tokio::test]
                async fn $name() {
                    match Bench::postgres(stringify!($name)).await {
                        Some(bench) => super::$name(&bench).await,
                        None => println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database"),
                    }
                }
            )*
        }
    };
}

pub(crate) use contract;

/// Clocks that are wrong.
mod clock;

mod expiry;

mod import;

mod life;

mod migration;

mod token;

/// Trust domains and their bundles.
mod trust_domain;

contract!(
    a_record_is_assembled_from_all_it_rests_on,
    every_change_takes_one_version_and_is_in_the_history,
    a_refused_change_leaves_nothing,
    sixty_four_writers_lose_no_update,
    of_sixty_four_suspensions_one_takes_place,
    a_participant_follows_its_state_table,
    a_client_follows_its_state_table,
    a_withdrawn_participant_gets_nothing_more,
    a_name_under_a_shared_anchor_belongs_to_one_participant,
    a_name_under_anchors_that_are_not_shared_may_be_used_twice,
    an_anchor_is_not_granted_where_two_participants_would_share_a_name,
    a_change_of_name_is_checked_like_a_new_one,
    an_identity_is_a_clients_or_a_resource_servers,
    a_certificate_is_a_clients_or_a_resource_servers,
    an_anchor_of_a_participant_vouches_for_nobody_else,
    an_anchor_key_is_enrolled_once,
    a_ninth_active_anchor_of_one_name_is_refused,
    a_seventeenth_live_certificate_is_refused,
    superseded_certificates_are_live_until_their_overlap_ends,
    a_second_certificate_under_one_issuer_key_and_serial_is_refused,
    the_same_key_and_serial_count_where_the_issuer_is_unknown,
    a_revoked_key_is_refused_at_enrolment,
    revoking_for_a_mild_reason_leaves_the_key_alone,
    revoking_a_certificate_revokes_its_key_for_every_client,
    a_certificate_is_revoked_by_issuer_key_and_serial,
    what_an_issuer_revokes_takes_a_key_along_only_where_it_was_proven,
    what_an_issuer_revoked_is_revoked_once,
    certificates_are_found_by_issuer_and_by_anchor,
    certificates_of_before_know_their_anchor,
    a_certificate_is_found_by_issuer_key_and_serial,
    a_key_is_revoked_before_any_certificate_has_it,
    an_entitlement_stays_within_its_resource_server,
    whatever_ends_admission_leaves_a_mark,
    records_are_changed_within_their_limits,
    what_does_not_end_admission_leaves_no_mark,
    a_mark_is_raised_and_in_time_forgotten,
    an_announced_certificate_becomes_active_when_it_is_sighted,
    a_certificate_is_enrolled_on_first_use,
    nothing_is_enrolled_where_enrolment_is_required,
    nothing_is_enrolled_for_a_suspended_client,
    a_certificate_of_another_client_is_not_enrolled,
    a_rewritten_certificate_is_not_enrolled,
    a_certificate_with_a_revoked_key_is_not_enrolled,
    a_seventeenth_certificate_is_not_enrolled,
    what_a_sighting_would_do_is_what_it_does,
    a_last_sighting_takes_no_version_and_never_goes_back,
    a_sighting_does_not_make_an_older_proof_newer,
    a_certificate_maps_by_itself_or_by_a_rule_that_enrols,
    lists_come_in_pages,
    the_history_comes_in_whole_versions,
    changes_come_in_order_and_all_of_them,
    an_unrelated_change_leaves_a_record_in_memory,
    a_change_made_here_is_in_force_at_once,
    a_change_made_elsewhere_is_in_force_within_a_second,
    a_client_added_after_it_was_asked_for_is_found,
    a_load_overtaken_by_a_change_is_discarded,
    those_who_ask_at_the_same_time_load_once,
    another_history_that_comes_as_far_is_not_taken_for_the_one_before,
    what_another_server_made_in_the_place_of_a_change_of_this_node_is_noticed,
    another_history_that_has_come_farther_is_not_taken_for_the_one_before,
    a_resource_servers_certificate_is_looked_up_once_and_again_after_a_change,
    another_epoch_empties_the_memory,
    a_gap_in_the_changes_is_not_passed_over,
    an_empty_database_is_missing_unless_it_may_be_made,
    a_newer_schema_is_refused,
    an_older_schema_is_refused_by_commands,
    an_unfinished_migration_is_refused,
    an_edited_migration_is_refused,
    a_missing_table_is_refused,
    opening_twice_at_the_same_time_migrates_once,
    what_changed_is_kept_for_as_long_as_anybody_may_ask,
    a_clock_that_is_wrong_takes_no_mark_away,
    an_anchor_of_ones_own_is_marked_itself,
    a_key_found_compromised_later_is_revoked_through_its_certificate,
    last_sightings_and_changes_do_not_wait_for_each_other_in_a_circle,
    a_sighting_that_cannot_be_written_is_given_up_in_time,
    superseded_without_an_overlap_is_over_for_decisions_under_way,
    last_sightings_that_cannot_be_written_are_given_up_in_time,
    a_record_that_cannot_be_read_is_unavailable_and_others_are_not,
);

/// A database of one test, and a registry in it.
pub(crate) struct Bench {
    pub(crate) url: String,
    pub(crate) store: Store,
    pub(crate) registry: Arc<Registry>,
    _directory: Option<TempDir>,
}

impl Bench {
    pub(crate) async fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("registry.db").display());
        Self::at(url, Some(directory)).await
    }

    pub(crate) async fn postgres(name: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::var("COUNTERSIGN_TEST_POSTGRES").ok()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("t{}_{number}_{}", std::process::id(), &name[..name.len().min(30)]);
        let mut connection = PgConnection::connect(&base).await.unwrap();
        // The name is made here, from a process id, a number and an identifier of this file.
        let statement = format!("CREATE SCHEMA {schema}");
        connection.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        connection.close().await.unwrap();
        let separator = if base.contains('?') { '&' } else { '?' };
        Some(Self::at(format!("{base}{separator}options=-csearch_path%3D{schema}"), None).await)
    }

    async fn at(url: String, directory: Option<TempDir>) -> Self {
        let store = open(&url, Migrate::Apply).await.unwrap();
        let registry = Registry::new(Arc::new(store.clone()), MemorySize::default(), "node-1").await.unwrap();
        Self { url, store, registry, _directory: directory }
    }

    /// Another process with the same database, as far as it can be told from inside one.
    async fn another(&self) -> Arc<Registry> {
        let store = open(&self.url, Migrate::Check).await.unwrap();
        Registry::new(Arc::new(store), MemorySize::default(), "node-2").await.unwrap()
    }

    /// Participant `acme` with client `acme-1`, anchor `ca`, API `api` and an entitlement for it.
    pub(super) async fn populate(&self) {
        self.join("acme", &["acme-1"], "ca").await;
        self.registry.add_resource_server(resource_server("api"), because("new API")).await.unwrap();
        self.registry.add_entitlement(entitlement("e1", "acme-1", "api"), because("contract")).await.unwrap();
    }

    /// A participant with clients and, made where it is not there yet, an anchor of the operator's.
    async fn join(&self, id: &str, clients: &[&str], ca: &str) {
        let registry = &self.registry;
        registry.add_participant(participant(id), because("joins")).await.unwrap();
        if registry.anchor(&anchor_id(ca)).await.unwrap().is_none() {
            registry.add_anchor(anchor(ca), ca.into(), because("new CA")).await.unwrap();
        }
        registry.grant_anchor(participant_id(id), anchor_id(ca), any_name(), because("shared")).await.unwrap();
        for name in clients {
            registry.add_client(client(name, id), vec![], because("new client")).await.unwrap();
        }
    }

    /// A certificate authenticates.
    async fn sighted(&self, id: &str, sighting: &Sighting, now: UnixTime) -> Result<FoundClient, SightingRefusal> {
        let proven = self.registry.client(&client_id(id)).await.unwrap();
        self.registry.sighted(&proven, sighting, now).await
    }

    async fn record(&self, id: &str) -> Arc<ClientRecord> {
        self.registry.client(&client_id(id)).await.unwrap().record
    }

    async fn mark_of(&self, kind: MarkKind, id: &str) -> Option<RegistryVersion> {
        let state = self.registry.marks(NOW).await.unwrap();
        state.marks.iter().find(|mark| mark.kind == kind && mark.id == id).map(|mark| mark.version)
    }

    /// Runs a statement that only a test would.
    pub(super) async fn run(&self, statement: &'static str) {
        match &self.store.engine {
            Engine::Sqlite { appender, .. } => {
                let mut connection = appender.take().await.unwrap();
                connection.execute(statement).await.unwrap();
                appender.keep(connection);
            }
            Engine::Postgres { pool, .. } => {
                pool.execute(statement).await.unwrap();
            }
        }
    }

    /// The same, with a statement that is made in the test.
    pub(crate) async fn tamper(&self, statement: &str) {
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        match &self.store.engine {
            Engine::Sqlite { appender, .. } => {
                let mut connection = appender.take().await.unwrap();
                connection.execute(statement).await.unwrap();
                appender.keep(connection);
            }
            Engine::Postgres { pool, .. } => {
                // A hundred thousand rows may take longer than a statement of the server's may.
                let mut transaction = pool.begin().await.unwrap();
                transaction.execute("SET LOCAL statement_timeout = 0").await.unwrap();
                transaction.execute(statement).await.unwrap();
                transaction.commit().await.unwrap();
            }
        }
    }

    /// Octets, as this engine's SQL writes them.
    pub(crate) fn octets(&self, octets: &[u8]) -> String {
        match &self.store.engine {
            Engine::Sqlite { .. } => format!("x'{}'", hex::encode(octets)),
            Engine::Postgres { .. } => format!("'\\x{}'::bytea", hex::encode(octets)),
        }
    }

    /// The state before migration 5.
    async fn undo_audit_chain(&self) {
        if matches!(self.store.engine, Engine::Postgres { .. }) {
            self.run("DROP TABLE audit_index, audit_index_progress, audit_index_sweep, audit_index_term").await;
        }
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
            self.tamper(&format!("DROP VIEW visible_{table}")).await;
            self.tamper(&format!("ALTER TABLE {table} DROP COLUMN import_id")).await;
        }
        for statement in [
            "DROP TABLE audit_log",
            "DROP TABLE audit_chain",
            "DROP TABLE audit_record",
            "DROP TABLE audit_checkpoint",
            "ALTER TABLE audit_record_without_chain RENAME TO audit_record",
            "CREATE TABLE audit_writer (node TEXT NOT NULL PRIMARY KEY, starts BIGINT NOT NULL)",
            "DROP TABLE audit_forward",
            "DROP TABLE audit_forward_cursor",
            "DROP TABLE resource_server_certificate",
            "DROP INDEX revocation_mark_by_client",
            "ALTER TABLE revocation_mark DROP COLUMN client_id",
            "DROP TABLE restoration",
            "DROP TABLE status_block",
            "DROP TABLE status_list",
            "DROP TABLE list_follower",
            "DROP TABLE signing_key",
            "DROP TABLE signing_key_ring",
            "ALTER TABLE revocation_mark DROP COLUMN status_list_id",
            "ALTER TABLE revocation_mark DROP COLUMN status_index",
            "DROP TABLE registry_import",
            "DROP VIEW registry_head",
            "DELETE FROM _sqlx_migrations WHERE version >= 5",
        ] {
            self.run(statement).await;
        }
    }

    async fn reopened(&self, migrate: Migrate) -> Result<(), OpenError> {
        open(&self.url, migrate).await.map(drop)
    }
}

async fn a_record_is_assembled_from_all_it_rests_on(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    let found = bench.registry.client(&client_id("acme-1")).await.unwrap();
    let record = &found.record;
    assert_eq!(record.client, client("acme-1", "acme"));
    assert_eq!(*record.participant, participant("acme"));
    assert_eq!(record.anchors.len(), 1);
    assert_eq!(*record.anchors[0].anchor, anchor("ca"));
    assert_eq!(record.anchors[0].name_space, any_name());
    assert_eq!(record.certificates, [facts(1).announced(client_id("acme-1"), NOW)]);
    assert_eq!(record.entitlements.len(), 1);
    assert_eq!(record.entitlements[0].entitlement, entitlement("e1", "acme-1", "api"));
    assert_eq!(*record.entitlements[0].resource_server, resource_server("api"));
    assert_eq!((record.as_of, found.version), (RegistryVersion(7), RegistryVersion(7)));
    assert!(matches!(bench.registry.client(&client_id("nobody")).await, Err(LookupRefusal::ClientUnknown)));
}

async fn every_change_takes_one_version_and_is_in_the_history(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    let version = bench
        .registry
        .set_participant_state(participant_id("acme"), ParticipantState::Suspended, because("unpaid"))
        .await
        .unwrap();
    assert_eq!(version.0, before.0 + 1);
    let entries = bench.registry.history(before, None, 10).await.unwrap();
    let [entry] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(
        *entry,
        HistoryEntry {
            version,
            at: NOW,
            actor: because("").actor,
            action: "participant.suspend".to_owned(),
            subject: RecordKind::Participant.subject("acme"),
            before: Some(serde_json::to_value(participant("acme")).unwrap()),
            after: Some(
                serde_json::to_value(crate::registry::participant::Participant {
                    state: ParticipantState::Suspended,
                    ..participant("acme")
                })
                .unwrap()
            ),
            why: Some("unpaid".to_owned()),
        }
    );
}

async fn a_refused_change_leaves_nothing(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    // The client is written before its second certificate is found to be its first one again.
    let refused = bench.registry.add_client(client("acme-2", "acme"), vec![facts(1), facts(1)], because("twice")).await;
    assert!(matches!(refused, Err(EditRefusal::CertificateTaken)), "{refused:?}");
    assert_eq!(bench.registry.catch_up().await.unwrap(), before);
    assert!(bench.registry.history(before, None, 10).await.unwrap().is_empty());
    assert!(bench.registry.changes_since(before).await.unwrap().is_empty());
    assert!(bench.registry.certificate(&facts(1).thumbprint).await.unwrap().is_none());
    assert_eq!(bench.registry.clients(None, Page::first(10)).await.unwrap().len(), 1);
}

async fn sixty_four_writers_lose_no_update(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    let writers = (0..64).map(|number| {
        let id = format!("acme-{}", number + 100);
        bench.registry.add_client(client(&id, "acme"), vec![], because("many"))
    });
    let versions: BTreeSet<i64> = join_all(writers).await.into_iter().map(|version| version.unwrap().0).collect();
    assert_eq!(versions, (before.0 + 1..=before.0 + 64).collect());
    assert_eq!(bench.registry.version().0, before.0 + 64);
    let clients = bench.registry.clients(Some(&participant_id("acme")), Page::first(100)).await.unwrap();
    assert_eq!(clients.len(), 65);
}

async fn of_sixty_four_suspensions_one_takes_place(bench: &Bench) {
    bench.populate().await;
    let other = bench.another().await;
    let writers = (0..64).map(|number| {
        let registry = if number % 2 == 0 { &bench.registry } else { &other };
        registry.set_participant_state(participant_id("acme"), ParticipantState::Suspended, because("all at once"))
    });
    let (made, refused): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (1, 63));
    for refusal in refused {
        assert!(matches!(refusal, Err(EditRefusal::StateForbids { .. })), "{refusal:?}");
    }
}

async fn a_participant_follows_its_state_table(bench: &Bench) {
    bench.populate().await;
    let to = |state| bench.registry.set_participant_state(participant_id("acme"), state, because("step"));
    assert!(matches!(to(ParticipantState::Pending).await, Err(EditRefusal::StateForbids { .. })));
    to(ParticipantState::Suspended).await.unwrap();
    to(ParticipantState::Active).await.unwrap();
    to(ParticipantState::Withdrawn).await.unwrap();
    assert!(matches!(to(ParticipantState::Active).await, Err(EditRefusal::StateForbids { .. })));
    assert_eq!(bench.record("acme-1").await.participant.state, ParticipantState::Withdrawn);
}

async fn a_client_follows_its_state_table(bench: &Bench) {
    bench.populate().await;
    let to = |state| bench.registry.set_client_state(client_id("acme-1"), state, because("step"));
    assert!(matches!(to(ClientState::Pending).await, Err(EditRefusal::StateForbids { .. })));
    to(ClientState::Suspended).await.unwrap();
    to(ClientState::Active).await.unwrap();
    to(ClientState::Retired).await.unwrap();
    assert!(matches!(to(ClientState::Active).await, Err(EditRefusal::StateForbids { .. })));
    assert_eq!(bench.record("acme-1").await.client.state, ClientState::Retired);
}

async fn a_withdrawn_participant_gets_nothing_more(bench: &Bench) {
    bench.populate().await;
    let registry = &bench.registry;
    registry
        .set_participant_state(participant_id("acme"), ParticipantState::Withdrawn, because("leaves"))
        .await
        .unwrap();
    let refused = registry.add_client(client("acme-2", "acme"), vec![], because("late")).await;
    assert!(matches!(refused, Err(EditRefusal::StateForbids { .. })), "{refused:?}");
    let refused = registry.grant_anchor(participant_id("acme"), anchor_id("ca"), any_name(), because("late")).await;
    assert!(matches!(refused, Err(EditRefusal::StateForbids { .. })), "{refused:?}");
}

async fn a_name_under_a_shared_anchor_belongs_to_one_participant(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &[], "ca").await;
    let mut twin = client("bolt-1", "bolt");
    twin.authentication = ClientAuthentication::TlsClientAuth { subject: dns("acme-1.example") };
    let refused = bench.registry.add_client(twin.clone(), vec![], because("same name")).await;
    let Err(refusal @ EditRefusal::IdentityTaken { .. }) = refused else { panic!("{refused:?}") };
    assert!(!refusal.to_string().contains("acme"), "who has the name is not told: {refusal}");

    // Another client of the same participant may have it, and a retired one has it no longer.
    let mut second = client("acme-2", "acme");
    second.authentication = twin.authentication.clone();
    bench.registry.add_client(second, vec![], because("same participant")).await.unwrap();
    for id in ["acme-1", "acme-2"] {
        bench.registry.set_client_state(client_id(id), ClientState::Retired, because("gone")).await.unwrap();
    }
    bench.registry.add_client(twin, vec![], because("free now")).await.unwrap();
}

async fn a_name_under_anchors_that_are_not_shared_may_be_used_twice(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &[], "other-ca").await;
    let mut twin = client("bolt-1", "bolt");
    twin.authentication = ClientAuthentication::TlsClientAuth { subject: dns("acme-1.example") };
    bench.registry.add_client(twin, vec![], because("same name, other anchor")).await.unwrap();
}

async fn an_anchor_is_not_granted_where_two_participants_would_share_a_name(bench: &Bench) {
    a_name_under_anchors_that_are_not_shared_may_be_used_twice(bench).await;
    let grant = || bench.registry.grant_anchor(participant_id("bolt"), anchor_id("ca"), any_name(), because("share"));
    let refused = grant().await;
    assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
    bench.registry.set_client_state(client_id("bolt-1"), ClientState::Retired, because("gone")).await.unwrap();
    grant().await.unwrap();
}

async fn a_change_of_name_is_checked_like_a_new_one(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "ca").await;
    let mut changed = client("bolt-1", "bolt");
    changed.authentication = ClientAuthentication::TlsClientAuth { subject: dns("acme-1.example") };
    let refused = bench.registry.change_client(changed.clone(), vec![], because("same name")).await;
    assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
    changed.authentication = ClientAuthentication::TlsClientAuth { subject: dns("bolt-9.example") };
    bench.registry.change_client(changed.clone(), vec![], because("new name")).await.unwrap();
    assert_eq!(bench.record("bolt-1").await.client, changed);
    changed.state = ClientState::Suspended;
    let refused = bench.registry.change_client(changed, vec![], because("by the back door")).await;
    assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{refused:?}");
}

async fn an_identity_is_a_clients_or_a_resource_servers(bench: &Bench) {
    bench.populate().await;
    let mut named = resource_server("named");
    named.subject = Some(dns("acme-1.example"));
    let refused = bench.registry.add_resource_server(named.clone(), because("a client's name")).await;
    assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
    named.subject = Some(dns("api.example"));
    bench.registry.add_resource_server(named, because("a name of its own")).await.unwrap();
    let mut twin = client("acme-2", "acme");
    twin.authentication = ClientAuthentication::TlsClientAuth { subject: dns("api.example") };
    let refused = bench.registry.add_client(twin, vec![], because("an API's name")).await;
    assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
}

async fn a_certificate_is_a_clients_or_a_resource_servers(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    let mut named = resource_server("named");
    named.certificates = vec![facts(1).thumbprint];
    let refused = bench.registry.add_resource_server(named.clone(), because("a client's certificate")).await;
    assert!(matches!(refused, Err(EditRefusal::CertificateTaken)), "{refused:?}");
    named.certificates = vec![facts(2).thumbprint];
    bench.registry.add_resource_server(named, because("its own")).await.unwrap();
    let refused = bench.registry.add_certificate(client_id("acme-1"), facts(2), because("an API's")).await;
    assert!(matches!(refused, Err(EditRefusal::CertificateTaken)), "{refused:?}");
}

async fn an_anchor_of_a_participant_vouches_for_nobody_else(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &[], "ca").await;
    let mut own = anchor("acme-ca");
    own.owner = AnchorOwner::Participant(participant_id("acme"));
    bench.registry.add_anchor(own, b"acme".to_vec(), because("their CA")).await.unwrap();
    let grant =
        |id| bench.registry.grant_anchor(participant_id(id), anchor_id("acme-ca"), any_name(), because("grant"));
    assert!(matches!(grant("bolt").await, Err(EditRefusal::AnchorOfAnother)));
    grant("acme").await.unwrap();
}

async fn an_anchor_key_is_enrolled_once(bench: &Bench) {
    bench.populate().await;
    let mut again = anchor("ca");
    again.owner = AnchorOwner::Participant(participant_id("acme"));
    let add = |anchor| bench.registry.add_anchor(anchor, b"ca".to_vec(), because("again"));
    let refused = add(again.clone()).await;
    let Err(refusal @ EditRefusal::AnchorKeyTaken) = refused else { panic!("{refused:?}") };
    assert!(refusal.to_string().contains("ask the operator"), "{refusal}");
    let refused = add(anchor("ca")).await;
    assert!(matches!(refused, Err(EditRefusal::AlreadyExists { .. })), "{refused:?}");
    bench.registry.retire_anchor(anchor_id("ca"), because("compromised")).await.unwrap();
    assert!(matches!(add(again).await, Err(EditRefusal::AnchorKeyTaken)));
    assert!(matches!(add(anchor("ca")).await, Err(EditRefusal::AlreadyExists { .. })));
}

async fn a_ninth_active_anchor_of_one_name_is_refused(bench: &Bench) {
    bench.join("acme", &[], "ca-0").await;
    for number in 1..10 {
        // `join` named the first anchor after its id; these all have that subject.
        let id = format!("ca-{number}");
        bench.registry.add_anchor(anchor(&id), b"ca-0".to_vec(), because("roll-over")).await.unwrap();
    }
    let grant =
        |id: &str| bench.registry.grant_anchor(participant_id("acme"), anchor_id(id), any_name(), because("grant"));
    for number in 1..8 {
        grant(&format!("ca-{number}")).await.unwrap();
    }
    let refused = grant("ca-8").await;
    assert!(matches!(refused, Err(EditRefusal::AnchorLimit { limit: 8, .. })), "{refused:?}");
    bench.registry.retire_anchor(anchor_id("ca-3"), because("old")).await.unwrap();
    grant("ca-8").await.unwrap();
    assert!(grant("ca-9").await.is_err());
    bench.registry.withdraw_anchor(participant_id("acme"), anchor_id("ca-4"), because("old")).await.unwrap();
    grant("ca-9").await.unwrap();
}

async fn a_seventeenth_live_certificate_is_refused(bench: &Bench) {
    bench.populate().await;
    let add = |facts| bench.registry.add_certificate(client_id("acme-1"), facts, because("announced"));
    let mut expired = facts(99);
    expired.not_after = UnixTime::from_seconds(NOW.as_seconds() - 1);
    add(expired).await.unwrap();
    for number in 1..=16 {
        add(facts(number)).await.unwrap();
    }
    let refused = add(facts(17)).await;
    assert!(matches!(refused, Err(EditRefusal::CertificateLimit { limit: 16, .. })), "{refused:?}");
    bench
        .registry
        .revoke_certificate(
            CertificateSelector::Thumbprint(facts(3).thumbprint),
            RevocationReason::CessationOfOperation,
            because("room"),
        )
        .await
        .unwrap();
    add(facts(17)).await.unwrap();
}

async fn superseded_certificates_are_live_until_their_overlap_ends(bench: &Bench) {
    bench.populate().await;
    let overlap_end = NOW.after(Duration::from_secs(600));
    for number in 1..=16 {
        bench.registry.add_certificate(client_id("acme-1"), facts(number), because("announced")).await.unwrap();
    }
    bench.registry.supersede_certificate(facts(1).thumbprint, overlap_end, because("replaced")).await.unwrap();
    let add = |at| bench.registry.add_certificate(client_id("acme-1"), facts(17), because_at("new", at));
    assert!(matches!(
        add(overlap_end.before(Duration::from_millis(1))).await,
        Err(EditRefusal::CertificateLimit { .. })
    ));
    add(overlap_end).await.unwrap();
}

async fn a_second_certificate_under_one_issuer_key_and_serial_is_refused(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "ca").await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    let mut second = facts(2);
    second.serial = facts(1).serial;
    for id in ["acme-1", "bolt-1"] {
        let refused = bench.registry.add_certificate(client_id(id), second.clone(), because("same serial")).await;
        assert!(matches!(refused, Err(EditRefusal::SerialTaken)), "{refused:?}");
    }
    second.issuer_key = Some(KeyHash::of(b"another issuer"));
    bench.registry.add_certificate(client_id("acme-1"), second, because("other issuer")).await.unwrap();
}

async fn the_same_key_and_serial_count_where_the_issuer_is_unknown(bench: &Bench) {
    bench.populate().await;
    let mut first = facts(1);
    first.issuer_key = None;
    bench.registry.add_certificate(client_id("acme-1"), first, because("announced")).await.unwrap();
    let mut rewritten = facts(2);
    rewritten.serial = facts(1).serial;
    rewritten.key_hash = facts(1).key_hash;
    let refused = bench.registry.add_certificate(client_id("acme-1"), rewritten.clone(), because("rewritten")).await;
    assert!(matches!(refused, Err(EditRefusal::SerialTaken)), "{refused:?}");
    rewritten.key_hash = facts(2).key_hash;
    bench.registry.add_certificate(client_id("acme-1"), rewritten, because("another key")).await.unwrap();
}

async fn a_revoked_key_is_refused_at_enrolment(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    revoke(bench, 1, RevocationReason::KeyCompromise).await;
    let mut renewed = facts(2);
    renewed.key_hash = facts(1).key_hash;
    let refused = bench.registry.add_certificate(client_id("acme-1"), renewed, because("same key")).await;
    assert!(matches!(refused, Err(EditRefusal::KeyRevoked)), "{refused:?}");
}

async fn revoke(bench: &Bench, number: u32, reason: RevocationReason) -> RegistryVersion {
    let certificate = CertificateSelector::Thumbprint(facts(number).thumbprint);
    bench.registry.revoke_certificate(certificate, reason, because("revoked")).await.unwrap()
}

async fn revoking_for_a_mild_reason_leaves_the_key_alone(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    let version = revoke(bench, 1, RevocationReason::Superseded).await;
    let mut renewed = facts(2);
    renewed.key_hash = facts(1).key_hash;
    bench.registry.add_certificate(client_id("acme-1"), renewed, because("same key")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Key, &facts(1).key_hash.to_string()).await, None);
    assert_eq!(bench.mark_of(MarkKind::Certificate, &facts(1).thumbprint.to_string()).await, Some(version));
}

async fn revoking_a_certificate_revokes_its_key_for_every_client(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "ca").await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    let mut same_key = facts(2);
    same_key.key_hash = facts(1).key_hash;
    bench.registry.add_certificate(client_id("bolt-1"), same_key, because("announced")).await.unwrap();
    bench.record("bolt-1").await;
    let version = revoke(bench, 1, RevocationReason::Unspecified).await;
    for (id, number) in [("acme-1", 1), ("bolt-1", 2)] {
        let state = bench.record(id).await.certificate(&facts(number).thumbprint).unwrap().state.clone();
        assert_eq!(state, CertificateState::Revoked { at: NOW, reason: RevocationReason::Unspecified });
        assert_eq!(bench.mark_of(MarkKind::Certificate, &facts(number).thumbprint.to_string()).await, Some(version));
    }
    assert_eq!(bench.mark_of(MarkKind::Key, &facts(1).key_hash.to_string()).await, Some(version));
    let again = CertificateSelector::Thumbprint(facts(1).thumbprint);
    let refused = bench.registry.revoke_certificate(again, RevocationReason::Unspecified, because("again")).await;
    assert!(matches!(refused, Err(EditRefusal::StateForbids { .. })), "{refused:?}");
}

async fn a_certificate_is_revoked_by_issuer_key_and_serial(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    let revoke = |issuer: &[u8]| {
        let selector = CertificateSelector::IssuerAndSerial(KeyHash::of(issuer), facts(1).serial);
        bench.registry.revoke_certificate(selector, RevocationReason::KeyCompromise, because("lost"))
    };
    assert!(matches!(revoke(b"another issuer").await, Err(EditRefusal::NotFound { .. })));
    revoke(b"issuer").await.unwrap();
    assert_eq!(bench.record("acme-1").await.certificates[0].state.as_str(), "revoked");
}

async fn a_certificate_is_found_by_issuer_key_and_serial(bench: &Bench) {
    bench.populate().await;
    let found =
        async |issuer: &[u8], serial: &str| bench.registry.certificate_of(&KeyHash::of(issuer), serial).await.unwrap();
    assert_eq!(found(b"issuer", &facts(1).serial).await, None);
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    assert_eq!(found(b"issuer", &facts(1).serial).await, Some(facts(1).thumbprint));
    assert_eq!(found(b"another issuer", &facts(1).serial).await, None);
    assert_eq!(found(b"issuer", &facts(2).serial).await, None);
    revoke(bench, 1, RevocationReason::KeyCompromise).await;
    assert_eq!(found(b"issuer", &facts(1).serial).await, Some(facts(1).thumbprint), "also when it is revoked");
}

async fn what_an_issuer_revokes_takes_a_key_along_only_where_it_was_proven(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    for number in 2..=3 {
        bench.sighted("acme-1", &sighting(number, "ca"), NOW).await.unwrap();
    }
    let revoked = vec![
        (facts(1).thumbprint, RevocationReason::KeyCompromise), // never seen here: its key may be anybody's
        (facts(2).thumbprint, RevocationReason::KeyCompromise),
        (facts(3).thumbprint, RevocationReason::PrivilegeWithdrawn),
    ];
    let version = bench.registry.revoke_by_issuer(revoked, because("listed")).await.unwrap();
    for (number, key_is_revoked) in [(1, None), (2, Some(version)), (3, None)] {
        let state = bench.record("acme-1").await.certificate(&facts(number).thumbprint).unwrap().state.clone();
        assert_eq!(state.as_str(), "revoked", "{number}");
        assert_eq!(bench.mark_of(MarkKind::Certificate, &facts(number).thumbprint.to_string()).await, Some(version));
        assert_eq!(bench.mark_of(MarkKind::Key, &facts(number).key_hash.to_string()).await, key_is_revoked, "{number}");
    }
}

async fn what_an_issuer_revoked_is_revoked_once(bench: &Bench) {
    bench.populate().await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    let listed = |numbers: &[u32]| {
        numbers.iter().map(|&number| (facts(number).thumbprint, RevocationReason::CaCompromise)).collect::<Vec<_>>()
    };
    let version = bench.registry.revoke_by_issuer(listed(&[1, 99]), because("listed")).await.unwrap();
    // The other node, a moment later.
    let again = bench.another().await.revoke_by_issuer(listed(&[1]), because("listed")).await;
    assert!(matches!(again, Err(EditRefusal::Malformed(_))), "{again:?}");
    assert_eq!(bench.registry.catch_up().await.unwrap(), version, "no version in which nothing happened");
}

async fn certificates_are_found_by_issuer_and_by_anchor(bench: &Bench) {
    bench.populate().await;
    for number in 1..=5 {
        bench.sighted("acme-1", &sighting(number, "ca"), NOW).await.unwrap();
    }
    revoke(bench, 4, RevocationReason::Superseded).await;
    let mut expected: Vec<_> =
        [1, 2, 3, 5].into_iter().map(|number| (facts(number).thumbprint, facts(number).serial)).collect();
    expected.sort_by(|(_, one), (_, other)| one.cmp(other));
    let issuer = sighting(1, "ca").issuer_key.unwrap();
    let mut serials = bench.registry.live_serials(&issuer, None, 3).await.unwrap();
    assert_eq!(serials.len(), 3);
    let last = serials.last().unwrap().1.clone();
    serials.extend(bench.registry.live_serials(&issuer, Some(last), 3).await.unwrap());
    assert_eq!(serials, expected);
    assert!(bench.registry.live_serials(&KeyHash::of(b"another"), None, 3).await.unwrap().is_empty());

    let anchor = sighting(1, "ca").anchor.unwrap();
    let first = bench.registry.certificates_under(&anchor, Page::first(3)).await.unwrap();
    let after = first.last().unwrap().thumbprint.to_string();
    let rest = bench.registry.certificates_under(&anchor, Page::after(after, 3)).await.unwrap();
    assert_eq!((first.len(), rest.len()), (3, 2));
    assert!(bench.registry.certificates_under(&anchor_id("another"), Page::first(3)).await.unwrap().is_empty());
}

/// What migration 3 makes of certificates that were there before it.
async fn certificates_of_before_know_their_anchor(bench: &Bench) {
    bench.populate().await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    bench.registry.add_certificate(client_id("acme-1"), facts(2), because("announced")).await.unwrap();
    bench.run("UPDATE certificate SET anchor_id = NULL").await;
    let migration = match bench.store.engine {
        Engine::Sqlite { .. } => include_str!("../../migrations/sqlite/0003_certificate_anchor.sql"),
        Engine::Postgres { .. } => include_str!("../../migrations/postgres/0003_certificate_anchor.sql"),
    };
    bench.run(migration.lines().find(|line| line.starts_with("UPDATE")).unwrap()).await;
    let found = bench.registry.certificates_under(&anchor_id("ca"), Page::first(3)).await.unwrap();
    assert_eq!(found.iter().map(|found| found.thumbprint).collect::<Vec<_>>(), [facts(1).thumbprint]);
}

async fn a_key_is_revoked_before_any_certificate_has_it(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    let version = bench.registry.revoke_key(facts(1).key_hash, because("published by mistake")).await.unwrap();
    assert_eq!(
        bench.registry.changes_since(before).await.unwrap(),
        [Change { version, touched: Touched::Key(facts(1).key_hash) }]
    );
    let refused = bench.registry.add_certificate(client_id("acme-1"), facts(1), because("that key")).await;
    assert!(matches!(refused, Err(EditRefusal::KeyRevoked)), "{refused:?}");
    assert_eq!(bench.mark_of(MarkKind::Key, &facts(1).key_hash.to_string()).await, Some(version));
}

async fn an_entitlement_stays_within_its_resource_server(bench: &Bench) {
    bench.populate().await;
    let add = |entitlement| bench.registry.add_entitlement(entitlement, because("contract"));
    let good = entitlement("e2", "acme-1", "api");
    let mut wrong = good.clone();
    wrong.scopes = Scope::parse("read delete").unwrap();
    assert!(matches!(add(wrong).await, Err(EditRefusal::Malformed(_))));
    let mut wrong = good.clone();
    wrong.ends_at = Some(wrong.starts_at);
    assert!(matches!(add(wrong).await, Err(EditRefusal::Malformed(_))));
    let mut wrong = good.clone();
    wrong.reason = " ".to_owned();
    assert!(matches!(add(wrong).await, Err(EditRefusal::Malformed(_))));
    let mut wrong = good.clone();
    wrong.resource_server_id = resource_server_id("none");
    assert!(matches!(add(wrong).await, Err(EditRefusal::NotFound { .. })));
    add(good.clone()).await.unwrap();
    assert!(matches!(add(good).await, Err(EditRefusal::AlreadyExists { .. })));
    bench.registry.retire_resource_server(resource_server_id("api"), because("gone")).await.unwrap();
    assert!(matches!(add(entitlement("e3", "acme-1", "api")).await, Err(EditRefusal::StateForbids { .. })));
}

async fn whatever_ends_admission_leaves_a_mark(bench: &Bench) {
    bench.populate().await;
    let registry = &bench.registry;
    let acme = || participant_id("acme");
    let version = registry.set_client_state(client_id("acme-1"), ClientState::Suspended, because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Client, "acme-1").await, Some(version));

    registry.add_certificate(client_id("acme-1"), facts(1), because("x")).await.unwrap();
    let version = registry.supersede_certificate(facts(1).thumbprint, NOW, because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Certificate, &facts(1).thumbprint.to_string()).await, Some(version));

    let narrow = NameSpace { dns_suffixes: vec!["acme.example".to_owned()], ..NameSpace::default() };
    let version = registry.grant_anchor(acme(), anchor_id("ca"), narrow, because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Participant, "acme").await, Some(version));
    let version = registry.withdraw_anchor(acme(), anchor_id("ca"), because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Participant, "acme").await, Some(version));
    assert_eq!(bench.mark_of(MarkKind::Anchor, "ca").await, None, "others have tokens under this anchor");
    assert!(bench.record("acme-1").await.anchors.is_empty());
    let version = registry.retire_anchor(anchor_id("ca"), because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Anchor, "ca").await, Some(version));

    let version = registry.end_entitlement(entitlement_id("e1"), because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Entitlement, "acme-1 https://api.example/").await, Some(version));
    let version = registry.retire_resource_server(resource_server_id("api"), because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::ResourceServer, "https://api.example/").await, Some(version));
    let version = registry.set_participant_state(acme(), ParticipantState::Suspended, because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Participant, "acme").await, Some(version));

    let mut changed = client("acme-1", "acme");
    changed.state = ClientState::Suspended;
    changed.authentication = ClientAuthentication::TlsClientAuth { subject: dns("acme-9.example") };
    let version = registry.change_client(changed, vec![], because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Client, "acme-1").await, Some(version));
}

async fn records_are_changed_within_their_limits(bench: &Bench) {
    bench.populate().await;
    let registry = &bench.registry;
    let mut renamed = participant("acme");
    renamed.legal_name = "Acme International".to_owned();
    registry.change_participant(renamed.clone(), because("renamed")).await.unwrap();
    assert_eq!(*bench.record("acme-1").await.participant, renamed);
    renamed.state = ParticipantState::Withdrawn;
    let refused = registry.change_participant(renamed, because("by the back door")).await;
    assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{refused:?}");

    let mut wider = resource_server("api");
    wider.scopes = Scope::parse("read write delete").unwrap();
    registry.change_resource_server(wider.clone(), because("more")).await.unwrap();
    let refused = registry.change_resource_server(resource_server("api"), because("less")).await;
    assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{refused:?}");
    wider.subject = Some(dns("acme-1.example"));
    let refused = registry.change_resource_server(wider, because("a client's name")).await;
    assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");

    let mut more = entitlement("e1", "acme-1", "api");
    more.scopes = Scope::parse("read delete").unwrap();
    registry.change_entitlement(more.clone(), because("more")).await.unwrap();
    assert_eq!(bench.record("acme-1").await.entitlements[0].entitlement, more);
    assert_eq!(registry.marks(NOW).await.unwrap().marks, []);
    let version = registry.change_entitlement(entitlement("e1", "acme-1", "api"), because("less")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Entitlement, "acme-1 https://api.example/").await, Some(version));
    let mut shorter = entitlement("e1", "acme-1", "api");
    shorter.ends_at = Some(NOW);
    let version = registry.change_entitlement(shorter, because("shorter")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Entitlement, "acme-1 https://api.example/").await, Some(version));
    let mut poorer = participant("acme");
    poorer.roles.clear();
    let version = registry.change_participant(poorer, because("no supplier any more")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Participant, "acme").await, Some(version));
}

async fn what_does_not_end_admission_leaves_no_mark(bench: &Bench) {
    bench.populate().await;
    let registry = &bench.registry;
    let mut changed = client("acme-1", "acme");
    changed.contact = Some("ops@acme.example".to_owned());
    registry.change_client(changed, vec![], because("x")).await.unwrap();
    registry.add_certificate(client_id("acme-1"), facts(1), because("x")).await.unwrap();
    let overlap_end = NOW.after(Duration::from_secs(600));
    registry.supersede_certificate(facts(1).thumbprint, overlap_end, because("x")).await.unwrap();
    registry.grant_anchor(participant_id("acme"), anchor_id("ca"), any_name(), because("x")).await.unwrap();
    assert_eq!(registry.marks(NOW).await.unwrap().marks, []);
}

async fn a_mark_is_raised_and_in_time_forgotten(bench: &Bench) {
    bench.populate().await;
    let to = |state, at| bench.registry.set_client_state(client_id("acme-1"), state, because_at("x", at));
    let first = to(ClientState::Suspended, NOW).await.unwrap();
    to(ClientState::Active, NOW).await.unwrap();
    let later = NOW.after(Duration::from_secs(60));
    let second = to(ClientState::Suspended, later).await.unwrap();
    assert!(first < second);
    let state = bench.registry.marks(NOW).await.unwrap();
    assert_eq!((state.epoch, state.version), (1, second));
    assert_eq!(bench.mark_of(MarkKind::Client, "acme-1").await, Some(second));
    let end = later.after(super::registry::MARK_LIFETIME);
    assert_eq!(bench.registry.marks(end.before(Duration::from_millis(1))).await.unwrap().marks.len(), 1);
    assert_eq!(bench.registry.marks(end).await.unwrap().marks, []);
}

async fn an_announced_certificate_becomes_active_when_it_is_sighted(bench: &Bench) {
    bench.populate().await;
    let mut announced = facts(1);
    announced.issuer_key = None;
    bench.registry.add_certificate(client_id("acme-1"), announced, because("announced")).await.unwrap();
    let before = bench.registry.version();
    let seen = NOW.after(Duration::from_secs(5));
    let found = bench.sighted("acme-1", &sighting(1, "ca"), seen).await.unwrap();
    let certificate = found.record.certificate(&facts(1).thumbprint).unwrap();
    assert_eq!(certificate.state, CertificateState::Active);
    assert_eq!(certificate.issuer_key, Some(KeyHash::of(b"issuer")));
    assert_eq!(certificate.anchor, Some(anchor_id("ca")));
    assert_eq!((certificate.first_seen, certificate.last_seen), (Some(seen), Some(seen)));
    assert_eq!(found.version.0, before.0 + 1);
    let entries = bench.registry.history(before, None, 10).await.unwrap();
    assert_eq!(entries[0].action, "certificate.activate");
    assert_eq!(entries[0].actor, Actor::Server { node: "node-1".to_owned() });
    // Again, and by another node: nothing more happens.
    for registry in [Arc::clone(&bench.registry), bench.another().await] {
        let again = registry
            .sighted(&registry.client(&client_id("acme-1")).await.unwrap(), &sighting(1, "ca"), seen)
            .await
            .unwrap();
        assert_eq!(again.version, found.version);
    }
}

async fn a_certificate_is_enrolled_on_first_use(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    let both =
        join_all([0, 1].map(|_| async { bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap() })).await;
    assert_eq!(bench.registry.version().0, before.0 + 1, "two connections at once enrol it once");
    for found in both {
        let enrolled = sighting(1, "ca").enrolled(client_id("acme-1"), NOW);
        assert_eq!(found.record.certificates, [enrolled]);
    }
}

async fn nothing_is_enrolled_where_enrolment_is_required(bench: &Bench) {
    bench.populate().await;
    let mut strict = client("acme-2", "acme");
    strict.enrolment = Enrolment::Required;
    bench.registry.add_client(strict, vec![], because("strict")).await.unwrap();
    let mut self_signed = client("acme-3", "acme");
    self_signed.authentication = ClientAuthentication::SelfSignedTlsClientAuth { jwks: "{}".to_owned() };
    let refused = bench.registry.add_client(self_signed.clone(), vec![], because("none")).await;
    assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{refused:?}");
    bench.registry.add_client(self_signed, vec![facts(7)], because("its own")).await.unwrap();
    let before = bench.registry.version();
    for id in ["acme-2", "acme-3"] {
        let refused = bench.sighted(id, &sighting(1, "ca"), NOW).await;
        assert_eq!(refused.unwrap_err(), SightingRefusal::Required);
        let why = because("asked directly");
        let refused = bench.store.sighted(&client_id(id), &sighting(1, "ca"), why).await;
        assert!(matches!(refused, Err(EditRefusal::EnrolmentRequired { .. })), "{refused:?}");
    }
    assert_eq!(bench.registry.catch_up().await.unwrap(), before);
}

async fn nothing_is_enrolled_for_a_suspended_client(bench: &Bench) {
    bench.populate().await;
    bench.registry.set_client_state(client_id("acme-1"), ClientState::Suspended, because("x")).await.unwrap();
    let found = bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    assert_eq!(found.record.certificates, []);
}

async fn a_certificate_of_another_client_is_not_enrolled(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "ca").await;
    bench.registry.add_certificate(client_id("bolt-1"), facts(1), because("announced")).await.unwrap();
    let refused = bench.sighted("acme-1", &sighting(1, "ca"), NOW).await;
    assert_eq!(refused.unwrap_err(), SightingRefusal::CertificateTaken);
}

async fn a_certificate_maps_by_itself_or_by_a_rule_that_enrols(bench: &Bench) {
    bench.populate().await;
    let name = |text: &str| vec![(SubjectAttribute::TlsClientAuthSanDns, text.to_owned())];
    let unseen = facts(1).thumbprint;
    let knows = async |thumbprint: &Thumbprint, names: &[_]| bench.registry.knows(thumbprint, names).await.unwrap();
    assert!(knows(&unseen, &name("acme-1.example")).await);
    assert!(!knows(&unseen, &name("acme-9.example")).await);
    assert!(!knows(&unseen, &[(SubjectAttribute::TlsClientAuthSanUri, "acme-1.example".to_owned())]).await);
    assert!(!knows(&unseen, &[]).await);

    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    assert!(knows(&unseen, &[]).await);
    let selector = CertificateSelector::Thumbprint(unseen);
    bench.registry.revoke_certificate(selector, RevocationReason::KeyCompromise, because("x")).await.unwrap();
    assert!(!knows(&unseen, &[]).await);

    bench.registry.set_client_state(client_id("acme-1"), ClientState::Suspended, because("x")).await.unwrap();
    assert!(!knows(&facts(2).thumbprint, &name("acme-1.example")).await);
    bench.registry.set_client_state(client_id("acme-1"), ClientState::Active, because("x")).await.unwrap();
    let required = Client { enrolment: Enrolment::Required, ..client("acme-1", "acme") };
    bench.registry.change_client(required, Vec::new(), because("x")).await.unwrap();
    assert!(!knows(&facts(2).thumbprint, &name("acme-1.example")).await);
}

async fn a_rewritten_certificate_is_not_enrolled(bench: &Bench) {
    bench.populate().await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    let rewritten = Sighting { thumbprint: facts(2).thumbprint, ..sighting(1, "ca") };
    let refused = bench.sighted("acme-1", &rewritten, NOW).await;
    assert_eq!(refused.unwrap_err(), SightingRefusal::SerialTaken);
}

async fn a_certificate_with_a_revoked_key_is_not_enrolled(bench: &Bench) {
    bench.populate().await;
    bench.registry.revoke_key(facts(1).key_hash, because("x")).await.unwrap();
    let refused = bench.sighted("acme-1", &sighting(1, "ca"), NOW).await;
    assert_eq!(refused.unwrap_err(), SightingRefusal::KeyRevoked);
}

async fn a_seventeenth_certificate_is_not_enrolled(bench: &Bench) {
    bench.populate().await;
    for number in 1..=16 {
        bench.sighted("acme-1", &sighting(number, "ca"), NOW).await.unwrap();
    }
    let refused = bench.sighted("acme-1", &sighting(17, "ca"), NOW).await;
    assert_eq!(refused.unwrap_err(), SightingRefusal::LimitReached);
    let refused = bench.store.sighted(&client_id("acme-1"), &sighting(17, "ca"), because("asked directly")).await;
    assert!(matches!(refused, Err(EditRefusal::CertificateLimit { .. })), "{refused:?}");
}

/// Asked first, nothing is changed by it; then done, and the same comes of it.
async fn asked_and_done(bench: &Bench, id: &str, sighting: &Sighting) -> Result<(), SightingRefusal> {
    let before = bench.registry.catch_up().await.unwrap();
    let asked = bench.registry.would_be_sighted(&client_id(id), sighting, NOW).await;
    assert_eq!(bench.registry.catch_up().await.unwrap(), before, "{id}: asking takes no version");
    let done = bench.sighted(id, sighting, NOW).await;
    let certificate = |record: &ClientRecord| record.certificate(&sighting.thumbprint).cloned();
    let asked = asked.map(|record| certificate(&record));
    assert_eq!(asked, done.as_ref().map(|found| certificate(&found.record)).map_err(Clone::clone), "{id}");
    done.map(drop)
}

async fn what_a_sighting_would_do_is_what_it_does(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1", "bolt-2"], "ca").await;
    let registry = &bench.registry;
    let asked_and_done = async |id: &str, sighting: Sighting| asked_and_done(bench, id, &sighting).await;
    assert_eq!(asked_and_done("acme-1", sighting(1, "ca")).await, Ok(()));
    assert_eq!(asked_and_done("acme-1", sighting(1, "ca")).await, Ok(()), "on record already");
    registry.add_certificate(client_id("acme-1"), facts(2), because("announced")).await.unwrap();
    assert_eq!(asked_and_done("acme-1", sighting(2, "ca")).await, Ok(()));
    let taken = asked_and_done("bolt-1", sighting(1, "ca")).await;
    assert_eq!(taken, Err(SightingRefusal::CertificateTaken));
    let rewritten = Sighting { thumbprint: facts(3).thumbprint, ..sighting(1, "ca") };
    assert_eq!(asked_and_done("acme-1", rewritten).await, Err(SightingRefusal::SerialTaken));
    registry.revoke_key(facts(4).key_hash, because("x")).await.unwrap();
    assert_eq!(asked_and_done("acme-1", sighting(4, "ca")).await, Err(SightingRefusal::KeyRevoked));
    for number in 5..=20 {
        registry.add_certificate(client_id("bolt-1"), facts(number), because("announced")).await.unwrap();
    }
    assert_eq!(asked_and_done("bolt-1", sighting(21, "ca")).await, Err(SightingRefusal::LimitReached));
    let required = Client {
        enrolment: Enrolment::Required,
        ..registry.client(&client_id("bolt-2")).await.unwrap().record.client.clone()
    };
    registry.change_client(required, Vec::new(), because("x")).await.unwrap();
    assert_eq!(asked_and_done("bolt-2", sighting(22, "ca")).await, Err(SightingRefusal::Required));
    registry.set_client_state(client_id("acme-1"), ClientState::Suspended, because("x")).await.unwrap();
    assert_eq!(asked_and_done("acme-1", sighting(23, "ca")).await, Ok(()), "which enrols nothing");
    assert_eq!(
        bench.registry.client(&client_id("acme-1")).await.unwrap().record.certificate(&facts(23).thumbprint),
        None
    );
}

async fn a_last_sighting_takes_no_version_and_never_goes_back(bench: &Bench) {
    bench.populate().await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    let version = bench.registry.version();
    let later = NOW.after(Duration::from_secs(60));
    let thumbprint = facts(1).thumbprint;
    for (thumbprint, seen) in [(thumbprint, later), (facts(2).thumbprint, later), (thumbprint, NOW)] {
        bench.registry.note_seen(thumbprint, seen);
        bench.registry.flush_seen().await.unwrap();
    }
    assert_eq!(bench.registry.catch_up().await.unwrap(), version);
    assert_eq!(bench.registry.certificate(&thumbprint).await.unwrap().unwrap().last_seen, Some(later));
    assert!(bench.registry.certificate(&facts(2).thumbprint).await.unwrap().is_none());
    // A change keeps it.
    revoke(bench, 1, RevocationReason::Superseded).await;
    assert_eq!(bench.record("acme-1").await.certificates[0].last_seen, Some(later));
}

async fn a_sighting_does_not_make_an_older_proof_newer(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "other-ca").await;
    let proven = bench.registry.client(&client_id("acme-1")).await.unwrap();
    // What touches others only, and the sighting itself, leave the proof as good as it was.
    bench.registry.set_client_state(client_id("bolt-1"), ClientState::Suspended, because("x")).await.unwrap();
    let found = bench.registry.sighted(&proven, &sighting(1, "ca"), NOW).await.unwrap();
    assert_eq!(found.version, bench.registry.version());
    // The client's name changes between the proof and the sighting.
    let proven = found;
    let mut renamed = client("acme-1", "acme");
    renamed.authentication = ClientAuthentication::TlsClientAuth { subject: dns("acme-9.example") };
    bench.registry.change_client(renamed.clone(), vec![], because("renamed")).await.unwrap();
    for number in [1, 2] {
        let found = bench.registry.sighted(&proven, &sighting(number, "ca"), NOW).await.unwrap();
        assert_eq!(found.record.client, renamed);
        assert_eq!(found.version, proven.version, "certificate {number}");
    }
}

async fn lists_come_in_pages(bench: &Bench) {
    bench.join("acme", &["c1", "c2", "c3"], "ca").await;
    bench.join("bolt", &["d1"], "ca").await;
    let ids = |clients: Vec<crate::registry::client::Client>| -> Vec<String> {
        clients.iter().map(|client| client.id.to_string()).collect()
    };
    let registry = &bench.registry;
    assert_eq!(ids(registry.clients(None, Page::first(2)).await.unwrap()), ["c1", "c2"]);
    assert_eq!(ids(registry.clients(None, Page::after("c2", 2)).await.unwrap()), ["c3", "d1"]);
    let acme = participant_id("acme");
    assert_eq!(ids(registry.clients(Some(&acme), Page::after("c2", 9)).await.unwrap()), ["c3"]);
    assert_eq!(registry.participants(Page::first(9)).await.unwrap(), [participant("acme"), participant("bolt")]);
    assert_eq!(registry.anchors(Page::first(9)).await.unwrap(), [anchor("ca")]);
    assert_eq!(registry.grants(&acme, Page::first(9)).await.unwrap().len(), 1);
    assert_eq!(registry.resource_servers(Page::first(9)).await.unwrap(), []);
    assert_eq!(registry.entitlements(None, Page::first(9)).await.unwrap(), []);
    assert_eq!(registry.certificates(Some(&client_id("c1")), Page::first(9)).await.unwrap(), []);
    assert_eq!(registry.participant(&acme).await.unwrap(), Some(participant("acme")));
    assert_eq!(registry.resource_server(&resource_server_id("api")).await.unwrap(), None);
    assert_eq!(registry.entitlement(&entitlement_id("e")).await.unwrap(), None);
}

async fn the_history_comes_in_whole_versions(bench: &Bench) {
    bench.join("acme", &[], "ca").await;
    let before = bench.registry.version();
    // One version, three entries.
    bench.registry.add_client(client("c1", "acme"), vec![facts(1), facts(2)], because("x")).await.unwrap();
    bench.registry.set_client_state(client_id("c1"), ClientState::Suspended, because("x")).await.unwrap();
    let page = bench.registry.history(before, None, 1).await.unwrap();
    let actions: Vec<&str> = page.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["client.add", "certificate.enrol", "certificate.enrol"]);
    let next = bench.registry.history(page[0].version, None, 1).await.unwrap();
    assert_eq!(next[0].action, "client.suspend");
    let subject = RecordKind::Client.subject("c1");
    let of_client = bench.registry.history(RegistryVersion(0), Some(subject), 10).await.unwrap();
    let actions: Vec<&str> = of_client.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["client.add", "client.suspend"]);
}

async fn changes_come_in_order_and_all_of_them(bench: &Bench) {
    bench.populate().await;
    let touched = [
        Touched::Participant(participant_id("acme")),
        Touched::Anchor(anchor_id("ca")),
        Touched::Participant(participant_id("acme")),
        Touched::Client(client_id("acme-1")),
        Touched::ResourceServer(resource_server_id("api")),
        Touched::Client(client_id("acme-1")),
    ];
    let expected: Vec<Change> =
        (1..).zip(touched).map(|(version, touched)| Change { version: RegistryVersion(version), touched }).collect();
    assert_eq!(bench.registry.changes_since(RegistryVersion(0)).await.unwrap(), expected);
    assert_eq!(bench.registry.changes_since(RegistryVersion(4)).await.unwrap(), expected[4..]);
    assert_eq!(bench.registry.changes_since(RegistryVersion(6)).await.unwrap(), []);
    let Since { head, changes: first, .. } = bench.store.changes_since(RegistryVersion(0), 2).await.unwrap();
    assert_eq!((head.version, first), (RegistryVersion(6), expected[..2].to_vec()));
}

async fn an_unrelated_change_leaves_a_record_in_memory(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "other-ca").await;
    let before = bench.registry.client(&client_id("acme-1")).await.unwrap();
    let version =
        bench.registry.set_client_state(client_id("bolt-1"), ClientState::Suspended, because("x")).await.unwrap();
    let after = bench.registry.client(&client_id("acme-1")).await.unwrap();
    assert!(Arc::ptr_eq(&before.record, &after.record));
    assert_eq!(after.version, version, "it has been checked against the change");
}

async fn a_change_made_here_is_in_force_at_once(bench: &Bench) {
    bench.populate().await;
    let receiver = bench.registry.subscribe();
    let before = bench.record("acme-1").await;
    let changes: [BoxFuture<'_, Result<RegistryVersion, EditRefusal>>; 5] = [
        bench.registry.set_participant_state(participant_id("acme"), ParticipantState::Suspended, because("x")).boxed(),
        bench.registry.retire_anchor(anchor_id("ca"), because("x")).boxed(),
        bench.registry.add_certificate(client_id("acme-1"), facts(1), because("x")).boxed(),
        bench.registry.revoke_key(facts(1).key_hash, because("x")).boxed(),
        bench.registry.retire_resource_server(resource_server_id("api"), because("x")).boxed(),
    ];
    let mut last = before;
    for change in changes {
        let version = change.await.unwrap();
        let found = bench.registry.client(&client_id("acme-1")).await.unwrap();
        assert!(!Arc::ptr_eq(&last, &found.record));
        assert_eq!((found.version, *receiver.borrow()), (version, version));
        last = found.record;
    }
    assert_eq!(last.certificates[0].state.as_str(), "revoked");
}

async fn a_change_made_elsewhere_is_in_force_within_a_second(bench: &Bench) {
    bench.populate().await;
    let other = bench.another().await;
    let watcher = bench.registry.keep_current();
    let mut versions = bench.registry.subscribe();
    assert_eq!(bench.record("acme-1").await.client.state, ClientState::Active);
    for state in [ClientState::Suspended, ClientState::Active, ClientState::Retired] {
        let version = other.set_client_state(client_id("acme-1"), state, because("from afar")).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), versions.wait_for(|seen| *seen >= version))
            .await
            .expect("within a second")
            .unwrap();
        assert_eq!(bench.record("acme-1").await.client.state, state);
    }
    watcher.abort();
}

async fn a_client_added_after_it_was_asked_for_is_found(bench: &Bench) {
    bench.populate().await;
    let id = client_id("acme-2");
    for _ in 0..2 {
        assert!(matches!(bench.registry.client(&id).await, Err(LookupRefusal::ClientUnknown)));
    }
    let other = bench.another().await;
    other.add_client(client("acme-2", "acme"), vec![], because("x")).await.unwrap();
    assert!(matches!(bench.registry.client(&id).await, Err(LookupRefusal::ClientUnknown)), "remembered");
    bench.registry.catch_up().await.unwrap();
    assert_eq!(bench.registry.client(&id).await.unwrap().record.client.id, id);
}

async fn a_load_overtaken_by_a_change_is_discarded(bench: &Bench) {
    bench.populate().await;
    let slow = Arc::new(Slow { store: bench.store.clone(), gate: Semaphore::new(0), loads: AtomicU32::new(0) });
    let registry =
        Registry::new(Arc::clone(&slow) as Arc<dyn RegistryStore>, MemorySize::default(), "slow").await.unwrap();
    let id = client_id("acme-1");
    let lookup = tokio::spawn({
        let (registry, id) = (Arc::clone(&registry), id.clone());
        async move { registry.client(&id).await.unwrap() }
    });
    // The record has been read; the change comes before it arrives.
    while slow.loads.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let version = registry.set_client_state(id, ClientState::Suspended, because("meanwhile")).await.unwrap();
    slow.gate.add_permits(8);
    let found = lookup.await.unwrap();
    assert_eq!((found.record.client.state, found.version), (ClientState::Suspended, version));
    assert_eq!(slow.loads.load(Ordering::SeqCst), 2);
}

async fn those_who_ask_at_the_same_time_load_once(bench: &Bench) {
    bench.populate().await;
    let slow = Arc::new(Slow { store: bench.store.clone(), gate: Semaphore::new(8), loads: AtomicU32::new(0) });
    let registry =
        Registry::new(Arc::clone(&slow) as Arc<dyn RegistryStore>, MemorySize::default(), "slow").await.unwrap();
    let id = client_id("acme-1");
    for found in join_all((0..32).map(|_| registry.client(&id))).await {
        assert_eq!(found.unwrap().record.client.id, id);
    }
    assert_eq!(slow.loads.load(Ordering::SeqCst), 1);
}

async fn a_resource_servers_certificate_is_looked_up_once_and_again_after_a_change(bench: &Bench) {
    bench.populate().await;
    let slow = Arc::new(Slow { store: bench.store.clone(), gate: Semaphore::new(8), loads: AtomicU32::new(0) });
    let registry =
        Registry::new(Arc::clone(&slow) as Arc<dyn RegistryStore>, MemorySize::default(), "slow").await.unwrap();
    // A certificate whose key a client shows later, in another one.
    let (own, key) = (facts(2).thumbprint, facts(1).key_hash);
    let mut api = resource_server("api");
    api.certificates = vec![own];
    registry.change_resource_server(api, because("its own")).await.unwrap();
    let looked_up = async || {
        let asker = registry.asker(&own, &key).await.unwrap();
        (asker.resource_server.is_some(), asker.is_a_client, slow.loads.load(Ordering::SeqCst))
    };
    assert_eq!((looked_up().await, looked_up().await), ((true, false, 1), (true, false, 1)));
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    registry.catch_up().await.unwrap();
    assert_eq!((looked_up().await, looked_up().await), ((true, true, 2), (true, true, 2)));
    registry.retire_resource_server(resource_server_id("api"), because("over")).await.unwrap();
    // What is nobody's is not remembered.
    assert_eq!((looked_up().await, looked_up().await), ((false, true, 3), (false, true, 4)));
}

/// As after a fail-over that lost changes: the epoch is the same, and so is the number that another history comes to.
async fn another_history_that_comes_as_far_is_not_taken_for_the_one_before(bench: &Bench) {
    bench.populate().await;
    let (own, key) = (facts(2).thumbprint, facts(2).key_hash);
    let mut api = resource_server("api");
    api.certificates = vec![own];
    let version = bench.registry.change_resource_server(api, because("its own")).await.unwrap();
    let is_known = async || bench.registry.asker(&own, &key).await.unwrap().resource_server.is_some();
    assert!(is_known().await);
    bench.run("UPDATE registry_state SET version = version - 1").await;
    bench.registry.catch_up().await.unwrap();
    bench.run("DELETE FROM resource_server_certificate").await;
    bench.run("UPDATE registry_state SET version = version + 1").await;
    assert_eq!(bench.registry.catch_up().await.unwrap(), version);
    assert!(!is_known().await);
}

/// The same, where it has come farther by the time this node looks again: what was made in place of what was lost is not among
/// the changes after the last one it knows of.
async fn another_history_that_has_come_farther_is_not_taken_for_the_one_before(bench: &Bench) {
    bench.populate().await;
    let suspend = |state, at| {
        let why = because_at("x", UnixTime::from_seconds(NOW.as_seconds() + at));
        bench.registry.set_participant_state(participant_id("acme"), state, why)
    };
    suspend(ParticipantState::Suspended, 1).await.unwrap();
    let known = suspend(ParticipantState::Active, 2).await.unwrap();
    assert_eq!(bench.registry.catch_up().await.unwrap(), known);
    assert_eq!(bench.record("acme-1").await.client.state, ClientState::Active);
    // A fail-over loses both.
    bench.run("DELETE FROM history WHERE version > (SELECT version - 2 FROM registry_state)").await;
    bench.run("DELETE FROM registry_change WHERE version > (SELECT version - 2 FROM registry_state)").await;
    bench.run("UPDATE registry_state SET version = version - 2").await;

    let other = bench.another().await;
    let at = |seconds| because_at("x", UnixTime::from_seconds(NOW.as_seconds() + seconds));
    other.set_client_state(client_id("acme-1"), ClientState::Suspended, at(3)).await.unwrap();
    for id in ["b", "c", "d"] {
        other.add_participant(participant(id), at(4)).await.unwrap();
    }
    assert!(other.version() > known);
    assert_eq!(bench.registry.catch_up().await.unwrap(), other.version());
    assert_eq!(bench.record("acme-1").await.client.state, ClientState::Suspended);
}

/// The same, where the change that was lost had been made on this node, and it had not looked since: whoever has its number now was
/// never among what the node was told of.
async fn what_another_server_made_in_the_place_of_a_change_of_this_node_is_noticed(bench: &Bench) {
    bench.populate().await;
    let made = bench.registry.add_participant(participant("lost"), because("x")).await.unwrap();
    // Through the version of the change that is lost.
    assert_eq!(bench.registry.client(&client_id("acme-1")).await.unwrap().version, made);
    bench.run("DELETE FROM history WHERE version = (SELECT version FROM registry_state)").await;
    bench.run("DELETE FROM registry_change WHERE version = (SELECT version FROM registry_state)").await;
    bench.run("UPDATE registry_state SET version = version - 1").await;
    bench.tamper("DROP VIEW registry_head").await;
    bench.tamper("CREATE VIEW registry_head AS SELECT epoch, version, 2 AS server FROM registry_state").await;

    let other = bench.another().await;
    other.set_client_state(client_id("acme-1"), ClientState::Suspended, because("y")).await.unwrap();
    assert_eq!(other.version(), made, "under the same number");
    let mut versions = bench.registry.subscribe();
    versions.mark_unchanged();
    assert_eq!(bench.registry.catch_up().await.unwrap(), made);
    assert_eq!(bench.record("acme-1").await.client.state, ClientState::Suspended);
    assert!(versions.has_changed().unwrap(), "whoever follows the registry is told, though the number is the same");
    assert_eq!(bench.registry.stand(), Stand { history: 1, version: made });
}

async fn another_epoch_empties_the_memory(bench: &Bench) {
    bench.populate().await;
    let before = bench.record("acme-1").await;
    // As after a restore of an older state: versions start over from where the backup was.
    bench.run("UPDATE registry_state SET epoch = 2, version = 3").await;
    assert_eq!(bench.registry.catch_up().await.unwrap(), RegistryVersion(3));
    let after = bench.registry.client(&client_id("acme-1")).await.unwrap();
    assert!(!Arc::ptr_eq(&before, &after.record));
    assert_eq!(after.version, RegistryVersion(3));
    assert_eq!(bench.registry.marks(NOW).await.unwrap().epoch, 2);
}

async fn a_gap_in_the_changes_is_not_passed_over(bench: &Bench) {
    bench.populate().await;
    let before = bench.record("acme-1").await;
    let from = bench.registry.version();
    bench.run("UPDATE registry_state SET version = version + 1").await;
    let version = bench.registry.catch_up().await.unwrap();
    assert_eq!(version.0, from.0 + 1);
    assert!(!Arc::ptr_eq(&before, &bench.record("acme-1").await));
    assert!(bench.registry.changes_since(from).await.is_err(), "the fence is not told that nothing happened");
}

async fn an_empty_database_is_missing_unless_it_may_be_made(bench: &Bench) {
    let empty = match &bench.store.engine {
        Engine::Sqlite { path, .. } => {
            format!("sqlite:{}", path.with_file_name("empty.db").display())
        }
        Engine::Postgres { .. } => {
            bench.run("DROP TABLE _sqlx_migrations").await;
            bench.url.clone()
        }
    };
    let refused = open(&empty, Migrate::Check).await;
    assert!(matches!(refused, Err(OpenError::Missing { .. })), "{refused:?}");
    if empty != bench.url {
        open(&empty, Migrate::Apply).await.unwrap();
        open(&empty, Migrate::Check).await.unwrap();
    }
}

async fn a_newer_schema_is_refused(bench: &Bench) {
    bench
        .run(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             SELECT 999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
        )
        .await;
    for migrate in [Migrate::Apply, Migrate::Check] {
        let refused = bench.reopened(migrate).await;
        assert!(matches!(refused, Err(OpenError::SchemaNewer { found: 999, .. })), "{refused:?}");
    }
}

async fn an_older_schema_is_refused_by_commands(bench: &Bench) {
    bench.undo_audit_chain().await;
    let refused = bench.reopened(Migrate::Check).await;
    let Err(refusal) = refused else { panic!("opened") };
    assert!(matches!(refusal, OpenError::SchemaOlder { .. } | OpenError::Missing { .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("countersign init"), "{refusal}");
}

async fn an_unfinished_migration_is_refused(bench: &Bench) {
    bench.run("UPDATE _sqlx_migrations SET success = FALSE").await;
    for migrate in [Migrate::Apply, Migrate::Check] {
        let refused = bench.reopened(migrate).await;
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
    }
}

async fn an_edited_migration_is_refused(bench: &Bench) {
    match &bench.store.engine {
        Engine::Sqlite { .. } => bench.run("UPDATE _sqlx_migrations SET checksum = x'00'").await,
        Engine::Postgres { .. } => bench.run("UPDATE _sqlx_migrations SET checksum = '\\x00'").await,
    }
    for migrate in [Migrate::Apply, Migrate::Check] {
        let refused = bench.reopened(migrate).await;
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
    }
}

async fn a_missing_table_is_refused(bench: &Bench) {
    bench.run("DROP TABLE revocation_mark").await;
    for migrate in [Migrate::Apply, Migrate::Check] {
        let refused = bench.reopened(migrate).await;
        let Err(OpenError::Damaged { what, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(what, "table revocation_mark is missing");
    }
}

async fn opening_twice_at_the_same_time_migrates_once(bench: &Bench) {
    match &bench.store.engine {
        Engine::Sqlite { path, .. } => {
            let url = format!("sqlite:{}", path.with_file_name("new.db").display());
            for opened in join_all((0..8).map(|_| open(&url, Migrate::Apply))).await {
                opened.unwrap();
            }
        }
        Engine::Postgres { .. } => {
            for opened in join_all((0..8).map(|_| open(&bench.url, Migrate::Apply))).await {
                opened.unwrap();
            }
        }
    }
}

async fn a_record_that_cannot_be_read_is_unavailable_and_others_are_not(bench: &Bench) {
    bench.join("acme", &["acme-1", "acme-2"], "ca").await;
    bench.run("UPDATE client SET record = '{\"damaged\":' WHERE id = 'acme-1'").await;
    let damaged = bench.registry.client(&client_id("acme-1")).await;
    assert!(matches!(damaged, Err(LookupRefusal::RegistryUnavailable)));
    assert_eq!(bench.record("acme-2").await.client.id, client_id("acme-2"));
}

async fn what_changed_is_kept_for_as_long_as_anybody_may_ask(bench: &Bench) {
    bench.populate().await;
    let other = bench.another().await;
    let before = other.client(&client_id("acme-1")).await.unwrap();
    // As after many changes.
    bench.run("UPDATE registry_state SET version = version + 65534").await;
    let suspend = |state| bench.registry.set_client_state(client_id("acme-1"), state, because("x"));
    let version = suspend(ClientState::Suspended).await.unwrap();
    let oldest = bench.store.changes_since(RegistryVersion(0), 100).await.unwrap().changes;
    assert_eq!(oldest.first().map(|change| change.version), Some(RegistryVersion(version.0 - 65_535)));
    let latest = bench.registry.changes_since(RegistryVersion(version.0 - 1)).await.unwrap();
    assert_eq!(latest, [Change { version, touched: Touched::Client(client_id("acme-1")) }]);
    // A node that has slept through all of it trusts nothing it remembers.
    assert_eq!(other.catch_up().await.unwrap(), version);
    let after = other.client(&client_id("acme-1")).await.unwrap();
    assert_eq!((before.record.client.state, after.record.client.state), (ClientState::Active, ClientState::Suspended));
}

async fn a_clock_that_is_wrong_takes_no_mark_away(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1", "bolt-2"], "other-ca").await;
    let suspend = |id, at| bench.registry.set_client_state(client_id(id), ClientState::Suspended, because_at("x", at));
    // From a machine whose clock has not been set.
    let first = suspend("acme-1", UnixTime::from_seconds(1_000)).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Client, "acme-1").await, Some(first));
    // From one that is days ahead, twice.
    let ahead = NOW.after(Duration::from_secs(3 * 86_400));
    suspend("bolt-1", ahead).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Client, "acme-1").await, Some(first));
}

async fn an_anchor_of_ones_own_is_marked_itself(bench: &Bench) {
    bench.populate().await;
    let registry = &bench.registry;
    let acme = || participant_id("acme");
    let mut own = anchor("own-ca");
    own.owner = AnchorOwner::Participant(acme());
    registry.add_anchor(own, b"own-ca".to_vec(), because("x")).await.unwrap();
    registry.grant_anchor(acme(), anchor_id("own-ca"), any_name(), because("x")).await.unwrap();
    let version = registry.grant_anchor(acme(), anchor_id("own-ca"), NameSpace::default(), because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Anchor, "own-ca").await, Some(version));
    let version = registry.withdraw_anchor(acme(), anchor_id("own-ca"), because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Anchor, "own-ca").await, Some(version));
    assert_eq!(bench.mark_of(MarkKind::Participant, "acme").await, None, "its tokens under other anchors live on");
}

async fn a_key_found_compromised_later_is_revoked_through_its_certificate(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    let mut renewed = facts(2);
    renewed.key_hash = facts(1).key_hash;
    bench.registry.add_certificate(client_id("acme-1"), renewed, because("same key")).await.unwrap();
    revoke(bench, 1, RevocationReason::Superseded).await;
    let version = revoke(bench, 1, RevocationReason::KeyCompromise).await;
    assert_eq!(bench.mark_of(MarkKind::Key, &facts(1).key_hash.to_string()).await, Some(version));
    let record = bench.record("acme-1").await;
    for number in [1, 2] {
        assert_eq!(record.certificate(&facts(number).thumbprint).unwrap().state.as_str(), "revoked");
    }
    let again = CertificateSelector::Thumbprint(facts(1).thumbprint);
    let refused = bench.registry.revoke_certificate(again, RevocationReason::KeyCompromise, because("again")).await;
    assert!(matches!(refused, Err(EditRefusal::StateForbids { .. })), "{refused:?}");
}

async fn last_sightings_and_changes_do_not_wait_for_each_other_in_a_circle(bench: &Bench) {
    bench.populate().await;
    for number in [1, 2] {
        bench.registry.add_certificate(client_id("acme-1"), facts(number), because("announced")).await.unwrap();
    }
    let turn = bench.store.turn_to_write().await;
    let mut change = bench.store.begin_write().await.unwrap();
    let touch = "UPDATE certificate SET last_seen = 1 WHERE thumbprint = $1";
    sqlx::query("UPDATE registry_state SET version = version + 1").execute(&mut *change).await.unwrap();
    sqlx::query(touch).bind(facts(2).thumbprint.to_string()).execute(&mut *change).await.unwrap();
    let store = bench.store.clone();
    let seen = [1, 2].map(|number| (facts(number).thumbprint, NOW)).to_vec();
    let sightings = tokio::spawn(async move { store.touch_last_seen(seen).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    sqlx::query(touch).bind(facts(1).thumbprint.to_string()).execute(&mut *change).await.unwrap();
    change.commit().await.unwrap();
    drop(turn);
    sightings.await.unwrap().unwrap();
}

async fn a_sighting_that_cannot_be_written_is_given_up_in_time(bench: &Bench) {
    bench.populate().await;
    let turn = bench.store.turn_to_write().await;
    let mut change = bench.store.begin_write().await.unwrap();
    sqlx::query("UPDATE registry_state SET version = version + 1").execute(&mut *change).await.unwrap();
    let sighting = sighting(1, "ca");
    let sighted = bench.sighted("acme-1", &sighting, NOW);
    let refused = tokio::time::timeout(Duration::from_millis(2_500), sighted).await.expect("in time");
    assert!(matches!(refused, Err(SightingRefusal::RegistryUnavailable)), "{refused:?}");
    change.rollback().await.unwrap();
    drop(turn);
    bench.sighted("acme-1", &sighting, NOW).await.unwrap();
}

async fn superseded_without_an_overlap_is_over_for_decisions_under_way(bench: &Bench) {
    bench.populate().await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    bench.registry.supersede_certificate(facts(1).thumbprint, NOW, because("x")).await.unwrap();
    // A request that came before is decided again after: by its own clock, and a node's may be late besides.
    let asked = NOW.before(Duration::from_secs(60));
    let state = bench.record("acme-1").await.certificate(&facts(1).thumbprint).unwrap().state.clone();
    assert!(matches!(state, CertificateState::Superseded { at } if at <= asked), "{state:?}");
}

async fn last_sightings_that_cannot_be_written_are_given_up_in_time(bench: &Bench) {
    bench.populate().await;
    let turn = bench.store.turn_to_write().await;
    let mut change = bench.store.begin_write().await.unwrap();
    sqlx::query("UPDATE registry_state SET version = version + 1").execute(&mut *change).await.unwrap();
    bench.registry.note_seen(facts(1).thumbprint, NOW);
    let flushed = tokio::time::timeout(Duration::from_millis(2_500), bench.registry.flush_seen()).await;
    assert!(flushed.expect("in time").is_err());
    change.rollback().await.unwrap();
    drop(turn);
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a name with % and ?.db");
    std::fs::write(&path, b"").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let bench = Bench::at(format!("sqlite:{}", path.display()), None).await;
    bench.populate().await;
    let mut files = 0;
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log and the log's index");
}

/// A serving node commits all the time; an operator's command has to get its turn on the file all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_gets_through_to_a_file_that_is_written_all_the_time() {
    let bench = Bench::sqlite().await;
    bench.populate().await;
    let server = bench.store.clone();
    let writer = tokio::spawn(async move {
        let Engine::Sqlite { appender, .. } = &server.engine else { return };
        let mut writer = appender.take().await.unwrap();
        loop {
            let turn = server.turn_to_write().await;
            let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
            sqlx::query("UPDATE certificate SET last_seen = 1").execute(&mut *transaction).await.unwrap();
            for number in 0..50_i64 {
                sqlx::query("INSERT INTO revocation_mark (kind, id, version, forget_after) VALUES ('jti', ?, 0, 0) ON CONFLICT DO NOTHING")
                    .bind(number.to_string())
                    .execute(&mut *transaction)
                    .await
                    .unwrap();
            }
            sqlx::query("DELETE FROM revocation_mark WHERE kind = 'jti'").execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
            drop(turn);
        }
    });
    let command = bench.another().await;
    for state in [ClientState::Suspended, ClientState::Active, ClientState::Retired] {
        let change = command.set_client_state(client_id("acme-1"), state, because("under load"));
        tokio::time::timeout(Duration::from_secs(10), change).await.expect("in time").unwrap();
    }
    writer.abort();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    std::fs::write(&path, "this is no database, and long enough to have a header of a hundred octets".repeat(4))
        .unwrap();
    for migrate in [Migrate::Apply, Migrate::Check] {
        let refused = open(&format!("sqlite:{}", path.display()), migrate).await;
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
    }
}

#[tokio::test]
async fn a_damaged_page_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let url = format!("sqlite:{}", path.display());
    open(&url, Migrate::Apply).await.unwrap().close().await;
    let mut octets = std::fs::read(&path).unwrap();
    // The first page holds the header and the root of the schema.
    octets[100..4096].fill(0xA5);
    std::fs::write(&path, octets).unwrap();
    let refused = open(&url, Migrate::Check).await;
    assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("registry.db");
    let mut connection = SqliteConnection::connect(&format!("sqlite:{}?mode=rwc", path.display())).await.unwrap();
    connection.execute("CREATE TABLE theirs (id INTEGER PRIMARY KEY)").await.unwrap();
    connection.close().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let refused = open(&format!("sqlite:{}", path.display()), Migrate::Apply).await;
    assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&path).unwrap(), before, "nothing in it was changed");
}

#[tokio::test]
async fn a_url_of_no_database_is_refused_without_its_password() {
    for url in ["mysql://me:secret@host/db", "sqlite:", "sqlite::memory:", "registry.db"] {
        let Err(refusal) = open(url, Migrate::Apply).await else { panic!("{url}") };
        assert!(matches!(refusal, OpenError::UnknownUrl { .. }), "{refusal:?}");
        assert!(!refusal.to_string().contains("secret"), "{refusal}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_without_its_password() {
    let Err(refusal) = open("postgres://me:secret@127.0.0.1:1/registry", Migrate::Apply).await else {
        panic!("opened");
    };
    assert!(refusal.to_string().contains("postgres://127.0.0.1:1/registry"), "{refusal}");
    assert!(!refusal.to_string().contains("secret"), "{refusal}");
}

/// What was acknowledged has to survive a crash of the database, whatever the database does by default.
#[tokio::test]
async fn a_database_that_does_not_wait_for_its_disk_is_told_to() {
    let Some(bench) = Bench::postgres("a_database_that_does_not_wait_for_its_disk_is_told_to").await else {
        println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database");
        return;
    };
    for (given, kept) in [("off", "on"), ("local", "local"), ("remote_write", "remote_write"), ("on", "on")] {
        let url = format!("{}%20-csynchronous_commit%3D{given}", bench.url);
        let store = open(&url, Migrate::Check).await.unwrap();
        let changes: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(&store.writers).await.unwrap();
        let Engine::Postgres { pool, .. } = &store.engine else { panic!("another engine") };
        let records: String = sqlx::query_scalar("SHOW synchronous_commit").fetch_one(pool).await.unwrap();
        assert_eq!((changes.as_str(), records.as_str()), (kept, kept), "given {given}");
    }
}

/// A statement that is compiled before it reads one row takes a second, and as often as it is asked.
#[tokio::test]
async fn a_database_that_compiles_statements_is_told_not_to() {
    let Some(bench) = Bench::postgres("a_database_that_compiles_statements_is_told_not_to").await else {
        println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database");
        return;
    };
    let store = open(&format!("{}%20-cjit%3Don", bench.url), Migrate::Check).await.unwrap();
    let Engine::Postgres { pool, .. } = &store.engine else { panic!("another engine") };
    for connections in [&store.readers, &store.writers] {
        let compiles: String = sqlx::query_scalar("SHOW jit").fetch_one(connections).await.unwrap();
        assert_eq!(compiles, "off");
    }
    let compiles: String = sqlx::query_scalar("SHOW jit").fetch_one(pool).await.unwrap();
    assert_eq!(compiles, "off");
}

/// A rule is checked under the counter row's lock, by statements that see what was committed before they began.
#[tokio::test]
async fn a_database_with_another_isolation_by_default_serves_concurrent_writers() {
    let Some(bench) = Bench::postgres("a_database_with_another_isolation_by_default").await else {
        println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database");
        return;
    };
    let url = format!("{}%20-cdefault_transaction_isolation%3Dserializable", bench.url);
    let bench = Bench::at(url, None).await;
    sixty_four_writers_lose_no_update(&bench).await;
}

/// A record with a letter the database cannot write would take its whole batch with it.
#[tokio::test]
async fn a_database_that_cannot_write_every_letter_is_refused() {
    let Ok(base) = std::env::var("COUNTERSIGN_TEST_POSTGRES") else {
        println!("skipped: COUNTERSIGN_TEST_POSTGRES names no database");
        return;
    };
    let name = format!("latin1_{}", std::process::id());
    let mut connection = PgConnection::connect(&base).await.unwrap();
    let made = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    connection.execute(sqlx::AssertSqlSafe(made)).await.unwrap();
    let (place, _) = base.split_once('?').unwrap_or((&base, ""));
    let (server, _) = place.rsplit_once('/').unwrap();
    let refused = open(&format!("{server}/{name}"), Migrate::Apply).await;
    connection.execute(sqlx::AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
    let Err(refusal @ OpenError::Encoding { .. }) = refused else { panic!("{refused:?}") };
    assert!(refusal.to_string().contains("LATIN1"), "{refusal}");
}

/// A registry's history is never pruned: what happened to one record is found without reading all of it.
#[tokio::test]
async fn the_history_of_one_record_is_found_by_its_index() {
    let bench = Bench::sqlite().await;
    let explain = format!("EXPLAIN QUERY PLAN {}", super::registry::HISTORY_OF_SUBJECT);
    let plan: Vec<String> = sqlx::query(sqlx::AssertSqlSafe(explain))
        .bind(0_i64)
        .bind(10_i64)
        .bind("client:c1")
        .bind("import:1")
        .fetch_all(&bench.store.readers)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get::<String, _>("detail"))
        .filter(|step| step.contains("history"))
        .collect();
    assert!(!plan.is_empty() && plan.iter().all(|step| step.contains("history_by_subject")), "{plan:?}");
}

/// A store whose records arrive late.
#[derive(Debug)]
struct Slow {
    store: Store,
    gate: Semaphore,
    loads: AtomicU32,
}

impl RegistryStore for Slow {
    fn head(&self) -> Answer<'_, Head> {
        self.store.head()
    }

    fn client_record<'a>(&'a self, client: &'a ClientId) -> Answer<'a, (Head, Option<ClientRecord>)> {
        async move {
            let record = self.store.client_record(client).await?;
            self.loads.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.unwrap().forget();
            Ok(record)
        }
        .boxed()
    }

    fn changes_since(&self, version: RegistryVersion, reach: u32) -> Answer<'_, Since> {
        self.store.changes_since(version, reach)
    }

    fn apply(&self, edit: Edit, explanation: Explanation) -> BoxFuture<'_, Result<Applied, EditRefusal>> {
        self.store.apply(edit, explanation)
    }

    fn sighted<'a>(
        &'a self,
        client: &'a ClientId,
        sighting: &'a Sighting,
        explanation: Explanation,
    ) -> BoxFuture<'a, Result<Applied, EditRefusal>> {
        self.store.sighted(client, sighting, explanation)
    }

    fn would_be_sighted<'a>(
        &'a self,
        client: &'a ClientId,
        sighting: &'a Sighting,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Option<Certificate>, EditRefusal>> {
        self.store.would_be_sighted(client, sighting, now)
    }

    fn touch_last_seen(&self, seen: Vec<(Thumbprint, UnixTime)>) -> Answer<'_, ()> {
        self.store.touch_last_seen(seen)
    }

    fn live_serials<'a>(
        &'a self,
        issuer_key: &'a KeyHash,
        after: String,
        limit: u32,
    ) -> Answer<'a, Vec<(Thumbprint, String)>> {
        self.store.live_serials(issuer_key, after, limit)
    }

    fn certificate_of<'a>(&'a self, issuer_key: &'a KeyHash, serial: &'a str) -> Answer<'a, Option<Thumbprint>> {
        self.store.certificate_of(issuer_key, serial)
    }

    fn knows<'a>(&'a self, thumbprint: &'a Thumbprint, names: &'a [(SubjectAttribute, String)]) -> Answer<'a, bool> {
        self.store.knows(thumbprint, names)
    }

    fn list(&self, selection: Selection, page: Page) -> Answer<'_, Vec<Document>> {
        self.store.list(selection, page)
    }

    fn history(&self, since: RegistryVersion, subject: Option<String>, limit: u32) -> Answer<'_, Vec<HistoryEntry>> {
        self.store.history(since, subject, limit)
    }

    fn served_from(&self, epoch: i64) -> Answer<'_, Option<UnixTime>> {
        self.store.served_from(epoch)
    }

    fn marks(&self, now: UnixTime) -> Answer<'_, RevocationState> {
        self.store.marks(now)
    }

    fn asker<'a>(&'a self, thumbprint: &'a Thumbprint, key: &'a KeyHash) -> Answer<'a, Asker> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        self.store.asker(thumbprint, key)
    }

    fn revoked_tokens<'a>(&'a self, client: &'a ClientId, now: UnixTime) -> Answer<'a, usize> {
        self.store.revoked_tokens(client, now)
    }

    fn watch(&self) -> Box<dyn Watch> {
        self.store.watch()
    }
}
