//! What was promised, and whether it was kept: said as it goes, and once more at the end.
//!
//! Takes what was seen, gives the program's exit code. It knows nothing of what was tried.

use std::process::ExitCode;
use std::time::Duration;

/// What was not kept so far.
#[derive(Default)]
pub(crate) struct Promises {
    broken: Vec<String>,
}

impl Promises {
    /// Notes what was promised, where it was not kept.
    pub(crate) fn hold(&mut self, is_kept: bool, otherwise: impl FnOnce() -> String) {
        if !is_kept {
            let what = otherwise();
            println!("BROKEN    {what}");
            self.broken.push(what);
        }
    }

    /// What was not kept so far, in words.
    #[cfg(test)]
    pub(crate) fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Says what came of all of it.
    pub(crate) fn end(self) -> ExitCode {
        if self.broken.is_empty() {
            println!("\nevery promise was kept");
            return ExitCode::SUCCESS;
        }
        println!("\n{} times a promise was not kept:", self.broken.len());
        for what in self.broken {
            println!("  {what}");
        }
        ExitCode::FAILURE
    }
}

/// Median, 99th percentile and maximum of some, in seconds; what they are is up to the caller.
pub(crate) fn quantiles(of: &mut [f64]) -> String {
    if of.is_empty() {
        return "none".to_owned();
    }
    of.sort_unstable_by(f64::total_cmp);
    let quantile = |share: f64| {
        let place = ((of.len() - 1) as f64 * share).round() as usize;
        of.get(place).copied().unwrap_or_default()
    };
    format!("{:.3} / {:.3} / {:.3} s", quantile(0.5), quantile(0.99), quantile(1.0))
}

/// The same of durations.
pub(crate) fn spread(of: &[Duration]) -> String {
    quantiles(&mut of.iter().map(Duration::as_secs_f64).collect::<Vec<_>>())
}
