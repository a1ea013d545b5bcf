//! How many requests wait for somebody else?
//!
//! Takes the anchor for whose certificates a responder or a distribution point is asked, gives leave to wait for it until that
//! is dropped, or none: what would be waited for then counts as not come. So an anchor whose responder hangs holds up a few
//! requests of its own and not the node. It knows nothing of who is asked what.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::registry::AnchorId;

/// Requests that wait at one time on behalf of one anchor. Whoever is answered at all is answered in milliseconds, and nobody
/// waits twice for the same: these are hundreds of new certificates a second.
const MOST_OF_ONE_ANCHOR: usize = 64;

/// Who waits, by anchor; nobody is here with none.
#[derive(Debug, Default)]
pub(super) struct Waits {
    of: Arc<Mutex<HashMap<AnchorId, usize>>>,
}

impl Waits {
    /// Leave for one request to wait, if there are not too many already.
    pub(super) fn begin(&self, anchor: &AnchorId) -> Option<Wait> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = of.entry(anchor.clone()).or_default();
        if *waiting >= MOST_OF_ONE_ANCHOR {
            return None;
        }
        *waiting += 1;
        Some(Wait { of: Arc::clone(&self.of), anchor: anchor.clone() })
    }
}

/// Leave for one request to wait.
#[derive(Debug)]
pub(super) struct Wait {
    of: Arc<Mutex<HashMap<AnchorId, usize>>>,
    anchor: AnchorId,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = of.get_mut(&self.anchor) {
            *waiting -= 1;
            if *waiting == 0 {
                of.remove(&self.anchor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use countersign_conformance::pki::Authority;
    use countersign_resource_server::time::UnixTime;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::pki::revocation::{CrlReason, Question, Status, StatusSource, UnknownStatus};
    use crate::pki::scene::{NOW, Scene, now, presented};
    use crate::pki::{PeerRefusal, Verifier};
    use crate::registry::trust_anchor::{NameSpace, NoncePolicy, OcspPolicy, TrustAnchor, Unknown};

    /// Answers only what it is told to remember.
    #[derive(Debug, Default)]
    struct Hanging {
        asked: AtomicUsize,
        remembers: Mutex<Option<Status>>,
    }

    impl StatusSource for Hanging {
        fn status<'a>(&'a self, _: Question<'a>, _: &'a OcspPolicy, _: UnixTime) -> BoxFuture<'a, Status> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            match *self.remembers.lock().unwrap() {
                Some(status) => std::future::ready(status).boxed(),
                None => std::future::pending().boxed(),
            }
        }
    }

    /// Has the status asked for.
    fn with_responder(unreachable: Unknown) -> impl FnOnce(&mut TrustAnchor) {
        move |anchor| {
            anchor.revocation.ocsp = Some(OcspPolicy {
                responder_url: Some("http://ocsp.partner.example/".to_owned()),
                url_prefixes: Vec::new(),
                unknown: Unknown::Refuse,
                unreachable,
                nonce: NoncePolicy::Required,
            });
        }
    }

    fn scene(root: &Authority, unreachable: Unknown) -> Scene {
        let anywhere = NameSpace { any: true, ..NameSpace::default() };
        Scene::new("partner").granting(&root.certificate, with_responder(unreachable), anywhere)
    }

    fn unreachable() -> PeerRefusal {
        PeerRefusal::RevocationUnknown { why: UnknownStatus::Unreachable }
    }

    #[test]
    fn beyond_so_many_of_one_anchor_nobody_waits_for_a_responder_that_hangs() {
        for policy in [Unknown::Refuse, Unknown::Accept] {
            let (root, other) = (Authority::root("root", NOW), Authority::root("other", NOW));
            let source = Arc::new(Hanging::default());
            let verifier = Verifier::new().asking(source.clone());
            // Under an intermediate: a request that waits for the status of two certificates is one that waits.
            let (peer, client) =
                (presented(&root.intermediate("issuing").client("client")), scene(&root, policy).client());
            let verify = || Box::pin(verifier.verify(&peer, &client, now()));
            let mut waiting: Vec<_> = (0..MOST_OF_ONE_ANCHOR).map(|_| verify()).collect();
            assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()), "so many wait");
            let answered = verify().now_or_never().expect("one more is answered at once").map(drop);
            assert_eq!(answered, if policy == Unknown::Accept { Ok(()) } else { Err(unreachable()) });
            assert!(source.asked.load(Ordering::Relaxed) > 2 * MOST_OF_ONE_ANCHOR, "the question was begun");

            let (peer_of_other, client_of_other) = (presented(&other.client("client")), scene(&other, policy).client());
            let mut another = Box::pin(verifier.verify(&peer_of_other, &client_of_other, now()));
            assert!((&mut another).now_or_never().is_none(), "another anchor's may wait");
            drop(another);

            waiting.pop();
            waiting.push(verify());
            assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()), "there is room for one again");
            drop(waiting);
            assert!(verifier.waits.of.lock().unwrap().is_empty(), "nothing is left of them");
        }
    }

    /// Whatever the policy says of silence, what is known counts.
    #[test]
    fn what_is_remembered_counts_however_many_wait() {
        let root = Authority::root("root", NOW);
        let source = Arc::new(Hanging::default());
        let verifier = Verifier::new().asking(source.clone());
        let (peer, client) = (presented(&root.client("client")), scene(&root, Unknown::Accept).client());
        let mut waiting: Vec<_> =
            (0..MOST_OF_ONE_ANCHOR).map(|_| Box::pin(verifier.verify(&peer, &client, now()))).collect();
        assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()));
        let revoked = Status::Revoked { at: now(), reason: CrlReason::KeyCompromise };
        *source.remembers.lock().unwrap() = Some(revoked);
        let refused = verifier.verify_at_once(&peer, &client, now()).map(drop);
        assert_eq!(refused, Err(PeerRefusal::Revoked { at: now() }));
        *source.remembers.lock().unwrap() = Some(Status::Good);
        verifier.verify_at_once(&peer, &client, now()).unwrap();
    }
}
