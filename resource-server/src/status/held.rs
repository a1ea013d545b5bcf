//! What is held of a list, and what may follow it.
//!
//! Takes the claims of a list that was verified and is in date, and how old they are; gives what is held from then on, and of a
//! token the mark that ends it. It knows nothing of signatures, and does not say how old is too old.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::marks::RevocationListClaims;
use crate::confirmation::ConfirmedToken;
use crate::error::StatusRefusal;
use crate::token::access_token::VerifiedToken;
use crate::token::jws::JwsError;

/// What is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) claims: RevocationListClaims,
    /// Counts the lists that said something new, from 1.
    pub(super) generation: u64,
    pub(super) age: Age,
}

/// How old a list was, and when by the monotonic clock. Not the instant it was signed at: that may lie before the clock's
/// start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Age {
    pub(super) then: Duration,
    pub(super) at: Duration,
}

impl Age {
    pub(super) const fn now(self, monotonic: Duration) -> Duration {
        self.then.saturating_add(monotonic.saturating_sub(self.at))
    }
}

impl Held {
    /// What is held once `next` has come, if it may.
    pub(super) fn followed_by(&self, next: RevocationListClaims, age: Age) -> Result<Self, UnusableList> {
        let held = &self.claims;
        let newer = next.iat > held.iat;
        let forward = match next.epoch.cmp(&held.epoch) {
            std::cmp::Ordering::Equal => next.number >= held.number,
            // A restore or a fail-over may have lost numbers, so a new epoch says only that it comes later.
            std::cmp::Ordering::Greater => newer,
            std::cmp::Ordering::Less => false,
        };
        if !forward {
            return Err(UnusableList::RolledBack);
        }
        // All that a verdict rests on. The number grows with every change of the registry, few of which end a token.
        let says_the_same = (&next.salt, &next.marks) == (&held.salt, &held.marks);
        Ok(Self {
            generation: if says_the_same { self.generation } else { self.generation.saturating_add(1) },
            // Only a later signature proves that the server was there later: the same list again does not.
            age: if newer && age.then < self.age.now(age.at) { age } else { self.age },
            claims: RevocationListClaims { iat: next.iat.max(held.iat), ..next },
        })
    }

    pub(super) fn find_mark(&self, token: &ConfirmedToken) -> Result<(), StatusRefusal> {
        match token.peer() {
            // The verdict depends on the token, the key of the one certificate it is bound to, and the list: so it is
            // noted on the remembered token and holds until a list says something new.
            Some(peer) => {
                let note = &token.token().found_alive_in;
                if note.load(Ordering::Relaxed) != self.generation {
                    self.judge(token.token(), Some(peer.certificate().key_hash()))?;
                    note.store(self.generation, Ordering::Relaxed);
                }
                Ok(())
            }
            None => self.judge(token.token(), None),
        }
    }

    fn judge(&self, token: &VerifiedToken, key_hash: Option<&str>) -> Result<(), StatusRefusal> {
        self.claims.mark_on(token, key_hash).map_or(Ok(()), |kind| Err(StatusRefusal::revoked(kind)))
    }
}

/// Why a revocation list was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableList {
    /// It is past its `exp`.
    #[error("past its exp")]
    Expired,
    /// It is another issuer's.
    #[error("of another issuer")]
    Issuer,
    /// There are no keys yet to verify it with.
    #[error("no keys are held yet")]
    KeysNotHeld,
    /// It is signed with a key that the list held marks as withdrawn.
    #[error("signed with a withdrawn key")]
    KeyWithdrawn,
    /// Its version is before the one held.
    #[error("older than the list held")]
    RolledBack,
    /// It is not signed as a revocation list by a key of the authorization server, or does not say what one says.
    #[error(transparent)]
    Signature(JwsError),
    /// Its `iat` lies in the future.
    #[error("signed in the future")]
    SignedInFuture,
}

#[cfg(test)]
mod tests {
    use countersign_conformance::forge::Token;

    use super::*;
    use crate::double::{Double, KID, NOW, RESOURCE};
    use crate::status::MarkKind;

    const SECOND: Duration = Duration::from_secs(1);

    fn refusal(double: &Double, list: &Token<'_>) -> UnusableList {
        double.guard.revocations().take(&list.compact()).unwrap_err()
    }

    #[test]
    fn a_list_that_ends_no_token_leaves_verdicts_alone() {
        let double = Double::new();
        let generation = || double.guard.revocations().current.load().as_ref().unwrap().generation;
        let before = generation();
        double.take(&double.list().claims(|claims| claims.with("iat", NOW + 1).with("number", 42)));
        assert_eq!((double.guard.revocations().version(), generation()), (Some((1, 42)), before));
        double.take(&double.marking(&[(MarkKind::Client, "client-2", 43)]).claims(|claims| claims.with("number", 43)));
        assert!(generation() > before);
    }

    #[test]
    fn a_verdict_holds_until_a_list_says_something_new() {
        let double = Double::new();
        let token = double.token().compact();
        for _ in 0..3 {
            double.call(&token).unwrap();
        }
        // Signed anew with nothing new, then with a mark.
        double.take(&double.list().claims(|claims| claims.with("iat", NOW + 1)));
        double.call(&token).unwrap();
        double.take(&double.marking(&[(MarkKind::Client, "client-1", 42)]));
        assert_eq!(double.reason(&token), "revoked_client");
        assert_eq!(double.reason(&token), "revoked_client");
        // Forgotten, because it has expired by then, or so the server says.
        double.take(&double.list().claims(|claims| claims.with("iat", NOW + 2).with("number", 43)));
        assert!(double.call(&token).is_ok());
    }

    #[test]
    fn marks_that_change_under_the_same_version_count() {
        let double = Double::new();
        let token = double.token().compact();
        double.call(&token).unwrap();
        let marked = double.marking(&[(MarkKind::Client, "client-1", 42)]).claims(|claims| claims.with("number", 41));
        double.take(&marked);
        assert_eq!(double.reason(&token), "revoked_client");
    }

    #[test]
    fn only_a_later_signature_renews_the_age() {
        let double = Double::new();
        let list = |iat: i64| double.list().claims(|claims| claims.with("iat", iat));
        double.wait(20 * SECOND);
        double.take(&list(NOW)); // the same again: taken, and no younger
        assert_eq!(double.guard.revocations().age(), Some(20 * SECOND));
        double.take(&list(NOW + 20));
        assert_eq!(double.guard.revocations().age(), Some(Duration::ZERO));
        double.wait(5 * SECOND);
        double.take(&list(NOW + 15)); // of another node, whose clock is behind
        assert_eq!(double.guard.revocations().age(), Some(5 * SECOND));
        double.take(&list(NOW + 20));
        assert_eq!(double.guard.revocations().age(), Some(5 * SECOND));
    }

    #[test]
    fn a_stepped_calendar_makes_no_list_younger() {
        let double = Double::new();
        let token = double.token().compact();
        double.wait(31 * SECOND).at(NOW);
        assert_eq!(double.reason(&token), "revocation_list_stale");
    }

    #[test]
    fn versions_never_go_back() {
        let double = Double::new();
        let list = |epoch: i64, number: i64, iat: i64| {
            double.list().claims(|claims| claims.with("epoch", epoch).with("number", number).with("iat", iat))
        };
        assert_eq!(refusal(&double, &list(1, 40, NOW + 1)), UnusableList::RolledBack);
        assert_eq!(refusal(&double, &list(0, 99, NOW + 1)), UnusableList::RolledBack);
        assert_eq!(refusal(&double, &list(2, 1, NOW)), UnusableList::RolledBack); // a new epoch, no later iat
        assert_eq!(refusal(&double, &list(2, 99, NOW - 1)), UnusableList::RolledBack);
        double.take(&list(1, 42, NOW));
        double.take(&list(2, 1, NOW + 1));
        assert_eq!(double.guard.revocations().version(), Some((2, 1)));
        assert_eq!(refusal(&double, &list(1, 100, NOW + 2)), UnusableList::RolledBack);
    }

    #[test]
    fn a_list_that_went_back_takes_no_mark_away() {
        let double = Double::new();
        let token = double.token().compact();
        double.take(&double.marking(&[(MarkKind::Client, "client-1", 42)]));
        assert_eq!(
            refusal(&double, &double.list().claims(|claims| claims.with("iat", NOW + 5))),
            UnusableList::RolledBack
        );
        assert_eq!(double.reason(&token), "revoked_client");
    }

    #[test]
    fn each_kind_of_mark_kills_and_says_so() {
        for (kind, reason) in [
            (MarkKind::Anchor, "revoked_anchor"),
            (MarkKind::Certificate, "revoked_certificate"),
            (MarkKind::Client, "revoked_client"),
            (MarkKind::Entitlement, "revoked_entitlement"),
            (MarkKind::Issuer, "revoked_issuer"),
            (MarkKind::Jti, "revoked_jti"),
            (MarkKind::Key, "revoked_key"),
            (MarkKind::Participant, "revoked_participant"),
            (MarkKind::ResourceServer, "revoked_resource_server"),
            (MarkKind::SigningKey, "revoked_signing_key"),
        ] {
            let double = Double::new();
            let id = match kind {
                MarkKind::Anchor => "anchor-1".to_owned(),
                MarkKind::Certificate => double.credential.thumbprint(),
                MarkKind::Client => "client-1".to_owned(),
                MarkKind::Entitlement => format!("client-1 {RESOURCE}"),
                MarkKind::Issuer => MarkKind::ANY_ISSUER.to_owned(),
                MarkKind::Jti => "jti-1".to_owned(),
                MarkKind::Key => double.peer.key_hash().to_owned(),
                MarkKind::Participant => "participant-1".to_owned(),
                MarkKind::ResourceServer => RESOURCE.to_owned(),
                MarkKind::SigningKey => KID.to_owned(),
            };
            let token = double.token().compact();
            double.call(&token).unwrap(); // remembered, and dead all the same
            double.take(&double.marking(&[(kind, &id, 42)]));
            let refusal = double.call(&token).unwrap_err();
            assert_eq!((refusal.reason(), refusal.code().status()), (reason, 401));
        }
    }

    #[test]
    fn a_mark_concerns_only_what_it_names() {
        let double = Double::new();
        let token = double.token().compact();
        double.take(&double.marking(&[
            (MarkKind::Client, "client-2", 42),
            (MarkKind::Client, "participant-1", 42), // another kind under the same text
            (MarkKind::Participant, "client-1", 42),
            (MarkKind::Entitlement, "client-1 https://other.example", 42),
            (MarkKind::Entitlement, "client-1", 42),
            (MarkKind::Jti, "jti-10", 42),
        ]));
        assert!(double.call(&token).is_ok());
    }

    #[test]
    fn a_mark_concerns_only_earlier_versions() {
        let double = Double::new();
        double.take(&double.marking(&[(MarkKind::Client, "client-1", 42)]));
        let of_version = |version: i64| double.claiming(|claims| claims.with("registry_version", version));
        assert_eq!(double.reason(&of_version(41)), "revoked_client");
        assert!(double.call(&of_version(42)).is_ok());
        assert!(double.call(&of_version(43)).is_ok());
    }

    /// Whoever has stolen the key writes whatever version he likes.
    #[test]
    fn a_mark_of_a_signing_key_concerns_every_version() {
        let double = Double::new();
        double.take(&double.marking(&[(MarkKind::SigningKey, KID, 42)]));
        for version in [41, 42, i64::MAX] {
            let token = double.claiming(|claims| claims.with("registry_version", version));
            assert_eq!(double.reason(&token), "revoked_signing_key", "{version}");
        }
    }
}
