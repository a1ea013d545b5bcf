//! Tampering at random, many at a time or one: with a checkpoint kept elsewhere, every one is found.
//!
//! `COUNTERSIGN_TEST_TAMPERINGS` says how many; each is named by its number, which makes it again.

use std::path::Path;

use countersign::audit::believed::BelievedKeys;
use countersign::store::{Migrate, open};

use super::scene::{Scene, Signer, told, verified};
use super::tampering::{Stored, Tampering};
use crate::rig::Engine;

/// Without the environment variable.
const TAMPERINGS: u64 = 150;

/// Numbers that look random and are the same each time.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Two different ones.
    fn two(&mut self, end: usize) -> (usize, usize) {
        let one = self.below(end);
        (one, (one + 1 + self.below(end - 1)) % end)
    }
}

/// One tampering; says which.
async fn tamper(log: &mut Tampering, dice: &mut Dice, signer: &Signer) -> String {
    let chain = i64::try_from(1 + dice.below(3)).unwrap();
    let records = log.records(chain).await;
    let record = dice.pick(&records).clone();
    let sequence = record.position & ((1 << 40) - 1);
    let place = format!("{chain}/{sequence}");
    match dice.below(36) {
        0 | 1 => {
            let body = damaged(&record.body, dice);
            log.replace(&Stored { body, ..record }).await;
            format!("the body of {place}")
        }
        2 => {
            let by = *dice.pick(&[-1_i64, 1, 1_000, -86_400_000]);
            log.replace(&Stored { at: record.at + by, ..record }).await;
            format!("the instant of {place} by {by}")
        }
        3 => {
            let mut hash = record.hash.clone();
            let octet = dice.below(32);
            hash[octet] ^= 1 << dice.below(8);
            log.replace(&Stored { hash, ..record }).await;
            format!("the hash of {place}")
        }
        4 => {
            let hash = dice.pick(&[vec![], record.hash[1..].to_vec(), [record.hash.as_slice(), &[0]].concat()]).clone();
            log.replace(&Stored { hash, ..record }).await;
            format!("the length of the hash of {place}")
        }
        5 => {
            log.remove(record.position).await;
            let last = records.last().unwrap().position;
            let to = *dice.pick(&[last + 1, last + 7, -5, 3, chain << 40, (9 << 40) + 1, ((chain % 3 + 2) << 40) - 1]);
            log.insert(&Stored { position: to, ..record }).await;
            format!("{place} moved to {to}")
        }
        6 | 7 => {
            log.remove(record.position).await;
            format!("{place} removed")
        }
        8 => {
            let count = 1 + dice.below(5);
            for index in 0..count {
                if let Some(record) = records.get((dice.below(40) * 5 + index) % records.len()) {
                    log.run(&format!("DELETE FROM audit_record WHERE position = {}", record.position)).await;
                }
            }
            format!("{count} of chain {chain} removed")
        }
        9 => {
            log.remove(records.first().unwrap().position).await;
            format!("the first of chain {chain} removed")
        }
        10 => {
            log.remove(records.last().unwrap().position).await;
            format!("the last of chain {chain} removed")
        }
        11 => {
            log.run(&format!(
                "DELETE FROM audit_record WHERE position >= {} AND position < {}",
                chain << 40,
                (chain + 1) << 40
            ))
            .await;
            format!("the records of chain {chain} removed")
        }
        12 => {
            log.run(&format!(
                "DELETE FROM audit_record WHERE position >= {} AND position < {}",
                chain << 40,
                (chain + 1) << 40
            ))
            .await;
            log.run(&format!("DELETE FROM audit_chain WHERE id = {chain}")).await;
            format!("chain {chain} removed")
        }
        13 => {
            log.run(&format!("DELETE FROM audit_chain WHERE id = {chain}")).await;
            format!("chain {chain} not listed any more")
        }
        14 => {
            log.shift(record.position, 1).await;
            let body = record.body.replace("issued", "refused");
            log.insert(&Stored { body, ..record }).await;
            format!("a record inserted at {place}")
        }
        15 => {
            log.shift(record.position, 1).await;
            let body = record.body.replace("issued", "refused");
            log.insert(&Stored { body, ..record }).await;
            log.hash_again(chain, sequence).await;
            format!("a record inserted at {place}, and hashed again")
        }
        16 => {
            log.remove(record.position).await;
            log.shift(record.position + 1, -1).await;
            format!("{place} removed without a gap")
        }
        17 => {
            log.remove(record.position).await;
            log.shift(record.position + 1, -1).await;
            log.hash_again(chain, sequence).await;
            format!("{place} removed without a gap, and hashed again")
        }
        18 | 19 => {
            let (one, other) = dice.two(records.len());
            let (one, other) = (records[one].clone(), records[other].clone());
            let (mut here, mut there) = (other.clone(), one.clone());
            (here.position, there.position) = (one.position, other.position);
            if dice.below(2) == 0 {
                // The hashes stay where they are.
                (here.hash, there.hash) = (one.hash.clone(), other.hash.clone());
            }
            if dice.below(2) == 0 {
                (here.at, there.at) = (one.at, other.at);
            }
            log.replace(&here).await;
            log.replace(&there).await;
            format!("{} and {} swapped", one.position, other.position)
        }
        20 => {
            let next = records.last().unwrap().position + 1;
            log.insert(&Stored { position: next, ..record }).await;
            format!("{place} once more at the end")
        }
        21 => {
            log.run(&format!(
                "DELETE FROM audit_record WHERE position >= {} AND position < {}",
                record.position,
                (chain + 1) << 40
            ))
            .await;
            format!("chain {chain} cut off before {sequence}")
        }
        22 => {
            // As if nothing had been written since.
            let statements = log.statements().await;
            let keep = 1 + dice.below(statements.len() - 1);
            log.run(&format!("DELETE FROM audit_checkpoint WHERE number > {keep}")).await;
            for chain in 1..=3 {
                let records = log.records(chain).await;
                let end = records.len() * keep / statements.len();
                let position = records[end.min(records.len() - 1)].position;
                log.run(&format!(
                    "DELETE FROM audit_record WHERE position >= {position} AND position < {}",
                    (chain + 1) << 40
                ))
                .await;
            }
            format!("all cut off after about checkpoint {keep}")
        }
        23 | 24 => {
            let body = damaged(&record.body, dice);
            log.replace(&Stored { body, ..record }).await;
            log.hash_again(chain, sequence).await;
            format!("{place} changed, and hashed again")
        }
        25 => {
            let body = damaged(&record.body, dice);
            log.replace(&Stored { body, ..record }).await;
            log.hash_again(chain, sequence).await;
            let signer = if dice.below(2) == 0 { signer.impostor() } else { Signer::new() };
            log.sign_again(&signer).await;
            format!("{place} changed, hashed and signed again")
        }
        26 => {
            let number = 1 + dice.below(4);
            log.run(&format!("DELETE FROM audit_checkpoint WHERE number = {number}")).await;
            format!("checkpoint {number} removed")
        }
        27 => {
            let (number, statement) = dice.pick(&log.statements().await).clone();
            let mut octets = statement.into_bytes();
            let index = dice.below(octets.len());
            octets[index] = if octets[index] == b'A' { b'B' } else { b'A' };
            log.set_statement(number, std::str::from_utf8(&octets).unwrap()).await;
            format!("character {index} of checkpoint {number}")
        }
        28 => {
            let number = 1 + dice.below(4);
            let what = if dice.below(2) == 0 { "at = at + 1" } else { "number = number + 10" };
            log.run(&format!("UPDATE audit_checkpoint SET {what} WHERE number = {number}")).await;
            format!("checkpoint {number}: {what}")
        }
        29 => {
            let statements = log.statements().await;
            let (one, other) = dice.two(statements.len());
            log.set_statement(statements[one].0, &statements[other].1).await;
            log.set_statement(statements[other].0, &statements[one].1).await;
            format!("checkpoints {} and {} swapped", one + 1, other + 1)
        }
        30 => {
            log.sign_again(&signer.impostor()).await;
            "all checkpoints signed again by somebody else".to_owned()
        }
        31 => {
            log.cut(chain, sequence, &record.hash).await;
            if dice.below(2) == 0 {
                log.run(&format!(
                    "DELETE FROM audit_record WHERE position > {} AND position <= {}",
                    chain << 40,
                    record.position
                ))
                .await;
            }
            format!("chain {chain} cut at {sequence}")
        }
        32 => {
            let column = dice.pick(&["action", "subject", "actor", "record_after", "why"]);
            let version = 1 + dice.below(4);
            log.run(&format!("UPDATE history SET {column} = {column} || ' ' WHERE version = {version}")).await;
            format!("{column} of version {version} in the history")
        }
        33 => {
            let version = 1 + dice.below(4);
            let what = *dice.pick(&[
                "DELETE FROM history WHERE version =",
                "UPDATE history SET at = at - 1 WHERE version =",
                "UPDATE history SET step = step + 1 WHERE version =",
                "UPDATE history SET why = NULL WHERE version =",
                "INSERT INTO history SELECT version, step + 1, at, actor, action, subject, record_before, record_after, why FROM history WHERE version =",
            ]);
            // After the last one the next is yet to come.
            let version = if what.starts_with("INSERT") { version.min(3) } else { version };
            log.run(&format!("{what} {version}")).await;
            format!("{what} {version}")
        }
        34 => {
            let what = *dice.pick(&[
                "history_version = history_version - 1",
                "history_version = history_version + 1",
                "history_step = history_step + 1",
                "id = 'ffffffffffffffffffffffffffffffff'",
                "id = 'x'",
            ]);
            log.run(&format!("UPDATE audit_log SET {what}")).await;
            what.to_owned()
        }
        _ => {
            // A chain nobody knows, hashed as one: listed or not.
            let at = record.at;
            if dice.below(2) == 0 {
                log.run("INSERT INTO audit_chain SELECT 9, 1, 'x', 0, 0, cut_hash FROM audit_chain WHERE id = 1").await;
            }
            for sequence in 1..4 {
                let position = (9 << 40) | sequence;
                log.insert(&Stored { position, at, hash: vec![0; 32], body: record.body.clone() }).await;
            }
            log.hash_again(9, 1).await;
            "a chain inserted".to_owned()
        }
    }
}

/// Another text, by little.
fn damaged(body: &str, dice: &mut Dice) -> String {
    let at = 1 + dice.below(body.len() - 1);
    let mut at = at;
    while !body.is_char_boundary(at) {
        at -= 1;
    }
    let (head, tail) = body.split_at(at);
    match dice.below(6) {
        0 => format!("{head} {tail}"),
        1 => head.to_owned(),
        2 => format!("{head}\u{1e}{tail}"),
        3 => format!("{head}\0{tail}"),
        4 => body.replacen("issued", "Issued", 1) + " ",
        _ => {
            let mut rest = tail.chars();
            let other = if rest.next() == Some('7') { '8' } else { '7' };
            format!("{head}{other}{}", rest.as_str())
        }
    }
}

fn how_many() -> u64 {
    std::env::var("COUNTERSIGN_TEST_TAMPERINGS").ok().map_or(TAMPERINGS, |count| count.parse().unwrap())
}

async fn is_found(
    file: &Path,
    base: &Path,
    number: u64,
    signer: &Signer,
    keys: &BelievedKeys,
    kept: &[String],
) -> Result<(), String> {
    for rest in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{rest}", file.display()));
    }
    std::fs::copy(base, file).unwrap();
    let url = format!("sqlite:{}", file.display());
    let mut log = Tampering::at(&url).await;
    let what = tamper(&mut log, &mut Dice::new(number), signer).await;
    log.close().await;
    let store = open(&url, Migrate::Check).await.unwrap();
    let source: std::sync::Arc<dyn countersign::audit::verify::AuditReading> = std::sync::Arc::new(store.clone());
    let counted = std::sync::Arc::default();
    let report = countersign::audit::verify::verify(&source, keys, kept, &counted).await;
    store.close().await;
    match report {
        Ok(report) if report.findings.is_empty() => Err(format!("{number}: {what}")),
        // Said aloud as well: what is stored cannot be read as a log.
        Ok(_) | Err(_) => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tampering_is_found() {
    let scene = Scene::on(&Engine::Sqlite, 60).await;
    let base = scene.directory.path().join("base.db");
    scene.copy_to(&base).await;
    let (keys, kept) = (scene.signer.keys(), scene.kept());
    assert_eq!(told(&scene.verified().await), [""; 0]);
    let mut missed = Vec::new();
    for number in 0..how_many() {
        let file = scene.directory.path().join("tampered.db");
        missed.extend(is_found(&file, &base, number, &scene.signer, &keys, &kept).await.err());
    }
    assert_eq!(missed, [""; 0], "not found");
}

#[tokio::test]
async fn an_older_file_put_back_is_found_by_what_was_kept_elsewhere() {
    let scene = Scene::on(&Engine::Sqlite, 40).await;
    for (index, older) in scene.older.iter().enumerate() {
        let store = open(&format!("sqlite:{}", older.display()), Migrate::Check).await.unwrap();
        let alone = verified(&store, &scene.signer.keys(), &[]).await;
        assert_eq!(told(&alone), [""; 0], "by itself it is whole");
        let report = verified(&store, &scene.signer.keys(), &scene.kept()).await;
        let told = told(&report);
        assert_eq!(told[0], "rolled_back checkpoint 4", "{index}: {told:?}");
        assert!(told.iter().any(|told| told.starts_with("truncated 1/")), "{index}: {told:?}");
    }
}
