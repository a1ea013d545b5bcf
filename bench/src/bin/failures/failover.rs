//! Two nodes under load, and the machine of their PostgreSQL is gone: its standby takes over.
//!
//! Promised (docs/postgresql.md): with a synchronous standby nothing that was acknowledged is lost. With an asynchronous one
//! something is, which is the control: everything else is the same, and what finds nothing there finds nothing here.
//!
//! Nodes reach the primary through a way of this program's own that leads to whichever cluster is the primary: the server takes one
//! address. The standby follows through another, on which nothing comes through for a moment before every other kill.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::time::sleep;

use crate::aftermath::{Aftermath, Told};
use crate::clients::{Asked, Load, Outcome};
use crate::cluster::{Cluster, STANDBY};
use crate::cut::PACE;
use crate::network::{Network, Way};
use crate::nodes::{Site, Wishes};
use crate::operator::Operator;
use crate::promises::{Promises, quantiles};
use crate::{Failure, PATIENCE, Stage};

/// Whether the primary waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Standby {
    /// It does not: the control
    Async,
    /// It does, and the nodes serve only while it does (`require_synchronous`)
    Sync,
}

/// How long the standby hears nothing before every other kill.
const HELD_BACK: Duration = Duration::from_millis(300);

/// How long both nodes have served before the next one.
const SERVED: Duration = Duration::from_secs(4);

/// Within this time after the database is back each node issues tokens again.
const BACK: Duration = Duration::from_secs(5);

/// How long a node that has seen what is lost is given, before it is started again.
const GIVEN: Duration = Duration::from_secs(8);

/// How often a checkpoint is made, and some time beside.
const CHECKPOINT: Duration = Duration::from_secs(45);

/// Tries it `times` times.
pub(crate) async fn measure(
    stage: &Stage,
    kind: Standby,
    times: usize,
    promises: &mut Promises,
) -> Result<(), Failure> {
    let place = |number: usize| stage.directory.join(format!("postgres-{number}"));
    let mut primary = Cluster::make(&stage.postgres, &place(0)).await?;
    primary.start().await?;
    let way = Network::to(primary.address)?;
    if kind == Standby::Sync {
        primary.execute(&format!("ALTER SYSTEM SET synchronous_standby_names = '{STANDBY}'")).await?;
        primary.execute("SELECT pg_reload_conf()").await?;
    }
    let (mut standby, mut replication) = follow(&primary, &place(1), kind).await?;
    let wishes = Wishes { export: true, synchronous: kind == Standby::Sync, ..Wishes::default() };
    let store = Cluster::url_at(way.address);
    let mut site = Site::make(&stage.directory.join("site"), &stage.binary, &store, wishes).await?;
    site.serve().await?;
    let (load, operator) = (Load::begin(&site, PACE)?, Operator::begin(&site));
    let mut aftermath = Aftermath::default();
    let (mut served_after, mut back_after, mut restarts) = (Vec::new(), Vec::new(), 0);
    for number in 1..=times {
        sleep(SERVED).await;
        aftermath.keep(&site).await?;
        let is_held_back = number % 2 == 1;
        if is_held_back {
            replication.set(Way::Silent);
            sleep(HELD_BACK).await;
        }
        if kind == Standby::Async && number == times {
            // Once, so long that a checkpoint is lost too, of which somebody has a copy: that is what the audit log's own checker
            // goes by.
            replication.set(Way::Silent);
            aftermath.keep_another(&site, CHECKPOINT).await?;
            aftermath.is_sent_on(&site, CHECKPOINT).await?;
        }
        let killed = Instant::now();
        primary.kill().await?;
        replication.set(Way::Broken);
        standby.promote().await?;
        way.lead(standby.address);
        let promoted = Instant::now();
        std::mem::replace(&mut primary, standby).discard()?;
        (standby, replication) = follow(&primary, &place(number + 1), kind).await?;
        let back = Instant::now();
        let whole = if kind == Standby::Sync { back } else { promoted };
        let mut seen = String::new();
        for node in 0..site.nodes.len() {
            let is_token = |asked: &Asked| asked.node == node && matches!(asked.outcome, Outcome::Token(_));
            let mut first = None;
            let mut given = Instant::now();
            while first.is_none() {
                first = load.journal.since(promoted).into_iter().find(is_token);
                if given.elapsed() > PATIENCE {
                    return Err(format!("node {} does not serve", node + 1).into());
                }
                if first.is_none() && kind == Standby::Async && given.elapsed() > GIVEN && restarts < times * 2 {
                    // It knows of a later registry than there is, and does not go on by itself (docs/postgresql.md).
                    let [one, other] = &mut site.nodes;
                    let node = if node == 0 { one } else { other };
                    node.kill().await?;
                    node.start()?;
                    restarts += 1;
                    seen.push_str(" (started again)");
                    given = Instant::now();
                }
                sleep(Duration::from_millis(20)).await;
            }
            let Some(first) = first else { continue };
            let at = first.at + first.took;
            seen.push_str(&format!(
                " node {} after {:.2} s, {:.2} s after the database;",
                node + 1,
                (at - killed).as_secs_f64(),
                at.saturating_duration_since(whole).as_secs_f64()
            ));
            served_after.push((at - killed).as_secs_f64());
            let since_back = at.saturating_duration_since(whole);
            back_after.push(since_back.as_secs_f64());
            promises.hold(kind == Standby::Async || since_back <= BACK, || {
                format!("time {number}, node {}: tokens only {since_back:?} after the database was back", node + 1)
            });
        }
        let held = if is_held_back { ", standby held back" } else { "" };
        println!(
            "time {number} of {times}{held}: promoted after {:.2} s, with a standby of its own after {:.2} s; tokens:{seen}",
            (promoted - killed).as_secs_f64(),
            (back - killed).as_secs_f64()
        );
        aftermath.look(&primary.url(), &load.journal).await?;
    }
    sleep(SERVED).await;
    let (operator, journal) = (operator.end().await?, load.end().await?);
    println!("\ntokens again after the kill: {}", quantiles(&mut served_after));
    println!("after the database was back: {}", quantiles(&mut back_after));
    println!("times with tokens lost: {} of {times}", aftermath.looks_with_losses());
    if kind == Standby::Async {
        println!("nodes that had to be started again: {restarts}");
    }
    let told = Told { journal: &journal, operator: &operator };
    let findings = aftermath.judge(&mut site, &primary.url(), told, promises).await?;
    match kind {
        Standby::Sync => findings.must_be_none(promises),
        Standby::Async => findings.must_be_some(promises),
    }
    standby.stop().await?;
    primary.stop().await
}

/// A standby of that primary, and the way through which it follows; on a synchronous one nothing is acknowledged before.
async fn follow(primary: &Cluster, directory: &std::path::Path, kind: Standby) -> Result<(Cluster, Network), Failure> {
    let replication = Network::to(primary.address)?;
    let mut standby = primary.standby(directory, replication.address).await?;
    standby.start().await?;
    let state = "SELECT coalesce(min(sync_state || ' ' || state), '') FROM pg_stat_replication \
                 WHERE application_name = 'standby'";
    primary.until(state, if kind == Standby::Sync { "sync streaming" } else { "async streaming" }).await?;
    Ok((standby, replication))
}
