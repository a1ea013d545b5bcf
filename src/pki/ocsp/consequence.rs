//! What a responder's word means for certificates on record, beyond the next request: their tokens end.
//!
//! Takes what was found revoked, gives changes of the registry: a certificate becomes revoked there, and where it is on hold,
//! or is an intermediate's, the tokens that rest on it end. Every node does so when it finds out: until then it may have
//! issued tokens that the mark of a faster one does not reach.

use std::sync::Arc;

use countersign_resource_server::time::Clock;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::watch::{Consequences, FoundRevoked};
use crate::pki::crl::revoke;
use crate::pki::revocation::CrlReason;
use crate::registry::certificate::CertificateState;
use crate::registry::edit::EditRefusal;
use crate::registry::history::{Actor, Explanation};
use crate::registry::{Page, PathIssuer, Registry, StoreUnavailable, Thumbprint};

/// Certificates looked at in one query.
const PAGE: u32 = 2_000;

/// Certificates changed in one transaction: others wait to write meanwhile.
const BATCH: usize = 100;

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
            return self.end_tokens(&self.below(found).await?, &why).await;
        }
        // One that is not on record has no tokens.
        let Some(thumbprint) = self.registry.certificate_of(issuer_key, serial).await? else { return Ok(()) };
        match reason {
            // It may be lifted: the certificate stays what it is, and is refused while the hold lasts.
            CrlReason::CertificateHold => self.end_tokens(&[thumbprint], &format!("on hold {since}")).await,
            reason => revoke(&self.registry, &[(thumbprint, (*reason).into())], &format!("revoked {since}"), now).await,
        }
    }

    async fn end_tokens(&self, certificates: &[Thumbprint], why: &str) -> Result<(), StoreUnavailable> {
        for batch in certificates.chunks(BATCH) {
            let actor = Actor::Server { node: self.registry.node().to_owned() };
            let explanation = Explanation { actor, at: self.clock.now(), why: Some(why.to_owned()) };
            match self.registry.end_tokens(batch.to_vec(), explanation).await {
                Err(EditRefusal::Unavailable(error)) => return Err(error),
                Err(refusal) => tracing::debug!(%refusal, "no tokens to end"),
                Ok(_) => {}
            }
        }
        Ok(())
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
            let is_below = |issuers: &[PathIssuer]| {
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
