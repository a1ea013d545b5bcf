//! What an operator sees of an anchor's sources: each looked at once, and what was found in words.
//!
//! Takes an anchor and a fetcher, gives one [`Report`] for each list. It changes nothing, and holds nothing but what a command
//! asks for that judges one certificate ([`hold_for`]).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::cache::Cache;
use super::index::{HeldLists, Kind, Lists, RevocationList};
use super::source::{self, Found, Judging, Place};
use super::verification::{add_issued, succeeds, verify};
use super::watched::known_issuers;
use crate::fetch::{Fetcher, is_allowed};
use crate::pki::presented::PresentedChain;
use crate::pki::revocation::uses_lists;
use crate::registry::KeyHash;
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
    /// When it was issued.
    pub this_update: UnixTime,
    /// When the next one comes at the latest.
    pub next_update: UnixTime,
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

/// Where a command finds lists.
#[derive(Clone, Debug)]
pub struct Shelves<'a> {
    /// What lists are fetched with.
    pub fetcher: &'a Fetcher,
    /// Where the server writes down those it holds.
    pub directory: PathBuf,
    /// The longest list, in octets.
    pub longest_bytes: usize,
}

/// Puts into `lists` what a server would hold under `anchor` by the time it had seen `presented`: the lists that a server here
/// has written down, those at the anchor's sources, and those at the distribution points that the certificates name and the
/// anchor allows. Each counts by its own signature, wherever it was found; the newest of a kind stays.
pub async fn hold_for(
    lists: &Arc<HeldLists>,
    anchor: &TrustAnchor,
    presented: &PresentedChain,
    shelves: &Shelves<'_>,
    now: UnixTime,
) -> Vec<Report> {
    let mut issuers = known_issuers(anchor);
    add_issued(&mut issuers, &presented.certificates().iter().skip(1).map(|der| &der[..]).collect::<Vec<_>>());
    let (directory, longest_bytes) = (shelves.directory.clone(), shelves.longest_bytes);
    let written =
        tokio::task::spawn_blocking(move || Cache::at(directory).read(longest_bytes).collect::<Vec<_>>()).await;
    for kept in written.unwrap_or_default() {
        let chain: Vec<&[u8]> = kept.chain.iter().map(Vec::as_slice).collect();
        add_issued(&mut issuers, &chain);
        if let Ok(verified) = source::contained(|| verify(&kept.list, &issuers, now)) {
            put_newer(lists, &verified.list);
        }
    }
    let leaf = presented.leaf().into_iter().flat_map(|leaf| leaf.crl_points());
    let points = leaf.chain(presented.intermediates().iter().flat_map(|issuer| issuer.facts.crl_points()));
    let allowed = points.filter(|point| is_allowed(point, &anchor.revocation.crl_url_prefixes));
    let places: BTreeSet<&String> = anchor.revocation.crls.iter().map(|own| &own.location).chain(allowed).collect();
    let reports: Arc<Mutex<Vec<Report>>> = Arc::default();
    let one = Semaphore::new(1);
    for place in places {
        let judging = Judging { issuers: issuers.clone(), held: Default::default(), longest_bytes, now };
        let (sink_reports, sink_lists) = (Arc::clone(&reports), Arc::clone(lists));
        let sink = move |origin: &str, found: Result<Found, super::ListRefusal>| {
            let (list, refusal) = match found {
                Ok(Found::New { verified, .. }) => {
                    put_newer(&sink_lists, &verified.list);
                    (Some(facts(&verified.list, now)), None)
                }
                Ok(Found::Held(_)) => (None, None), // none was said to be held
                Err(refusal) => (None, Some(refusal.to_string())),
            };
            let report = Report { place: origin.to_owned(), list, refusal };
            sink_reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        };
        source::look(Place::of(place), None, shelves.fetcher, &one, judging, sink).await;
    }
    std::mem::take(&mut *reports.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put_newer(lists: &HeldLists, list: &Arc<RevocationList>) {
    let is_newer = match lists.now().held(&list.issuer_key, &list.scope) {
        Some(held) => matches!(succeeds(list, held), Ok(true)),
        None => true,
    };
    if is_newer {
        lists.put(list);
    }
}

/// What revocation of the certificate of `presented` is judged by under `anchor`, whose key this is: the lists that are held of
/// whoever may have issued it, and who else can be asked.
pub(in crate::pki) fn sources_in_words(
    presented: &PresentedChain,
    anchor: &TrustAnchor,
    anchor_key: &KeyHash,
    lists: &Lists,
    now: UnixTime,
) -> Vec<(&'static str, Vec<String>)> {
    let Some(leaf) = presented.leaf() else { return Vec::new() };
    let mut sources = Vec::new();
    if uses_lists(&anchor.revocation) {
        let above = presented.intermediates().iter().map(|issuer| issuer.facts.key_hash());
        let issuers: BTreeSet<&KeyHash> = above.chain([anchor_key]).collect();
        sources.push(("lists_held", issuers.into_iter().flat_map(|issuer| in_words(lists, issuer, now)).collect()));
        let allowed = |point: &&String| is_allowed(point, &anchor.revocation.crl_url_prefixes);
        let points: Vec<String> = leaf.crl_points().iter().filter(allowed).cloned().collect();
        if !points.is_empty() {
            sources.push(("distribution_points", points));
        }
    }
    if let Some(policy) = &anchor.revocation.ocsp {
        let allowed = |url: &&String| is_allowed(url, &policy.url_prefixes);
        let named = || leaf.responder_urls().iter().filter(allowed).cloned().collect();
        sources.push(("responder", policy.responder_url.clone().map_or_else(named, |url| vec![url])));
    }
    sources
}

/// The lists of this issuer that are held, in words.
fn in_words(lists: &Lists, issuer_key: &KeyHash, now: UnixTime) -> Vec<String> {
    let each = |list: &Arc<RevocationList>| {
        let facts = facts(list, now);
        let stale = if facts.stale { ", out of date" } else { "" };
        let (from, until) = (list.this_update, list.next_update);
        format!("number {}, issued {from}, next one due {until}{stale}, for {}", facts.number, facts.covers)
    };
    lists.of(issuer_key).map(each).collect()
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
        this_update: list.this_update,
        next_update: list.next_update,
        stale: list.next_update <= now,
        entries: list.entries.len(),
        covers,
    }
}
