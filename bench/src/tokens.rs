//! What a token costs: on kept connections, with a handshake each, resumed; ours beside a bare server and `oidc-provider`.
//!
//! Takes the stage, measures the sides in turn, gives tokens per CPU second as shares of the floor in the same seconds, and how
//! long clients waited.

use serde_json::json;

use crate::Failure;
use crate::bare;
use crate::curve;
use crate::floor::Floor;
use crate::load::{Load, Manner, Measured, Pace, Target};
use crate::peer;
use crate::programme::Stage;
use crate::report::{Goal, Report, Unit, median};
use crate::site::{OURS, Server};

/// Connections, or clients that ask at once.
pub(crate) const AT_ONCE: u32 = 16;

/// Clients in the registry that the others are compared with.
pub(crate) const SMALL: u32 = 100;

/// In octets.
pub(crate) const MEGABYTE: f64 = 1_048_576.0;

/// Requests a second that leave the server time.
const PACE: f64 = 1_000.0;

/// One measurement, with what the cryptography cost around it.
#[derive(Clone, Debug)]
pub(crate) struct Round {
    /// What came.
    pub(crate) measured: Measured,
    /// The floor.
    pub(crate) floor: Floor,
}

impl Round {
    /// Tokens for a second of the server's CPU time.
    pub(crate) fn per_cpu_second(&self) -> f64 {
        1.0 / self.measured.cpu_of_one()
    }

    /// What the cryptography alone would make of that second.
    pub(crate) fn floor_per_second(&self, manner: Manner) -> f64 {
        let handshake = match manner {
            Manner::Kept => return 1.0 / self.floor.signature.as_secs_f64(),
            Manner::Fresh => self.floor.full,
            Manner::Resumed => self.floor.resumed,
        };
        1.0 / (self.floor.signature + handshake).as_secs_f64()
    }

    /// The one over the other.
    pub(crate) fn share(&self, manner: Manner) -> f64 {
        self.per_cpu_second() / self.floor_per_second(manner)
    }
}

/// Measures one load once, the floor before and after it, and keeps what it gave for the report.
pub(crate) fn round(
    stage: &Stage,
    report: &mut Report,
    part: &str,
    target: &Target,
    load: &Load,
) -> Result<Round, Failure> {
    // Memory is warm and every certificate has been seen before anything counts.
    let warm = Load { length: stage.length / 10, ..*load };
    warm.run(target, &stage.population)?;
    let before = stage.floors.measure()?;
    let measured = load.run(target, &stage.population)?;
    let floor = Floor::between(before, stage.floors.measure()?);
    let micros = |duration: std::time::Duration| duration.as_secs_f64() * 1e6;
    report.round(json!({
        "part": part,
        "target": target.name,
        "manner": format!("{:?}", load.manner),
        "per_second_wanted": match load.pace { Pace::Saturated => None, Pace::PerSecond(rate) => Some(rate) },
        "at_once": load.at_once,
        "clients": load.clients,
        "tokens": measured.tokens(),
        "tokens_per_second": measured.rate(),
        "server_cpu_seconds_per_1000_tokens": measured.cpu_of_one() * 1_000.0,
        "cpu_seconds_beside_per_1000_tokens": measured.cpu_beside.as_secs_f64() * 1e3 / measured.tokens() as f64,
        "p50_ms": micros(measured.quantile(0.5)) / 1_000.0,
        "p99_ms": micros(measured.quantile(0.99)) / 1_000.0,
        "p999_ms": micros(measured.quantile(0.999)) / 1_000.0,
        "floor_us": {
            "signature": micros(floor.signature),
            "full_handshake": micros(floor.full),
            "full_handshake_possession_only": micros(floor.possession),
            "resumed_handshake": micros(floor.resumed),
        },
    }));
    Ok(Round { measured, floor })
}

/// What is said of one way for clients to come.
struct Row {
    manner: Manner,
    id: &'static str,
    name: &'static str,
    clients: u32,
    share: f64,
    /// How many times as many as `oidc-provider`.
    times: f64,
}

const ROWS: [Row; 3] = [
    Row { manner: Manner::Kept, id: "kept", name: "kept-alive", clients: AT_ONCE, share: 0.30, times: 7.0 },
    Row { manner: Manner::Fresh, id: "fresh", name: "full handshake each", clients: SMALL, share: 0.65, times: 4.8 },
    Row { manner: Manner::Resumed, id: "resumed", name: "resumed each", clients: AT_ONCE, share: 0.45, times: 4.5 },
];

/// Measures all of it.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let site = stage.site(SMALL)?;
    let ours = site.serve()?;
    let target = site.target(&ours);
    let (bare_server, bare) = bare::start(&stage.population, &stage.log("bare"))?;
    let mut targets = vec![target, bare];
    let mut others = vec![bare_server];
    stage.say("oidc-provider");
    match peer::start(&stage.population, stage.peer_cache.as_deref(), SMALL, &stage.log("peer"))? {
        Ok((server, target)) => {
            targets.push(target);
            others.push(server);
            report.facts.insert("node".to_owned(), json!(peer::node_version()));
        }
        Err(why) => report.remarks.push(why),
    }
    for target in &targets {
        // A program that compiles itself as it runs gets as fast as it will be.
        stage.say(&format!("{} runs warm", target.name));
        let load = Load {
            manner: Manner::Kept,
            pace: Pace::Saturated,
            at_once: AT_ONCE,
            clients: SMALL,
            length: stage.length,
        };
        load.run(target, &stage.population)?;
    }
    for row in &ROWS {
        saturated(stage, report, row, &targets, &ours)?;
    }
    paced(stage, report, &targets, &ours)?;
    let peak = ours.process().memory(crate::machine::PEAK)?;
    report.figure(
        "peak_memory",
        "peak memory under load, 100 clients",
        peak as f64 / MEGABYTE,
        Unit::Megabytes,
        Some(Goal::AtMost(50.0)),
    );
    for (target, server) in targets.iter().skip(1).zip(&others) {
        let peak = server.process().memory(crate::machine::PEAK)? as f64 / MEGABYTE;
        let name = format!("peak memory under load, {}", target.name);
        report.figure(&format!("peak_memory.{}", target.name), &name, peak, Unit::Megabytes, None);
    }
    curve::measure(stage, report, &targets)?;
    ours.stop()
}

fn saturated(stage: &Stage, report: &mut Report, row: &Row, targets: &[Target], ours: &Server) -> Result<(), Failure> {
    let load = Load {
        manner: row.manner,
        pace: Pace::Saturated,
        at_once: AT_ONCE,
        clients: row.clients,
        length: stage.length,
    };
    let mut all: Vec<Vec<Round>> = vec![Vec::new(); targets.len()];
    let mut commits = Vec::new();
    for number in 1..=stage.rounds {
        for (target, rounds) in targets.iter().zip(&mut all) {
            stage.say(&format!("{}, {}, {number} of {}", row.name, target.name, stage.rounds));
            rounds.push(round(stage, report, "saturated", target, &load)?);
            if target.name == OURS {
                commits.push(ours.commit_median()?.as_secs_f64());
            }
        }
    }
    for (target, rounds) in targets.iter().zip(&all) {
        let of = |value: &dyn Fn(&Round) -> f64| median(rounds.iter().map(value).collect()).unwrap_or_default();
        let is_ours = target.name == OURS;
        let name = |what: &str| format!("{}, {}: {what}", row.name, target.name);
        let id = |what: &str| format!("{}.{}.{what}", row.id, target.name);
        report.figure(
            &id("per_cpu_second"),
            &name("tokens per server CPU second"),
            of(&Round::per_cpu_second),
            Unit::PerSecond,
            None,
        );
        report.figure(
            &id("share_of_floor"),
            &name("share of the floor"),
            of(&|round| round.share(row.manner)),
            Unit::Ratio,
            is_ours.then_some(Goal::AtLeast(row.share)),
        );
        report.figure(
            &id("per_second"),
            &name("tokens a second, load on the same cores"),
            of(&|round| round.measured.rate()),
            Unit::PerSecond,
            None,
        );
        for (share, quantile) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
            report.figure(
                &id(quantile),
                &name(quantile),
                of(&|round| round.measured.quantile(share).as_secs_f64() * 1e3),
                Unit::Milliseconds,
                None,
            );
        }
        if target.name == peer::NAME
            && let Some(ours) = rounds_of(targets, &all, OURS)
        {
            let times = ours.iter().zip(rounds).map(|(ours, peer)| ours.per_cpu_second() / peer.per_cpu_second());
            report.figure(
                &format!("{}.times_{}", row.id, peer::NAME),
                &format!("{}: countersign over {}, by server CPU", row.name, peer::NAME),
                median(times.collect()).unwrap_or_default(),
                Unit::Ratio,
                Some(Goal::AtLeast(row.times)),
            );
        }
        if is_ours && row.manner == Manner::Kept {
            above_commit(report, "kept", "16 connections saturated", rounds, &commits, 3.0);
        }
    }
    if let Some(floor) = median(all.iter().flatten().map(|round| round.floor_per_second(row.manner)).collect()) {
        report.figure(&format!("{}.floor", row.id), &format!("{}: the floor", row.name), floor, Unit::PerSecond, None);
    }
    Ok(())
}

fn rounds_of<'a>(targets: &[Target], all: &'a [Vec<Round>], name: &str) -> Option<&'a [Round]> {
    targets.iter().position(|target| target.name == name).and_then(|at| all.get(at)).map(Vec::as_slice)
}

fn paced(stage: &Stage, report: &mut Report, targets: &[Target], ours: &Server) -> Result<(), Failure> {
    let load = Load {
        manner: Manner::Kept,
        pace: Pace::PerSecond(PACE),
        at_once: AT_ONCE,
        clients: AT_ONCE,
        length: stage.length,
    };
    for target in targets {
        let (mut rounds, mut commits) = (Vec::new(), Vec::new());
        for number in 1..=stage.rounds {
            stage.say(&format!("paced at {PACE:.0} a second, {}, {number} of {}", target.name, stage.rounds));
            rounds.push(round(stage, report, "paced", target, &load)?);
            if target.name == OURS {
                commits.push(ours.commit_median()?.as_secs_f64());
            }
        }
        if target.name == OURS {
            above_commit(report, "paced", "paced at 1,000 a second", &rounds, &commits, 1.5);
        } else {
            let p99 = median(rounds.iter().map(|round| round.measured.quantile(0.99).as_secs_f64() * 1e3).collect());
            let name = format!("paced at 1,000 a second, {}: p99", target.name);
            report.figure(
                &format!("paced.{}.p99", target.name),
                &name,
                p99.unwrap_or_default(),
                Unit::Milliseconds,
                None,
            );
        }
    }
    Ok(())
}

/// p99, and how far it is above the median commit of the same store in the same minute.
fn above_commit(report: &mut Report, id: &str, name: &str, rounds: &[Round], commits: &[f64], most: f64) {
    let p99 = |round: &Round| round.measured.quantile(0.99).as_secs_f64() * 1e3;
    let all = median(rounds.iter().map(p99).collect()).unwrap_or_default();
    let commit = median(commits.to_vec()).unwrap_or_default() * 1e3;
    let above = rounds.iter().zip(commits).map(|(round, commit)| p99(round) - commit * 1e3).collect();
    report.figure(&format!("{id}.p99"), &format!("{name}: p99"), all, Unit::Milliseconds, None);
    report.figure(&format!("{id}.commit"), &format!("{name}: median commit"), commit, Unit::Milliseconds, None);
    report.figure(
        &format!("{id}.p99_above_commit"),
        &format!("{name}: p99 above the median commit"),
        median(above).unwrap_or_default(),
        Unit::Milliseconds,
        Some(Goal::AtMost(most)),
    );
}
