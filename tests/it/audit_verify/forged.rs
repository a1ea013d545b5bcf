//! A cut by somebody who can write to the store and has not the keys: no record of his can stand for an operator's.

use std::sync::Arc;
use std::time::Duration;

use countersign::audit::believed::BelievedKeys;
use countersign::audit::export::{self, ExportFailure, Interruption};
use countersign::audit::verify::{Finding, FindingKind, Pruned};
use countersign::audit::{AuditStore, Entry};
use countersign::store::{Migrate, open};
use countersign_resource_server::time::UnixTime;
use serde_json::{Value, json};

use super::scene::{Scene, Signer, has, told, verified};
use super::tampering::Tampering;
use crate::rig::{Engine, Rig, Time};

/// What stands in the log after checkpoint 2, and says that everything before it was exported.
fn record(scene: &Scene) -> Value {
    json!({
        "kind": "pruned", "at": scene.now, "node": "node", "actor": { "kind": "operator", "system_user": "root", "stated_name": null },
        "checkpoint": 2, "file": "a.gz", "sha256": "ab".repeat(32), "records": 68, "history": [4, 0],
    })
}

/// Removes what checkpoint 2 covers and the checkpoint before it, moves the cuts to where that one says, and puts `record` on
/// record, which the server's next checkpoint covers: as whole as a log can be made without the keys.
async fn forge(scene: &mut Scene, record: &Value) {
    let mut log = Tampering::at(&scene.url).await;
    for (chain, last) in [(1, 28), (2, 20), (3, 20)] {
        let records = log.records(chain).await;
        let base = chain << 40;
        log.cut(chain, last, &records[usize::try_from(last).unwrap() - 1].hash).await;
        log.run(&format!("DELETE FROM audit_record WHERE position > {base} AND position <= {}", base + last)).await;
    }
    log.run("DELETE FROM audit_checkpoint WHERE number < 2").await;
    log.close().await;
    let at = scene.now;
    scene.append(1, vec![Entry::new(at, record.to_string())]).await;
    scene.checkpoint().await;
}

/// What makes a proof none.
#[derive(Clone, Copy, Debug)]
enum Flaw {
    None,
    Missing,
    Impostor,
    AnotherLog,
    AnotherCheckpoint,
    AnotherStatement,
    AnotherFile,
    AnotherHistory,
    Checkpoint,
}

async fn proof(scene: &Scene, record: &Value, flaw: Flaw) -> Option<String> {
    let log = scene.source().outline().await.unwrap().log.to_string();
    let (signer, second): (&Signer, &str) = (&scene.signer, &scene.statements[1]);
    let with = |name: &str, value: Value| {
        let mut other = record.clone();
        other[name] = value;
        other
    };
    match flaw {
        Flaw::None => Some(signer.prove(record, &log, second)),
        Flaw::Missing => None,
        Flaw::Impostor => Some(signer.impostor().prove(record, &log, second)),
        Flaw::AnotherLog => Some(signer.prove(record, &"0".repeat(32), second)),
        Flaw::AnotherCheckpoint => Some(signer.prove(&with("checkpoint", 1.into()), &log, &scene.statements[0])),
        Flaw::AnotherStatement => Some(signer.prove(record, &log, &scene.statements[2])),
        Flaw::AnotherFile => Some(signer.prove(&with("file", "b.gz".into()), &log, second)),
        Flaw::AnotherHistory => Some(signer.prove(&with("history", json!([3, 0])), &log, second)),
        // Signed by the right key, but as something else.
        Flaw::Checkpoint => Some(second.to_owned()),
    }
}

#[tokio::test]
async fn a_cut_that_nobody_with_the_keys_announced_is_found() {
    for engine in Engine::every() {
        for (flaw, kind) in [
            (Flaw::None, None),
            (Flaw::Missing, Some(FindingKind::Signature)),
            (Flaw::Impostor, Some(FindingKind::Signature)),
            (Flaw::Checkpoint, Some(FindingKind::Signature)),
            (Flaw::AnotherLog, Some(FindingKind::Cut)),
            (Flaw::AnotherCheckpoint, Some(FindingKind::Cut)),
            (Flaw::AnotherStatement, Some(FindingKind::Cut)),
            (Flaw::AnotherFile, Some(FindingKind::Cut)),
            (Flaw::AnotherHistory, Some(FindingKind::Cut)),
        ] {
            let mut scene = Scene::on(&engine, 40).await;
            let mut record = record(&scene);
            if let Some(proof) = proof(&scene, &record, flaw).await {
                record["proof"] = proof.into();
            }
            forge(&mut scene, &record).await;
            let report = scene.verified().await;
            let found = told(&report);
            let Some(kind) = kind else {
                // What an operator's own command leaves: nothing else is wrong with what is forged here.
                assert_eq!(found, [""; 0], "{engine:?}: {report:?}");
                continue;
            };
            let first = report.findings.iter().find(|finding| finding.chain == Some(2) && finding.first == Some(41));
            assert_eq!(first.map(|finding| finding.kind), Some(kind), "{flaw:?} on {engine:?}: {report:?}");
            // The cuts stand there as if there were no record, and so does the missing checkpoint.
            for place in ["cut 1/1-28", "cut 2/1-20", "cut 3/1-20", "checkpoint checkpoint 2"] {
                assert!(found.iter().any(|one| one == place), "{flaw:?} on {engine:?}: {place}: {found:?}");
            }
            // Without a record that counts, rows of the history have no excuse for having no `change`.
            assert!(has(&report, FindingKind::History), "{flaw:?} on {engine:?}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_prune_is_believed_by_those_who_know_its_key() {
    let mut scene = Scene::on(&Engine::Sqlite, 40).await;
    let mut record = record(&scene);
    record["proof"] = proof(&scene, &record, Flaw::None).await.into();
    forge(&mut scene, &record).await;
    let report = verified(&scene.store, &BelievedKeys::default(), &[]).await;
    let found = report.findings.iter().find(|finding| finding.first == Some(41)).unwrap();
    assert_eq!((found.kind, found.checkpoint), (FindingKind::Signature, Some(2)));
    assert!(found.explanation.contains("--jwks"), "{found:?}");
}

/// Whoever took it can sign what is dated before as well: that is told, and not refused.
#[tokio::test]
async fn a_withdrawn_key_vouches_for_nothing_that_is_dated_later() {
    let mut scene = Scene::on(&Engine::Sqlite, 40).await;
    let mut record = record(&scene);
    record["proof"] = proof(&scene, &record, Flaw::None).await.into();
    forge(&mut scene, &record).await;
    let moment = Duration::from_millis(1);
    let dated = UnixTime::from_millis(record["at"].as_i64().unwrap());
    let with = async |withdrawn: UnixTime| {
        let report = verified(&scene.store, &scene.signer.withdrawn(withdrawn), &[]).await;
        let is_prune = |finding: &&Finding| finding.first == Some(41) && finding.kind == FindingKind::Signature;
        let is_newest =
            |finding: &&Finding| finding.explanation.starts_with("the newest checkpoint is signed with key");
        let is_noted = report.notes.iter().any(|note| note.contains("the prune to checkpoint 2 is vouched for by key"));
        (
            report.findings.iter().filter(is_prune).count(),
            report.findings.iter().filter(is_newest).count(),
            is_noted,
            report.findings.len(),
        )
    };
    // The newest checkpoint is dated `now`, the prune before that.
    assert_eq!(with(scene.now.after(moment)).await, (0, 0, true, 0));
    assert_eq!(with(scene.now).await, (0, 1, true, 1));
    assert_eq!(with(dated.after(moment)).await, (0, 1, true, 1));
    let (prune, newest, is_noted, _) = with(dated).await;
    assert_eq!((prune, newest, is_noted), (1, 1, false));
    let unfinished = export::unfinished(&scene.source(), &scene.signer.withdrawn(dated)).await;
    assert!(!matches!(unfinished, Ok(Some(_))), "{unfinished:?}");
}

/// `export --prune` finishes what it finds unfinished: nothing that an operator did not begin.
#[tokio::test]
async fn a_forged_prune_is_not_finished() {
    for engine in Engine::every() {
        for flaw in [Flaw::Missing, Flaw::Impostor, Flaw::AnotherFile, Flaw::None] {
            let mut scene = Scene::on(&engine, 40).await;
            let mut record = record(&scene);
            if let Some(proof) = proof(&scene, &record, flaw).await {
                record["proof"] = proof.into();
            }
            let at = scene.now;
            scene.append(1, vec![Entry::new(at, record.to_string())]).await;
            scene.checkpoint().await;
            let mut log = Tampering::at(&scene.url).await;
            let first = log.records(1).await.remove(0);
            log.cut(1, 1, &first.hash).await;
            log.remove(first.position).await;
            log.close().await;
            let unfinished = export::unfinished(&scene.source(), &scene.signer.keys()).await;
            match flaw {
                Flaw::None => assert_eq!(unfinished.unwrap().unwrap().checkpoint, 2),
                _ => assert!(matches!(unfinished, Err(ExportFailure::Tampered(_))), "{flaw:?} on {engine:?}"),
            }
        }
    }
}

/// In a file it proves nothing either: a later export has the record of the prune before it.
#[tokio::test]
async fn a_forged_record_is_found_in_an_export() {
    let mut scene = Scene::on(&Engine::Sqlite, 40).await;
    let (at, body) = (scene.now, record(&scene).to_string());
    scene.append(1, vec![Entry::new(at, body)]).await;
    scene.checkpoint().await;
    let exported = scene.exported(Scene::after(9), "forged.gz").await.unwrap();
    let report = export::read(&exported.file, &scene.signer.keys(), &[], &Arc::default()).unwrap().report;
    assert_eq!(told(&report), ["signature 2/41"]);
}

/// The next export would begin where the cut is, and the prune after it would explain it.
#[tokio::test]
async fn after_a_forged_cut_nothing_is_exported() {
    for engine in Engine::every() {
        for flaw in [Flaw::Missing, Flaw::Impostor, Flaw::None] {
            let mut scene = Scene::on(&engine, 40).await;
            let mut record = record(&scene);
            if let Some(proof) = proof(&scene, &record, flaw).await {
                record["proof"] = proof.into();
            }
            forge(&mut scene, &record).await;
            let exported = scene.exported(Scene::after(9), "a.gz").await;
            match flaw {
                Flaw::None => assert_eq!(exported.unwrap().checkpoint, 5),
                _ => assert!(matches!(exported, Err(ExportFailure::Tampered(_))), "{flaw:?} on {engine:?}"),
            }
        }
        // Without any record at all.
        let mut scene = Scene::on(&engine, 40).await;
        forge(&mut scene, &json!({ "kind": "opened" })).await;
        let exported = scene.exported(Scene::after(9), "b.gz").await;
        assert!(matches!(exported, Err(ExportFailure::Tampered(_))), "on {engine:?}");
    }
}

/// Of another past of this log, or of a copy of it that somebody tried something out with: genuine, and about nothing here.
#[tokio::test]
async fn a_genuine_proof_about_a_checkpoint_that_is_not_there_is_found() {
    for engine in Engine::every() {
        let mut scene = Scene::on(&engine, 40).await;
        let mut record = record(&scene);
        record["checkpoint"] = 99.into();
        let log = scene.source().outline().await.unwrap().log.to_string();
        record["proof"] = scene.signer.prove(&record, &log, "checkpoint 99").into();
        let (at, body) = (scene.now, record.to_string());
        scene.append(1, vec![Entry::new(at, body)]).await;
        scene.checkpoint().await;
        assert_eq!(told(&scene.verified().await), ["cut 2/41"], "on {engine:?}");
        // Nor is there anything to finish.
        assert_eq!(export::unfinished(&scene.source(), &scene.signer.keys()).await.unwrap(), None, "on {engine:?}");
    }
}

/// Otherwise one row would fill the disk in the end.
#[tokio::test]
async fn a_record_that_nobody_signed_keeps_nobody_from_pruning() {
    for engine in Engine::every() {
        let mut scene = Scene::on(&engine, 40).await;
        let mut genuine = record(&scene);
        genuine["proof"] = proof(&scene, &genuine, Flaw::None).await.into();
        forge(&mut scene, &genuine).await;
        let (at, body) = (scene.now, record(&scene).to_string());
        scene.append(1, vec![Entry::new(at, body)]).await;
        scene.checkpoint().await;
        assert!(has(&scene.verified().await, FindingKind::Signature), "on {engine:?}");
        scene.exported(Scene::after(9), "a.gz").await.unwrap();
    }
}

/// What the program signs is what the text of the format says.
#[tokio::test]
async fn a_proof_is_the_record_signed() {
    let scene = Scene::on(&Engine::Sqlite, 40).await;
    let keys = tempfile::tempdir().unwrap();
    crate::rig::signing_keys(keys.path()).await;
    let ring = countersign::mint::key_directory::KeyDirectory::open(keys.path()).unwrap();
    let ring = countersign::mint::KeyRing::read(&ring).await.unwrap();
    let algorithm = countersign_resource_server::token::jws::SigningAlgorithm::ES256;
    let signer = ring.signing(algorithm, scene.now).unwrap();
    let record = record(&scene);
    let pruned: Pruned = serde_json::from_value(record.clone()).unwrap();
    let log = scene.source().outline().await.unwrap().log;
    let hash = countersign::audit::checkpoint::statement_hash(&scene.statements[1]);
    let signed = pruned.signed("https://as.example", log, hash, signer).unwrap();
    let part = |index: usize| {
        use base64::Engine;
        let text = signed.proof.split('.').nth(index).unwrap();
        let octets = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
        serde_json::from_slice::<Value>(&octets).unwrap()
    };
    let header = json!({ "typ": "countersign-audit-prune+jwt", "alg": "ES256", "kid": **signer.kid() });
    assert_eq!(part(0), header);
    let mut claims = record;
    claims["iss"] = "https://as.example".into();
    claims["log"] = log.to_string().into();
    claims["statement"] = hash.to_string().into();
    assert_eq!(part(1), claims);
}

/// The whole way, by the command line.
#[tokio::test]
async fn the_command_signs_what_it_removes_and_without_a_key_removes_nothing() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
        // With the last checkpoint of a server that stops.
        let rig = rig.restarted().await;
        let export = |file: &'static str| ["audit", "export", "--before", "2999-01-01", "--to", file, "--prune"];
        let keys = rig.app.config.keys_directory.clone();
        let away = keys.with_extension("away");
        let store = open(rig.store.as_str(), Migrate::Check).await.unwrap();
        let records = async || store.recent(1_000).await.unwrap().len();

        std::fs::rename(&keys, &away).unwrap();
        let before = records().await;
        let refused = rig.command(&export("a.gz")).await;
        let why = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{why}");
        assert!(why.contains("no such directory") && why.contains("where the keys are"), "{why}");
        assert!(!keys.exists() && !rig.directory().join("a.gz").exists(), "on {engine:?}");
        assert_eq!(records().await, before, "nothing is on record on {engine:?}");
        std::fs::create_dir(&keys).unwrap();
        let refused = rig.command(&export("a.gz")).await;
        assert!(String::from_utf8(refused.stderr).unwrap().contains("no key for ES256"), "on {engine:?}");
        assert_eq!(records().await, before, "nothing is on record on {engine:?}");
        std::fs::remove_dir(&keys).unwrap();
        std::fs::rename(&away, &keys).unwrap();

        let done = rig.command(&export("a.gz")).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let verified = rig.command(&["audit", "verify"]).await;
        let said = String::from_utf8([verified.stdout, verified.stderr].concat()).unwrap();
        assert_eq!(verified.status.code(), Some(0), "{said}");
        assert!(said.contains("were exported to a.gz"), "{said}");
        let file = rig.command(&["audit", "verify", "--file", "a.gz"]).await;
        assert!(file.status.success(), "{}", String::from_utf8_lossy(&file.stderr));
        store.close().await;
    }
}

/// Interrupted after its record, it is an operator's still.
#[tokio::test]
async fn a_prune_that_was_interrupted_is_proven() {
    let scene = Scene::on(&Engine::Sqlite, 40).await;
    let exported = scene.exported(Scene::after(2), "a.gz").await.unwrap();
    scene.prune(&exported, Interruption::After(1)).await;
    assert_eq!(told(&scene.verified().await), [""; 0]);
    let source = scene.source();
    let unfinished = export::unfinished(&source, &scene.signer.keys()).await.unwrap().unwrap();
    assert!(!unfinished.proof.is_empty());
}
