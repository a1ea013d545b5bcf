//! Backups that are not what was written: none is restored, and what was begun says so.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::audit::believed::BelievedKeys;
use countersign::audit::checkpoint::CHECKPOINT_TYPE;
use countersign::backup::{BackupFailure, BackupStore, Standing, inspect};
use countersign::mint::KeyRing;
use countersign::mint::key_directory::KeyDirectory;
use countersign::store::{Migrate, open};
use countersign_resource_server::time::{Clock, SystemClock};
use countersign_resource_server::token::jwks::KeySet;
use countersign_resource_server::token::jws::SigningAlgorithm;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::circle::fresh;
use super::{backed_up, command, done, refused, text};
use crate::rig::{Engine, Rig, Time};
use crate::wire::Request;

fn lines(file: &Path) -> Vec<String> {
    let mut whole = String::new();
    GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut whole).unwrap();
    whole.lines().map(str::to_owned).collect()
}

fn compressed(lines: &[String]) -> Vec<u8> {
    let mut file = GzEncoder::new(Vec::new(), Compression::fast());
    for line in lines {
        writeln!(file, "{line}").unwrap();
    }
    file.finish().unwrap()
}

/// The last line, as it has to be for those before it.
fn ended(lines: &mut [String], signature: Option<&str>) {
    let (end, before) = lines.split_last_mut().unwrap();
    let mut hash = Sha256::new();
    before.iter().for_each(|line| hash.update(format!("{line}\n")));
    let mut told: Value = serde_json::from_str(end).unwrap();
    told["sha256"] = hex::encode(hash.finalize()).into();
    told["signature"] = signature.map_or(Value::Null, Into::into);
    *end = told.to_string();
}

struct Scene {
    rig: Rig,
    file: PathBuf,
    keys: BelievedKeys,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        let (file, _) = backed_up(&rig, "backup.gz").await;
        let jwks = rig.anonymous().ask(rig.address, &Request::get("/jwks")).await.unwrap().json();
        let keys = KeySet::parse(jwks.to_string().as_bytes()).unwrap().into();
        Self { rig, file, keys }
    }

    /// What is said of a file with these octets.
    fn inspected(&self, octets: &[u8]) -> Result<Option<String>, BackupFailure> {
        let file = self.rig.directory().join("bent.gz");
        std::fs::write(&file, octets).unwrap();
        inspect(&file, &self.keys, &Arc::default()).map(|inspected| inspected.doubt)
    }
}

#[tokio::test]
async fn a_backup_that_is_bent_at_any_line_is_refused() {
    let scene = Scene::new().await;
    let whole = lines(&scene.file);
    assert_eq!(scene.inspected(&compressed(&whole)).unwrap(), None);
    assert!(whole.len() > 100, "{}", whole.len());
    for index in 0..whole.len() {
        let mut bent: Vec<Vec<String>> = vec![whole.clone(); if index % 5 == 0 { 3 } else { 1 }];
        if let [_, without, twice] = &mut bent[..] {
            without.remove(index);
            twice.insert(index, whole[index].clone());
        }
        // One letter or digit is another one.
        let place = whole[index].rfind(|character: char| character.is_ascii_alphanumeric()).unwrap();
        let other = if &whole[index][place..=place] == "1" { "2" } else { "1" };
        bent[0][index].replace_range(place..=place, other);
        for (how, bent) in bent.iter().enumerate() {
            let told = scene.inspected(&compressed(bent));
            let is_refused = matches!(&told, Err(BackupFailure::Malformed { .. }));
            // The signature is in the last line: then nobody can say who made it.
            let is_doubted = how == 0 && index + 1 == whole.len() && matches!(&told, Ok(Some(_)));
            assert!(is_refused || is_doubted, "{how} {index}: {told:?}: {}", whole[index]);
        }
        if index % 5 == 0 && index + 1 < whole.len() && whole[index] != whole[index + 1] {
            let mut swapped = whole.clone();
            swapped.swap(index, index + 1);
            let told = scene.inspected(&compressed(&swapped));
            assert!(matches!(told, Err(BackupFailure::Malformed { .. })), "{index}: {told:?}");
        }
    }
    scene.rig.stop().await;
}

#[tokio::test]
async fn a_backup_that_is_cut_or_goes_on_is_refused() {
    let scene = Scene::new().await;
    let octets = std::fs::read(&scene.file).unwrap();
    for end in [0, 1, 9, 10, octets.len() / 2, octets.len() - 9, octets.len() - 8, octets.len() - 1] {
        let told = scene.inspected(&octets[..end]);
        assert!(matches!(told, Err(BackupFailure::Malformed { .. })), "{end}: {told:?}");
    }
    let more = [&octets[..], b"x"].concat();
    let told = scene.inspected(&more);
    assert!(matches!(told, Err(BackupFailure::Malformed { .. })), "{told:?}");
    let twice = [&octets[..], &octets[..]].concat();
    let told = scene.inspected(&twice);
    assert!(matches!(told, Err(BackupFailure::Malformed { .. })), "{told:?}");
    for garbage in [&b""[..], b"garbage", b"\x1f\x8b"] {
        let told = scene.inspected(garbage);
        assert!(matches!(told, Err(BackupFailure::Malformed { .. })), "{told:?}");
    }
    scene.rig.stop().await;
}

/// Whoever changes it can make its hash anew, but not its signature.
#[tokio::test]
async fn a_backup_that_nobody_known_has_signed_is_refused_and_accepted_where_that_is_said() {
    let scene = Scene::new().await;
    let rig = &scene.rig;
    let mut bent = lines(&scene.file);
    let signature: Value = serde_json::from_str(bent.last().unwrap()).unwrap();
    let signature = signature["signature"].as_str().unwrap().to_owned();
    let suspended = bent.iter().position(|line| line.starts_with(r#"["partner-b","active""#)).unwrap();
    bent[suspended] = bent[suspended].replace(r#""active""#, r#""withdrawn""#);
    ended(&mut bent, Some(&signature));
    let told = scene.inspected(&compressed(&bent)).unwrap();
    assert_eq!(told.as_deref(), Some("its signature is another backup's"));
    ended(&mut bent, None);
    assert_eq!(scene.inspected(&compressed(&bent)).unwrap().as_deref(), Some("it is not signed"));
    let file = text(&rig.directory().join("bent.gz"));

    let store = fresh(rig, &Engine::Sqlite, "bent").await;
    let said = refused(rig, &store, &["restore", "--from", &file]).await;
    assert!(said.contains("nobody can say"), "{said}");
    let nobody = rig.file("nobody.jwks", &json!({ "keys": [] }).to_string());
    let said = refused(rig, &store, &["restore", "--from", &text(&scene.file), "--jwks", &text(&nobody)]).await;
    assert!(said.contains("the key that signed it is not known"), "{said}");
    // Nothing was made: the name is free.
    let said = refused(rig, &store, &["participant", "list"]).await;
    assert!(said.contains("there is no database"), "{said}");
    let said = done(rig, &store, &["restore", "--from", &file, "--danger-unproven"]).await;
    assert!(said.contains("Not proven, and accepted: it is not signed"), "{said}");
    let history = done(rig, &store, &["--json", "history"]).await;
    assert!(history.contains("it is not signed"), "that it was accepted is on record");
    scene.rig.stop().await;
}

#[tokio::test]
async fn a_backup_of_a_log_that_was_changed_is_refused_and_leaves_nothing() {
    use sqlx::{Connection, Executor};
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    rig.app.audit.flush().await;
    let mut connection = sqlx::SqliteConnection::connect(rig.store.as_str()).await.unwrap();
    connection.execute("DROP TRIGGER audit_record_is_never_changed").await.unwrap();
    let changed =
        connection.execute("UPDATE audit_record SET body = body || ' ' WHERE position % 1099511627776 = 3").await;
    assert!(changed.unwrap().rows_affected() > 0);
    connection.close().await.unwrap();
    let (file, _) = backed_up(&rig, "backup.gz").await;
    let store = fresh(&rig, &Engine::Sqlite, "changed").await;
    let said = refused(&rig, &store, &["restore", "--from", &text(&file)]).await;
    assert!(said.contains("does not hold together") && said.contains("changed"), "{said}");
    for arguments in [&["participant", "list"][..], &["serve"], &["audit", "verify"], &["restore", "status"]] {
        let said = refused(&rig, &store, arguments).await;
        assert!(said.contains("did not come to its end"), "{arguments:?}: {said}");
    }
    // An operator who has no better one may have it all the same, and everybody can see it.
    let said = done(&rig, &store, &["restore", "--from", &text(&file), "--danger-unproven"]).await;
    assert!(said.contains("Not proven, and accepted: the audit log does not verify"), "{said}");
    rig.stop().await;
}

#[tokio::test]
async fn a_backup_of_another_issuer_or_from_the_future_is_refused() {
    let scene = Scene::new().await;
    let rig = &scene.rig;
    for (name, change, expected) in [
        ("issuer", json!({ "issuer": "https://other.example" }), "is of issuer https://other.example"),
        ("future", json!({ "at": 4_000_000_000_000_i64 }), "the clock of this machine is wrong"),
        ("schema", json!({ "schema": 8 }), "restore it with the release that wrote it"),
        (
            "epoch",
            json!({ "registry": { "epoch": i64::MAX, "version": 1, "changed_at": null } }),
            "is no epoch or version",
        ),
        (
            "version",
            json!({ "registry": { "epoch": 1, "version": i64::MAX, "changed_at": null } }),
            "is no epoch or version",
        ),
    ] {
        let mut bent = lines(&scene.file);
        let mut header: Value = serde_json::from_str(&bent[0]).unwrap();
        for (member, value) in change.as_object().unwrap() {
            header[member] = value.clone();
        }
        bent[0] = header.to_string();
        ended(&mut bent, None);
        let file = rig.directory().join("bent.gz");
        std::fs::write(&file, compressed(&bent)).unwrap();
        let store = fresh(rig, &Engine::Sqlite, name).await;
        let said = refused(rig, &store, &["restore", "--from", &text(&file), "--danger-unproven"]).await;
        assert!(said.contains(expected), "{name}: {said}");
    }
    scene.rig.stop().await;
}

/// What was kept of the lost log is not later than the backup: it has to be in it.
#[tokio::test]
async fn a_backup_of_another_past_than_the_one_that_was_kept_is_refused() {
    let mut rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    // Stopped, so that there is a checkpoint of all of it.
    rig.go_down().await;
    let (file, _) = backed_up(&rig, "backup.gz").await;
    let kept_file = rig.directory().join("audit-checkpoint.jwt");
    let kept = std::fs::read_to_string(&kept_file).unwrap();
    let payload = |kept: &str| -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(kept.trim().split('.').nth(1).unwrap()).unwrap()).unwrap()
    };
    let keys = KeyRing::read(&KeyDirectory::open(&rig.app.config.keys_directory).unwrap()).await.unwrap();
    let signer = keys.signing(SigningAlgorithm::ES256, SystemClock::new().now()).unwrap();
    let signed = |payload: &Value| signer.sign(CHECKPOINT_TYPE, payload.to_string().as_bytes()).unwrap();

    let mut of_another_past = payload(&kept);
    of_another_past["chains"][0]["hash"] = "ab".repeat(32).into();
    let mut of_another_log = payload(&kept);
    of_another_log["log"] = "ab".repeat(16).into();
    of_another_log["number"] = 1_000.into();
    of_another_log["before"] = "ab".repeat(32).into();
    let unsigned = format!("{}AAAA", &kept.trim()[..kept.trim().len() - 4]);
    for (name, put, expected) in [
        ("past", signed(&of_another_past), "it was replaced"),
        ("log", signed(&of_another_log), "a copy kept elsewhere is of log"),
        ("unsigned", unsigned, "cannot be held against it, it is not signed"),
        ("empty", String::new(), "cannot be held against it, it is not signed"),
    ] {
        std::fs::write(&kept_file, put).unwrap();
        let store = fresh(&rig, &Engine::Sqlite, name).await;
        let said = refused(&rig, &store, &["restore", "--from", &text(&file)]).await;
        assert!(said.contains(expected), "{name}: {said}");
        let said = done(&rig, &store, &["restore", "--from", &text(&file), "--danger-unproven"]).await;
        assert!(said.contains("Not proven, and accepted") && said.contains(expected), "{name}: {said}");
    }
    // And as it was kept, it is in the backup.
    std::fs::write(&kept_file, kept).unwrap();
    let store = fresh(&rig, &Engine::Sqlite, "same").await;
    let said = done(&rig, &store, &["restore", "--from", &text(&file)]).await;
    assert!(!said.contains("Not proven"), "{said}");
    rig.stop().await;
}

#[tokio::test]
async fn a_file_that_is_there_stays() {
    let rig = Rig::start().await;
    let there = rig.file("there.gz", "mine");
    for link in ["there.gz", "dangling.gz"] {
        let path = rig.directory().join(link);
        if !path.exists() {
            std::os::unix::fs::symlink("nowhere", &path).unwrap();
        }
        let said = refused(&rig, &rig.store, &["backup", "--to", &text(&path)]).await;
        assert!(said.contains("is there already"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(there).unwrap(), "mine");
    let left = std::fs::read_dir(rig.directory()).unwrap();
    assert!(left.filter_map(Result::ok).all(|entry| !entry.file_name().to_string_lossy().ends_with(".new")));
    rig.stop().await;
}

/// `kill -9` as soon as the store is begun: it is served by nobody, and the same command brings it to its end.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_is_seen_and_done_again() {
    let scene = Scene::new().await;
    let rig = &scene.rig;
    for engine in Engine::every() {
        for round in 0..5 {
            let store = fresh(rig, &engine, &format!("killed-{engine:?}-{round}").replace(['/', ':', '"'], "-")).await;
            let mut restoring = tokio::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
                .args(["restore", "--from", &text(&scene.file)])
                .env("COUNTERSIGN_DATA_DIRECTORY", rig.directory())
                .env("COUNTERSIGN_STORE", store.as_str())
                .env("COUNTERSIGN_ISSUER", &rig.world.issuer)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let begun = tokio::time::timeout(Duration::from_secs(20), async {
                loop {
                    if let Ok(seen) = open(store.as_str(), Migrate::Check).await {
                        let standing = seen.standing().await;
                        seen.close().await;
                        if !matches!(standing, Ok(Standing::Served)) {
                            break;
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            begun.await.expect("the restore begins");
            restoring.kill().await.unwrap();
            let served = command(rig, &store, &["serve"]).await;
            let said = String::from_utf8_lossy(&served.stderr).into_owned();
            assert_eq!(served.status.code(), Some(1), "{said}");
            if said.contains("did not come to its end") {
                done(rig, &store, &["restore", "--from", &text(&scene.file)]).await;
            } else {
                assert!(said.contains("nobody has confirmed"), "{said}");
            }
            done(rig, &store, &["restore", "confirm", "--why", "nothing was revoked"]).await;
        }
    }
    scene.rig.stop().await;
}
