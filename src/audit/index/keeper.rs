//! The task that keeps the index up with the log.
//!
//! Looks every second whether there is anything new, and works in small steps while there is. It fails without
//! anybody being the worse for it: what is not indexed is found more slowly.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Advanced, AuditIndex};
use crate::registry::StoreUnavailable;

/// How often to look. What came meanwhile is written at once, which costs less the more it is: each page of the index that it
/// belongs to is written once.
const POLL: Duration = Duration::from_secs(1);

/// How often to look through what has been appended meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// After a failure.
const PAUSE: Duration = Duration::from_secs(2);

/// How long to leave it to somebody else.
const TURN: Duration = Duration::from_millis(20);

/// Records of one step: what one transaction writes, and what is lost with it.
const STEP: usize = 16_384;

/// Rows that are looked at in one step of sweeping.
const SWEPT: u32 = 10_000;

/// Keeps up until the task is aborted.
pub fn keep(index: Arc<dyn AuditIndex>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut failing = false;
        loop {
            match step(&*index).await {
                Ok(is_behind) => {
                    if std::mem::take(&mut failing) {
                        tracing::info!("the index of the audit log is written again");
                    }
                    if !is_behind {
                        rest(&index, POLL).await;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the index of the audit log cannot be written: searching takes longer");
                    }
                    rest(&index, PAUSE).await;
                }
            }
        }
    })
}

async fn rest(index: &Arc<dyn AuditIndex>, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        sleep(LOOK).await;
        let own = Arc::clone(index);
        // Beside the requests: what has to be read, as registry changes and refusals have, may be long. A panic of it is on record by itself.
        let _ended = tokio::task::spawn_blocking(move || own.look_through()).await;
    }
}

/// Whether it is worth going on at once.
async fn step(index: &dyn AuditIndex) -> Result<bool, StoreUnavailable> {
    match index.advance(STEP).await? {
        Advanced::Busy => Ok(false),
        Advanced::By(STEP..) => Ok(true),
        Advanced::Emptied => {
            tracing::info!("the index of the audit log is built anew");
            Ok(true)
        }
        // Nothing presses now.
        Advanced::By(_) => index.sweep(SWEPT).await.map(|_| false),
    }
}

/// For a command: brings the index to within `close` records of the log, together with whoever else is at it. `told` hears
/// how many are left.
///
/// # Errors
/// [`StoreUnavailable`]
pub async fn catch_up(index: &dyn AuditIndex, close: i64, mut told: impl FnMut(i64)) -> Result<(), StoreUnavailable> {
    let (mut least, mut waited) = (i64::MAX, Duration::ZERO);
    loop {
        let behind = index.standing().await?.behind();
        if behind < least {
            (least, waited) = (behind, Duration::ZERO);
        }
        // Where whoever is at it does not come on, what is left is found without the index.
        if behind <= close || waited >= PAUSE {
            return Ok(());
        }
        told(behind);
        // Nothing to add although there is more: what is left is no record.
        if matches!(index.advance(STEP).await?, Advanced::Busy | Advanced::By(0)) {
            sleep(TURN).await;
            waited += TURN;
        }
    }
}
