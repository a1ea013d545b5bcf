//! What goes on when nobody asks: tokens have to die that were issued before their certificate was revoked.
//!
//! Takes what is remembered, once a second, gives it to be asked again where it is due, and to be put on record where it is
//! revoked. It covers the certificates that authenticated at this node since it was started, for as long as a token issued
//! then may live; not those of other nodes, which watch their own, nor those from before a restart.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;

use super::memory::Standing;
use super::{Asking, Line, LineId, Responders};
use crate::pki::revocation::CrlReason;
use crate::registry::{AnchorId, KeyHash, StoreUnavailable};
use crate::telemetry;

/// How often what is remembered is looked through.
const LOOKED_THROUGH_EVERY: Duration = Duration::from_secs(1);

/// How many questions are begun each time.
const QUESTIONS_EACH_TIME: usize = 32;

/// How long after a request its certificate is still asked after: the longest life of a token (design §4), and a minute.
const WATCHED_FOR: Duration = Duration::from_secs(3_600 + 60);

/// A certificate that its issuer has taken back, or put on hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRevoked {
    /// Under which anchor it was presented.
    pub anchor: AnchorId,
    /// The SHA-256 of its issuer's key.
    pub issuer_key: KeyHash,
    /// Lower-case hexadecimal of its serial number's content octets.
    pub serial: String,
    /// Whether it is an intermediate's.
    pub is_authority: bool,
    /// When, as its issuer says.
    pub at: UnixTime,
    /// Why, as its issuer says.
    pub reason: CrlReason,
}

/// Whoever sees to it that what was found revoked has its consequences in the registry.
pub trait Consequences: fmt::Debug + Send + Sync + 'static {
    /// Puts it on record, unless it is.
    ///
    /// # Errors
    /// [`StoreUnavailable`]: then it is told again.
    fn draw<'a>(&'a self, found: &'a FoundRevoked) -> BoxFuture<'a, Result<(), StoreUnavailable>>;
}

impl Responders {
    /// Begins to ask again of its own accord, and to tell `consequences` what it finds.
    pub fn keep_current(&self, consequences: Arc<dyn Consequences>) -> JoinHandle<()> {
        let asking = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(LOOKED_THROUGH_EVERY);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                // A revocation that a request has come upon does not wait for the next second.
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = asking.found.notified() => {}
                }
                // A fault of this program in one look is on record through the panic itself, and the next one is another.
                drop(AssertUnwindSafe(asking.look_through(&*consequences)).catch_unwind().await);
            }
        })
    }
}

/// What is to be done about one certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chore {
    Ask,
    Forget,
    Record { at: UnixTime, reason: CrlReason },
}

impl Asking {
    /// Does what is due now.
    pub(super) async fn look_through(self: &Arc<Self>, consequences: &dyn Consequences) {
        let now = self.clock.now();
        // In turn by anchors: who has many certificates that are asked after often holds up its own alone.
        let mut due: BTreeMap<AnchorId, Vec<Arc<Line>>> = BTreeMap::new();
        let mut to_record = Vec::new();
        for (id, line) in &self.lines {
            match line.chore(now) {
                Some(Chore::Ask) => due.entry(line.anchor.clone()).or_default().push(line),
                Some(Chore::Forget) => self.forget(&id),
                Some(Chore::Record { at, reason }) => to_record.push((line, at, reason)),
                None => {}
            }
        }
        let rounds = due.values().map(Vec::len).max().unwrap_or_default();
        let in_turn = (0..rounds).flat_map(|round| due.values().filter_map(move |lines| lines.get(round)));
        for line in in_turn.take(QUESTIONS_EACH_TIME) {
            drop(self.ask(line, now)); // goes on by itself
        }
        metrics::gauge!(telemetry::OCSP_REMEMBERED).set(self.lines.entry_count() as f64);
        for (line, at, reason) in to_record {
            let found = FoundRevoked {
                anchor: line.anchor.clone(),
                issuer_key: line.issuer_key,
                serial: line.serial.clone(),
                is_authority: line.is_authority,
                at,
                reason,
            };
            match consequences.draw(&found).await {
                Ok(()) => line.recorded(at, reason),
                Err(error) => {
                    tracing::warn!(certificate.serial = line.serial, %error, "a revoked certificate is not on record yet");
                    break; // the others would wait for the same store
                }
            }
        }
    }

    fn forget(&self, id: &LineId) {
        self.lines.invalidate(id);
    }
}

impl Line {
    fn chore(&self, now: UnixTime) -> Option<Chore> {
        let state = self.lock();
        match state.known.revocation() {
            Some((at, reason)) if !state.is_on_record => return Some(Chore::Record { at, reason }),
            _ => {}
        }
        let is_watched = now < state.wanted_at.after(WATCHED_FOR);
        match state.known.at(now) {
            Standing::Stands { is_due: true, .. } | Standing::Nothing if is_watched => Some(Chore::Ask),
            // What is revoked is kept as long as there is room: silence must not bring it back.
            _ if !is_watched && state.asking.is_none() && state.known.revocation().is_none() => Some(Chore::Forget),
            _ => None,
        }
    }

    /// Notes that this revocation is on record, if it is still the one that is known.
    fn recorded(&self, at: UnixTime, reason: CrlReason) {
        let mut state = self.lock();
        if state.known.revocation() == Some((at, reason)) {
            state.is_on_record = true;
        }
    }
}
