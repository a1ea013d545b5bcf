//! Refusals nobody authenticated for: counted, thinned, written at most a second late.
//!
//! Takes refusals and failed handshakes from anybody at any rate, gives the committer a bounded number of rows to write
//! now and then. What is alike is counted; an address that shows many faces shares one row; what finds no room is
//! counted too. It never waits and never touches what tokens need.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use countersign_resource_server::time::UnixTime;

use super::record::{self, Occasion, RefusalKey};
use super::trail::Trail;
use crate::error::Refusal;
use crate::registry::Thumbprint;
use crate::tls::{HandshakeRefusal, neighbourhood};

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

    pub(super) fn count(&self, node: &str, trail: &Trail, occasion: Occasion, refusal: &Refusal) {
        let key = RefusalKey {
            occasion,
            stage: refusal.stage(),
            reason: refusal.reason(),
            address: neighbourhood(trail.peer().handshake.remote.ip()),
            thumbprint: trail.peer().thumbprint().map(ToString::to_string),
            claimed_client_id: trail.what_was_asked().and_then(|asked| asked.client_id.clone()),
        };
        self.add(key, trail.now(), || record::sample(node, trail, occasion, refusal));
    }

    pub(super) fn count_handshake(&self, handshake: &RefusedHandshake, now: UnixTime) {
        let key = RefusalKey {
            occasion: Occasion::Refusal,
            stage: HandshakeRefusal::STAGE,
            reason: handshake.reason,
            address: neighbourhood(handshake.remote.ip()),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::audit::RequestId;
    use crate::pki::{Handshake, PresentedChain};
    use crate::registry::LookupRefusal;
    use crate::request::{RequestRefusal, TokenRequest};

    const NOW: UnixTime = UnixTime::from_seconds(1_800_000_000);

    fn refuse(tally: &Tally, address: &str, client_id: Option<&str>, refusal: impl Into<Refusal>, now: UnixTime) {
        let remote = SocketAddr::new(address.parse().unwrap(), 4711);
        let peer = PresentedChain::new(Handshake { remote, protocol: "TLSv1.3", resumed: false }, Vec::new());
        let mut trail = Trail::begin(&Arc::new(peer), RequestId::random(now), now);
        if let Some(client_id) = client_id {
            trail.asked(&TokenRequest {
                grant_type: "client_credentials".to_owned(),
                client_id: client_id.parse().unwrap(),
                client_assertion: None,
                scope: None,
                resources: Vec::new(),
            });
        }
        tally.count("node", &trail, Occasion::Refusal, &refusal.into());
    }

    fn rows(tally: &Tally) -> Vec<Value> {
        tally.take("node", NOW).iter().map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }

    #[test]
    fn what_is_alike_shares_a_row_and_what_is_not_does_not() {
        let tally = Tally::new(100);
        let second = UnixTime::from_millis(NOW.as_millis() + 250);
        refuse(&tally, "192.0.2.1", Some("a"), LookupRefusal::ClientUnknown, NOW);
        refuse(&tally, "192.0.2.1", Some("a"), LookupRefusal::ClientUnknown, second);
        refuse(&tally, "192.0.2.1", Some("b"), LookupRefusal::ClientUnknown, NOW);
        refuse(&tally, "192.0.2.2", Some("a"), LookupRefusal::ClientUnknown, NOW);
        refuse(&tally, "192.0.2.1", None, RequestRefusal::BodyTooLarge, NOW);
        let rows = rows(&tally);
        assert_eq!(rows.len(), 4);
        let twice: Vec<&Value> = rows.iter().filter(|row| row["count"] == 2).collect();
        let [twice] = twice.as_slice() else { panic!("{rows:?}") };
        assert_eq!((&twice["at"], &twice["until"]), (&NOW.as_millis().into(), &second.as_millis().into()));
        assert_eq!((&twice["claimed_client_id"], &twice["reason"]), (&"a".into(), &"client_unknown".into()));
        assert!(tally.is_empty());
    }

    #[test]
    fn an_address_with_many_faces_shares_rows_and_leaves_room_for_others() {
        let tally = Tally::new(100);
        for face in 0..1_000 {
            refuse(&tally, "192.0.2.1", Some(&format!("c{face}")), LookupRefusal::ClientUnknown, NOW);
        }
        refuse(&tally, "192.0.2.2", Some("honest"), LookupRefusal::ClientUnknown, NOW);
        let rows = rows(&tally);
        assert_eq!(rows.len(), ROWS_PER_ADDRESS + 2, "one for all the others, and the honest one's");
        assert!(rows.iter().any(|row| row["claimed_client_id"] == "honest"));
        assert!(rows.iter().any(|row| row["count"] == 1_000 - ROWS_PER_ADDRESS));
        assert!(rows.iter().all(|row| row["kind"] == "refusals"), "and none is dropped");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_one_is_ipv4() {
        let tally = Tally::new(100);
        for host in 0..100 {
            refuse(&tally, &format!("2001:db8:1:2::{host:x}"), None, RequestRefusal::BodyTooLarge, NOW);
        }
        refuse(&tally, "2001:db8:1:3::1", None, RequestRefusal::BodyTooLarge, NOW);
        refuse(&tally, "::ffff:192.0.2.1", None, RequestRefusal::BodyTooLarge, NOW);
        refuse(&tally, "192.0.2.1", None, RequestRefusal::BodyTooLarge, NOW);
        let mut counts: Vec<(String, u64)> = rows(&tally)
            .iter()
            .map(|row| (row["address"].as_str().unwrap().to_owned(), row["count"].as_u64().unwrap()))
            .collect();
        counts.sort();
        let expected = [("192.0.2.1", 2), ("2001:db8:1:2::", 100), ("2001:db8:1:3::", 1)];
        assert_eq!(counts, expected.map(|(address, count)| (address.to_owned(), count)));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let tally = Tally::new(10);
        for host in 1..=25 {
            refuse(&tally, &format!("192.0.2.{host}"), None, RequestRefusal::BodyTooLarge, NOW);
        }
        let rows = rows(&tally);
        assert_eq!(rows.len(), 11);
        let dropped = &rows[10];
        assert_eq!((&dropped["kind"], &dropped["refusals"]), (&"dropped".into(), &15.into()));
    }
}
