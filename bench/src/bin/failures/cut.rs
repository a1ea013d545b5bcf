//! Two nodes under load, and their PostgreSQL is gone for a while: refused, dropped or frozen.
//!
//! Promised (design §4, issue 6): each node answers 503 within two seconds and goes on serving what is public; it issues tokens
//! again within five seconds after the database is back; and no client ever holds a token without a record.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::time::sleep;

use crate::aftermath::{Aftermath, Told};
use crate::clients::{Asked, LONGEST, Load, Outcome, Pace};
use crate::cluster::Cluster;
use crate::network::{Network, Way};
use crate::nodes::{Site, Wishes};
use crate::operator::Operator;
use crate::promises::{Promises, quantiles, spread};
use crate::public::{Read, Readers};
use crate::{Failure, Stage};

/// How the database is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing that is sent arrives, and nobody is told. Every other time what was sent arrives late; otherwise old connections
    /// are forgotten.
    Dropped,
    /// Every process of it is stopped (SIGSTOP)
    Frozen,
    /// It is not running: connections break, and new ones are refused
    Refused,
}

/// Within this time a node says that it cannot issue a token.
const ANSWERED: Duration = Duration::from_secs(2);

/// What sending, reading and a busy machine add to it.
const BESIDE: Duration = Duration::from_millis(500);

/// What takes longer than this came too late.
const LATEST: Duration = ANSWERED.saturating_add(BESIDE);

/// Within this time after the database is back each node issues tokens again, and goes on.
const BACK: Duration = Duration::from_secs(5);

/// How long it is watched after that.
const WATCHED: Duration = Duration::from_secs(12);

/// Requests a second of each of the two nodes.
pub(crate) const PACE: Pace = Pace { kept: 100, new: 10 };

/// Clients whom no node has in memory: enough for a while, then they are not that strange any more.
const STRANGERS: u32 = 16_000;

/// Tries it `times` times.
pub(crate) async fn measure(
    stage: &Stage,
    kind: Kind,
    length: Duration,
    times: usize,
    promises: &mut Promises,
) -> Result<(), Failure> {
    let mut cluster = Cluster::make(&stage.postgres, &stage.directory.join("postgres")).await?;
    cluster.start().await?;
    let network = match kind {
        Kind::Dropped => Some(Network::to(cluster.address)?),
        Kind::Frozen | Kind::Refused => None,
    };
    let store = network.as_ref().map_or_else(|| cluster.url(), |network| Cluster::url_at(network.address));
    let wishes = Wishes { export: true, strangers: STRANGERS, ..Wishes::default() };
    let mut site = Site::make(&stage.directory.join("site"), &stage.binary, &store, wishes).await?;
    site.serve().await?;
    let load = Load::begin(&site, PACE)?;
    let (operator, readers) = (Operator::begin(&site), Readers::begin(&site)?);
    let mut aftermath = Aftermath::default();
    sleep(WATCHED / 4).await;
    for number in 1..=times {
        let forgetful = number % 2 == 0;
        let begun = Instant::now();
        match (kind, &network) {
            (Kind::Dropped, Some(network)) => network.set(if forgetful { Way::Forgetful } else { Way::Silent }),
            (Kind::Frozen, _) => drop(cluster.freeze()?),
            (Kind::Refused | Kind::Dropped, _) => cluster.stop().await?,
        }
        let cut = Instant::now();
        sleep(length).await;
        match (kind, &network) {
            (Kind::Dropped, Some(network)) => network.set(Way::Open),
            (Kind::Frozen, _) => cluster.thaw()?,
            // Until it answers: what it repairs first is its own time.
            (Kind::Refused | Kind::Dropped, _) => cluster.start().await?,
        }
        let back = Instant::now();
        // What was asked while it was watched has come to something then.
        sleep(WATCHED + LONGEST).await;
        let how = if kind == Kind::Dropped && forgetful { ", old connections forgotten" } else { "" };
        println!("time {number} of {times}: {kind:?}{how}, {:.1} s", (back - begun).as_secs_f64());
        let times = Times { cut, back };
        let (asked, read) = (load.journal.since(begun), readers.between(cut, back));
        for node in 0..site.nodes.len() {
            judge(number, node, times, &asked, promises);
            judge_public(number, node, &read, promises);
        }
        for node in &mut site.nodes {
            node.still_runs()?;
        }
        aftermath.keep(&site).await?;
    }
    readers.end().await?;
    let operator = operator.end().await?;
    let journal = load.end().await?;
    let told = Told { journal: &journal, operator: &operator };
    aftermath.judge(&mut site, &cluster.url(), told, promises).await?.must_be_none(promises);
    cluster.stop().await
}

/// When it was gone, and when it was back.
#[derive(Clone, Copy)]
struct Times {
    cut: Instant,
    back: Instant,
}

fn judge(number: usize, node: usize, Times { cut, back }: Times, asked: &[Asked], promises: &mut Promises) {
    let of_node = || asked.iter().filter(|asked| asked.node == node);
    let ended = |asked: &Asked| asked.at + asked.took;
    let is_token = |asked: &Asked| matches!(asked.outcome, Outcome::Token(_));
    let (mut refused, mut other): (Vec<Duration>, BTreeMap<String, usize>) = Default::default();
    let (mut issued, mut late, mut new, mut strangers) = (0, 0, 0, Vec::new());
    // What was under way when it was cut off is judged as well, but that a token may have been recorded before.
    for one in of_node().filter(|one| ended(one) > cut && one.at < back) {
        // Whoever asked so soon before it was back may have the answer of then.
        late += usize::from(one.took > LATEST && one.at + LATEST <= back);
        let is_answered_meanwhile = ended(one) < back;
        if is_answered_meanwhile {
            new += usize::from(one.is_new);
            if one.is_stranger {
                strangers.push(one.took);
            }
        }
        match &one.outcome {
            Outcome::Refused(503) if is_answered_meanwhile => refused.push(one.took),
            Outcome::Token(_) if is_answered_meanwhile && one.at >= cut => issued += 1,
            Outcome::Refused(503) | Outcome::Token(_) => {}
            Outcome::Refused(status) => *other.entry(status.to_string()).or_default() += 1,
            Outcome::Failed(why) => *other.entry(why.clone()).or_default() += 1,
        }
    }
    let first = of_node().filter(|one| one.at >= back && is_token(one)).map(|one| ended(one) - back).min();
    let last = of_node().filter(|one| one.at >= cut && ended(one) >= back && !is_token(one));
    let last = last.map(|one| ended(one) - back).max().unwrap_or_default();
    println!(
        "  node {}: {} times 503 ({new} answers on new connections), after {}; {late} later than {:.2} s",
        node + 1,
        refused.len(),
        spread(&refused),
        LATEST.as_secs_f64()
    );
    println!("          to clients that are not in memory: {} answers, after {}", strangers.len(), spread(&strangers));
    println!(
        "          back: the first token after {:.3} s, the last refusal after {:.3} s",
        first.unwrap_or_default().as_secs_f64(),
        last.as_secs_f64()
    );
    let place = format!("time {number}, node {}", node + 1);
    promises.hold(!refused.is_empty(), || format!("{place}: no answer was 503"));
    promises.hold(late == 0, || format!("{place}: {late} answers came later than {LATEST:?}"));
    promises.hold(issued == 0, || format!("{place}: {issued} tokens were issued without a database"));
    promises.hold(other.is_empty(), || format!("{place}: other answers than 503: {other:?}"));
    promises.hold(first.is_some_and(|first| first <= BACK), || format!("{place}: no token within {BACK:?}: {first:?}"));
    promises.hold(last <= BACK, || format!("{place}: still refused {last:?} after the database was back"));
}

fn judge_public(number: usize, node: usize, read: &[Read], promises: &mut Promises) {
    let of_node: Vec<&Read> = read.iter().filter(|one| one.node == node).collect();
    let served = of_node.iter().filter(|one| one.status == Some(200)).count();
    let mut took: Vec<f64> = of_node.iter().map(|one| one.took.as_secs_f64()).collect();
    let age = of_node.iter().filter_map(|one| one.age).max();
    println!(
        "          public: {served} of {} served, after {}; the list was {} s old at most",
        of_node.len(),
        quantiles(&mut took),
        age.unwrap_or_default()
    );
    for one in of_node.iter().filter(|one| one.status != Some(200)) {
        promises.hold(false, || format!("time {number}, node {}: {} said {:?}", node + 1, one.path, one.status));
    }
    let late = of_node.iter().filter(|one| one.took > LATEST).count();
    promises.hold(late == 0, || {
        format!("time {number}, node {}: {late} of what is public later than {LATEST:?}", node + 1)
    });
    promises.hold(!of_node.is_empty(), || format!("time {number}, node {}: nothing public was read", node + 1));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it is gone here.
    const GONE: Duration = Duration::from_secs(8);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Asked so many seconds after it was cut off, or up to one before.
    fn asked(cut: Instant, at: f64, took: f64, outcome: Outcome) -> Asked {
        let at = cut + seconds(at + 1.0) - seconds(1.0);
        Asked { node: 0, at, took: seconds(took), is_new: false, is_stranger: false, outcome }
    }

    fn token() -> Outcome {
        Outcome::Token(crate::clients::Token { jti: "1".into(), client: "a".into(), request: "r".into(), issued_at: 1 })
    }

    fn nothing() -> Outcome {
        Outcome::Failed("no answer".into())
    }

    /// What is said of these, beside what is as it has to be.
    fn said(besides: &[(f64, f64, Outcome)]) -> Vec<String> {
        let cut = Instant::now();
        let well = [(1.0, 2.0, Outcome::Refused(503)), (8.1, 0.2, Outcome::Refused(503)), (8.5, 0.1, token())];
        let all = well.iter().chain(besides).cloned();
        let all: Vec<Asked> = all.map(|(at, took, outcome)| asked(cut, at, took, outcome)).collect();
        let mut promises = Promises::default();
        judge(1, 0, Times { cut, back: cut + GONE }, &all, &mut promises);
        promises.broken().to_vec()
    }

    #[test]
    fn nothing_is_said_where_all_is_well() {
        let none: [String; 0] = [];
        assert_eq!(said(&[]), none);
        // Asked a second before it was back: whatever comes has the time that it has after that.
        assert_eq!(said(&[(7.0, 3.0, Outcome::Refused(503)), (7.0, 3.0, token())]), none);
        // What was asked before it was cut off, and what was under way then.
        assert_eq!(said(&[(-1.0, 0.9, Outcome::Refused(500)), (-1.0, 1.5, token())]), none);
    }

    #[test]
    fn each_broken_promise_is_said() {
        let late = "1 answers came later than 2.5s";
        for (planted, expected) in [
            ((1.0, 2.6, Outcome::Refused(503)), vec![late]),
            // Under way when it was cut off.
            ((-1.0, 2.6, Outcome::Refused(503)), vec![late]),
            ((-1.0, 1.5, Outcome::Refused(500)), vec!["other answers than 503: {\"500\": 1}"]),
            // Held until it was back, and longer.
            ((1.0, 8.0, Outcome::Refused(503)), vec![late]),
            ((5.4, 2.7, token()), vec![late]),
            ((1.0, 1.0, token()), vec!["1 tokens were issued without a database"]),
            ((1.0, 1.0, Outcome::Refused(500)), vec!["other answers than 503: {\"500\": 1}"]),
            ((7.5, 1.0, Outcome::Refused(500)), vec!["other answers than 503: {\"500\": 1}"]),
            (
                (7.0, 10.0, nothing()),
                vec!["other answers than 503: {\"no answer\": 1}", "still refused 9s after the database was back"],
            ),
            ((13.5, 0.5, Outcome::Refused(503)), vec!["still refused 6s after the database was back"]),
            ((7.5, 6.5, Outcome::Refused(503)), vec!["still refused 6s after the database was back"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|what| format!("time 1, node 1: {what}")).collect();
            assert_eq!(said(std::slice::from_ref(&planted)), expected, "{planted:?}");
        }
    }

    #[test]
    fn whoever_says_nothing_keeps_no_promise() {
        let cut = Instant::now();
        let mut promises = Promises::default();
        judge(1, 0, Times { cut, back: cut + GONE }, &[], &mut promises);
        let expected = ["no answer was 503", "no token within 5s: None"];
        assert_eq!(promises.broken(), expected.map(|what| format!("time 1, node 1: {what}")));
    }
}
