//! What is left when all is over: what everybody was told, against what the database has, and the audit log against itself and
//! against what was kept elsewhere.
//!
//! Takes an installation whose load has ended, gives what was lost. It decides nothing about that: after a fail-over to a standby
//! that lags behind, losses are what is to be found.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::Failure;
use crate::clients::Journal;
use crate::ledger::{self, Loss, Record};
use crate::nodes::Site;
use crate::operator::Done;
use crate::promises::Promises;

/// What was kept elsewhere meanwhile, and what was found so far.
#[derive(Default)]
pub(crate) struct Aftermath {
    checkpoints: Vec<String>,
    lost: usize,
    looks_with_losses: usize,
}

/// What somebody was told.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) journal: &'a Journal,
    pub(crate) operator: &'a Done,
}

/// What was found.
pub(crate) struct Findings {
    pub(crate) losses: Vec<Loss>,
    /// What `countersign audit verify` said, where it found anything.
    pub(crate) verify: Option<String>,
}

impl Findings {
    /// Nothing may have been lost.
    pub(crate) fn must_be_none(self, promises: &mut Promises) {
        promises.hold(self.losses.is_empty(), || {
            let some = self.losses.iter().take(3).collect::<Vec<_>>();
            format!("{}: {some:?}", ledger::counted(&self.losses).join(", "))
        });
        promises.hold(self.verify.is_none(), || {
            format!(
                "countersign audit verify: {}",
                self.verify.as_deref().and_then(|said| said.lines().next()).unwrap_or_default()
            )
        });
    }

    /// Something has to be found of what was lost, by each who looks: otherwise nothing is shown where nothing is found.
    pub(crate) fn must_be_some(self, promises: &mut Promises) {
        let has = |wanted: fn(&Loss) -> bool| self.losses.iter().any(wanted);
        for (is_found, who) in [
            (has(|loss| matches!(loss, Loss::TokenWithoutRecord(_))), "clients that hold tokens"),
            (has(|loss| matches!(loss, Loss::Change(_))), "the operator"),
            (has(|loss| matches!(loss, Loss::Copied(..))), "whoever was sent the log"),
            (self.verify.is_some(), "countersign audit verify"),
        ] {
            promises.hold(is_found, || format!("the control found no loss: {who} missed nothing"));
        }
    }
}

impl Aftermath {
    /// Keeps the newest checkpoint of each node, as somebody does who does not trust the database.
    pub(crate) async fn keep(&mut self, site: &Site) -> Result<(), Failure> {
        for node in &site.nodes {
            if let Some(statement) = node.checkpoint().await.filter(|statement| !self.checkpoints.contains(statement)) {
                self.checkpoints.push(statement);
            }
        }
        Ok(())
    }

    /// Keeps one more that is newer than all so far; waits until there is one.
    pub(crate) async fn keep_another(&mut self, site: &Site, patience: Duration) -> Result<(), Failure> {
        let (before, begun) = (self.checkpoints.len(), Instant::now());
        while self.checkpoints.len() == before {
            if begun.elapsed() > patience {
                return Err(format!("no checkpoint was made within {patience:?}").into());
            }
            self.keep(site).await?;
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Waits until the newest checkpoint that was kept has been sent on, and with it all that it covers.
    pub(crate) async fn is_sent_on(&self, site: &Site, patience: Duration) -> Result<(), Failure> {
        let (Some(newest), begun) = (self.checkpoints.last(), Instant::now()) else { return Ok(()) };
        while !std::fs::read_to_string(site.exported())?.contains(newest) {
            if begun.elapsed() > patience {
                return Err(format!("the newest checkpoint was not sent on within {patience:?}").into());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Says how many tokens have been lost since it was last looked, while everybody goes on.
    pub(crate) async fn look(&mut self, store: &str, journal: &Journal) -> Result<(), Failure> {
        // First what is held, then what is on record: nobody holds a token that is not.
        let told = ledger::Told { tokens: journal.tokens(), ..ledger::Told::default() };
        let lost = ledger::compare(&told, &Record::read(store).await?).len();
        if lost > self.lost {
            println!("          lost: {} tokens that clients hold have no record", lost - self.lost);
            self.looks_with_losses += 1;
        }
        self.lost = lost;
        Ok(())
    }

    /// How often it was looked with something lost since the time before.
    pub(crate) const fn looks_with_losses(&self) -> usize {
        self.looks_with_losses
    }

    /// Stops the nodes in good order, so that everything that waits is written, and compares.
    pub(crate) async fn judge(
        mut self,
        site: &mut Site,
        store: &str,
        told: Told<'_>,
        promises: &mut Promises,
    ) -> Result<Findings, Failure> {
        self.keep(site).await?;
        site.stop().await?;
        for node in &site.nodes {
            let panics = node.panics()?;
            promises.hold(panics == 0, || format!("a node panicked {panics} times"));
        }
        let told_failed = told.operator.failed;
        let record = Record::read(store).await?;
        let told = ledger::Told {
            tokens: told.journal.tokens(),
            changes: told.operator.acknowledged.clone(),
            copied: ledger::copied(&site.exported())?,
        };
        for (count, what) in [
            (told.tokens.len(), "token"),
            (told.changes.len(), "change that was acknowledged"),
            (told.copied.len(), "record that was sent on"),
            (self.checkpoints.len(), "checkpoint that was kept elsewhere"),
        ] {
            promises.hold(count > 0, || format!("nothing was tried: no {what}"));
        }
        let losses = ledger::compare(&told, &record);
        println!(
            "\ntold to clients: {} tokens; to the operator: {} changes, {} commands failed; sent on: {} records; on record: {} tokens",
            told.tokens.len(),
            told.changes.len(),
            told_failed,
            told.copied.len(),
            record.issued()
        );
        for line in ledger::counted(&losses) {
            println!("lost: {line}");
        }
        let [first, _] = &site.nodes;
        let mut words = vec!["audit".to_owned(), "verify".to_owned()];
        if !self.checkpoints.is_empty() {
            let kept = first.file("kept-elsewhere.jwt", &self.checkpoints.join("\n"))?;
            words.extend(["--checkpoint".to_owned(), kept.display().to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = first.command_line().command(&words).output().await?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("countersign audit verify, {} checkpoints kept elsewhere: {}", self.checkpoints.len(), output.status);
        if !output.status.success() {
            println!("{}", said.trim_end());
        }
        Ok(Findings { losses, verify: (!output.status.success()).then_some(said) })
    }
}
