//! The one place that reads this machine's clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "a program that makes certificates or judges others stands in the present"
)]
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// A stopwatch.
#[derive(Clone, Copy, Debug)]
pub struct Since(Instant);

impl Since {
    /// Begins now.
    #[expect(clippy::disallowed_methods, reason = "how long an answer took is measured, not judged")]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// How long ago it began.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
