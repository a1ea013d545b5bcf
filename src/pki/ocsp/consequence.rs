//! What a responder's word means for certificates on record, beyond the next request: their tokens end.
//!
//! Takes what was found revoked, gives changes of the registry: a certificate becomes revoked there, and where it is on hold,
//! or is an intermediate's, the tokens that rest on it end. Doing it twice changes nothing, so every node may.

use std::sync::Arc;

use countersign_resource_server::time::Clock;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::watch::{Consequences, FoundRevoked};
use crate::pki::crl::{end_tokens, revoke};
use crate::pki::revocation::CrlReason;
use crate::registry::certificate::CertificateState;
use crate::registry::{Page, Registry, StoreUnavailable, Thumbprint};

/// Certificates looked at in one query.
const PAGE: u32 = 2_000;

/// Draws the consequences in this registry.
#[derive(Debug)]
pub struct OnRecord {
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
}

impl OnRecord {
    /// In `registry`, at the time of `clock`.
    pub fn new(registry: Arc<Registry>, clock: Arc<dyn Clock>) -> Self {
        Self { registry, clock }
    }

    async fn put(&self, found: &FoundRevoked) -> Result<(), StoreUnavailable> {
        let now = self.clock.now();
        let FoundRevoked { issuer_key, serial, at, reason, .. } = found;
        let since = format!("since {at}, says the responder of issuer key {issuer_key}");
        if found.is_authority {
            let why = format!("the issuer with serial number {serial} is revoked or on hold {since}");
            return end_tokens(&self.registry, self.below(found).await?, &why, now).await;
        }
        // One that is not on record has no tokens.
        let Some(thumbprint) = self.registry.certificate_of(issuer_key, serial).await? else { return Ok(()) };
        match reason {
            // It may be lifted: the certificate stays what it is, and is refused while the hold lasts.
            CrlReason::CertificateHold => {
                end_tokens(&self.registry, vec![thumbprint], &format!("on hold {since}"), now).await
            }
            reason => revoke(&self.registry, &[(thumbprint, (*reason).into())], &format!("revoked {since}"), now).await,
        }
    }

    /// Certificates in date, under the anchor, in whose path this intermediate is.
    async fn below(&self, found: &FoundRevoked) -> Result<Vec<Thumbprint>, StoreUnavailable> {
        let now = self.clock.now();
        let mut below = Vec::new();
        let mut page = Page::first(PAGE);
        loop {
            let certificates = self.registry.certificates_under(&found.anchor, page).await?;
            let Some(last) = certificates.last() else { return Ok(below) };
            page = Page::after(last.thumbprint.to_string(), PAGE);
            let live = certificates.iter().filter(|certificate| {
                !matches!(certificate.state, CertificateState::Revoked { .. }) && now < certificate.expires_at()
            });
            let is_below = |issuers: &[crate::registry::PathIssuer]| {
                issuers.iter().any(|issuer| issuer.issuer_key == found.issuer_key && issuer.serial == found.serial)
            };
            below.extend(
                live.filter(|certificate| is_below(&certificate.issuers)).map(|certificate| certificate.thumbprint),
            );
        }
    }
}

impl Consequences for OnRecord {
    fn draw<'a>(&'a self, found: &'a FoundRevoked) -> BoxFuture<'a, Result<(), StoreUnavailable>> {
        self.put(found).boxed()
    }
}
