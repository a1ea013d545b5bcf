//! What a list means for certificates on record, beyond the next request: their tokens end.
//!
//! Takes each list as it is put in place, gives changes of the registry: certificates that it revokes become revoked there,
//! and where it puts one on hold, or revokes an intermediate, the tokens below end. Doing it twice changes nothing, so every
//! node may. It refuses no request.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::{Clock, UnixTime};
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
        while let Err(error) = mark(&registry, &swapped, clock.now()).await {
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
    let Swapped { list, previous, anchors } = swapped;
    if list.entries.is_empty() {
        return Ok(());
    }
    let is_new = |serial: Serial, on_hold: bool| {
        previous.as_ref().and_then(|previous| previous.find(serial)).is_none_or(|before| {
            // From hold to revoked is new, the other way round is not.
            before.reason == CrlReason::CertificateHold && !on_hold
        })
    };
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
    end_tokens(registry, ended, &format!("on hold by {why}"), now).await?;
    if list.scope.kind == Kind::Users || !list.entries.iter().any(|entry| is_new(entry.serial, false)) {
        return Ok(());
    }
    for anchor in anchors {
        let below = below_revoked(registry, anchor, list, &is_new, now).await?;
        end_tokens(registry, below, &format!("an issuer was revoked by {why}"), now).await?;
    }
    Ok(())
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

/// Ends the tokens of certificates, once for each reason.
async fn end_tokens(
    registry: &Registry,
    certificates: Vec<Thumbprint>,
    why: &str,
    now: UnixTime,
) -> Result<(), StoreUnavailable> {
    let mut left = Vec::new();
    for thumbprint in certificates {
        let subject = RecordKind::Certificate.subject(&thumbprint.to_string());
        let history = registry.history(RegistryVersion(0), Some(subject), 1_000).await?;
        if !history.iter().any(|entry| entry.why.as_deref() == Some(why)) {
            left.push(thumbprint);
        }
    }
    for batch in left.chunks(BATCH) {
        let done = registry.end_tokens(batch.to_vec(), by_server(registry, why, now)).await;
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
