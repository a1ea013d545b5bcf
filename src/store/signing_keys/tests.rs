//! Shared signing keys on each engine, by the operations of the ring and against whoever writes to the table.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::ManualClock;
use countersign_resource_server::token::jws::SigningAlgorithm::{self, ES256, EdDSA};
use tempfile::TempDir;

use super::*;
use crate::mint::fixture::{MemoryKeys, NOW};
use crate::mint::key_encryption::{EncryptionKeySource, Existing, make_encryption_key};
use crate::mint::key_ring::{
    KeyRingError, KeyStore, KeyStoreError, KeyWrite, Retirement, Rotation, SetAside, StoredKey, When, complete, retire,
    rotate,
};
use crate::mint::shared_keys::SharedKeys;
use crate::mint::{KeyRing, SigningKeys};
use crate::registry::fixture::because;
use crate::registry::token::SigningKeyChange;
use crate::store::contract::{Bench, contract};

contract!(
    what_is_written_is_read_back,
    two_who_complete_at_the_same_moment_make_one_set,
    two_who_rotate_at_the_same_moment_make_one_rotation,
    a_write_for_another_revision_changes_nothing,
    a_ring_follows_what_another_node_changes,
    a_wrong_key_encryption_key_is_one_line_and_makes_nothing,
    a_changed_ciphertext_sets_that_key_aside,
    a_truncated_ciphertext_sets_that_key_aside,
    a_key_that_cannot_be_opened_can_still_be_withdrawn,
    of_a_row_that_was_changed_a_withdrawal_believes_the_id_alone,
    a_changed_row_that_the_history_calls_withdrawn_is_replaced_as_well,
    a_row_under_another_id_is_not_taken,
    a_date_that_is_moved_sets_that_key_aside,
    a_withdrawal_that_is_taken_back_in_its_row_sets_that_key_aside,
    a_row_that_is_put_back_is_not_taken,
    a_row_that_is_removed_is_missed,
    a_row_that_is_added_is_not_taken,
    a_ring_that_is_removed_is_missed,
    an_older_state_of_all_of_it_is_not_taken_by_whoever_saw_a_later_one,
    a_glance_tells_what_reading_all_of_it_does,
    a_running_node_misses_a_row_that_is_removed_and_goes_on_once_it_is_back,
    a_running_node_misses_a_key_that_was_given_another_id,
    a_running_node_sees_that_an_older_row_is_in_the_place_of_another,
    a_running_node_takes_no_other_state_of_the_revision_it_has_seen,
    a_running_node_takes_a_withdrawal_from_the_history_alone_and_keeps_to_it,
    a_glance_at_the_history_does_not_grow_with_it,
    a_withdrawal_lasts_as_long_as_the_registrys_word_for_it,
    another_key_encryption_key_takes_over_in_one_step,
    a_running_node_finds_the_next_key_encryption_key_in_its_file,
    a_key_that_cannot_be_opened_stays_encrypted_by_what_it_was,
    a_node_that_has_not_looked_for_a_while_does_not_sign,
    a_node_that_cannot_look_does_not_sign,
);

/// One store, with keys of two algorithms in it: RSA keys take long to make.
struct Scene<'a> {
    bench: &'a Bench,
    directory: TempDir,
}

impl<'a> Scene<'a> {
    async fn of(bench: &'a Bench) -> Self {
        let scene = Self::empty(bench);
        let writes =
            [ES256, EdDSA].map(MemoryKeys::begun_with).map(|keys| async move { keys.read().await.unwrap().keys });
        let mut keys = Vec::new();
        for read in writes {
            keys.extend(read.await);
        }
        let (keys, shared) = (keys.into_iter().map(KeyWrite::Add).collect(), scene.keys());
        let seen = shared.fingerprint().await.unwrap();
        assert!(shared.write(seen, keys).await.unwrap());
        scene
    }

    fn empty(bench: &'a Bench) -> Self {
        let scene = Self { bench, directory: tempfile::tempdir().unwrap() };
        make_encryption_key(&scene.file(), Existing::Refuse).unwrap();
        scene
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("kek")
    }

    /// The keys as another node, or a command, has them.
    fn keys(&self) -> Arc<SharedKeys> {
        let source = EncryptionKeySource::File(self.file());
        Arc::new(SharedKeys::new(Arc::new(self.bench.store.clone()), source).unwrap())
    }

    async fn read(&self) -> SigningKeys {
        KeyRing::read(&*self.keys()).await.unwrap()
    }

    /// The ring of a node that runs.
    async fn ring(&self) -> KeyRing {
        KeyRing::reading(self.keys()).await.unwrap()
    }

    async fn signing(&self) -> String {
        self.read().await.signing(ES256, NOW).unwrap().kid().to_string()
    }

    async fn refused(&self) -> String {
        let KeyStoreError(why) = self.keys().read().await.unwrap_err();
        why
    }

    /// The only key that is set aside.
    async fn set_aside(&self, kid: &str) -> SetAside {
        let keys = self.read().await;
        let [aside] = keys.set_aside() else { panic!("{:?}", keys.set_aside()) };
        assert_eq!(aside.name, kid);
        assert_eq!(keys.all().len(), 3, "the others are as they were");
        aside.clone()
    }

    async fn withdrawn_by_the_history(&self, kid: &str) {
        let change = SigningKeyChange::Withdrawn { kid: kid.to_owned(), successor: None };
        self.bench.registry.change_signing_keys(vec![change], because("stolen")).await.unwrap();
    }

    async fn rotate(&self, algorithm: SigningAlgorithm) -> Rotation {
        let later = NOW.after(Duration::from_secs(600));
        rotate(&*self.keys(), &[algorithm], When::Now, later).await.unwrap().remove(0)
    }
}

async fn what_is_written_is_read_back(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let mut read = scene.keys().read().await.unwrap().keys;
    let mut written = MemoryKeys::begun_with(ES256).read().await.unwrap().keys;
    written.extend(MemoryKeys::begun_with(EdDSA).read().await.unwrap().keys);
    let by_id = |one: &StoredKey, other: &StoredKey| one.record.kid.cmp(&other.record.kid);
    read.sort_by(by_id);
    written.sort_by(by_id);
    assert_eq!(read.len(), 4);
    for (read, written) in read.iter().zip(&written) {
        assert_eq!((&read.record, &read.pem), (&written.record, &written.pem));
    }
    let rows = bench.store.sealed_keys().await.unwrap();
    for row in &rows.keys {
        assert!(!row.sealed.windows(7).any(|octets| octets == b"PRIVATE"), "in the clear");
    }
}

async fn two_who_complete_at_the_same_moment_make_one_set(bench: &Bench) {
    let scene = Scene::empty(bench);
    let (one, other) = (scene.keys(), scene.keys());
    let (one, other) = tokio::join!(complete(&*one, NOW), complete(&*other, NOW));
    assert_eq!(one.unwrap().len() + other.unwrap().len(), 6);
    let keys = scene.read().await;
    assert_eq!((keys.all().len(), keys.set_aside().len()), (6, 0));
}

async fn two_who_rotate_at_the_same_moment_make_one_rotation(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let (one, other) = (scene.keys(), scene.keys());
    let rotate = async |keys: Arc<SharedKeys>| rotate(&*keys, &[ES256], When::OncePublished, NOW).await;
    let both = tokio::join!(rotate(one), rotate(other));
    let ((Ok(made), Err(refused)) | (Err(refused), Ok(made))) = both else { panic!("{both:?}") };
    let [Rotation { kid, signs_from, .. }] = &made[..] else { panic!("{made:?}") };
    assert_eq!(refused, KeyRingError::AlreadyScheduled { kid: kid.clone(), from: *signs_from });
    assert_eq!(scene.read().await.all().len(), 5);
}

async fn a_write_for_another_revision_changes_nothing(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let keys = scene.keys();
    let seen = keys.fingerprint().await.unwrap();
    scene.rotate(ES256).await;
    let record = keys.read().await.unwrap().keys[0].record.clone();
    assert!(!keys.write(seen, vec![KeyWrite::Update(record)]).await.unwrap());
    // And where only the store can tell, because both have seen the same.
    let ring = bench.store.sealed_keys().await.unwrap().ring.unwrap();
    for revision in [ring.revision - 1, ring.revision, ring.revision + 2, 1] {
        let stale = RingRow { revision, ..ring.clone() };
        assert!(!bench.store.write_sealed(stale, Vec::new()).await.unwrap(), "revision {revision}");
    }
    assert_eq!(bench.store.sealed_keys().await.unwrap().ring, Some(ring));
}

async fn a_ring_follows_what_another_node_changes(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let ring = scene.ring().await;
    assert!(!ring.reload().await.unwrap());
    let rotation = scene.rotate(ES256).await;
    let later = NOW.after(Duration::from_secs(600));
    assert!(ring.reload().await.unwrap());
    assert_eq!(**ring.current().signing(ES256, later).unwrap().kid(), *rotation.kid);
    let Retirement { successor, .. } = retire(&*scene.keys(), &rotation.kid, later).await.unwrap();
    assert!(ring.reload().await.unwrap());
    let after = later.after(Duration::from_millis(1));
    let signing = ring.current().signing(ES256, after).map(|signer| signer.kid().to_string());
    assert_eq!(signing, successor);
    assert!(!ring.published(after).body.contains(&rotation.kid));
}

async fn a_wrong_key_encryption_key_is_one_line_and_makes_nothing(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let before = bench.store.sealed_keys().await.unwrap();
    std::fs::remove_file(scene.file()).unwrap();
    let id = make_encryption_key(&scene.file(), Existing::Refuse).unwrap();
    let refused = KeyRing::open(scene.keys(), NOW).await.unwrap_err().to_string();
    let right = &before.ring.as_ref().unwrap().encrypted_by;
    assert!(refused.contains(right.as_str()) && refused.contains(&id) && refused.lines().count() == 1, "{refused}");
    assert_eq!(bench.store.sealed_keys().await.unwrap(), before);
}

async fn a_changed_ciphertext_sets_that_key_aside(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    let rows = bench.store.sealed_keys().await.unwrap().keys;
    let mut sealed = rows.into_iter().find(|row| row.kid == kid).unwrap().sealed;
    sealed[40] ^= 1;
    let octets = bench.octets(&sealed);
    bench.tamper(&format!("UPDATE signing_key SET sealed = {octets} WHERE kid = '{kid}'")).await;
    let aside = scene.set_aside(&kid).await;
    assert!(aside.why.contains("was changed") && aside.record.is_none(), "{aside:?}");
    assert!(scene.read().await.signing(ES256, NOW).is_none(), "no other key steps in unseen");
}

async fn a_truncated_ciphertext_sets_that_key_aside(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    let ring = scene.ring().await;
    bench.tamper(&format!("UPDATE signing_key SET sealed = {} WHERE kid = '{kid}'", bench.octets(&[1; 11]))).await;
    scene.set_aside(&kid).await;
    // A node that has read it before goes on, whatever it finds there next.
    scene.rotate(EdDSA).await;
    assert!(ring.reload().await.unwrap());
    assert_eq!(**ring.current().signing(ES256, NOW).unwrap().kid(), *kid);
}

async fn a_key_that_cannot_be_opened_can_still_be_withdrawn(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    let ring = scene.ring().await;
    // Nor does it help to say that it was.
    let statement =
        format!("UPDATE signing_key SET sealed = {}, retired_at = 1 WHERE kid = '{kid}'", bench.octets(&[]));
    bench.tamper(&statement).await;
    let retirement = retire(&*scene.keys(), &kid, NOW).await.unwrap();
    let after = NOW.after(Duration::from_millis(1));
    assert!(ring.reload().await.unwrap());
    for keys in [Arc::new(scene.read().await), ring.current()] {
        assert_eq!(keys.signing(ES256, after).map(|signer| signer.kid().to_string()), retirement.successor);
    }
    assert!(!ring.published(after).body.contains(&kid));
    let again = retire(&*scene.keys(), &kid, after).await.unwrap_err();
    assert_eq!(again, KeyRingError::AlreadyRetired { kid, at: NOW });
}

async fn of_a_row_that_was_changed_a_withdrawal_believes_the_id_alone(bench: &Bench) {
    let (at, far) = (NOW.after(Duration::from_secs(1)), NOW.after(Duration::from_secs(1_000_000)));
    let future = format!("signs_from = {}", far.as_millis());
    let made = format!("created_at = {}", far.as_millis());
    for change in [&future, &made, "signs_from = NULL", "alg = 'EdDSA'", "alg = 'none'", "retired_at = 1"] {
        let scene = Scene::of(bench).await;
        let (kid, ring) = (scene.signing().await, scene.ring().await);
        bench.tamper(&format!("UPDATE signing_key SET {change} WHERE kid = '{kid}'")).await;
        let retirement = retire(&*scene.keys(), &kid, at).await.unwrap();
        assert!(ring.reload().await.unwrap());
        for keys in [Arc::new(scene.read().await), ring.current()] {
            for now in [NOW, at, at.after(Duration::from_secs(60)), far.after(Duration::from_secs(60))] {
                let signer = keys.signing(ES256, now).map(|signer| signer.kid().to_string());
                assert_eq!(signer, retirement.successor, "{change}");
                assert!(keys.signing(EdDSA, now).is_some(), "{change}");
                assert!(keys.published(now).all(|key| key.record.kid != kid), "{change}");
            }
        }
        // And that is what is proven of it from now on.
        let written = bench.store.sealed_keys().await.unwrap().keys.into_iter().find(|row| row.kid == kid).unwrap();
        let dates = (written.created_at, written.signs_from, written.retired_at);
        assert_eq!(dates, (at, None, Some(at)), "{change}");
        assert!(scene.read().await.set_aside().iter().all(|aside| !aside.is_unproven), "{change}");
        bench.run("DELETE FROM signing_key").await;
        bench.run("DELETE FROM signing_key_ring").await;
    }
}

async fn a_changed_row_that_the_history_calls_withdrawn_is_replaced_as_well(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    scene.withdrawn_by_the_history(&kid).await;
    bench.tamper(&format!("UPDATE signing_key SET signs_from = 1 WHERE kid = '{kid}'")).await;
    let retirement = retire(&*scene.keys(), &kid, NOW).await.unwrap();
    assert_eq!(Some(scene.signing().await), retirement.successor);
}

async fn a_row_under_another_id_is_not_taken(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    bench.tamper(&format!("UPDATE signing_key SET kid = 'another' WHERE kid = '{kid}'")).await;
    assert!(scene.refused().await.contains("added, removed or put back"));
}

async fn a_date_that_is_moved_sets_that_key_aside(bench: &Bench) {
    for column in ["created_at", "signs_from"] {
        let scene = Scene::of(bench).await;
        let kid = scene.signing().await;
        bench.tamper(&format!("UPDATE signing_key SET {column} = {column} + 1 WHERE kid = '{kid}'")).await;
        scene.set_aside(&kid).await;
        bench.run("DELETE FROM signing_key").await;
        bench.run("DELETE FROM signing_key_ring").await;
    }
}

async fn a_withdrawal_that_is_taken_back_in_its_row_sets_that_key_aside(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    retire(&*scene.keys(), &kid, NOW).await.unwrap();
    bench.tamper(&format!("UPDATE signing_key SET retired_at = NULL WHERE kid = '{kid}'")).await;
    let keys = scene.read().await;
    assert_eq!(keys.set_aside().len(), 1);
    assert!(keys.all().iter().all(|key| key.record.kid != kid));
}

/// Row and all, as it was before it was withdrawn.
async fn a_row_that_is_put_back_is_not_taken(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    bench.tamper("CREATE TABLE kept AS SELECT * FROM signing_key").await;
    retire(&*scene.keys(), &kid, NOW).await.unwrap();
    bench.tamper(&format!("DELETE FROM signing_key WHERE kid = '{kid}'")).await;
    bench.tamper(&format!("INSERT INTO signing_key SELECT * FROM kept WHERE kid = '{kid}'")).await;
    assert!(scene.refused().await.contains("added, removed or put back"));
    // With the right revision beside it, it does not open.
    let statement = "UPDATE signing_key SET revision = (SELECT revision FROM signing_key_ring)";
    bench.tamper(&format!("{statement} WHERE kid = '{kid}'")).await;
    assert_eq!(scene.read().await.set_aside().len(), 1);
}

async fn a_row_that_is_removed_is_missed(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    bench.tamper(&format!("DELETE FROM signing_key WHERE kid = '{kid}'")).await;
    assert!(scene.refused().await.contains("added, removed or put back"));
    let before = bench.store.sealed_keys().await.unwrap();
    assert!(KeyRing::open(scene.keys(), NOW).await.is_err());
    assert_eq!(bench.store.sealed_keys().await.unwrap(), before, "none is made in its place");
}

async fn a_row_that_is_added_is_not_taken(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let statement = "INSERT INTO signing_key SELECT 'own', alg, created_at, signs_from, retired_at, revision, sealed";
    bench.tamper(&format!("{statement} FROM signing_key LIMIT 1")).await;
    assert!(scene.refused().await.contains("added, removed or put back"));
}

async fn a_ring_that_is_removed_is_missed(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let ring = scene.ring().await;
    bench.run("DELETE FROM signing_key_ring").await;
    assert!(scene.refused().await.contains("ring was removed"));
    assert!(ring.reload().await.is_err());
}

async fn an_older_state_of_all_of_it_is_not_taken_by_whoever_saw_a_later_one(bench: &Bench) {
    let scene = Scene::of(bench).await;
    bench.tamper("CREATE TABLE kept AS SELECT * FROM signing_key").await;
    bench.tamper("CREATE TABLE kept_ring AS SELECT * FROM signing_key_ring").await;
    scene.rotate(ES256).await;
    let (ring, later) = (scene.ring().await, NOW.after(Duration::from_secs(600)));
    let before = ring.current().signing(ES256, later).unwrap().kid().clone();
    for table in ["signing_key", "signing_key_ring"] {
        bench.tamper(&format!("DELETE FROM {table}")).await;
    }
    bench.tamper("INSERT INTO signing_key SELECT * FROM kept").await;
    bench.tamper("INSERT INTO signing_key_ring SELECT * FROM kept_ring").await;
    let refused = ring.reload().await.unwrap_err();
    assert!(refused.0.contains("older state"), "{refused}");
    assert_eq!(*ring.current().signing(ES256, later).unwrap().kid(), before);
    // A restore begins a new epoch, and with it revisions may go back.
    bench.run("UPDATE registry_state SET epoch = epoch + 1").await;
    assert!(ring.reload().await.unwrap());
}

async fn a_glance_tells_what_reading_all_of_it_does(bench: &Bench) {
    let scene = Scene::empty(bench);
    let same = async || {
        let (glance, read) = (bench.store.sealed_state().await.unwrap(), bench.store.sealed_keys().await.unwrap());
        assert_eq!(glance, read.state());
        glance
    };
    assert_eq!(same().await.proof, [0; 0], "there are none");
    drop(scene);
    let scene = Scene::of(bench).await;
    assert_eq!(same().await.told, 0);
    let kid = scene.signing().await;
    scene.withdrawn_by_the_history(&kid).await;
    assert!(same().await.told > 0);
    bench.tamper(&format!("DELETE FROM signing_key WHERE kid = '{kid}'")).await;
    assert_eq!(same().await.members.len(), 3);
}

async fn a_running_node_misses_a_key_that_was_given_another_id(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let (kid, ring) = (scene.signing().await, scene.ring().await);
    ring.follow(Arc::new(ManualClock::at(NOW))).await.unwrap();
    bench.tamper(&format!("UPDATE signing_key SET kid = 'another' WHERE kid = '{kid}'")).await;
    assert!(ring.reload().await.is_err());
    assert!(!ring.may_sign());
}

async fn a_running_node_misses_a_row_that_is_removed_and_goes_on_once_it_is_back(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let ring = scene.ring().await;
    ring.follow(Arc::new(ManualClock::at(NOW))).await.unwrap();
    bench.tamper("CREATE TABLE kept AS SELECT * FROM signing_key").await;
    for kid in [scene.signing().await, scene.read().await.all()[0].record.kid.clone()] {
        bench.tamper(&format!("DELETE FROM signing_key WHERE kid = '{kid}'")).await;
        assert!(ring.reload().await.is_err());
        assert!(!ring.may_sign());
        bench.tamper(&format!("INSERT INTO signing_key SELECT * FROM kept WHERE kid = '{kid}'")).await;
        ring.reload().await.unwrap();
        assert!(ring.may_sign());
    }
}

/// Between two looks of a node: as many rows as before.
async fn a_running_node_sees_that_an_older_row_is_in_the_place_of_another(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    bench.tamper("CREATE TABLE kept AS SELECT * FROM signing_key").await;
    retire(&*scene.keys(), &kid, NOW).await.unwrap();
    let ring = scene.ring().await;
    bench.tamper(&format!("DELETE FROM signing_key WHERE kid = '{kid}'")).await;
    bench.tamper(&format!("INSERT INTO signing_key SELECT * FROM kept WHERE kid = '{kid}'")).await;
    let refused = ring.reload().await.unwrap_err();
    assert!(refused.0.contains("put back"), "{refused}");
}

async fn a_running_node_takes_no_other_state_of_the_revision_it_has_seen(bench: &Bench) {
    let scene = Scene::of(bench).await;
    for table in ["signing_key", "signing_key_ring"] {
        bench.tamper(&format!("CREATE TABLE kept_{table} AS SELECT * FROM {table}")).await;
    }
    let kid = scene.signing().await;
    retire(&*scene.keys(), &kid, NOW).await.unwrap();
    let (ring, seen) = (scene.ring().await, bench.store.sealed_state().await.unwrap());
    for table in ["signing_key", "signing_key_ring"] {
        bench.tamper(&format!("DELETE FROM {table}")).await;
        bench.tamper(&format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
    }
    // A command that has seen nothing goes on from there.
    scene.rotate(EdDSA).await;
    assert_eq!(bench.store.sealed_state().await.unwrap().revision, seen.revision);
    let refused = ring.reload().await.unwrap_err();
    assert!(refused.0.contains("another state of the same revision"), "{refused}");
    assert!(ring.current().published(NOW).all(|key| key.record.kid != kid));
}

async fn a_running_node_takes_a_withdrawal_from_the_history_alone_and_keeps_to_it(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let (kid, ring) = (scene.signing().await, scene.ring().await);
    assert!(!ring.reload().await.unwrap());
    scene.withdrawn_by_the_history(&kid).await;
    assert!(ring.reload().await.unwrap());
    assert!(ring.current().signing(ES256, NOW).is_none());
    assert!(!ring.published(NOW).body.contains(&kid));
    bench.run("DELETE FROM history WHERE action = 'signing_key.withdraw'").await;
    let refused = ring.reload().await.unwrap_err();
    assert!(refused.0.contains("taken back"), "{refused}");
}

/// By the plan of each engine, with a history that is worth an index: it is looked into by that on subjects, and by nothing else.
async fn a_glance_at_the_history_does_not_grow_with_it(bench: &Bench) {
    let _scene = Scene::of(bench).await;
    let numbers = "WITH RECURSIVE n (i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < 6000)";
    let rows = "SELECT i, 0, i, '{}', 'client.set', 'client:c' || i FROM n";
    bench.tamper(&format!("{numbers} INSERT INTO history (version, step, at, actor, action, subject) {rows}")).await;
    bench.run("ANALYZE history").await;
    let explain = if bench.store.is_shared() { "EXPLAIN" } else { "EXPLAIN QUERY PLAN" };
    let column = if bench.store.is_shared() { "QUERY PLAN" } else { "detail" };
    for statement in [READ, STATE] {
        let plan = sqlx::AssertSqlSafe(format!("{explain} {statement}"));
        let steps = sqlx::query(plan).fetch_all(&bench.store.readers).await.unwrap();
        let steps: Vec<String> = steps.iter().map(|step| step.get(column)).collect();
        assert!(steps.iter().any(|step| step.contains("history_by_subject")), "{steps:#?}");
        for grows in ["SCAN history", "Seq Scan on history", "history_pkey"] {
            assert!(steps.iter().all(|step| !step.contains(grows)), "{steps:#?}");
        }
    }
}

async fn a_withdrawal_lasts_as_long_as_the_registrys_word_for_it(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    scene.withdrawn_by_the_history(&kid).await;
    // Its row does not say so: somebody has put back all of it.
    let keys = scene.read().await;
    assert!(keys.signing(ES256, NOW).is_none());
    assert!(keys.published(NOW).all(|key| key.record.kid != kid));
}

async fn another_key_encryption_key_takes_over_in_one_step(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let before = scene.keys().read().await.unwrap().keys;
    assert_eq!(scene.keys().change_encryption_key().await.unwrap(), None, "there is no other");
    let old = bench.store.sealed_keys().await.unwrap().ring.unwrap().encrypted_by;
    let new = make_encryption_key(&scene.file(), Existing::Append).unwrap();
    let changed = scene.keys().change_encryption_key().await.unwrap().unwrap();
    assert_eq!((changed.kids.len(), &changed.before, &changed.after), (4, &old, &new));
    // The old one has nothing to open any more.
    let text = std::fs::read_to_string(scene.file()).unwrap();
    std::fs::write(scene.file(), text.lines().nth(1).unwrap()).unwrap();
    let after = scene.keys().read().await.unwrap().keys;
    for key in before {
        assert!(after.iter().any(|other| (&other.record, &other.pem) == (&key.record, &key.pem)));
    }
}

async fn a_running_node_finds_the_next_key_encryption_key_in_its_file(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let ring = scene.ring().await;
    make_encryption_key(&scene.file(), Existing::Append).unwrap();
    scene.keys().change_encryption_key().await.unwrap().unwrap();
    assert!(ring.reload().await.unwrap());
    assert_eq!(ring.current().all().len(), 4);
}

async fn a_key_that_cannot_be_opened_stays_encrypted_by_what_it_was(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let kid = scene.signing().await;
    bench.tamper(&format!("UPDATE signing_key SET signs_from = 1 WHERE kid = '{kid}'")).await;
    make_encryption_key(&scene.file(), Existing::Append).unwrap();
    let before = bench.store.sealed_keys().await.unwrap();
    let refused = scene.keys().change_encryption_key().await.unwrap_err();
    assert!(refused.0.contains(&kid) && refused.0.contains("retire it"), "{refused}");
    assert_eq!(bench.store.sealed_keys().await.unwrap(), before);
}

async fn a_node_that_has_not_looked_for_a_while_does_not_sign(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let (ring, clock) = (scene.ring().await, Arc::new(ManualClock::at(NOW)));
    let time = Arc::<ManualClock>::clone(&clock);
    ring.follow(time).await.unwrap();
    assert!(ring.may_sign());
    clock.advance(Duration::from_secs(5));
    assert!(ring.may_sign());
    // Stopped for longer than a key is published before it signs, and meanwhile one was withdrawn.
    clock.advance(Duration::from_millis(1));
    assert!(!ring.may_sign());
    clock.advance(Duration::from_secs(1_200));
    let kid = scene.signing().await;
    retire(&*scene.keys(), &kid, NOW).await.unwrap();
    assert!(!ring.may_sign());
    ring.reload().await.unwrap();
    assert!(ring.may_sign());
    assert_ne!(**ring.current().signing(ES256, NOW.after(Duration::from_secs(1))).unwrap().kid(), *kid);
}

async fn a_node_that_cannot_look_does_not_sign(bench: &Bench) {
    let scene = Scene::of(bench).await;
    let ring = scene.ring().await;
    ring.follow(Arc::new(ManualClock::at(NOW))).await.unwrap();
    bench.run("ALTER TABLE signing_key_ring RENAME TO away").await;
    assert!(ring.reload().await.is_err());
    assert!(!ring.may_sign());
    assert!(!ring.published(NOW).body.is_empty(), "what it has it shows");
    bench.run("ALTER TABLE away RENAME TO signing_key_ring").await;
    ring.reload().await.unwrap();
    assert!(ring.may_sign());
}
