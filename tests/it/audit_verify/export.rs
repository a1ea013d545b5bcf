//! Exports: complete, verifiable by themselves, and what may be removed once they are written.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use countersign::audit::believed::BelievedKeys;
use countersign::audit::checkpoint::{Checkpoint, CheckpointStore, StoredCheckpoint};
use countersign::audit::export::{self, ExportFailure, Exported, Interruption, ReadExport};
use countersign::audit::verify::{AuditReading, FindingKind, Pruned};
use countersign::audit::{AuditStore, Batch, Entry};
use countersign::registry::history::Actor;
use countersign::store::{Migrate, open};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jwks::KeySet;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::random::Dice;
use super::scene::{BEGUN, Scene, has, told};
use super::tampering::{Stored, Tampering};
use crate::rig::Engine;

impl Scene {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) async fn exported(&self, before: UnixTime, name: &str) -> Result<Exported, ExportFailure> {
        let selected = export::select(&self.source(), before, &self.signer.keys()).await?;
        export::write(&self.source(), &selected, &self.file(name), &Arc::default()).await
    }

    /// After checkpoint `number` was made, and before the next one.
    pub(super) fn after(number: i64) -> UnixTime {
        BEGUN.after(std::time::Duration::from_secs(u64::try_from(number).unwrap() * 3_600 + 1_800))
    }

    async fn pruned(&self, exported: &Exported, read: &ReadExport) -> Pruned {
        let pruned = Pruned {
            kind: "pruned".to_owned(),
            at: self.now,
            node: "node".to_owned(),
            actor: Actor::Operator { system_user: "root".to_owned(), stated_name: None },
            checkpoint: exported.checkpoint,
            file: exported.file.file_name().unwrap().to_str().unwrap().to_owned(),
            sha256: read.sha256.clone(),
            records: exported.records,
            history: read.history(),
            proof: String::new(),
        };
        let (log, statement) = (self.log().await, &self.statements[usize::try_from(exported.checkpoint).unwrap() - 1]);
        let proof = self.signer.prove(&serde_json::to_value(&pruned).unwrap(), &log, statement);
        Pruned { proof, ..pruned }
    }

    async fn log(&self) -> String {
        self.source().outline().await.unwrap().log.to_string()
    }

    pub(super) async fn prune(&self, exported: &Exported, interruption: Interruption) -> u64 {
        let read = read(&exported.file, &self.signer.keys());
        assert_eq!(told(&read.report), [""; 0]);
        let pruned = self.pruned(exported, &read).await;
        export::prune(&self.source(), &self.store, &pruned, interruption).await.unwrap()
    }
}

fn read(file: &Path, keys: &BelievedKeys) -> ReadExport {
    export::read(file, keys, &[], &Arc::default()).unwrap()
}

fn decompressed(file: &Path) -> Vec<u8> {
    let mut octets = Vec::new();
    GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_end(&mut octets).unwrap();
    octets
}

fn compressed(octets: &[u8], file: &Path) {
    let mut encoder = GzEncoder::new(std::fs::File::create(file).unwrap(), Compression::fast());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap();
}

#[tokio::test]
async fn what_is_exported_verifies_by_itself_and_with_the_store() {
    for engine in Engine::every() {
        let scene = Scene::on(&engine, 40).await;
        let exported = scene.exported(Scene::after(2), "a.gz").await.unwrap();
        assert_eq!((exported.checkpoint, exported.checkpoints, exported.chains), (2, 2, 3));
        assert_eq!(exported.records, 3 * 20 + 8);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&exported.file).unwrap().permissions().mode() & 0o777, 0o600);
        let mut read = read(&exported.file, &scene.signer.keys());
        assert_eq!(told(&read.report), [""; 0]);
        assert_eq!((read.report.records, read.checkpoint, read.history()), (68, Some(2), (4, 0)));
        export::meet(&mut read, &scene.source()).await.unwrap();
        assert_eq!(told(&read.report), [""; 0]);
        assert_eq!(read.report.notes, ["3 chains of the export are, or are in part, still in the store"]);
        // The same again is the same, octet by octet; and never over what is there.
        let again = scene.exported(Scene::after(2), "b.gz").await.unwrap();
        assert_eq!(decompressed(&exported.file), decompressed(&again.file));
        let before = std::fs::read(&exported.file).unwrap();
        let refused = scene.exported(Scene::after(3), "a.gz").await.unwrap_err();
        assert!(matches!(refused, ExportFailure::Exists(_)), "{refused}");
        assert_eq!(std::fs::read(&exported.file).unwrap(), before);
        // Both edges of the instant.
        let at = BEGUN.after(std::time::Duration::from_secs(1));
        assert!(matches!(scene.exported(at, "c.gz").await.unwrap_err(), ExportFailure::NoCheckpoint));
        let exactly = scene.exported(exported.until, "c.gz").await.unwrap();
        assert_eq!(exactly.checkpoint, 2);
        let before = UnixTime::from_millis(exported.until.as_millis() - 1);
        assert_eq!(scene.exported(before, "d.gz").await.unwrap().checkpoint, 1);
    }
}

#[tokio::test]
async fn a_log_goes_on_after_its_cut() {
    for engine in Engine::every() {
        let mut scene = Scene::on(&engine, 40).await;
        let first = scene.exported(Scene::after(2), "a.gz").await.unwrap();
        assert_eq!(scene.prune(&first, Interruption::None).await, 68);
        let report = scene.verified().await;
        assert_eq!(told(&report), [""; 0]);
        assert_eq!((report.records, report.checkpoints), (60 + 1, 3));
        assert!(
            report.notes[0].starts_with("records up to checkpoint 2 were exported to a.gz (SHA-256 "),
            "{report:?}"
        );
        let mut met = read(&first.file, &scene.signer.keys());
        export::meet(&mut met, &scene.source()).await.unwrap();
        assert_eq!(told(&met.report), [""; 0]);
        assert_eq!(met.report.notes, ["3 chains go on in the store where the export ends"]);

        // Nothing more is that old; then there is, and the second export begins where the first one ended.
        assert!(matches!(scene.exported(Scene::after(2), "b.gz").await.unwrap_err(), ExportFailure::Nothing(2)));
        scene.write(1, 10).await;
        scene.checkpoint().await;
        let second = scene.exported(Scene::after(4), "b.gz").await.unwrap();
        assert_eq!((second.checkpoint, second.checkpoints), (4, 3));
        assert_eq!(scene.prune(&second, Interruption::None).await, second.records);
        assert_eq!(told(&scene.verified().await), [""; 0]);
        let mut met = read(&first.file, &scene.signer.keys());
        export::meet(&mut met, &scene.source()).await.unwrap();
        assert_eq!(told(&met.report), [""; 0]);
        scene.write(2, 5).await;
        scene.checkpoint().await;
        let report = scene.verified().await;
        assert_eq!(told(&report), [""; 0]);
        // The last one that was kept elsewhere is still there.
        assert_eq!(report.copies_compared, 1);
        // A history that was changed after its record was exported is found with the export.
        let mut log = Tampering::at(&scene.url).await;
        log.run("UPDATE history SET why = 'fun' WHERE version = 2").await;
        log.close().await;
        assert_eq!(told(&scene.verified().await), [""; 0]);
        let mut met = read(&first.file, &scene.signer.keys());
        export::meet(&mut met, &scene.source()).await.unwrap();
        assert_eq!(told(&met.report), ["history 1/4"]);
    }
}

/// Made by another program, in another language, from the text of the format alone.
#[tokio::test]
async fn the_published_export() {
    let published = include_str!("../../vectors/audit/export.jsonl");
    let keys = KeySet::parse(include_bytes!("../../vectors/audit/export-keys.json")).unwrap().into();
    let lines: Vec<serde_json::Value> = published.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for engine in Engine::every() {
        let directory = tempfile::tempdir().unwrap();
        let url = engine.fresh(directory.path()).await.as_str().to_owned();
        let store = open(&url, Migrate::Apply).await.unwrap();
        let mut log = Tampering::at(&url).await;
        log.run(&format!("UPDATE audit_log SET id = '{}'", lines[0]["log"].as_str().unwrap())).await;
        log.close().await;
        let until = BEGUN.after(std::time::Duration::from_secs(60));
        let mut texts = published.lines().skip_while(|line| !line.starts_with(r#"{"chain""#)).skip(1).peekable();
        for _ in 0..3 {
            let lease = store.lease("node", BEGUN, until).await.unwrap();
            let mut entries = Vec::new();
            while let Some(text) = texts.next_if(|line| line.starts_with(r#"{"sequence""#)) {
                let record: serde_json::Value = serde_json::from_str(text).unwrap();
                let (_, body) = text.strip_suffix('}').unwrap().split_once(r#","body":"#).unwrap();
                let at = UnixTime::from_millis(record["at"].as_i64().unwrap());
                entries.push(Entry::new(at, body.to_owned()));
            }
            texts.next();
            let batch = Batch { lease, entries, given_back: Vec::new(), history: None };
            store.append(Arc::new(batch)).await.unwrap();
        }
        for statement in lines.iter().filter_map(|line| line["checkpoint"].as_str()) {
            let read = Checkpoint::read(statement).unwrap();
            let stored = StoredCheckpoint { number: read.number, at: read.at, statement: statement.to_owned() };
            assert!(store.put_checkpoint(&stored).await.unwrap());
        }
        let source: Arc<dyn AuditReading> = Arc::new(store.clone());
        let selected = export::select(&source, UnixTime::from_millis(i64::MAX), &keys).await.unwrap();
        let file = directory.path().join("export.gz");
        export::write(&source, &selected, &file, &Arc::default()).await.unwrap();
        assert_eq!(String::from_utf8(decompressed(&file)).unwrap(), published);
        assert_eq!(told(&read(&file, &keys).report), [""; 0]);
        store.close().await;
    }
}

/// As a crash between any two steps would.
#[tokio::test]
async fn a_prune_that_is_interrupted_leaves_a_log_that_verifies_and_is_finished_later() {
    for engine in Engine::every() {
        let mut steps = 0;
        // What differs there is the engine's own.
        let stride = if matches!(engine, Engine::Sqlite) { 1 } else { 4 };
        loop {
            let mut scene = Scene::on(&engine, 40).await;
            // More than go in one transaction.
            scene.write(0, 2_100).await;
            scene.checkpoint().await;
            let exported = scene.exported(Scene::after(9), "a.gz").await.unwrap();
            let removed = scene.prune(&exported, Interruption::After(steps)).await;
            assert_eq!(told(&scene.verified().await), [""; 0], "after {steps} steps on {engine:?}");
            let unfinished = export::unfinished(&scene.source(), &scene.signer.keys()).await.unwrap();
            let rest = match &unfinished {
                Some(pruned) => {
                    assert_eq!((pruned.checkpoint, pruned.file.as_str()), (5, "a.gz"));
                    export::finish(&scene.source(), pruned).await.unwrap()
                }
                None if steps == 0 => {
                    // It was announced, and nothing was removed: it is exported once more.
                    let again = scene.exported(Scene::after(9), "b.gz").await.unwrap();
                    scene.prune(&again, Interruption::None).await
                }
                None => 0,
            };
            assert_eq!(removed + rest, exported.records, "after {steps} steps");
            let report = scene.verified().await;
            assert_eq!((told(&report).len(), report.checkpoints), (0, 1), "after {steps} steps: {report:?}");
            assert_eq!(export::unfinished(&scene.source(), &scene.signer.keys()).await.unwrap(), None);
            if unfinished.is_none() && steps > 0 {
                assert!(steps > 5, "{steps}");
                break;
            }
            steps += stride;
        }
    }
}

#[tokio::test]
async fn a_cut_that_nobody_announced_is_found() {
    let scene = Scene::on(&Engine::Sqlite, 40).await;
    let mut log = Tampering::at(&scene.url).await;
    let records = log.records(2).await;
    // Exactly where a checkpoint is, and with those before that one gone.
    log.cut(2, 20, &records[19].hash).await;
    log.run(&format!(
        "DELETE FROM audit_record WHERE position > {} AND position <= {}",
        2_i64 << 40,
        (2_i64 << 40) + 20
    ))
    .await;
    log.run("DELETE FROM audit_checkpoint WHERE number < 2").await;
    log.close().await;
    assert_eq!(told(&scene.verified().await), ["cut 2/1-20", "checkpoint checkpoint 2"]);
    assert!(matches!(export::unfinished(&scene.source(), &scene.signer.keys()).await, Err(ExportFailure::Tampered(_))));
}

#[tokio::test]
async fn what_does_not_verify_is_not_exported() {
    let scene = Scene::on(&Engine::Sqlite, 40).await;
    let mut log = Tampering::at(&scene.url).await;
    let record = log.records(2).await.remove(4);
    log.replace(&Stored { body: record.body.replace("issued", "refused"), ..record }).await;
    log.close().await;
    let refused = scene.exported(Scene::after(4), "a.gz").await.unwrap_err();
    assert!(matches!(refused, ExportFailure::Tampered(_)), "{refused}");
    let left: Vec<_> = std::fs::read_dir(scene.directory.path())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .collect();
    assert!(left.iter().all(|name| !name.contains(".gz")), "{left:?}");
}

/// They are read a second time when the file is written.
#[tokio::test]
async fn a_checkpoint_that_changes_while_it_is_exported_is_found() {
    for change in [
        "DELETE FROM audit_checkpoint WHERE number = 2",
        "DELETE FROM audit_checkpoint WHERE number = 4",
        "UPDATE audit_checkpoint SET statement = statement || 'A' WHERE number = 3",
        "INSERT INTO audit_checkpoint (number, at, statement) VALUES (0, 0, 'x')",
    ] {
        let scene = Scene::on(&Engine::Sqlite, 24).await;
        let selected = export::select(&scene.source(), Scene::after(4), &scene.signer.keys()).await.unwrap();
        let mut log = Tampering::at(&scene.url).await;
        assert_eq!(log.run(change).await, 1);
        log.close().await;
        let written = export::write(&scene.source(), &selected, &scene.file("a.gz"), &Arc::default()).await;
        assert!(matches!(written, Err(ExportFailure::Tampered(_))), "{change}: {written:?}");
        assert!(!scene.file("a.gz").exists(), "{change}");
    }
}

/// Whatever is done to a file is found in it alone.
#[tokio::test]
async fn every_tampering_with_an_export_is_found() {
    let mut scene = Scene::on(&Engine::Sqlite, 24).await;
    let first = scene.exported(Scene::after(2), "a.gz").await.unwrap();
    scene.prune(&first, Interruption::None).await;
    scene.write(1, 10).await;
    scene.checkpoint().await;
    let second = scene.exported(Scene::after(9), "b.gz").await.unwrap();
    let keys = scene.signer.keys();
    let tampered = scene.file("tampered.gz");
    for file in [&first.file, &second.file] {
        let octets = decompressed(file);
        assert_eq!(told(&read(file, &keys).report), [""; 0]);
        compressed(&octets, &tampered);
        assert_eq!(told(&read(&tampered, &keys).report), [""; 0], "compressed by somebody else it says the same");
        let is_found = |octets: &[u8], what: &str| {
            compressed(octets, &tampered);
            assert!(!read(&tampered, &keys).report.findings.is_empty(), "{what}");
        };
        let mut dice = Dice::new(1);
        for index in 0..octets.len() {
            // Every octet of the lines that are few, some of the others.
            if index > 1_200 && index < octets.len() - 300 && dice.below(40) != 0 {
                continue;
            }
            let mut octets = octets.clone();
            octets[index] ^= 1 << dice.below(8);
            is_found(&octets, &format!("octet {index}"));
        }
        let lines: Vec<&[u8]> = octets.split_inclusive(|octet| *octet == b'\n').collect();
        for index in (0..lines.len()).filter(|index| *index < 12 || index % 5 == 0 || index + 2 > lines.len()) {
            let mut dropped = lines.clone();
            dropped.remove(index);
            is_found(&dropped.concat(), &format!("line {index} dropped"));
            let mut doubled = lines.clone();
            doubled.insert(index, lines[index]);
            is_found(&doubled.concat(), &format!("line {index} twice"));
            if index > 0 {
                let mut swapped = lines.clone();
                swapped.swap(index - 1, index);
                is_found(&swapped.concat(), &format!("lines {} and {index} swapped", index - 1));
            }
            is_found(&lines[..index].concat(), &format!("nothing from line {index} on"));
        }
        is_found(&[octets.as_slice(), b"{}\n"].concat(), "a line more");
        is_found(&[octets.as_slice(), b" "].concat(), "an octet more");
        is_found(&octets[..octets.len() - 1], "no last line feed");
        // The file as it is on disk.
        let whole = std::fs::read(file).unwrap();
        let on_disk = |octets: &[u8], what: &str| {
            std::fs::write(&tampered, octets).unwrap();
            assert!(!read(&tampered, &keys).report.findings.is_empty(), "{what}");
        };
        on_disk(&[whole.as_slice(), &whole].concat(), "twice");
        on_disk(&[whole.as_slice(), b"x"].concat(), "something after it");
        on_disk(&whole[..whole.len() - 1], "its last octet missing");
        on_disk(&whole[..whole.len() / 2], "half of it");
        on_disk(b"", "nothing");
    }
    let unknown = read(&first.file, &BelievedKeys::default());
    assert!(has(&unknown.report, FindingKind::Signature));
    let other = read(&first.file, &scene.signer.impostor().keys());
    assert!(has(&other.report, FindingKind::Signature));
    // A copy of the same number that says something else; one that is newer says nothing of this file.
    let copy = scene.signer.sign(2, scene.now, &scene.log().await, Some("x"), &[]);
    let report = export::read(&first.file, &keys, &[copy], &Arc::default()).unwrap().report;
    assert!(has(&report, FindingKind::Checkpoint), "{report:?}");
    let report = export::read(&first.file, &keys, &scene.kept(), &Arc::default()).unwrap().report;
    assert_eq!(told(&report), [""; 0]);
}
