//! How long it takes from the start of the server's process to its first token.
//!
//! Takes the stage, starts servers on registries of the smallest and the largest size again and again, and asks each for a token
//! from the first instant on.

use std::time::{Duration, Instant};

use rustls::client::Resumption;

use crate::Failure;
use crate::programme::Stage;
use crate::report::{Goal, Report, Unit, median};
use crate::tokens::SMALL;
use crate::wire::Line;

/// Starts of each; the median is told.
const STARTS: usize = 5;

/// Between two attempts: what the figure may be wrong by.
const AGAIN_AFTER: Duration = Duration::from_millis(1);

/// Measures all of it.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    for (clients, most) in [(SMALL, 0.2), (stage.largest(), 0.5)] {
        let site = stage.site(clients)?;
        // The files are in the machine's memory, as after a restart.
        site.serve()?.stop()?;
        let mut took = Vec::new();
        for number in 1..=STARTS {
            stage.say(&format!("start to first token, {clients} clients, {number} of {STARTS}"));
            let begun = Instant::now();
            let mut server = site.start()?;
            let target = site.target(&server);
            let request = target.request(0);
            loop {
                let config = stage.population.caller(0, Resumption::disabled())?;
                let line = target.addresses.iter().find_map(|address| Line::open(*address, config.clone().into()).ok());
                if let Some(mut line) = line
                    && line.ask(&request).is_ok_and(|answer| answer.status == 200)
                {
                    break;
                }
                server.still_runs()?;
                std::thread::sleep(AGAIN_AFTER);
            }
            took.push(begun.elapsed().as_secs_f64());
            server.stop()?;
        }
        let name = format!("start to first token, {clients} clients");
        let median = median(took).unwrap_or_default();
        report.figure(&format!("start.{clients}"), &name, median, Unit::Seconds, Some(Goal::AtMost(most)));
    }
    Ok(())
}
