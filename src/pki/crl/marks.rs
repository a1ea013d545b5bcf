//! What a list means for certificates on record, beyond the next request: their tokens end.
//!
//! Takes each list as it is put in place, gives changes of the registry: certificates that it revokes become revoked there,
//! and where it puts one on hold, or revokes an intermediate, the tokens below end. Doing it twice does no harm, and every
//! node does. It refuses no request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};
use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::Serial;
use super::index::{Kind, RevocationList};
use crate::pki::revocation::CrlReason;
use crate::registry::certificate::{Certificate, CertificateState, RevocationReason};
use crate::registry::edit::{EditRefusal, RecordKind};
use crate::registry::history::{Actor, Explanation};
use crate::registry::{AnchorId, Page, Registry, RegistryVersion, StoreUnavailable, Thumbprint};

/// A list that has just been put in place.
#[derive(Debug)]
pub(super) struct Swapped {
    pub(super) list: Arc<RevocationList>,
    /// The one it replaced.
    pub(super) previous: Option<Arc<RevocationList>>,
    /// Under which its issuer's certificates are.
    pub(super) anchors: Vec<AnchorId>,
    /// Whether this node held it before a restart, and has served nobody since.
    pub(super) is_kept: bool,
}

/// Certificates changed in one transaction: others wait to write meanwhile.
const BATCH: usize = 100;

/// Certificates looked at in one query.
const PAGE: u32 = 2_000;

/// How long after a failure the store is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Marks for every list, one after the other, until nobody sends any more. An outage of the store is waited out.
pub(super) async fn keep_marking(
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    mut swaps: mpsc::UnboundedReceiver<Swapped>,
) {
    let mut failing = false;
    while let Some(swapped) = swaps.recv().await {
        loop {
            // A fault of this program in here costs the marks of one list, and not those of every list to come.
            let error = match AssertUnwindSafe(mark(&registry, &swapped, clock.now())).catch_unwind().await {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error,
                Err(_) => {
                    tracing::error!(list.issuer = %swapped.list.issuer_key, "marking for a revocation list ended in a fault");
                    break;
                }
            };
            if !failing {
                failing = true;
                tracing::error!(%error, "what a revocation list revokes cannot be put on record: it is tried again");
            }
            tokio::time::sleep(RETRY).await;
        }
        failing = false;
    }
}

/// Puts on record what `swapped` means.
///
/// # Errors
/// [`StoreUnavailable`]; then some of it may be.
pub(super) async fn mark(registry: &Registry, swapped: &Swapped, now: UnixTime) -> Result<(), StoreUnavailable> {
    let Swapped { list, previous, anchors, is_kept } = swapped;
    if list.entries.is_empty() {
        return Ok(());
    }
    let is_new = |serial: Serial, on_hold: bool| is_new(previous.as_deref(), serial, on_hold);
    let (mut revoked, mut ended) = (Vec::new(), Vec::new());
    let mut after = None;
    loop {
        let page = registry.live_serials(&list.issuer_key, after.take(), PAGE).await?;
        let Some((_, last)) = page.last() else { break };
        after = Some(last.clone());
        for (thumbprint, serial) in page {
            let Some(serial) = Serial::of_hex(&serial) else { continue };
            match list.find(serial).map(|entry| entry.reason) {
                Some(CrlReason::CertificateHold) if is_new(serial, true) => ended.push(thumbprint),
                Some(CrlReason::CertificateHold) | None => {}
                // Not only what is new: what a node found and could not write down is found again.
                Some(reason) => revoked.push((thumbprint, reason.into())),
            }
        }
    }
    let number = list.number;
    let why = format!("revocation list {number} of issuer key {}", list.issuer_key);
    revoke(registry, &revoked, &format!("revoked by {why}"), now).await?;
    end_tokens(registry, ended, *is_kept, &format!("on hold by {why}"), now).await?;
    // Millions of them may be looked up: on a thread where that keeps no request waiting.
    let (own, before) = (Arc::clone(list), previous.clone());
    let any_is_new = move || own.entries.iter().any(|entry| self::is_new(before.as_deref(), entry.serial, false));
    if list.scope.kind == Kind::Users || !tokio::task::spawn_blocking(any_is_new).await.unwrap_or(true) {
        return Ok(());
    }
    for anchor in anchors {
        let below = below_revoked(registry, anchor, list, &is_new, now).await?;
        end_tokens(registry, below, *is_kept, &format!("an issuer was revoked by {why}"), now).await?;
    }
    Ok(())
}

/// Whether the list that was in place before did not say so of this certificate. From hold to revoked is new, the other way
/// round is not.
fn is_new(previous: Option<&RevocationList>, serial: Serial, on_hold: bool) -> bool {
    let before = previous.and_then(|previous| previous.find(serial));
    before.is_none_or(|before| before.reason == CrlReason::CertificateHold && !on_hold)
}

/// Certificates in date in whose path is an intermediate that `list` has newly revoked or put on hold.
async fn below_revoked(
    registry: &Registry,
    anchor: &AnchorId,
    list: &RevocationList,
    is_new: &impl Fn(Serial, bool) -> bool,
    now: UnixTime,
) -> Result<Vec<Thumbprint>, StoreUnavailable> {
    let is_below = |certificate: &Certificate| {
        certificate.issuers.iter().any(|issuer| {
            issuer.issuer_key == list.issuer_key
                && Serial::of_hex(&issuer.serial).is_some_and(|serial| {
                    list.find(serial).is_some_and(|entry| is_new(serial, entry.reason == CrlReason::CertificateHold))
                })
        })
    };
    let mut below = Vec::new();
    let mut page = Page::first(PAGE);
    loop {
        let certificates = registry.certificates_under(anchor, page).await?;
        let Some(last) = certificates.last() else { return Ok(below) };
        page = Page::after(last.thumbprint.to_string(), PAGE);
        let live = certificates.iter().filter(|certificate| {
            !matches!(certificate.state, CertificateState::Revoked { .. }) && now < certificate.expires_at()
        });
        below.extend(live.filter(|certificate| is_below(certificate)).map(|certificate| certificate.thumbprint));
    }
}

/// Makes certificates revoked in the registry, as their issuer has it: by this server, in batches.
///
/// # Errors
/// [`StoreUnavailable`].
pub(in crate::pki) async fn revoke(
    registry: &Registry,
    certificates: &[(Thumbprint, RevocationReason)],
    why: &str,
    now: UnixTime,
) -> Result<(), StoreUnavailable> {
    for batch in certificates.chunks(BATCH) {
        let done = registry.revoke_by_issuer(batch.to_vec(), by_server(registry, why, now)).await;
        changed(done.map(drop))?;
    }
    Ok(())
}

/// Ends the tokens of certificates. Every node does so when it finds out: until then it may have issued tokens that the mark of
/// a faster one does not reach. Only of what it held before a restart it looks whether it has done so.
async fn end_tokens(
    registry: &Registry,
    mut certificates: Vec<Thumbprint>,
    is_kept: bool,
    why: &str,
    now: UnixTime,
) -> Result<(), StoreUnavailable> {
    let explanation = || by_server(registry, why, now);
    if is_kept {
        let mut left = Vec::new();
        for thumbprint in certificates {
            let subject = RecordKind::Certificate.subject(&thumbprint.to_string());
            let history = registry.history(RegistryVersion(0), Some(subject), 1_000).await?;
            let own = explanation();
            if !history.iter().any(|entry| entry.actor == own.actor && entry.why == own.why) {
                left.push(thumbprint);
            }
        }
        certificates = left;
    }
    for batch in certificates.chunks(BATCH) {
        let done = registry.end_tokens(batch.to_vec(), explanation()).await;
        changed(done.map(drop))?;
    }
    Ok(())
}

fn by_server(registry: &Registry, why: &str, now: UnixTime) -> Explanation {
    Explanation { actor: Actor::Server { node: registry.node().to_owned() }, at: now, why: Some(why.to_owned()) }
}

/// That there was nothing left to do is no failure: another node was faster.
fn changed(done: Result<(), EditRefusal>) -> Result<(), StoreUnavailable> {
    match done {
        Err(EditRefusal::Unavailable(error)) => Err(error),
        Err(refusal) => {
            tracing::debug!(%refusal, "nothing left to put on record of a revocation list");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

impl From<CrlReason> for RevocationReason {
    fn from(reason: CrlReason) -> Self {
        match reason {
            CrlReason::Unspecified | CrlReason::CertificateHold => Self::Unspecified,
            CrlReason::KeyCompromise => Self::KeyCompromise,
            CrlReason::CaCompromise => Self::CaCompromise,
            CrlReason::AffiliationChanged => Self::AffiliationChanged,
            CrlReason::Superseded => Self::Superseded,
            CrlReason::CessationOfOperation => Self::CessationOfOperation,
            CrlReason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
            CrlReason::AaCompromise => Self::AaCompromise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::crl::index::{Entry, Scope};
    use crate::registry::fixture::{
        NOW, anchor, any_name, because, client, client_id, participant, participant_id, registry, sighting,
    };
    use crate::registry::{KeyHash, Registry};

    /// A list of the issuer of every certificate of the fixture, with this one on hold.
    fn holding(serial: &str) -> Swapped {
        let serial = Serial::of_hex(serial).unwrap();
        let list = RevocationList {
            issuer_key: KeyHash::of(b"issuer"),
            scope: Scope::default(),
            number: Serial::of_hex("07").unwrap(),
            this_update: NOW,
            next_update: NOW.after(Duration::from_secs(60)),
            entries: vec![Entry { serial, reason: CrlReason::CertificateHold, at: NOW.as_seconds() }],
            digest: [0; 32],
            octets: 100,
        };
        Swapped { list: Arc::new(list), previous: None, anchors: Vec::new(), is_kept: false }
    }

    async fn ended(registry: &Registry, thumbprint: &Thumbprint) -> usize {
        let subject = RecordKind::Certificate.subject(&thumbprint.to_string());
        let history = registry.history(RegistryVersion(0), Some(subject), 100).await.unwrap();
        history.iter().filter(|entry| entry.action == "certificate.end_tokens").count()
    }

    /// Between a faster node's mark and its own look at the list, a node may have issued tokens.
    #[tokio::test]
    async fn a_hold_ends_tokens_on_each_node_that_finds_it_and_not_again_after_a_restart() {
        let (_directory, registry) = registry().await;
        registry.add_participant(participant("acme"), because("joins")).await.unwrap();
        registry.add_anchor(anchor("ca"), b"ca".to_vec(), because("theirs")).await.unwrap();
        let id = crate::registry::fixture::anchor_id("ca");
        registry.grant_anchor(participant_id("acme"), id, any_name(), because("theirs")).await.unwrap();
        registry.add_client(client("client", "acme"), vec![], because("new")).await.unwrap();
        let found = registry.client(&client_id("client")).await.unwrap();
        let seen = sighting(7, "ca");
        registry.sighted(&found, &seen, NOW).await.unwrap();

        let mut swapped = holding(&seen.serial);
        mark(&registry, &swapped, NOW).await.unwrap();
        assert_eq!(ended(&registry, &seen.thumbprint).await, 1);
        let faster = registry.version();
        mark(&registry, &swapped, NOW).await.unwrap();
        assert_eq!(ended(&registry, &seen.thumbprint).await, 2, "the slower node's tokens end too");
        assert!(registry.version() > faster);
        swapped.is_kept = true;
        mark(&registry, &swapped, NOW).await.unwrap();
        assert_eq!(ended(&registry, &seen.thumbprint).await, 2);
    }
}
