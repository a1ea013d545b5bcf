//! The watch of a serving node: looks what runs out, raises notices and delivers them.
//!
//! Takes an instant ([`Watch::tick`]), gives metrics, one log event for each notice, and pushes what is due. Several nodes
//! watch the same registry: a notice is raised by one of them and delivered by one of them at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use super::delivery::{Deliver, PATIENCE};
use super::notice::{self, EXPIRED_IS_NEWS_FOR, Notice, Threshold};
use super::store::{Claimed, ExpiryStore, NewNotice, Settled};
use super::{Expiring, Kind, Survey, Window};
use crate::mint::{Mint, SecurityEvent};
use crate::registry::{ParticipantId, Registry, StoreUnavailable};
use crate::telemetry::{EXPIRY_NOTICES, EXPIRY_SOONEST, EXPIRY_WITHIN};

/// How often a node looks for notices that are due.
const DELIVERED_EVERY: Duration = Duration::from_secs(15);

/// How many participants are delivered to at the same time: one that does not answer holds up nobody but itself.
const PARTICIPANTS_AT_ONCE: u32 = 64;

/// How many notices of one participant are delivered in one round.
const NOTICES_AT_ONCE: usize = 8;

/// For how long a notice is its deliverer's: several times as long as a whole round may take. Whoever dies meanwhile leaves
/// it to the others.
const CLAIMED_FOR: Duration = Duration::from_secs(PATIENCE.as_secs() * NOTICES_AT_ONCE as u64 * 4);

/// Longer than any threshold, and than anything raised can be told of.
const KEPT_FOR: Duration = Duration::from_secs(400 * 86_400);

/// What the watch is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSettings {
    /// How often it looks what runs out.
    pub every: Duration,
    /// How many days before an end something is said about it; ascending.
    pub notice_days: Vec<u16>,
}

/// What has an end and is not in the registry: revocation lists, the server's certificate.
pub trait Dated: fmt::Debug + Send + Sync + 'static {
    /// Its kind.
    fn kind(&self) -> Kind;

    /// Each by its name, with the first instant at which it is out of date.
    fn ends(&self) -> Vec<(String, UnixTime)>;
}

/// Watches what runs out.
#[derive(Debug)]
pub struct Watch {
    survey: Survey,
    store: Arc<dyn ExpiryStore>,
    mint: Mint,
    settings: WatchSettings,
    deliver: Arc<dyn Deliver>,
    others: Mutex<Vec<Arc<dyn Dated>>>,
}

/// What one round of deliveries came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Notices that were taken.
    pub delivered: usize,
    /// Notices that were not.
    pub failed: usize,
    /// Whether more participants were waiting than one round takes.
    pub more: bool,
}

/// What was counted on the way: how many of each kind are within each threshold, and which ends first.
#[derive(Debug, Default)]
struct Tally {
    within: BTreeMap<(Kind, Threshold), u64>,
    soonest: BTreeMap<Kind, UnixTime>,
}

impl Watch {
    /// A watch over `registry`, whose database `store` is, that signs with `mint` and pushes through `deliver`.
    pub fn new(
        registry: Arc<Registry>,
        store: Arc<dyn ExpiryStore>,
        mint: Mint,
        settings: WatchSettings,
        deliver: Arc<dyn Deliver>,
    ) -> Self {
        let survey = Survey::new(registry, Arc::clone(&store));
        Self { survey, store, mint, settings, deliver, others: Mutex::default() }
    }

    /// Watches this as well.
    pub fn also(&self, dated: Arc<dyn Dated>) {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).push(dated);
    }

    /// Looks what runs out, and delivers what is due.
    ///
    /// # Errors
    /// [`StoreUnavailable`]; what was raised or delivered until then stays so.
    pub async fn tick(&self, now: UnixTime) -> Result<Round, StoreUnavailable> {
        let looked = self.look(now).await;
        // What was raised before is delivered whatever came of this look.
        let round = self.deliver(now).await?;
        looked.map(|()| round)
    }

    /// Ticks until the watch is dropped: looks every so often as it was told, and delivers every few seconds.
    pub fn keep(self: &Arc<Self>, clock: Arc<dyn Clock>) -> JoinHandle<()> {
        let watch = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut looked: Option<Duration> = None;
            let mut failing = false;
            loop {
                let Some(watch) = watch.upgrade() else { return };
                let (now, passed) = (clock.now(), clock.monotonic());
                let due = looked.is_none_or(|looked| passed.saturating_sub(looked) >= watch.settings.every);
                let ticked = if due { watch.tick(now).await } else { watch.deliver(now).await };
                let more = match ticked {
                    Ok(round) => {
                        if due {
                            looked = Some(passed);
                        }
                        failing = false;
                        round.more
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "what expires cannot be watched");
                        }
                        false
                    }
                };
                drop(watch);
                if !more {
                    tokio::time::sleep(DELIVERED_EVERY).await;
                }
            }
        })
    }

    /// Raises what has come within a threshold since the last look, and measures.
    async fn look(&self, now: UnixTime) -> Result<(), StoreUnavailable> {
        let farthest = self.settings.notice_days.last().map_or(Duration::ZERO, |days| notice::length(*days));
        let window = Window { from: now.before(EXPIRED_IS_NEWS_FOR), until: now.after(farthest) };
        let mut tally = Tally::default();
        let mut after = None;
        loop {
            let (leaves, next) = self.survey.leaves(window, after).await?;
            self.take(leaves, now, &mut tally).await?;
            after = next;
            if after.is_none() {
                break;
            }
        }
        self.take(self.survey.intermediates(window).await?, now, &mut tally).await?;
        self.take(self.survey.anchors().await?, now, &mut tally).await?;
        self.take(self.elsewhere(), now, &mut tally).await?;
        // What ends beyond the window has a first one as well.
        let soonest = self.store.soonest(now).await?;
        for (kind, end) in [(Kind::Leaf, soonest.leaf), (Kind::Intermediate, soonest.intermediate)] {
            tally.soonest.extend(end.map(|end| (kind, end)));
        }
        self.measure(&tally, now);
        self.store.forget(now.before(KEPT_FOR)).await
    }

    fn elsewhere(&self) -> Vec<Expiring> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let thing = |kind, (id, expires_at): (String, UnixTime)| Expiring {
            kind,
            subject: id.clone(),
            id,
            begins_at: None,
            expires_at,
            participant: None,
            contact: None,
            client: None,
            last_seen: None,
            successor: None,
            certificates: None,
            webhook: None,
        };
        others.iter().flat_map(|other| other.ends().into_iter().map(move |end| thing(other.kind(), end))).collect()
    }

    async fn take(&self, things: Vec<Expiring>, now: UnixTime, tally: &mut Tally) -> Result<(), StoreUnavailable> {
        let mut new = Vec::new();
        for expiring in things {
            tally.count(&expiring, &self.settings.notice_days, now);
            let addressed = expiring.webhook.is_some() && expiring.participant.is_some();
            if let Some(notice) = Notice::due(expiring, &self.settings.notice_days, now) {
                new.push(NewNotice { notice, addressed });
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let notices: Vec<Notice> = new.iter().map(|new| new.notice.clone()).collect();
        let raised = self.store.raise(new).await?;
        notices.iter().filter(|notice| raised.contains(&notice.id)).for_each(log);
        Ok(())
    }

    /// No name of any partner becomes the name of a time series.
    fn measure(&self, tally: &Tally, now: UnixTime) {
        for kind in Kind::ALL {
            let seconds = tally.soonest.get(&kind).map_or(f64::INFINITY, |end| end.since(now).as_secs_f64());
            metrics::gauge!(EXPIRY_SOONEST, "kind" => kind.as_str()).set(seconds);
            let days = self.settings.notice_days.iter().map(|days| Threshold::Days(*days));
            for threshold in days.chain([Threshold::Expired]) {
                let count = tally.within.get(&(kind, threshold)).copied().unwrap_or(0);
                metrics::gauge!(EXPIRY_WITHIN, "kind" => kind.as_str(), "within" => threshold.to_string())
                    .set(count as f64);
            }
        }
    }

    /// Delivers what is due, to each participant beside the others.
    async fn deliver(&self, now: UnixTime) -> Result<Round, StoreUnavailable> {
        let participants = self.store.due(now, PARTICIPANTS_AT_ONCE).await?;
        let more = participants.len() >= usize::try_from(PARTICIPANTS_AT_ONCE).unwrap_or(usize::MAX);
        let rounds = join_all(participants.iter().map(|participant| self.deliver_to(participant, now))).await;
        let mut round = Round { more, ..Round::default() };
        let mut failure = None;
        for of_one in rounds {
            match of_one {
                Ok((delivered, failed)) => {
                    round.delivered += delivered;
                    round.failed += failed;
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(round), Err)
    }

    /// One participant's notices, one after the other: where one fails the others wait for the next round.
    async fn deliver_to(&self, participant: &ParticipantId, now: UnixTime) -> Result<(usize, usize), StoreUnavailable> {
        let mut delivered = 0;
        for _ in 0..NOTICES_AT_ONCE {
            let Some(claimed) = self.store.claim(participant, now, now.after(CLAIMED_FOR)).await? else { break };
            let outcome = self.attempt(participant, &claimed, now).await;
            self.store.settle(&claimed, outcome).await?;
            match outcome {
                Settled::Delivered => delivered += 1,
                Settled::Unaddressed => {}
                Settled::Again(_) | Settled::GivenUp => return Ok((delivered, 1)),
            }
        }
        Ok((delivered, 0))
    }

    async fn attempt(&self, participant: &ParticipantId, claimed: &Claimed, now: UnixTime) -> Settled {
        let Claimed { notice, attempt, webhook } = claimed;
        let Some(webhook) = webhook else { return Settled::Unaddressed };
        let event = SecurityEvent {
            audience: participant.to_string(),
            jti: notice.id.as_str().to_owned(),
            issued_at: notice.raised_at,
            event: format!("{}{EVENT_PATH}", self.mint.issuer()),
            body: notice.event(),
        };
        let pushed = match self.mint.sign_security_event(&event, now) {
            Ok(token) => self.deliver.push(webhook, token).await.map_err(|failure| failure.to_string()),
            Err(refusal) => Err(refusal.reason().to_owned()),
        };
        let (settled, outcome) = match (&pushed, notice.next_attempt(*attempt, now)) {
            (Ok(()), _) => (Settled::Delivered, "delivered"),
            (Err(_), Some(next)) => (Settled::Again(next), "failed"),
            (Err(_), None) => (Settled::GivenUp, "given_up"),
        };
        metrics::counter!(EXPIRY_NOTICES, "outcome" => outcome).increment(1);
        let reason = pushed.err().unwrap_or_default();
        match settled {
            Settled::Delivered => {
                tracing::info!(notice.id = event.jti, participant.id = %participant, "notice delivered");
            }
            Settled::Again(next) => tracing::info!(
                notice.id = event.jti, notice.attempt = attempt, notice.next_attempt_at = %next, notice.failure = reason,
                participant.id = %participant, "notice not delivered"
            ),
            Settled::GivenUp | Settled::Unaddressed => tracing::warn!(
                notice.id = event.jti, notice.attempt = attempt, notice.failure = reason, participant.id = %participant,
                "notice given up: its receiver has not taken it"
            ),
        }
        settled
    }
}

/// What the event is called, below the issuer: an URI of our own, as RFC 8417 §2.2 wants one.
const EVENT_PATH: &str = "/events/expiring";

impl Tally {
    fn count(&mut self, expiring: &Expiring, days: &[u16], now: UnixTime) {
        let end = expiring.expires_at;
        if end <= now {
            *self.within.entry((expiring.kind, Threshold::Expired)).or_default() += 1;
            return;
        }
        for days in days.iter().filter(|days| end.since(now) <= notice::length(**days)) {
            *self.within.entry((expiring.kind, Threshold::Days(*days))).or_default() += 1;
        }
        let soonest = self.soonest.entry(expiring.kind).or_insert(end);
        *soonest = end.min(*soonest);
    }
}

/// One event for each notice, on the node that raised it.
fn log(notice: &Notice) {
    let Notice { id, threshold, expiring, .. } = notice;
    let text = |value: Option<String>| value.unwrap_or_default();
    let client = text(expiring.client.as_ref().map(ToString::to_string));
    let participant = text(expiring.participant.as_ref().map(ToString::to_string));
    let contact = text(expiring.contact.clone());
    let successor = expiring.successor.as_ref().map_or("none", super::Successor::as_str);
    macro_rules! event {
        ($sentence:literal) => {
            tracing::warn!(
                notice.id = id.as_str(),
                expiry.kind = expiring.kind.as_str(),
                expiry.id = expiring.id,
                expiry.at = %expiring.expires_at,
                expiry.threshold = %threshold,
                expiry.successor = successor,
                client.id = client,
                participant.id = participant,
                participant.contact = contact,
                $sentence
            )
        };
    }
    match threshold {
        Threshold::Expired if expiring.waits_for_its_successor() => {
            event!("expired, and the certificate announced in its place was never seen");
        }
        Threshold::Expired => event!("expired"),
        Threshold::Days(_) if expiring.waits_for_its_successor() => {
            event!("expires soon, and the certificate announced in its place was never seen");
        }
        Threshold::Days(_) => event!("expires soon"),
    }
}
