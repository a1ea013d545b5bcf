//! Each kind of tampering by itself, on both engines: what is found, and where.

use countersign::store::{Migrate, open};

use super::scene::{Scene, told, verified};
use super::tampering::{Stored, Tampering};
use crate::rig::Engine;

#[tokio::test]
async fn nothing_is_found_where_nothing_was_changed() {
    for engine in Engine::every() {
        let scene = Scene::on(&engine, 40).await;
        let report = scene.verified().await;
        assert_eq!(told(&report), [""; 0], "{report:?}");
        assert_eq!((report.chains, report.checkpoints, report.copies_compared), (3, 4, 1));
        assert_eq!(report.records, 3 * 40 + 2 * 4);
        // Nor without copies; nor, but for the newest signature, without keys.
        assert_eq!(told(&verified(&scene.store, &scene.signer.keys(), &[]).await), [""; 0]);
        let none = countersign::audit::believed::BelievedKeys::default();
        let keyless = verified(&scene.store, &none, &scene.kept()).await;
        assert_eq!(told(&keyless), ["signature checkpoint 4"]);
        assert_eq!(keyless.unproven_signatures, 4);
    }
}

/// Chain 2 has records 1 to 40; checkpoints know 10, 20, 30 and 40 of it.
const SECOND: i64 = 2 << 40;

/// One defect, and what is said of it first.
type Case = (&'static str, &'static [&'static str]);

const CASES: &[Case] = &[
    ("a body", &["changed 2/17"]),
    ("a separator in a body", &["changed 2/17"]),
    ("a hash", &["changed 2/17"]),
    ("an octet of a hash moved to the next", &["changed 2/17-19"]),
    ("the hash a checkpoint has", &["changed 2/20"]),
    ("one removed", &["removed 2/17"]),
    ("three removed", &["removed 2/17-19"]),
    ("the first removed", &["removed 2/1"]),
    ("the last removed", &["truncated 2/40"]),
    ("two swapped, each with its hash", &["moved 2/17-18"]),
    ("two bodies swapped", &["moved 2/17-18"]),
    ("one inserted", &["inserted 2/17"]),
    ("one removed without a gap", &["removed 2/17", "truncated 2/40"]),
    ("one once more at the end", &["changed 2/41"]),
    ("rewritten", &["rewritten 2/11-20"]),
    ("a chain removed", &["chain_missing chain 2"]),
    ("a chain nobody lists", &["chain_missing 9/1"]),
    ("a record before the first", &["inserted 2/0"]),
    ("cut", &["cut 2/1-17"]),
    ("a checkpoint removed", &["checkpoint checkpoint 3", "checkpoint checkpoint 3"]),
    ("the last checkpoint removed", &["rolled_back checkpoint 4"]),
    ("the first checkpoint removed", &["checkpoint checkpoint 2"]),
    ("signed again", &["signature checkpoint 1"]),
    ("the history", &["history 1/4"]),
    ("the history's length", &["history "]),
];

#[tokio::test]
async fn each_is_named_for_what_it_is_on_sqlite() {
    let scene = Scene::on(&Engine::Sqlite, 40).await;
    for (number, (what, expected)) in CASES.iter().enumerate() {
        let copy = scene.directory.path().join(format!("{number}.db"));
        scene.copy_to(&copy).await;
        let url = format!("sqlite:{}", copy.display());
        is_named(&scene, &url, what, expected).await;
    }
}

/// What differs there is how it is read: every third.
#[tokio::test]
async fn each_is_named_for_what_it_is_on_postgresql() {
    for engine in Engine::every().iter().filter(|engine| matches!(engine, Engine::Postgres(_))) {
        for (what, expected) in CASES.iter().step_by(3) {
            let scene = Scene::on(engine, 40).await;
            is_named(&scene, &scene.url, what, expected).await;
        }
    }
}

async fn is_named(scene: &Scene, url: &str, what: &str, expected: &[&str]) {
    let mut log = Tampering::at(url).await;
    tamper(&mut log, what, scene).await;
    log.close().await;
    let store = open(url, Migrate::Check).await.unwrap();
    let told = told(&verified(&store, &scene.signer.keys(), &scene.kept()).await);
    store.close().await;
    assert_eq!(&told[..expected.len().min(told.len())], expected, "{what}: {told:?}");
}

async fn tamper(log: &mut Tampering, what: &str, scene: &Scene) {
    let records = log.records(2).await;
    let one = |sequence: usize| records[sequence - 1].clone();
    let changed = |record: Stored| Stored { body: record.body.replace("issued", "refused"), ..record };
    let there = |record: Stored, position: i64| Stored { position, ..record };
    match what {
        "a body" => log.replace(&changed(one(17))).await,
        "a separator in a body" => {
            log.replace(&Stored { body: format!("{}\u{1e}{}", one(17).body, one(17).body), ..one(17) }).await;
        }
        "a hash" => log.replace(&Stored { hash: vec![7; 32], ..one(17) }).await,
        "an octet of a hash moved to the next" => {
            let (short, octet) = (one(17).hash[..31].to_vec(), one(17).hash[31..].to_vec());
            log.replace(&Stored { hash: short, ..one(17) }).await;
            log.replace(&Stored { hash: [octet, one(18).hash].concat(), ..one(18) }).await;
        }
        "the hash a checkpoint has" => log.replace(&Stored { hash: vec![7; 32], ..one(20) }).await,
        "one removed" => log.remove(SECOND + 17).await,
        "three removed" => {
            for sequence in 17..20 {
                log.remove(SECOND + sequence).await;
            }
        }
        "the first removed" => log.remove(SECOND + 1).await,
        "the last removed" => log.remove(SECOND + 40).await,
        "two swapped, each with its hash" => {
            log.replace(&there(one(18), SECOND + 17)).await;
            log.replace(&there(one(17), SECOND + 18)).await;
        }
        "two bodies swapped" => {
            log.replace(&Stored { body: one(18).body, at: one(18).at, ..one(17) }).await;
            log.replace(&Stored { body: one(17).body, at: one(17).at, ..one(18) }).await;
        }
        "one inserted" => {
            log.shift(SECOND + 17, 1).await;
            log.insert(&changed(one(17))).await;
        }
        "one removed without a gap" => {
            log.remove(SECOND + 17).await;
            log.shift(SECOND + 18, -1).await;
        }
        "one once more at the end" => log.insert(&there(one(17), SECOND + 41)).await,
        "rewritten" => {
            log.replace(&changed(one(17))).await;
            log.hash_again(2, 17).await;
        }
        "a chain removed" => {
            log.run("DELETE FROM audit_chain WHERE id = 2").await;
            log.run(&format!("DELETE FROM audit_record WHERE position > {SECOND} AND position < {}", 3_i64 << 40))
                .await;
        }
        "a chain nobody lists" => {
            log.insert(&there(one(1), (9 << 40) + 1)).await;
            log.hash_again(9, 1).await;
        }
        "a record before the first" => log.insert(&there(one(1), SECOND)).await,
        "cut" => {
            log.cut(2, 17, &one(17).hash).await;
            log.run(&format!("DELETE FROM audit_record WHERE position > {SECOND} AND position <= {SECOND} + 17")).await;
        }
        "a checkpoint removed" => drop(log.run("DELETE FROM audit_checkpoint WHERE number = 2").await),
        "the last checkpoint removed" => drop(log.run("DELETE FROM audit_checkpoint WHERE number = 4").await),
        "the first checkpoint removed" => drop(log.run("DELETE FROM audit_checkpoint WHERE number = 1").await),
        "signed again" => log.sign_again(&scene.signer.impostor()).await,
        "the history" => drop(log.run("UPDATE history SET why = 'fun' WHERE version = 2").await),
        "the history's length" => drop(log.run("UPDATE audit_log SET history_version = 3").await),
        _ => panic!("{what}"),
    }
}

/// What no column of the schema takes, by somebody who has made the table anew: the reading of many rows as one hides none.
#[tokio::test]
async fn what_is_of_another_type_is_found() {
    let scene = Scene::on(&Engine::Sqlite, 40).await;
    let (this, next) = (SECOND + 17, SECOND + 18);
    let both = "(SELECT body || char(30) || (SELECT body FROM audit_record WHERE position = 2199023255570) \
                FROM audit_record WHERE position = 2199023255569)";
    assert_eq!((this, next), (2_199_023_255_569, 2_199_023_255_570));
    for (number, (what, change)) in [
        ("a body that is none", format!("body = NULL WHERE position = {this}")),
        ("a hash that is none", format!("hash = NULL WHERE position = {this}")),
        ("a hash of no octets", format!("hash = x'' WHERE position = {this}")),
        ("a hash that is a number", format!("hash = 7 WHERE position = {this}")),
        ("a body that is a number", format!("body = 7 WHERE position = {this}")),
        ("an instant that is none", format!("at = NULL WHERE position = {this}")),
        ("an instant that is a text", format!("at = 'x' WHERE position = {this}")),
        ("an instant between two", format!("at = at + 0.5 WHERE position = {this}")),
        ("two instants in one", format!("at = at || ' ' || at WHERE position = {this}")),
        ("a body that is no UTF-8", format!("body = CAST(x'ff' AS TEXT) WHERE position = {this}")),
        (
            "the separator that another body's absence leaves out",
            format!("body = CASE position WHEN {this} THEN {both} END WHERE position IN ({this}, {next})"),
        ),
        (
            "the instant that another's absence leaves out",
            format!("at = CASE position WHEN {this} THEN at || ' ' || (at + 7) END WHERE position IN ({this}, {next})"),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let copy = scene.directory.path().join(format!("loose-{number}.db"));
        scene.copy_to(&copy).await;
        let url = format!("sqlite:{}", copy.display());
        let mut log = Tampering::at(&url).await;
        log.run("CREATE TABLE loose (position INTEGER PRIMARY KEY, at, hash, body)").await;
        log.run("INSERT INTO loose SELECT position, at, hash, body FROM audit_record").await;
        log.run("DROP TABLE audit_record").await;
        log.run("ALTER TABLE loose RENAME TO audit_record").await;
        let changed = log.run(&format!("UPDATE audit_record SET {change}")).await;
        assert!(changed > 0, "{what}");
        log.close().await;
        let store = open(&url, Migrate::Check).await.unwrap();
        let told = told(&verified(&store, &scene.signer.keys(), &scene.kept()).await);
        store.close().await;
        // Whether the one after it still follows depends on what is left of its hash.
        assert!(told.len() == 1 && told[0].starts_with("changed 2/17"), "{what}: {told:?}");
    }
}
