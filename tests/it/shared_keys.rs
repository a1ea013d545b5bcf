//! `countersign key` where keys are in the store: the way there, another key-encryption key, and a backup of all of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::app::{App, AppError};
use countersign::mint::key_encryption::{EncryptionKeySource, EncryptionKeys};
use serde_json::Value;
use sqlx::{Connection, Executor};

use crate::backup::{backed_up, done, fresh, refused, text};
use crate::nodes::{encrypted, kid};
use crate::rig::{Engine, Rig, Time};
use crate::token;
use crate::wire::Request;

async fn jwks(rig: &Rig) -> Value {
    rig.anonymous().ask(rig.address, &Request::get("/jwks")).await.unwrap().json()
}

async fn listed(rig: &Rig) -> Value {
    serde_json::from_str(&done(rig, &rig.store, &["--json", "key", "list"]).await).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_moved_into_the_store_and_no_token_is_refused_for_it() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let of_before = rig.ask(&rig.world.a_dn).await.token();
        let (before, table) = (jwks(&rig).await, listed(&rig).await);
        let kek = rig.directory().join("kek");
        done(&rig, &rig.store, &["key", "make-encryption-key", &text(&kek)]).await;
        let unsaid = refused(&rig, &rig.store, &["key", "move-to-store"]).await;
        assert!(unsaid.contains("key_encryption_key"), "{unsaid}");

        // A server that is told of one, and finds keys in the directory, makes none beside them.
        let mut config = rig.app.config.clone();
        config.key_encryption_key = Some(EncryptionKeySource::File(kek.clone()));
        let told = App::open(config.clone(), Arc::clone(&rig.app.clock)).await.unwrap_err();
        assert!(matches!(told, AppError::KeysNotMoved(_)), "{told}");

        let moved = with_key(&rig, &kek, &["key", "move-to-store", "--why", "two nodes"]).await.unwrap();
        assert!(moved.contains("Moved 6 signing keys"), "{moved}");
        let again = with_key(&rig, &kek, &["key", "move-to-store"]).await.unwrap_err();
        assert!(again.contains("already"), "{again}");
        let history = done(&rig, &rig.store, &["--json", "history"]).await;
        assert!(history.contains("signing_key.move") && !history.contains("PRIVATE"), "{history}");

        // Nor is there one beside those in the store.
        let untold = App::open(rig.app.config.clone(), Arc::clone(&rig.app.clock)).await.unwrap_err();
        assert!(matches!(untold, AppError::KeysEncrypted(_)), "{untold}");

        std::fs::remove_dir_all(&rig.app.config.keys_directory).unwrap();
        let rig = rig.restarted_with(|config| *config = configured(config, &kek)).await;
        assert_eq!(jwks(&rig).await, before);
        token::read(&rig, &of_before).await;
        assert_eq!(listed(&rig).await, table);
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        assert!(!rig.app.config.keys_directory.exists());
        rig.stop().await;
    }
}

/// What was left in the directory signs nothing: whoever withdraws it there has withdrawn nothing.
#[tokio::test(flavor = "multi_thread")]
async fn keys_left_in_a_directory_are_not_taken_for_those_in_the_store() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let kek = rig.directory().join("kek");
        done(&rig, &rig.store, &["key", "make-encryption-key", &text(&kek)]).await;
        with_key(&rig, &kek, &["key", "move-to-store"]).await.unwrap();
        let (directory, table) =
            (&rig.app.config.keys_directory, with_key(&rig, &kek, &["key", "list"]).await.unwrap());
        let before = files(directory);
        assert_eq!(before.len(), 12, "a key and its record each");
        let kid = jwks(&rig).await["keys"][0]["kid"].as_str().unwrap().to_owned();
        for words in [&["key", "retire", "--now", &kid][..], &["key", "rotate"], &["key", "list"]] {
            let told = refused(&rig, &rig.store, words).await;
            assert!(told.contains("configure key_encryption_key"), "{words:?}: {told}");
            assert!(!told.contains("withdrawn"), "{words:?}: {told}");
        }
        // Nor is a backup signed by what was left there, or the log held against it.
        for words in [&["backup", "--to", "b.gz"][..], &["audit", "verify"]] {
            let told = refused(&rig, &rig.store, words).await;
            assert!(told.contains("configure key_encryption_key"), "{words:?}: {told}");
        }
        assert_eq!(files(directory), before);
        assert_eq!(with_key(&rig, &kek, &["key", "list"]).await.unwrap(), table);
        // Where nobody can tell, the directory is all that there is to go by, and that is said.
        let nowhere = countersign::config::StoreUrl::parse("sqlite:nowhere.db").unwrap();
        let told = done(&rig, &nowhere, &["key", "list"]).await;
        assert!(told.contains("cannot be asked") && told.contains(&kid), "{told}");
        rig.stop().await;
    }
}

/// Whatever becomes of the keys: the mark and the history's word for it are made, and the command says what that leaves open.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_withdrawn_by_the_mark_where_the_ring_cannot_be_read() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Machine, encrypted).await;
        let of_before = rig.ask(&rig.world.a_dn).await.token();
        let kid = kid(&of_before);
        // The list with everything that was done to set this up.
        rig.app.registry.catch_up().await.unwrap();
        let made = rig.app.registry.version();
        assert!(rig.app.status.has_come_to(made, Duration::from_secs(10)).await);
        let before = marks(&rig).await;
        run(&rig, "CREATE TABLE kept AS SELECT * FROM signing_key").await;
        let row = format!("FROM kept WHERE alg = 'ES256' AND kid <> '{kid}'");
        run(&rig, &format!("DELETE FROM signing_key WHERE kid IN (SELECT kid {row})")).await;

        let typo = refused(&rig, &rig.store, &["key", "retire", "--now", "kid"]).await;
        assert!(typo.contains("not the id of a signing key"), "{typo}");
        let told = refused(&rig, &rig.store, &["key", "retire", "--now", &kid, "--why", "stolen"]).await;
        assert!(told.contains("added, removed or put back"), "{told}");
        assert!(told.contains("The mark is made") && told.contains("no key takes its place"), "{told}");
        let history = done(&rig, &rig.store, &["--json", "history"]).await;
        assert!(history.contains("signing_key.withdraw") && history.contains(&kid), "{history}");
        within_reach("the mark", async || (marks(&rig).await == before + 1).then_some(())).await;

        // Once the row is back the key is withdrawn, on the node that runs too, and the same command gives it a successor.
        run(&rig, &format!("INSERT INTO signing_key SELECT * {row}")).await;
        done(&rig, &rig.store, &["key", "retire", "--now", &kid]).await;
        let by_another = async || {
            let answer = rig.ask(&rig.world.a_dn).await;
            (answer.status == 200 && self::kid(&answer.token()) != kid).then_some(())
        };
        within_reach("a token by another key", by_another).await;
        assert!(!jwks(&rig).await.to_string().contains(&kid));
        rig.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_withdrawn_by_the_mark_where_the_key_encryption_key_is_lost() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Machine, encrypted).await;
        let kid = kid(&rig.ask(&rig.world.a_dn).await.token());
        rig.app.registry.catch_up().await.unwrap();
        let made = rig.app.registry.version();
        assert!(rig.app.status.has_come_to(made, Duration::from_secs(10)).await);
        let before = marks(&rig).await;
        let (kek, away) = (rig.directory().join("kek"), rig.directory().join("kek.away"));
        std::fs::rename(&kek, &away).unwrap();

        for words in [&["key", "list"][..], &["key", "rotate"]] {
            let told = refused(&rig, &rig.store, words).await;
            assert!(!told.contains("The mark is made"), "{words:?}: {told}");
        }
        let typo = refused(&rig, &rig.store, &["key", "retire", "--now", "kid"]).await;
        assert!(typo.contains("not the id of a signing key"), "{typo}");
        let told = refused(&rig, &rig.store, &["key", "retire", "--now", &kid, "--why", "stolen"]).await;
        assert!(told.contains("The mark is made") && told.contains("no key takes its place"), "{told}");
        let history = done(&rig, &rig.store, &["--json", "history"]).await;
        assert!(history.contains("signing_key.withdraw") && history.contains(&kid), "{history}");
        within_reach("the mark", async || (marks(&rig).await == before + 1).then_some(())).await;

        std::fs::rename(&away, &kek).unwrap();
        done(&rig, &rig.store, &["key", "retire", "--now", &kid]).await;
        assert_eq!(marks(&rig).await, before + 1);
        rig.stop().await;
    }
}

/// How many marks the revocation list has: which they are only whoever has a token can tell.
async fn marks(rig: &Rig) -> usize {
    let list = rig.anonymous().ask(rig.address, &Request::get("/revocations")).await.unwrap();
    let list = String::from_utf8(list.body).unwrap();
    let claims = URL_SAFE_NO_PAD.decode(list.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice::<Value>(&claims).unwrap()["marks"].as_object().unwrap().len()
}

/// What there is at last.
async fn within_reach<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{what} does not come"))
}

/// What somebody does who can write to the database.
async fn run(rig: &Rig, statement: &str) {
    sqlx::any::install_default_drivers();
    let mut connection = sqlx::AnyConnection::connect(rig.store.as_str()).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

/// What is in every file of a directory, by name.
fn files(directory: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let keys = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    keys.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

fn configured(config: &countersign::config::Config, kek: &Path) -> countersign::config::Config {
    let mut config = config.clone();
    config.key_encryption_key = Some(EncryptionKeySource::File(kek.to_owned()));
    config
}

/// A command that is told of a key-encryption key, of a server that is not.
async fn with_key(rig: &Rig, kek: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(arguments)
        .current_dir(rig.directory())
        .env("COUNTERSIGN_DATA_DIRECTORY", rig.directory())
        .env("COUNTERSIGN_STORE", rig.store.as_str())
        .env("COUNTERSIGN_KEY_ENCRYPTION_KEY", kek)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_encryption_key_is_changed_under_a_server_that_runs() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Machine, encrypted).await;
        let before = jwks(&rig).await;
        let kek = rig.app.config.data_directory.join("kek");
        let same = refused(&rig, &rig.store, &["key", "change-encryption-key"]).await;
        assert!(same.contains("nothing is encrypted by another"), "{same}");
        done(&rig, &rig.store, &["key", "make-encryption-key", "--append", &text(&kek)]).await;
        done(&rig, &rig.store, &["key", "change-encryption-key", "--why", "every year"]).await;
        let last = std::fs::read_to_string(&kek).unwrap().lines().nth(1).unwrap().to_owned();
        std::fs::write(&kek, &last).unwrap();
        // It reads a rotation, for which it has to know the new one.
        done(&rig, &rig.store, &["key", "rotate", "--alg", "ES256"]).await;
        let keys = rig.app.mint.keys();
        crate::rig::within(std::time::Duration::from_secs(10), "it has read them", || keys.current().all().len() == 7)
            .await;
        assert!(keys.may_sign());
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        for key in before["keys"].as_array().unwrap() {
            assert!(jwks(&rig).await["keys"].as_array().unwrap().contains(key));
        }
        let history = done(&rig, &rig.store, &["--json", "history"]).await;
        assert!(history.contains("signing_key.encrypt") && !history.contains(&last), "{history}");
        // From the environment, as well as from the file.
        let value = EncryptionKeySource::Value(EncryptionKeys::parse(&last).unwrap());
        let rig = rig.restarted_with(|config| config.key_encryption_key = Some(value)).await;
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        rig.stop().await;
    }
}

/// The key-encryption key is all that a restore needs beside the backup, and without it there is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_with_its_keys_is_restored_by_whoever_has_the_key_encryption_key() {
    for engine in Engine::every() {
        let mut rig = Rig::configured(&engine, Time::Machine, encrypted).await;
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        let before = jwks(&rig).await;
        let (file, told) = backed_up(&rig, "backup.gz").await;
        assert_eq!(told["signed"], true);
        rig.go_down().await;
        let kek = rig.app.config.data_directory.join("kek");
        let store = fresh(&rig, &engine, "restored").await;

        let away = kek.with_extension("away");
        std::fs::rename(&kek, &away).unwrap();
        let without = refused(&rig, &store, &["restore", "--from", &text(&file)]).await;
        assert!(without.contains("kek"), "{without}");
        done(&rig, &store, &["key", "make-encryption-key", &text(&kek)]).await;
        let wrong = refused(&rig, &store, &["restore", "--from", &text(&file)]).await;
        assert!(wrong.contains("are encrypted by key-encryption key"), "{wrong}");
        std::fs::rename(&away, &kek).unwrap();

        let told = done(&rig, &store, &["restore", "--from", &text(&file), "--why", "the disk is gone"]).await;
        assert!(told.trim_end().ends_with("(`countersign key retire KID --now`), before you confirm."), "{told}");
        let status = done(&rig, &store, &["restore", "status"]).await;
        assert!(status.contains("The signing keys are those of then"), "{status}");
        done(&rig, &store, &["restore", "confirm", "--why", "nothing was revoked"]).await;
        rig.come_up_on(store.clone()).await;
        assert_eq!(jwks(&rig).await, before);
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        assert!(!rig.app.config.keys_directory.exists(), "none is made beside them");
        let verified = done(&rig, &store, &["audit", "verify"]).await;
        assert!(verified.contains("Nothing was changed"), "{verified}");
        rig.stop().await;
    }
}
