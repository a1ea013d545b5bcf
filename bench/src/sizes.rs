//! What the size of the registry costs: the same load on registries of several sizes, in turn.
//!
//! Takes the stage, gives the rate of each as a share of the rate at 100 clients, and the memory of the largest. A certificate is
//! one client's, so whoever is picked anew for each token comes on a new connection; a working set can stay connected too.

use crate::Failure;
use crate::load::{Load, Manner, Pace, Target};
use crate::machine::PEAK;
use crate::plot::{Axis, Plot, Scale, Series};
use crate::programme::Stage;
use crate::report::{Goal, Report, Unit, median};
use crate::site::{Server, Site};
use crate::tokens::{AT_ONCE, MEGABYTE, Round, SMALL, round};

/// A way to pick clients.
struct Picking {
    id: &'static str,
    name: &'static str,
    manner: Manner,
    /// From how many of the registry.
    from: fn(registry: u32, working_set: u32) -> u32,
    /// The least share of the rate at 100 clients.
    share: f64,
}

/// The one that opens ten thousand connections comes last: peak memory is read before.
const PICKINGS: [Picking; 3] = [
    Picking {
        id: "working_set",
        name: "a working set, full handshake each",
        manner: Manner::Fresh,
        from: u32::min,
        share: 0.95,
    },
    Picking {
        id: "uniform",
        name: "picked uniformly, full handshake each",
        manner: Manner::Fresh,
        from: |registry, _| registry,
        share: 0.5,
    },
    Picking {
        id: "working_set_kept",
        name: "a working set, all kept connected",
        manner: Manner::Kept,
        from: u32::min,
        share: 0.95,
    },
];

/// A registry of one size, served.
struct Side {
    site: Site,
    server: Server,
    target: Target,
}

/// Measures all of it.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let mut sides = Vec::new();
    for size in stage.sizes {
        stage.say(&format!("a registry of {size} clients"));
        let site = stage.site(*size)?;
        let server = site.serve()?;
        let target = site.target(&server);
        // Memory holds whoever has been there, as it would on any day but the first.
        Load { clients: (*size).min(stage.working_set), ..load(stage, Manner::Fresh) }
            .each_once(&target, &stage.population)?;
        sides.push(Side { site, server, target });
    }
    let mut costs = Vec::new();
    for picking in &PICKINGS {
        if picking.manner == Manner::Kept {
            memory(report, &sides)?;
        }
        costs.extend(compare(stage, report, picking, &sides)?);
    }
    report.plots.push(Plot {
        title: "What a token costs over the size of the registry".to_owned(),
        x: Axis { label: "clients registered", scale: Scale::Logarithmic },
        y: Axis { label: "server CPU, microseconds a token", scale: Scale::Linear },
        series: costs,
    });
    sides.into_iter().try_for_each(|side| side.server.stop())
}

fn load(stage: &Stage, manner: Manner) -> Load {
    Load { manner, pace: Pace::Saturated, at_once: AT_ONCE, clients: AT_ONCE, length: stage.length }
}

fn compare(stage: &Stage, report: &mut Report, picking: &Picking, sides: &[Side]) -> Result<Option<Series>, Failure> {
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); sides.len()];
    for number in 1..=stage.rounds {
        for (side, rounds) in sides.iter().zip(&mut rounds) {
            let registry = side.site.clients;
            stage.say(&format!("{}, {registry} clients, {number} of {}", picking.name, stage.rounds));
            let clients = (picking.from)(registry, stage.working_set);
            let load = Load { clients, ..load(stage, picking.manner) };
            rounds.push(round(stage, report, &format!("sizes.{}.{registry}", picking.id), &side.target, &load)?);
        }
    }
    let Some(small) = rounds.first().cloned() else { return Ok(None) };
    let mut points = Vec::new();
    for (side, rounds) in sides.iter().zip(&rounds) {
        let registry = side.site.clients;
        let cost = median(rounds.iter().map(|round| round.measured.cpu_of_one() * 1e6).collect()).unwrap_or_default();
        points.push((f64::from(registry), cost));
        let id = |what: &str| format!("sizes.{}.{registry}.{what}", picking.id);
        let name = |what: &str| format!("{registry} clients, {}: {what}", picking.name);
        report.figure(&id("cpu_us"), &name("server CPU a token"), cost, Unit::Microseconds, None);
        if registry == SMALL {
            continue;
        }
        let share = |value: fn(&Round) -> f64| {
            let shares = rounds.iter().zip(&small).map(|(large, small)| value(large) / value(small)).collect();
            median(shares).unwrap_or_default()
        };
        let goal = (registry == stage.largest()).then_some(Goal::AtLeast(picking.share));
        let by_cpu = name("tokens per server CPU second, share of those at 100 clients");
        report.figure(&id("share"), &by_cpu, share(Round::per_cpu_second), Unit::Ratio, goal);
        let by_time = name("tokens a second, share of those at 100 clients");
        report.figure(&id("share_of_rate"), &by_time, share(|round| round.measured.rate()), Unit::Ratio, None);
    }
    Ok(Some(Series { name: picking.name.to_owned(), points }))
}

fn memory(report: &mut Report, sides: &[Side]) -> Result<(), Failure> {
    for side in sides {
        let registry = side.site.clients;
        let goal = match registry {
            SMALL => None,
            _ => Some(Goal::AtMost(400.0)),
        };
        let peak = side.server.process().memory(PEAK)? as f64 / MEGABYTE;
        let name = format!("{registry} clients: peak memory, full handshakes");
        report.figure(&format!("sizes.{registry}.peak"), &name, peak, Unit::Megabytes, goal);
    }
    Ok(())
}
