//! Which key signs when, and who publishes it until when.

use std::collections::{HashMap, HashSet, VecDeque};

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::mint::fixture::{MemoryKeys, NOW};

const ES256: SigningAlgorithm = SigningAlgorithm::ES256;

/// Keys in memory answer at once.
fn done<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().unwrap()
}

fn keys(store: &MemoryKeys) -> SigningKeys {
    done(KeyRing::read(store)).unwrap()
}

fn kids(keys: &SigningKeys, now: UnixTime) -> HashSet<String> {
    keys.published(now).map(|key| key.record.kid.clone()).collect()
}

fn signing(store: &MemoryKeys, now: UnixTime) -> String {
    keys(store).signing(ES256, now).unwrap().kid().to_string()
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

#[test]
fn the_first_key_signs_at_once_and_the_next_is_published() {
    let store = MemoryKeys::begun();
    let keys = keys(&store);
    assert_eq!(keys.all().len(), 2 * ALGORITHMS.len());
    for algorithm in ALGORITHMS {
        assert_eq!(keys.signing(algorithm, NOW).unwrap().algorithm(), algorithm);
        assert!(keys.next(algorithm, NOW).is_some());
    }
    assert_eq!(done(complete(&*store, NOW.after(minutes(60)))).unwrap(), [], "nothing is missing the second time");
}

#[test]
fn a_calendar_before_the_first_key_does_not_stop_the_mint() {
    assert!(keys(&MemoryKeys::begun_with(ES256)).signing(ES256, NOW.before(minutes(600))).is_some());
}

#[test]
fn a_rotation_waits_until_the_next_key_has_been_published_for_ten_minutes() {
    let store = MemoryKeys::begun_with(ES256);
    let before = signing(&store, NOW);
    let rotation = done(rotate(&*store, &[ES256], When::OncePublished, NOW.after(minutes(1)))).unwrap().remove(0);
    assert_eq!(rotation.signs_from, NOW.after(minutes(10)));
    assert_eq!(signing(&store, UnixTime::from_millis(rotation.signs_from.as_millis() - 1)), before);
    assert_eq!(signing(&store, rotation.signs_from), rotation.kid);
    let published = kids(&keys(&store), rotation.signs_from);
    assert!(published.contains(&before) && published.contains(&rotation.next));
}

#[test]
fn a_rotation_now_is_refused_a_millisecond_too_early() {
    let store = MemoryKeys::begun_with(ES256);
    let allowed = NOW.after(PUBLISHED_BEFORE_SIGNING);
    let early = UnixTime::from_millis(allowed.as_millis() - 1);
    let before = keys(&store).all().len();
    let refused = done(rotate(&*store, &[ES256], When::Now, early)).unwrap_err();
    assert!(matches!(refused, KeyRingError::NotPublishedLongEnough { from, .. } if from == allowed), "{refused}");
    assert_eq!(keys(&store).all().len(), before, "and nothing is changed");
    let rotation = done(rotate(&*store, &[ES256], When::Now, allowed)).unwrap().remove(0);
    assert_eq!((rotation.signs_from, signing(&store, allowed)), (allowed, rotation.kid));
}

#[test]
fn a_key_that_is_scheduled_is_the_next_one_whatever_the_calendar_said() {
    let store = MemoryKeys::begun_with(ES256);
    let first = done(rotate(&*store, &[ES256], When::OncePublished, NOW)).unwrap().remove(0);
    // Stepped back: the key made by that rotation looks older than the one it scheduled.
    let mut made = keys(&store).find(&first.next).unwrap().record.clone();
    made.created_at = NOW.before(Duration::from_secs(3_600));
    store.set(made);
    let again = done(rotate(&*store, &[ES256], When::OncePublished, NOW)).unwrap_err();
    assert_eq!(again, KeyRingError::AlreadyScheduled { kid: first.kid, from: first.signs_from });
}

#[test]
fn a_second_rotation_while_one_is_scheduled_changes_nothing() {
    let store = MemoryKeys::begun_with(ES256);
    let rotation = done(rotate(&*store, &[ES256], When::OncePublished, NOW)).unwrap().remove(0);
    let refused = done(rotate(&*store, &[ES256], When::OncePublished, NOW)).unwrap_err();
    assert_eq!(refused, KeyRingError::AlreadyScheduled { kid: rotation.kid, from: rotation.signs_from });
}

#[test]
fn a_key_leaves_when_the_last_token_it_signed_has_expired_and_not_before() {
    let store = MemoryKeys::begun_with(ES256);
    let before = signing(&store, NOW);
    let from = NOW.after(minutes(10));
    done(rotate(&*store, &[ES256], When::Now, from)).unwrap();
    let gone = from.after(PUBLISHED_AFTER_SIGNING);
    assert!(kids(&keys(&store), UnixTime::from_millis(gone.as_millis() - 1)).contains(&before));
    assert!(!kids(&keys(&store), gone).contains(&before));
    let expired = from.after(LONGEST_LIFETIME).after(Duration::from_secs(10));
    assert!(expired < gone);
}

#[test]
fn a_withdrawn_key_neither_signs_nor_is_published_and_the_next_takes_over() {
    let store = MemoryKeys::begun_with(ES256);
    let (before, next) = (signing(&store, NOW), keys(&store).next(ES256, NOW).unwrap().record.kid.clone());
    let retirement = done(retire(&*store, &before, NOW)).unwrap();
    assert_eq!(retirement, Retirement { kid: before.clone(), successor: Some(next.clone()) });
    let later = NOW.after(Duration::from_secs(1));
    assert_eq!(signing(&store, later), next);
    assert!(!kids(&keys(&store), later).contains(&before));
    assert!(keys(&store).next(ES256, later).is_some(), "there is a next again");
    assert_eq!(
        done(retire(&*store, &before, later)).unwrap_err(),
        KeyRingError::AlreadyRetired { kid: before, at: NOW }
    );
}

#[test]
fn a_withdrawn_next_key_is_replaced() {
    let store = MemoryKeys::begun_with(ES256);
    let next = keys(&store).next(ES256, NOW).unwrap().record.kid.clone();
    let before = signing(&store, NOW);
    assert_eq!(done(retire(&*store, &next, NOW)).unwrap().successor, None);
    assert_eq!(signing(&store, NOW.after(minutes(60))), before);
    assert_ne!(keys(&store).next(ES256, NOW).unwrap().record.kid, next);
}

#[test]
fn a_withdrawn_key_has_no_predecessor_as_its_stand_in() {
    let store = MemoryKeys::begun_with(ES256);
    let from = NOW.after(minutes(10));
    let second = done(rotate(&*store, &[ES256], When::Now, from)).unwrap().remove(0).kid;
    let mut record = keys(&store).find(&second).unwrap().record.clone();
    record.retired_at = Some(from.after(minutes(1)));
    store.set(record);
    assert!(keys(&store).signing(ES256, from.after(minutes(2))).is_none());
}

#[test]
fn a_scheduled_key_that_is_withdrawn_never_has_its_time() {
    let store = MemoryKeys::begun_with(ES256);
    let before = signing(&store, NOW);
    let first = done(rotate(&*store, &[ES256], When::OncePublished, NOW.after(minutes(1)))).unwrap().remove(0);
    assert_eq!(done(retire(&*store, &first.kid, NOW.after(minutes(2)))).unwrap().successor, None);
    assert_eq!(signing(&store, NOW.after(minutes(11))), before);
    let published = kids(&keys(&store), NOW.after(minutes(120)));
    assert!(published.contains(&before) && !published.contains(&first.kid), "it did not take over, and nothing ended");
    // And the next rotation is as any other.
    let second = done(rotate(&*store, &[ES256], When::OncePublished, NOW.after(minutes(12)))).unwrap().remove(0);
    assert_eq!(second.kid, first.next);
    assert_eq!(signing(&store, second.signs_from), second.kid);
}

/// Of every minute around the one in which a key takes over, by the clock of a node that is right.
fn withdrawn_around_a_rotation(withdrawn: fn(&Rotation, String) -> String, ahead: i64) {
    let from = NOW.after(minutes(10));
    for seconds in (-150..150).step_by(10) {
        let store = MemoryKeys::begun_with(ES256);
        let before = signing(&store, NOW);
        let rotation = done(rotate(&*store, &[ES256], When::OncePublished, NOW)).unwrap().remove(0);
        let kid = withdrawn(&rotation, before);
        let at = UnixTime::from_millis(from.as_millis() + seconds * 1_000);
        done(retire(&*store, &kid, UnixTime::from_millis(at.as_millis() + ahead * 1_000))).unwrap();
        let keys = keys(&store);
        for after in (0..300_000).step_by(500).chain([1, 59_999, 60_001]) {
            let now = UnixTime::from_millis(at.as_millis() + after);
            let signer = keys.signing(ES256, now);
            let signer = signer.unwrap_or_else(|| panic!("{seconds} s: nothing signs {after} ms later"));
            assert_ne!(**signer.kid(), *kid);
            assert!(kids(&keys, now).contains(&**signer.kid()), "{seconds} s: it signs unpublished");
        }
    }
}

#[test]
fn withdrawn_by_a_host_that_is_a_minute_ahead_a_key_leaves_no_gap() {
    withdrawn_around_a_rotation(|_, before| before, 60);
    withdrawn_around_a_rotation(|rotation, _| rotation.kid.clone(), 60);
}

#[test]
fn withdrawn_by_a_host_that_is_a_minute_behind_a_key_leaves_no_gap() {
    withdrawn_around_a_rotation(|_, before| before, -60);
    withdrawn_around_a_rotation(|rotation, _| rotation.kid.clone(), -60);
}

#[test]
fn a_key_that_was_withdrawn_without_a_successor_gets_one_when_it_is_withdrawn_again() {
    let store = MemoryKeys::begun_with(ES256);
    let before = signing(&store, NOW);
    let at = NOW.after(minutes(1));
    let record = keys(&store).find(&before).unwrap().record.clone();
    store.set(KeyRecord { retired_at: Some(at), ..record });
    assert!(keys(&store).signing(ES256, at).is_none());
    let later = NOW.after(minutes(2));
    let retirement = done(retire(&*store, &before, later)).unwrap();
    assert_eq!(retirement.successor, Some(signing(&store, later)));
    let again = done(retire(&*store, &before, later)).unwrap_err();
    assert_eq!(again, KeyRingError::AlreadyRetired { kid: before, at });
}

#[test]
fn withdrawn_while_no_rotation_is_near_a_key_leaves_no_gap_whatever_the_clock_of_who_does_it() {
    for ahead in [-60, -1, 0, 1, 60] {
        let store = MemoryKeys::begun_with(ES256);
        let (before, at) = (signing(&store, NOW), NOW.after(minutes(60)));
        let retirement = done(retire(&*store, &before, UnixTime::from_millis(at.as_millis() + ahead * 1_000))).unwrap();
        assert_eq!(Some(signing(&store, at)), retirement.successor, "{ahead} s ahead");
    }
}

#[test]
fn published_keys_are_made_again_only_when_they_change() {
    let store = MemoryKeys::begun();
    let ring = done(KeyRing::open(Arc::clone(&store) as Arc<dyn KeyStore>, NOW)).unwrap();
    let first = ring.published(NOW);
    assert!(Arc::ptr_eq(&first, &ring.published(NOW.after(minutes(60)))));
    let from = NOW.after(minutes(10));
    done(rotate(&*store, &[ES256], When::Now, from)).unwrap();
    assert!(Arc::ptr_eq(&first, &ring.published(from)), "not noticed yet");
    assert!(done(ring.reload()).unwrap());
    assert!(!done(ring.reload()).unwrap());
    let second = ring.published(from);
    assert_ne!(first.etag, second.etag);
    // Nothing is read; the instant alone lets the old key go.
    let third = ring.published(from.after(PUBLISHED_AFTER_SIGNING));
    assert_ne!((second.etag.clone(), second.body.len()), (third.etag.clone(), third.body.len()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is rotated when: a resource server whose keys are two minutes old (`max-age`, and a fetch that
    /// failed) knows the key of every token that has not expired.
    #[test]
    fn no_good_token_is_refused_at_any_instant(steps in prop::collection::vec((1..40_u64, any::<bool>()), 1..25)) {
        let store = MemoryKeys::begun_with(ES256);
        let mut current = keys(&store);
        let mut now = NOW;
        // What was fetched in the last three minutes, oldest first; and when each key last signed.
        let mut fetched: VecDeque<HashSet<String>> = (0..3).map(|_| kids(&current, NOW)).collect();
        let mut signed: HashMap<String, UnixTime> = HashMap::new();
        for (wait, at_once) in steps {
            for _ in 0..wait {
                now = now.after(minutes(1));
                fetched.push_back(kids(&current, now));
                fetched.pop_front();
                signed.insert(current.signing(ES256, now).unwrap().kid().to_string(), now);
                for (kid, at) in &signed {
                    // The longest life, and the leeway of whoever checks it.
                    if now <= at.after(LONGEST_LIFETIME).after(Duration::from_secs(10)) {
                        prop_assert!(fetched.iter().all(|known| known.contains(kid)), "a good token is refused");
                    }
                }
            }
            let when = if at_once { When::Now } else { When::OncePublished };
            match done(rotate(&*store, &[ES256], when, now)) {
                Ok(_) => current = keys(&store),
                Err(KeyRingError::AlreadyScheduled { .. } | KeyRingError::NotPublishedLongEnough { .. }) => {}
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
    }
}
