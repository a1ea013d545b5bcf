//! Lists that are taken and lists that are not, and calls while the one held grows old.

use countersign_conformance::forge::{Signature, Token};
use countersign_conformance::{Key, KeyKind};

use super::*;
use crate::double::{Double, KID, NOW, RESOURCE};

const SECOND: Duration = Duration::from_secs(1);

fn refusal(double: &Double, list: &Token<'_>) -> UnusableList {
    double.guard.revocations().take(&list.compact()).unwrap_err()
}

#[test]
fn too_old_is_refused_to_the_millisecond() {
    let double = Double::new();
    let token = double.token().compact();
    double.wait(30 * SECOND);
    assert!(double.call(&token).is_ok());
    double.wait(Duration::from_millis(1));
    let refusal = double.call(&token).unwrap_err();
    assert_eq!((refusal.reason(), refusal.code().status()), ("revocation_list_stale", 503));
    assert!(!double.guard.is_ready());
}

fn with_grace(grace: Duration) -> Double {
    let double = Double::new();
    let clock = Arc::clone(&double.clock);
    let builder = crate::Guard::builder(crate::double::ISSUER, RESOURCE).clock(clock);
    let guard = builder.when_stale(WhenStale::AcceptFor(grace)).idle().unwrap();
    guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
    let double = Double { guard, ..double };
    double.take(&double.list());
    double
}

/// The authorization server is gone for ten minutes (issue 5).
#[test]
fn while_the_server_is_gone_the_grace_is_kept_and_not_a_millisecond_more() {
    let double = with_grace(120 * SECOND);
    let (token, dead) = (
        double.claiming(|claims| claims.with("exp", NOW + 3_600)),
        double.claiming(|claims| claims.with("exp", NOW + 3_600).with("client_id", "client-2").with("sub", "client-2")),
    );
    double.take(&double.marking(&[(MarkKind::Client, "client-2", 42)]));
    for second in 0..600 {
        let expected = if second <= 150 { None } else { Some("revocation_list_stale") };
        assert_eq!(double.call(&token).err().map(|refusal| refusal.reason()), expected, "{second}");
        assert_eq!(double.guard.is_ready(), expected.is_none(), "{second}");
        assert_eq!(double.guard.revocations().is_fresh(), second <= 30, "{second}");
        // What is on the list held is dead all along.
        assert_eq!(double.reason(&dead), expected.unwrap_or("revoked_client"), "{second}");
        if second == 150 {
            double.wait(Duration::from_millis(1));
            assert_eq!(double.reason(&token), "revocation_list_stale");
            double.wait(Duration::from_millis(999));
        } else {
            double.wait(SECOND);
        }
    }
    // It is back, and says what happened meanwhile.
    double
        .take(&double.list().claims(|claims| claims.with("iat", NOW + 600).with("exp", NOW + 660).with("number", 43)));
    assert!(double.call(&token).is_ok());
}

#[test]
fn without_any_list_there_is_no_grace() {
    let double = Double::new();
    let builder = crate::Guard::builder(crate::double::ISSUER, RESOURCE).clock(Arc::clone(&double.clock) as _);
    let guard = builder.when_stale(WhenStale::AcceptFor(Duration::MAX)).idle().unwrap();
    guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
    let double = Double { guard, ..double };
    assert_eq!(double.reason(&double.token().compact()), "revocation_list_not_held");
    assert!(!double.guard.is_ready());
}

/// The calendar of one side is an hour off (issue 5): nobody is let through by a list that cannot be dated, the reason is
/// told apart, and with the clock right again the next list is taken.
#[test]
fn clocks_an_hour_apart_are_told_apart_from_silence() {
    let long = |double: &Double| double.claiming(|claims| claims.with("exp", NOW + 7_200));
    let signed =
        |double: &Double, at: i64| double.list().claims(|claims| claims.with("iat", at).with("exp", at + 60)).compact();
    let at_the_server = [(-3_600, UnusableList::Expired), (3_600, UnusableList::SignedInFuture)];
    for (step, why) in at_the_server {
        let double = Double::new();
        let token = long(&double);
        double.wait(31 * SECOND);
        let list = signed(&double, NOW + 31 + step);
        assert_eq!(double.guard.revocations().take(&list), Err(why));
        assert_eq!(double.reason(&token), "revocation_list_of_another_time");
        double.guard.revocations().take(&signed(&double, NOW + 31)).unwrap();
        assert!(double.call(&token).is_ok(), "{step}");
        double.take(
            &double.list().claims(|claims| claims.with("iat", NOW + 31).with("exp", NOW + 91).with("number", 42)),
        );
        // Silence after that is silence, and so is an old copy that somebody sends again.
        double.wait(3_600 * SECOND);
        assert_eq!(double.guard.revocations().take(&signed(&double, NOW + 31)), Err(UnusableList::Expired));
        assert_eq!(double.reason(&token), "revocation_list_stale");
    }
    for (step, why) in [(3_600, UnusableList::Expired), (-3_600, UnusableList::SignedInFuture)] {
        let double = Double::new();
        let token = long(&double);
        double.wait(31 * SECOND).at(NOW + 31 + step);
        assert_eq!(double.guard.revocations().take(&signed(&double, NOW + 31)), Err(why));
        assert!(double.call(&token).is_err(), "{step}");
        double.at(NOW + 31);
        assert_eq!(double.reason(&token), "revocation_list_of_another_time");
        double.guard.revocations().take(&signed(&double, NOW + 31)).unwrap();
        assert!(double.call(&token).is_ok(), "{step}");
    }
}

#[test]
fn a_list_held_back_on_its_way_is_as_old_as_it_says() {
    let double = Double::new();
    double.wait(45 * SECOND);
    // Signed 25 s ago.
    let list = double.list().claims(|claims| claims.with("iat", NOW + 20));
    double.take(&list);
    assert_eq!(double.guard.revocations().age(), Some(25 * SECOND));
    // The same for a guard whose monotonic clock has only just begun.
    let clock = Arc::new(crate::time::ManualClock::at(UnixTime::from_seconds(NOW + 45)));
    let late = crate::Guard::builder("https://as.example", RESOURCE).clock(clock).idle().unwrap();
    late.keys().take(double.jwks(KID).as_bytes()).unwrap();
    late.revocations().take(&list.compact()).unwrap();
    assert_eq!(late.revocations().age(), Some(25 * SECOND));
}

/// The server signs anew every 10 s, and a poll is held for 10 s: with 30 s there is room for clocks that differ by 9.
#[test]
fn held_back_or_not_a_list_is_believed_until_it_is_as_old_as_the_limit() {
    let double = Double::new();
    let token = double.token().compact();
    double.wait(29 * SECOND);
    double.take(&double.list().claims(|claims| claims.with("iat", NOW + 9)));
    double.wait(10 * SECOND);
    assert!(double.call(&token).is_ok(), "30 s after it was signed");
    double.wait(Duration::from_millis(1));
    assert_eq!(double.reason(&token), "revocation_list_stale");
    // One of a server whose clock is behind by nine seconds: the next comes before that one is too old.
    let double = Double::new();
    for round in 1..5 {
        let iat = NOW + 10 * round;
        double.wait(20 * SECOND).at(iat + 9 + 10);
        double.take(&double.list().claims(|claims| claims.with("iat", iat).with("exp", iat + 60)));
        double.wait(10 * SECOND).at(iat + 9 + 20);
        assert!(double.guard.revocations().is_fresh(), "{round}");
    }
}

#[test]
fn no_list_yet() {
    let double = Double::new();
    let fresh = crate::Guard::builder("https://as.example", RESOURCE).idle().unwrap();
    fresh.keys().take(double.jwks(KID).as_bytes()).unwrap();
    let double = Double { guard: fresh, ..double };
    let refusal = double.call(&double.token().compact()).unwrap_err();
    assert_eq!((refusal.reason(), refusal.code().status()), ("revocation_list_not_held", 503));
}

#[test]
fn dates_to_the_second() {
    let double = Double::new();
    let list = double.list().claims(|claims| claims.with("iat", NOW + 1));
    assert_eq!(refusal(double.at(NOW + 70), &list), UnusableList::Expired);
    assert_eq!(refusal(double.at(NOW - 10), &list), UnusableList::SignedInFuture);
    assert!(double.at(NOW - 9).guard.revocations().take(&list.compact()).is_ok());
    assert!(double.at(NOW + 69).guard.revocations().take(&list.compact()).is_ok());
}

#[test]
fn what_is_not_signed_as_a_list_is_not_one() {
    let double = Double::new();
    let signature = UnusableList::Signature;
    assert_eq!(refusal(&double, &double.token()), signature(JwsError::Type));
    for typ in ["JWT", "at+jwt", "countersign-revocations"] {
        let list = double.list().header(|header| header.with("typ", typ));
        assert_eq!(refusal(&double, &list), signature(JwsError::Type), "{typ}");
    }
    let list = double.list().header(|header| header.with("kid", "k2"));
    assert_eq!(refusal(&double, &list), signature(JwsError::KeyUnknown));
    let thief = Key::generate(KeyKind::P256);
    assert_eq!(refusal(&double, &Token { key: &thief, ..double.list() }), signature(JwsError::Signature));
    let unsigned = double.list().signed(Signature::None);
    assert_eq!(double.guard.revocations().take(&unsigned).unwrap_err(), signature(JwsError::Signature));
    assert_eq!(double.guard.revocations().take("garbage").unwrap_err(), signature(JwsError::Framing));
    let long = "A".repeat(MAX_LIST_BYTES + 1);
    assert_eq!(double.guard.revocations().take(&long).unwrap_err(), signature(JwsError::TooLong));
    let list = double.list().claims(|claims| claims.with("iss", "https://other.example"));
    assert_eq!(refusal(&double, &list), UnusableList::Issuer);
    for name in ["iss", "iat", "exp", "epoch", "number", "salt", "marks"] {
        let list = double.list().claims(|claims| claims.without(name));
        assert_eq!(refusal(&double, &list), signature(JwsError::Claims), "{name}");
    }
    for (name, wrong) in
        [("marks", "[]"), ("marks", r#"{"a":"1"}"#), ("number", "1.5"), ("epoch", "\"1\""), ("iat", "1e9")]
    {
        let list = double.list().claims(|claims| claims.with_raw(name, wrong));
        assert_eq!(refusal(&double, &list), signature(JwsError::Claims), "{name} {wrong}");
    }
    let list = double.list().claims(|claims| claims.with_raw("marks", r#"{"a":1,"a":2}"#));
    assert_eq!(refusal(&double, &list), signature(JwsError::Payload));
    assert_eq!(double.guard.revocations().age(), Some(Duration::ZERO));
}

#[test]
fn a_list_is_no_access_token() {
    let double = Double::new();
    assert_eq!(double.reason(&double.list().compact()), "token_type");
}

#[test]
fn a_withdrawn_key_signs_no_list() {
    let double = Double::new();
    double.take(&double.marking(&[(MarkKind::SigningKey, KID, 42)]));
    let forged = double.list().claims(|claims| claims.with("number", 99).with("iat", NOW + 5));
    assert_eq!(refusal(&double, &forged), UnusableList::KeyWithdrawn);
}

/// Two who take one list each, at the same instant, round after round; whether each was taken.
fn at_one_time(list: &HeldList, rounds: &[[String; 2]]) -> Vec<[bool; 2]> {
    let instant = std::sync::Barrier::new(2);
    let [ours, theirs] = std::thread::scope(|scope| {
        let takers = [0, 1].map(|taker| {
            let instant = &instant;
            scope.spawn(move || {
                let take = |round: &[String; 2]| {
                    instant.wait();
                    list.take(&round[taker]).is_ok()
                };
                rounds.iter().map(take).collect::<Vec<_>>()
            })
        });
        takers.map(|taker| taker.join().unwrap())
    });
    ours.into_iter().zip(theirs).map(<[bool; 2]>::from).collect()
}

/// Marks enough that it takes a while to see in what they differ: in the last.
fn many_marks(last: i64) -> serde_json::Value {
    let mut marks: serde_json::Map<_, _> = (0..2_000).map(|n| (format!("a{n:04}"), 1.into())).collect();
    marks.insert("b".to_owned(), last.into());
    marks.into()
}

#[test]
fn lists_that_are_taken_at_one_time_follow_each_other() {
    let double = Double::new();
    let list = double.guard.revocations();
    let of_number = |number: i64| {
        double.list().claims(|claims| claims.with("number", number).with("marks", many_marks(number))).compact()
    };
    let rounds: Vec<_> = (50..100).map(|round| [of_number(2 * round), of_number(2 * round + 1)]).collect();
    let done = AtomicBool::new(false);
    let (taken, seen) = std::thread::scope(|scope| {
        let observer = scope.spawn(|| {
            let (mut seen, mut version) = (std::collections::BTreeMap::new(), None);
            while !done.load(Ordering::Relaxed) {
                let held = list.current.load_full().unwrap();
                let next = Some((held.claims.epoch, held.claims.number));
                assert!(next >= version, "{next:?} after {version:?}");
                version = next;
                let first = seen.entry(held.generation).or_insert_with(|| held.claims.marks.clone());
                assert!(*first == held.claims.marks, "two lists are both of generation {}", held.generation);
            }
            seen
        });
        let taken = at_one_time(list, &rounds);
        done.store(true, Ordering::Relaxed);
        (taken, observer.join().unwrap())
    });
    assert!(!seen.is_empty());
    // Each list that was taken says something new, and the later of each two is always taken.
    let lists = taken.iter().flatten().filter(|taken| **taken).count();
    assert_eq!(list.current.load().as_ref().unwrap().generation, 1 + u64::try_from(lists).unwrap());
    assert!(taken.iter().all(|[_, later]| *later));
    assert_eq!(list.version(), Some((1, 199)));
}

#[test]
fn a_key_that_is_withdrawn_at_the_same_time_does_not_sign_what_follows() {
    let double = Double::new();
    let stolen = Key::generate(KeyKind::P256);
    let mut jwks: serde_json::Value = serde_json::from_str(&double.jwks(KID)).unwrap();
    let mut jwk = stolen.jwk();
    jwk["kid"] = "stolen".into();
    jwks["keys"].as_array_mut().unwrap().push(jwk);
    let withdrawal = MarkHash::of(crate::double::SALT, MarkKind::SigningKey, "stolen");
    let withdrawal = serde_json::to_value(withdrawal).unwrap();
    let listing = |number: i64, marks: serde_json::Value| {
        double.list().claims(|claims| claims.with("number", number).with("marks", marks))
    };
    let mut withdrawn = many_marks(1);
    withdrawn[withdrawal.as_str().unwrap()] = 42.into();
    let withdrawn = listing(42, withdrawn).compact();
    let forged = Token { key: &stolen, ..listing(99, many_marks(2)) };
    let forged = forged.header(|header| header.with("kid", "stolen")).compact();
    let before = listing(41, many_marks(1)).compact();
    for _ in 0..50 {
        let keys = Arc::new(HeldKeys::default());
        keys.take(jwks.to_string().as_bytes()).unwrap();
        let clock = Arc::clone(&double.clock) as Arc<dyn Clock>;
        let list = HeldList::new(crate::double::ISSUER.to_owned(), 30 * SECOND, keys, clock);
        list.take(&before).unwrap();
        let [taken] = at_one_time(&list, &[[withdrawn.clone(), forged.clone()]])[..] else { panic!("no round") };
        assert!(taken != [true, true], "the forged list came first, or not at all");
    }
}

#[test]
fn a_list_longer_than_a_token_is_taken() {
    let double = Double::new();
    let ids: Vec<String> = (0..2_000).map(|id| format!("client-{id}")).collect();
    let marks: Vec<_> = ids.iter().map(|id| (MarkKind::Client, id.as_str(), 42)).collect();
    let list = double.marking(&marks);
    assert!(list.compact().len() > jws::MAX_TOKEN_BYTES);
    double.take(&list);
    assert_eq!(double.reason(&double.token().compact()), "revoked_client");
}

#[test]
fn the_hash_of_a_mark_is_what_the_text_says() {
    // SHA-256("pepper" || "client" || 0x00 || "client-1"), first 16 octets; computed with Python's hashlib.
    let hash = serde_json::to_value(MarkHash::of("pepper", MarkKind::Client, "client-1")).unwrap();
    assert_eq!(hash, "uob8j1rR4UhCWF-mPiG5qA");
}
