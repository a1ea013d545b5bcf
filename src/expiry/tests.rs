//! Thresholds, successors, ids and pauses, at both edges of each.

use std::collections::BTreeSet;
use std::time::Duration;

use super::notice::{EXPIRED_IS_NEWS_FOR, length};
use super::*;
use crate::registry::Replacement;
use crate::registry::fixture::{NOW, client_id, facts, participant_id};

const DAYS: [u16; 3] = [1, 7, 30];
const MILLISECOND: Duration = Duration::from_millis(1);

/// A leaf that began at `begins_at` and ends now.
fn leaf(begins_at: Option<UnixTime>) -> Expiring {
    Expiring {
        kind: Kind::Leaf,
        id: "leaf".to_owned(),
        subject: "CN=leaf".to_owned(),
        begins_at,
        expires_at: NOW,
        participant: Some(participant_id("acme")),
        contact: None,
        client: Some(client_id("acme-1")),
        last_seen: None,
        successor: None,
        certificates: None,
        webhook: None,
    }
}

fn threshold(expiring: &Expiring, before: Duration) -> Option<Threshold> {
    Threshold::of(expiring, &DAYS, NOW.before(before))
}

#[test]
fn the_closest_threshold_counts_and_its_last_millisecond_too() {
    let leaf = leaf(None);
    for (days, next) in [(1, Some(7)), (7, Some(30)), (30, None)] {
        assert_eq!(threshold(&leaf, length(days)), Some(Threshold::Days(days)));
        assert_eq!(threshold(&leaf, length(days) + MILLISECOND), next.map(Threshold::Days));
    }
    assert_eq!(threshold(&leaf, MILLISECOND), Some(Threshold::Days(1)));
}

#[test]
fn what_has_expired_is_news_for_a_week() {
    let leaf = leaf(None);
    let after = |since| Threshold::of(&leaf, &DAYS, NOW.after(since));
    assert_eq!(after(Duration::ZERO), Some(Threshold::Expired));
    assert_eq!(after(EXPIRED_IS_NEWS_FOR - MILLISECOND), Some(Threshold::Expired));
    assert_eq!(after(EXPIRED_IS_NEWS_FOR), None);
}

#[test]
fn a_threshold_as_long_as_the_life_of_a_certificate_says_nothing() {
    for (life, expected) in [
        (length(7), None),
        (length(7) + MILLISECOND, Some(Threshold::Days(7))),
        (length(1), None),
        (length(400), Some(Threshold::Days(7))),
    ] {
        assert_eq!(threshold(&leaf(Some(NOW.before(life))), length(3)), expected, "{life:?}");
    }
    // That it has expired is said of the shortest life.
    let short = leaf(Some(NOW.before(Duration::from_secs(60))));
    assert_eq!(threshold(&short, Duration::ZERO), Some(Threshold::Expired));
}

#[test]
fn nothing_is_said_of_what_has_expired_with_its_successor_in_use() {
    let thumbprint = facts(2).thumbprint;
    let seen = Expiring { successor: Some(Successor::Seen { thumbprint }), ..leaf(None) };
    assert_eq!(threshold(&seen, MILLISECOND), Some(Threshold::Days(1)));
    assert_eq!(threshold(&seen, Duration::ZERO), None);
    let unseen = Expiring { successor: Some(Successor::Announced { thumbprint, announced_at: None }), ..leaf(None) };
    assert_eq!(threshold(&unseen, Duration::ZERO), Some(Threshold::Expired));
}

#[test]
fn a_revocation_list_has_expired_or_is_no_news() {
    let list = Expiring { kind: Kind::Crl, ..leaf(None) };
    assert_eq!(threshold(&list, MILLISECOND), None);
    assert_eq!(threshold(&list, Duration::ZERO), Some(Threshold::Expired));
}

fn certificate(number: u32, state: CertificateState, first_seen: Option<i64>) -> Certificate {
    Certificate {
        state,
        first_seen: first_seen.map(|seconds| NOW.after(Duration::from_secs(seconds.unsigned_abs()))),
        ..facts(number).announced(client_id("acme-1"), NOW)
    }
}

#[test]
fn the_successor_is_the_one_that_was_announced_for_it() {
    let old = certificate(1, CertificateState::Active, Some(10));
    let replacing = |other: u32, certificate: Certificate| Certificate {
        replaces: Some(Replacement { thumbprint: facts(other).thumbprint, overlap_seconds: 0 }),
        ..certificate
    };
    let announced = |number| certificate(number, CertificateState::Announced, None);
    let active = |number, seen| certificate(number, CertificateState::Active, Some(seen));
    let cases = [
        (vec![], None),
        // In use since before it: another machine's.
        (vec![active(2, 9)], None),
        (vec![active(2, 10)], None),
        (vec![active(2, 11)], Some((2, "seen"))),
        (vec![announced(2)], Some((2, "announced, never seen"))),
        // One that another machine may use does not say that this one's next is installed.
        (vec![active(2, 11), announced(3)], Some((3, "announced, never seen"))),
        (vec![announced(2), replacing(1, announced(3))], Some((3, "announced, never seen"))),
        (vec![announced(2), replacing(1, active(3, 11))], Some((3, "seen"))),
        // Announced for another one.
        (vec![replacing(9, announced(2))], None),
        (vec![replacing(9, announced(2)), active(3, 11)], Some((3, "seen"))),
    ];
    for (later, expected) in cases {
        let found = successor(&old, &later).map(|found| {
            let (Successor::Announced { thumbprint, .. } | Successor::Seen { thumbprint }) = &found;
            (*thumbprint, found.as_str())
        });
        assert_eq!(found, expected.map(|(number, state)| (facts(number).thumbprint, state)), "{later:?}");
    }
}

#[test]
fn a_notice_is_named_by_what_it_is_about_and_by_nothing_else() {
    let due = |expiring: Expiring, now| Notice::due(expiring, &DAYS, now).unwrap().id;
    let own = due(leaf(None), NOW.before(MILLISECOND));
    // By any node, at any time, whatever else has become of it.
    assert_eq!(due(leaf(None), NOW.before(length(1))), own);
    assert_eq!(
        due(Expiring { last_seen: Some(NOW), webhook: Some("x".to_owned()), ..leaf(None) }, NOW.before(MILLISECOND)),
        own
    );
    let others = [
        due(leaf(None), NOW),
        due(leaf(None), NOW.before(length(7))),
        due(Expiring { kind: Kind::Server, ..leaf(None) }, NOW.before(MILLISECOND)),
        due(Expiring { id: "other".to_owned(), ..leaf(None) }, NOW.before(MILLISECOND)),
        due(Expiring { participant: None, ..leaf(None) }, NOW.before(MILLISECOND)),
        due(Expiring { expires_at: NOW.after(MILLISECOND), ..leaf(None) }, NOW.before(MILLISECOND)),
        own,
    ];
    let count = others.len();
    assert_eq!(others.into_iter().collect::<BTreeSet<_>>().len(), count);
}

#[test]
fn pauses_double_to_six_hours_and_end_after_five_days() {
    let notice = Notice::due(leaf(None), &DAYS, NOW).unwrap();
    let minutes = |attempt| notice.next_attempt(attempt, NOW).map(|next| next.since(NOW).as_secs() / 60);
    let pauses: Vec<_> = [i64::MIN, 0, 1, 2, 3, 9, 10, 11, 64, i64::MAX].into_iter().map(minutes).collect();
    assert_eq!(pauses, [1, 1, 1, 2, 4, 256, 360, 360, 360, 360].map(Some));
    let last = NOW.after(Duration::from_secs(5 * 86_400 - 60));
    assert!(notice.next_attempt(1, last.before(MILLISECOND)).is_some());
    assert_eq!(notice.next_attempt(1, last), None);
}

#[test]
fn a_notice_survives_the_store_but_for_where_it_is_pushed() {
    let thumbprint = facts(2).thumbprint;
    let expiring = Expiring {
        successor: Some(Successor::Announced { thumbprint, announced_at: Some(NOW) }),
        webhook: Some("https://acme.example/hook".to_owned()),
        certificates: Some(3),
        ..leaf(Some(NOW.before(length(90))))
    };
    let notice = Notice::due(expiring, &DAYS, NOW.before(MILLISECOND)).unwrap();
    let read: Notice = serde_json::from_str(&serde_json::to_string(&notice).unwrap()).unwrap();
    assert_eq!(read.event(), notice.event());
    let expected = Notice { expiring: Expiring { webhook: None, ..notice.expiring.clone() }, ..notice };
    assert_eq!(read, expected);
}
