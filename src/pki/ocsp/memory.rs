//! What is known of one certificate's status, and when it has to be asked again.
//!
//! Takes what exchanges led to, gives what stands at one instant ([`Known::at`]). Every date is judged with the `now` that
//! is given. It asks nobody.

use std::time::Duration;

use countersign_resource_server::time::UnixTime;

use super::answer::Answer;
use super::response::CertStatus;
use crate::pki::revocation::{CrlReason, Status};

/// While a certificate is used, its status is asked again at least this often in the background, however long the last answer
/// says it holds: a revocation is to be seen within one token's usual life.
pub(super) const RENEWED_EVERY: Duration = Duration::from_secs(5 * 60);

/// So long "unknown" and silence are taken for the answer: a dead responder makes a client wait once, not on every request.
pub(super) const BRIEFLY: Duration = Duration::from_secs(10);

/// What is known of one certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    answer: Option<Answer>,
    /// When the last exchange that led anywhere was begun.
    answered_at: Option<UnixTime>,
    /// When the last one was begun that led nowhere, if no answer has come since.
    failed_at: Option<UnixTime>,
}

/// What stands at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing: whoever wants to know has to wait for an answer.
    Nothing,
    /// This does.
    Stands {
        status: Status,
        /// Whether it should be asked again meanwhile.
        is_due: bool,
    },
}

impl Known {
    /// What stands at `now`.
    pub(super) fn at(&self, now: UnixTime) -> Standing {
        let stands = |status, is_due| Standing::Stands { status, is_due };
        match self.answer {
            // Taken back for good: no later silence, and no other word, brings it back.
            Some(Answer { status: CertStatus::Revoked { at, reason }, .. }) if reason != CrlReason::CertificateHold => {
                return stands(Status::Revoked { at, reason }, false);
            }
            // On hold until its issuer says otherwise. An answer past its time does not lift it, nor does silence.
            Some(Answer { status: CertStatus::Revoked { at, reason }, .. }) => {
                return stands(Status::Revoked { at, reason }, self.is_due(now));
            }
            Some(Answer { status: CertStatus::Good, until, .. }) if now < until && self.was_answered_before(now) => {
                return stands(Status::Good, self.is_due(now));
            }
            Some(Answer { status: CertStatus::Unknown, until, .. })
                if now < until && is_within(self.answered_at, BRIEFLY, now) =>
            {
                return stands(Status::Unknown, false);
            }
            Some(_) | None => {}
        }
        match self.failed_at {
            failed if is_within(failed, BRIEFLY, now) => stands(Status::Unreachable, false),
            _ => Standing::Nothing,
        }
    }

    /// Takes in where an exchange led that was begun at `now`. Gives whether it changed what is known: an answer that is older
    /// than the one that is held, or takes back what is for good, is none.
    pub(super) fn take(&mut self, answer: Option<Answer>, now: UnixTime) -> bool {
        match answer.filter(|answer| self.gives_way_to(answer)) {
            Some(answer) => *self = Self { answer: Some(answer), answered_at: Some(now), failed_at: None },
            None => {
                self.failed_at = Some(now);
                return false;
            }
        }
        true
    }

    /// The revocation that is known, if one is.
    pub(super) const fn revocation(&self) -> Option<(UnixTime, CrlReason)> {
        match self.answer {
            Some(Answer { status: CertStatus::Revoked { at, reason }, .. }) => Some((at, reason)),
            Some(_) | None => None,
        }
    }

    /// Whether `next` may take the place of what is held. Whoever can replay an old answer must not be able to undo a new one.
    fn gives_way_to(&self, next: &Answer) -> bool {
        match self.answer {
            None => true,
            Some(Answer { status: CertStatus::Revoked { reason, .. }, .. }) if reason != CrlReason::CertificateHold => {
                false
            }
            // Revoked counts whenever it was said.
            Some(Answer { status: CertStatus::Good, this_update, .. }) => {
                matches!(next.status, CertStatus::Revoked { .. }) || next.this_update >= this_update
            }
            Some(Answer { status: CertStatus::Revoked { .. }, this_update, .. }) => match next.status {
                CertStatus::Revoked { .. } => true,
                CertStatus::Good => next.this_update > this_update,
                CertStatus::Unknown => false,
            },
            Some(Answer { status: CertStatus::Unknown, .. }) => true,
        }
    }

    /// An answer that was got after `now` is not one for `now`: the calendar was set back.
    fn was_answered_before(&self, now: UnixTime) -> bool {
        self.answered_at.is_some_and(|at| at <= now)
    }

    fn is_due(&self, now: UnixTime) -> bool {
        let Some((answer, answered_at)) = self.answer.zip(self.answered_at) else { return true };
        // Half its time is left for a responder that is down for a while.
        let every = (answer.until.since(answered_at) / 2).min(RENEWED_EVERY);
        now >= answered_at.after(every) && !is_within(self.failed_at, BRIEFLY, now)
    }
}

/// Whether `now` is less than `duration` after `begin`.
fn is_within(begin: Option<UnixTime>, duration: Duration, now: UnixTime) -> bool {
    begin.is_some_and(|begin| begin <= now && now < begin.after(duration))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::scene::NOW;

    const fn second(seconds: i64) -> UnixTime {
        UnixTime::from_seconds(NOW + seconds)
    }

    /// Said at `this_update`, to count until `until`.
    const fn said(status: CertStatus, this_update: i64, until: i64) -> Option<Answer> {
        Some(Answer { status, this_update: second(this_update), until: second(until) })
    }

    const fn revoked(reason: CrlReason) -> CertStatus {
        CertStatus::Revoked { at: second(-100), reason }
    }

    const fn stands(status: Status, is_due: bool) -> Standing {
        Standing::Stands { status, is_due }
    }

    const HELD: Standing = stands(Status::Revoked { at: second(-100), reason: CrlReason::CertificateHold }, false);
    const TAKEN_BACK: Standing = stands(Status::Revoked { at: second(-100), reason: CrlReason::KeyCompromise }, false);

    #[test]
    fn good_counts_until_its_end_and_is_renewed_every_five_minutes() {
        let mut known = Known::default();
        assert_eq!(known.at(second(0)), Standing::Nothing);
        assert!(known.take(said(CertStatus::Good, -60, 3_600), second(0)));
        assert_eq!(known.at(second(0)), stands(Status::Good, false));
        assert_eq!(known.at(second(299)), stands(Status::Good, false));
        assert_eq!(known.at(second(300)), stands(Status::Good, true));
        assert_eq!(known.at(second(3_599)), stands(Status::Good, true));
        assert_eq!(known.at(second(3_600)), Standing::Nothing);
    }

    #[test]
    fn a_short_answer_is_renewed_at_half_its_time() {
        let mut known = Known::default();
        known.take(said(CertStatus::Good, 0, 60), second(0));
        assert_eq!(known.at(second(29)), stands(Status::Good, false));
        assert_eq!(known.at(second(30)), stands(Status::Good, true));
    }

    #[test]
    fn an_answer_from_after_now_is_not_for_now() {
        let mut known = Known::default();
        known.take(said(CertStatus::Good, 0, 3_600), second(10));
        assert_eq!(known.at(second(9)), Standing::Nothing);
        known.take(None, second(10));
        assert_eq!(known.at(second(9)), Standing::Nothing);
    }

    #[test]
    fn unknown_and_silence_stand_for_ten_seconds() {
        let mut known = Known::default();
        assert!(!known.take(None, second(0)));
        assert_eq!(known.at(second(9)), stands(Status::Unreachable, false));
        assert_eq!(known.at(second(10)), Standing::Nothing);
        known.take(said(CertStatus::Unknown, 0, 3_600), second(20));
        assert_eq!(known.at(second(29)), stands(Status::Unknown, false));
        assert_eq!(known.at(second(30)), Standing::Nothing);
    }

    #[test]
    fn silence_leaves_a_good_answer_good_to_its_end() {
        let mut known = Known::default();
        known.take(said(CertStatus::Good, -60, 3_600), second(0));
        assert!(!known.take(None, second(300)));
        assert_eq!(known.at(second(309)), stands(Status::Good, false), "not asked again at once");
        assert_eq!(known.at(second(310)), stands(Status::Good, true));
        assert!(!known.take(None, second(3_595)));
        assert_eq!(known.at(second(3_600)), stands(Status::Unreachable, false));
        assert_eq!(known.at(second(3_605)), Standing::Nothing);
    }

    #[test]
    fn revoked_stays_whatever_comes() {
        let mut known = Known::default();
        assert!(known.take(said(CertStatus::Good, -60, 3_600), second(0)));
        assert!(known.take(said(revoked(CrlReason::KeyCompromise), -90, 3_600), second(1)), "also when said earlier");
        assert_eq!(known.at(second(1)), TAKEN_BACK);
        assert!(!known.take(said(CertStatus::Good, 60, 7_200), second(100)));
        assert!(!known.take(said(CertStatus::Unknown, 60, 7_200), second(100)));
        assert!(!known.take(None, second(100)));
        assert_eq!(known.at(second(1_000_000)), TAKEN_BACK);
    }

    #[test]
    fn a_hold_is_lifted_by_a_newer_word_alone() {
        let mut known = Known::default();
        known.take(said(revoked(CrlReason::CertificateHold), -60, 3_600), second(0));
        assert_eq!(known.at(second(0)), HELD);
        let due = stands(Status::Revoked { at: second(-100), reason: CrlReason::CertificateHold }, true);
        assert_eq!(known.at(second(300)), due);
        assert_eq!(known.at(second(3_600)), due, "its end lifts nothing");
        assert!(!known.take(None, second(3_600)));
        assert_eq!(known.at(second(3_600)), HELD, "nor does silence");
        assert!(!known.take(said(CertStatus::Unknown, 3_600, 7_200), second(3_700)), "nor that nobody knows");
        assert!(!known.take(said(CertStatus::Good, -60, 7_200), second(3_700)), "nor what was said before");
        assert!(known.take(said(CertStatus::Good, -59, 7_200), second(3_700)));
        assert_eq!(known.at(second(3_700)), stands(Status::Good, false));
    }

    #[test]
    fn an_older_answer_does_not_replace_a_newer_one() {
        let mut known = Known::default();
        known.take(said(CertStatus::Good, 0, 3_600), second(0));
        assert!(!known.take(said(CertStatus::Good, -1, 7_200), second(300)));
        assert!(!known.take(said(CertStatus::Unknown, -1, 7_200), second(300)));
        assert!(known.take(said(CertStatus::Good, 0, 7_200), second(310)), "the same one again");
        assert!(known.take(said(CertStatus::Unknown, 1, 7_200), second(320)));
        assert_eq!(known.at(second(320)), stands(Status::Unknown, false));
    }
}
