//! Refusals nobody authenticated for: counted, thinned, written at most a second late.
//!
//! Takes refusals and failed handshakes from anybody at any rate, gives the committer a bounded number of rows to write
//! now and then. What is alike is counted; an address that shows many faces shares one row; what finds no room is
//! counted too. It never waits and never touches what tokens need.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_resource_server::time::UnixTime;

use super::record::{self, RefusalKey};
use super::trail::Trail;
use crate::error::Refusal;
use crate::registry::Thumbprint;

/// A handshake that failed: facts seen before possession was proven are claims.
#[derive(Clone, Debug)]
pub struct RefusedHandshake {
    /// Where it came from.
    pub remote: SocketAddr,
    /// The stable short reason.
    pub reason: &'static str,
    /// The thumbprint of the certificate that was shown, if one was.
    pub claimed: Option<Thumbprint>,
}

/// How many rows one address may have in one round before its refusals share rows by reason alone.
const ROWS_PER_ADDRESS: usize = 32;

/// What has been counted since the last round.
#[derive(Debug)]
pub(super) struct Tally {
    rows: usize,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    rows: HashMap<RefusalKey, Row>,
    addresses: HashMap<IpAddr, usize>,
    dropped_refusals: u64,
    dropped_decisions: u64,
}

#[derive(Debug)]
struct Row {
    count: u64,
    first: UnixTime,
    last: UnixTime,
    sample: serde_json::Value,
}

impl Tally {
    pub(super) fn new(rows: usize) -> Self {
        Self { rows, counted: Mutex::default() }
    }

    pub(super) fn count(&self, node: &str, trail: &Trail, refusal: &Refusal) {
        let key = RefusalKey {
            stage: refusal.stage(),
            reason: refusal.reason(),
            address: whose(trail.peer().handshake.remote.ip()),
            thumbprint: trail.peer().thumbprint().map(ToString::to_string),
            claimed_client_id: trail.what_was_asked().and_then(|asked| asked.client_id.clone()),
        };
        self.add(key, trail.now(), || record::sample(node, trail, refusal));
    }

    pub(super) fn count_handshake(&self, handshake: &RefusedHandshake, now: UnixTime) {
        let key = RefusalKey {
            stage: "handshake",
            reason: handshake.reason,
            address: whose(handshake.remote.ip()),
            thumbprint: handshake.claimed.as_ref().map(ToString::to_string),
            claimed_client_id: None,
        };
        self.add(key, now, || serde_json::json!({ "remote": handshake.remote.to_string() }));
    }

    /// Counts decisions that nobody waited for any more when the store came back.
    pub(super) fn drop_decisions(&self, count: u64) {
        self.lock().dropped_decisions += count;
    }

    fn add(&self, mut key: RefusalKey, now: UnixTime, sample: impl FnOnce() -> serde_json::Value) {
        let mut counted = self.lock();
        let counted = &mut *counted;
        if !counted.rows.contains_key(&key) {
            if counted.addresses.get(&key.address).is_some_and(|rows| *rows >= ROWS_PER_ADDRESS) {
                key.thumbprint = None;
                key.claimed_client_id = None;
            }
            if !counted.rows.contains_key(&key) {
                if counted.rows.len() >= self.rows {
                    counted.dropped_refusals += 1;
                    return;
                }
                *counted.addresses.entry(key.address).or_default() += 1;
            }
        }
        let row = counted.rows.entry(key).or_insert_with(|| Row { count: 0, first: now, last: now, sample: sample() });
        row.count += 1;
        row.last = row.last.max(now);
    }

    pub(super) fn is_empty(&self) -> bool {
        let counted = self.lock();
        counted.rows.is_empty() && counted.dropped_refusals == 0 && counted.dropped_decisions == 0
    }

    /// Takes what has been counted: bodies of records with their instants, at most one more than there are rows.
    pub(super) fn take(&self, node: &str, now: UnixTime) -> Vec<(UnixTime, String)> {
        let counted = std::mem::take(&mut *self.lock());
        let mut bodies = Vec::with_capacity(counted.rows.len() + 1);
        for (key, row) in counted.rows {
            bodies.push((row.first, record::refusals(node, &key, row.count, row.first, row.last, &row.sample)));
        }
        bodies.sort_unstable();
        if counted.dropped_refusals > 0 || counted.dropped_decisions > 0 {
            bodies.push((now, record::dropped(node, now, counted.dropped_refusals, counted.dropped_decisions)));
        }
        bodies
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // A panic while counting leaves counts that are at worst too low.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address as one party has it: with IPv6 whoever has one has the whole /64.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}
