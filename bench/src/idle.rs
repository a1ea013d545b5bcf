//! What an open connection costs in memory.
//!
//! Takes the stage, opens a thousand connections that have each had one token, and looks how much larger the server has become.

use rustls::client::Resumption;

use crate::Failure;
use crate::machine::RESIDENT;
use crate::programme::Stage;
use crate::report::{Goal, Report, Unit};
use crate::tokens::SMALL;
use crate::wire::Line;

/// Connections.
const CONNECTIONS: u32 = 1_000;

/// Measures it.
pub(crate) fn measure(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let site = stage.site(SMALL)?;
    let server = site.serve()?;
    let target = site.target(&server);
    stage.say(&format!("{CONNECTIONS} idle connections"));
    let open = |number: u32| -> Result<Line, Failure> {
        let client = number % SMALL;
        let config = stage.population.caller(client, Resumption::disabled())?;
        let address = target.addresses.first().ok_or("a target without an address")?;
        let mut line = Line::open(*address, config.into())?;
        match line.ask(&target.request(client))?.status {
            200 => Ok(line),
            status => Err(format!("no token: {status}").into()),
        }
    };
    // Whoever was there is known from now on, and what a request needs has been allocated once.
    for number in 0..SMALL {
        open(number)?.close();
    }
    let before = server.process().memory(RESIDENT)?;
    let lines = (0..CONNECTIONS).map(open).collect::<Result<Vec<_>, _>>()?;
    let with_them = server.process().memory(RESIDENT)?;
    let each = with_them.saturating_sub(before) as f64 / f64::from(CONNECTIONS) / 1_024.0;
    report.figure(
        "memory_per_connection",
        "memory for each of 1,000 open connections",
        each,
        Unit::Kilobytes,
        Some(Goal::AtMost(40.0)),
    );
    lines.into_iter().for_each(Line::close);
    server.stop()
}
