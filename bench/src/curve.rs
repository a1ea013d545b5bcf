//! How long a client waits, over how much is asked: the same schedule of requests for each side, faster each time.
//!
//! Takes the stage and the sides, gives a curve for each. A request is timed from the instant it was meant to be sent at, so that
//! one that waits behind another counts its waiting.

use crate::Failure;
use crate::load::{Load, Manner, Pace, Target};
use crate::plot::{Axis, Plot, Scale, Series};
use crate::programme::Stage;
use crate::report::Report;
use crate::tokens::{AT_ONCE, round};

/// Requests a second.
const RATES: [f64; 9] = [250.0, 500.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0, 6_000.0, 8_000.0, 12_000.0];

/// A side that answers less than this share of what it is asked has reached its end.
const KEPT_UP: f64 = 0.97;

/// Measures all of it.
pub(crate) fn measure(stage: &Stage, report: &mut Report, targets: &[Target]) -> Result<(), Failure> {
    let mut series = Vec::new();
    for target in targets {
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        let every = if stage.short { 3 } else { 1 };
        for rate in RATES.into_iter().step_by(every) {
            stage.say(&format!("latency over load, {}, {rate:.0} a second", target.name));
            let load = Load {
                manner: Manner::Kept,
                pace: Pace::PerSecond(rate),
                at_once: AT_ONCE,
                clients: AT_ONCE,
                length: stage.length,
            };
            let measured = round(stage, report, "curve", target, &load)?.measured;
            if measured.rate() < rate * KEPT_UP {
                break;
            }
            p50.push((rate, measured.quantile(0.5).as_secs_f64() * 1e3));
            p99.push((rate, measured.quantile(0.99).as_secs_f64() * 1e3));
        }
        series.push(Series { name: format!("{}, p50", target.name), points: p50 });
        series.push(Series { name: format!("{}, p99", target.name), points: p99 });
    }
    report.plots.push(Plot {
        title: "Latency over load, 16 kept connections".to_owned(),
        x: Axis { label: "requests a second, as far as each keeps up", scale: Scale::Linear },
        y: Axis { label: "milliseconds", scale: Scale::Logarithmic },
        series,
    });
    Ok(())
}
