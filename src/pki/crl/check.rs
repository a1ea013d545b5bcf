//! What an operator sees of an anchor's sources: each looked at once, and what was found in words.
//!
//! Takes an anchor and a fetcher, gives one [`Report`] for each list. It holds nothing and changes nothing.

use std::sync::{Arc, Mutex, PoisonError};

use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::index::{Kind, RevocationList};
use super::keeper::known_issuers;
use super::source::{self, Found, Judging, Place};
use crate::fetch::Fetcher;
use crate::registry::trust_anchor::TrustAnchor;

/// What was found at one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Where.
    pub place: String,
    /// The list, if it is one that would be taken.
    pub list: Option<ListFacts>,
    /// Why not, otherwise.
    pub refusal: Option<String>,
}

/// What a list says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListFacts {
    /// Its number.
    pub number: String,
    /// When it was issued, in seconds since 1970.
    pub this_update: i64,
    /// When the next one comes at the latest, in seconds since 1970.
    pub next_update: i64,
    /// Whether that is over.
    pub stale: bool,
    /// How many certificates it revokes.
    pub entries: usize,
    /// For which certificates it speaks, in words.
    pub covers: String,
}

/// Looks at every source of `anchor` once.
pub async fn check(anchor: &TrustAnchor, fetcher: &Fetcher, longest_bytes: usize, now: UnixTime) -> Vec<Report> {
    let issuers = known_issuers(anchor);
    let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
    let one = Semaphore::new(1);
    for own in &anchor.revocation.crls {
        let judging = Judging { issuers: issuers.clone(), held: Default::default(), longest_bytes, now };
        let sink = {
            let reports = Arc::clone(&reports);
            move |origin: &str, found: Result<Found, super::ListRefusal>| {
                let (list, refusal) = match found {
                    Ok(Found::New { verified, .. }) => (Some(facts(&verified.list, now)), None),
                    Ok(Found::Held(_)) => (None, None), // nothing is held here
                    Err(refusal) => (None, Some(refusal.to_string())),
                };
                let report = Report { place: origin.to_owned(), list, refusal };
                reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
            }
        };
        source::look(Place::of(&own.location), None, fetcher, &one, judging, sink).await;
    }
    std::mem::take(&mut *reports.lock().unwrap_or_else(PoisonError::into_inner))
}

fn facts(list: &RevocationList, now: UnixTime) -> ListFacts {
    let whom = match list.scope.kind {
        Kind::All => "certificates",
        Kind::Users => "certificates of end entities",
        Kind::Authorities => "certificates of authorities",
    };
    let covers = match &list.scope.points {
        None => format!("all {whom} of its issuer"),
        Some(points) if points.is_empty() => "certificates of a distribution point without a URI: none here".to_owned(),
        Some(points) => format!("{whom} that name {}", points.join(" or ")),
    };
    ListFacts {
        number: list.number.to_string(),
        this_update: list.this_update.as_seconds(),
        next_update: list.next_update.as_seconds(),
        stale: list.next_update <= now,
        entries: list.entries.len(),
        covers,
    }
}
