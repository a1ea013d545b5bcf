//! What the store keeps of a certificate's life, and of names and keys that two want at the same time.

use super::*;
use crate::registry::Replacement;
use crate::registry::certificate::Certificate;

contract!(
    a_replacement_that_is_seen_ends_the_one_it_replaces,
    a_replacement_without_an_overlap_ends_the_other_ones_tokens,
    a_certificate_of_another_client_is_not_replaced,
    a_certificate_at_the_end_of_its_life_is_not_replaced,
    a_certificate_revoked_meanwhile_stays_revoked_when_its_replacement_is_seen,
    an_end_that_was_set_meanwhile_stays_when_the_replacement_is_seen,
    a_certificate_stays_superseded_when_its_replacement_is_revoked,
    a_replacement_revoked_before_it_was_seen_ends_nothing,
    a_certificate_that_was_never_seen_is_replaced_too,
    a_renewal_leaves_the_others_alone_where_no_policy_says_otherwise,
    a_renewal_ends_the_older_ones_after_the_overlap,
    a_certificate_issued_earlier_renews_nothing,
    a_renewal_seen_twice_at_the_same_time_is_one_change,
    a_proof_for_the_replaced_one_is_older_than_the_replacement,
    a_sighting_without_a_path_knows_no_issuer,
    a_sighting_without_a_path_keeps_the_issuer_that_was_known,
    of_two_who_want_one_name_at_the_same_time_one_gets_it,
    a_grant_and_a_client_at_the_same_time_do_not_share_a_name,
    a_pending_clients_name_is_taken,
    an_anchor_withdrawn_and_granted_again_is_checked_again,
    of_two_who_enrol_one_key_at_the_same_time_one_owns_it,
    certificates_are_found_by_serial_number,
);

const DAY: Duration = Duration::from_secs(86_400);

/// Certificate 1 in use, certificate 2 announced in its place.
async fn announced_beside(bench: &Bench, overlap: Duration) {
    bench.populate().await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    announce(bench, "acme-1", 2, 1, overlap).await.unwrap();
}

async fn announce(
    bench: &Bench,
    id: &str,
    number: u32,
    replaces: u32,
    overlap: Duration,
) -> Result<RegistryVersion, EditRefusal> {
    let replaces = Replacement { thumbprint: facts(replaces).thumbprint, overlap_seconds: overlap.as_secs() };
    bench.registry.announce_replacement(client_id(id), facts(number), replaces, because("renewal")).await
}

async fn certificate(bench: &Bench, number: u32) -> Certificate {
    bench.registry.certificate(&facts(number).thumbprint).await.unwrap().unwrap()
}

async fn state(bench: &Bench, number: u32) -> CertificateState {
    certificate(bench, number).await.state
}

async fn a_replacement_that_is_seen_ends_the_one_it_replaces(bench: &Bench) {
    announced_beside(bench, DAY).await;
    let announced = certificate(bench, 2).await;
    assert_eq!(announced.announced_at, Some(NOW));
    assert_eq!(announced.replaces.unwrap().thumbprint, facts(1).thumbprint);
    assert_eq!(state(bench, 1).await, CertificateState::Active, "nothing happens before it is seen");

    let seen = NOW.after(Duration::from_secs(60));
    let before = bench.registry.version();
    let found = bench.sighted("acme-1", &sighting(2, "ca"), seen).await.unwrap();
    assert_eq!(found.version.0, before.0 + 1, "one transaction");
    let seen_first = certificate(bench, 2).await;
    assert_eq!((seen_first.state, seen_first.first_seen), (CertificateState::Active, Some(seen)));
    assert_eq!((seen_first.announced_at, seen_first.replaces), (Some(NOW), announced.replaces));
    let replaced = found.record.certificate(&facts(1).thumbprint).unwrap();
    assert_eq!(replaced.state, CertificateState::Superseded { at: seen.after(DAY) });
    let entries = bench.registry.history(before, None, 10).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["certificate.activate", "certificate.supersede"]);
    // What is issued until the end of the overlap lives out.
    assert_eq!(bench.mark_of(MarkKind::Certificate, &facts(1).thumbprint.to_string()).await, None);
    // Seen again, by either of them: nothing more happens.
    for number in [1, 2] {
        let again = bench.sighted("acme-1", &sighting(number, "ca"), seen.after(DAY)).await.unwrap();
        assert_eq!(again.version, found.version);
    }
}

async fn a_replacement_without_an_overlap_ends_the_other_ones_tokens(bench: &Bench) {
    announced_beside(bench, Duration::ZERO).await;
    let found = bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap();
    let state = state(bench, 1).await;
    // Over for every clock, as where an operator says so.
    assert!(matches!(state, CertificateState::Superseded { at } if at <= facts(1).not_before), "{state:?}");
    let mark = bench.mark_of(MarkKind::Certificate, &facts(1).thumbprint.to_string()).await;
    assert_eq!(mark, Some(found.version));
}

async fn a_certificate_of_another_client_is_not_replaced(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "ca").await;
    bench.sighted("bolt-1", &sighting(1, "ca"), NOW).await.unwrap();
    let mut sentences = BTreeSet::new();
    // One that is somebody else's, and one that nobody has: the same answer.
    for replaces in [1, 9] {
        let refused = announce(bench, "acme-1", 2, replaces, DAY).await;
        let Err(refusal @ EditRefusal::NothingToReplace { .. }) = refused else { panic!("{refused:?}") };
        sentences.insert(refusal.to_string().replace(&facts(replaces).thumbprint.to_string(), "…"));
    }
    assert_eq!(sentences.len(), 1, "{sentences:?}");
    assert!(bench.registry.certificate(&facts(2).thumbprint).await.unwrap().is_none());
}

async fn a_certificate_at_the_end_of_its_life_is_not_replaced(bench: &Bench) {
    bench.populate().await;
    for number in [1, 2] {
        bench.sighted("acme-1", &sighting(number, "ca"), NOW).await.unwrap();
    }
    revoke(bench, 1, RevocationReason::Superseded).await;
    bench.registry.supersede_certificate(facts(2).thumbprint, NOW.after(DAY), because("x")).await.unwrap();
    for replaces in [1, 2] {
        let refused = announce(bench, "acme-1", 3, replaces, DAY).await;
        assert!(matches!(refused, Err(EditRefusal::StateForbids { .. })), "{refused:?}");
    }
}

async fn a_certificate_revoked_meanwhile_stays_revoked_when_its_replacement_is_seen(bench: &Bench) {
    announced_beside(bench, DAY).await;
    revoke(bench, 1, RevocationReason::Superseded).await;
    bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap();
    assert_eq!(state(bench, 2).await, CertificateState::Active);
    assert_eq!(state(bench, 1).await.as_str(), "revoked");
}

async fn an_end_that_was_set_meanwhile_stays_when_the_replacement_is_seen(bench: &Bench) {
    announced_beside(bench, 30 * DAY).await;
    let end = NOW.after(DAY);
    bench.registry.supersede_certificate(facts(1).thumbprint, end, because("sooner")).await.unwrap();
    bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap();
    assert_eq!(state(bench, 1).await, CertificateState::Superseded { at: end });
}

async fn a_certificate_stays_superseded_when_its_replacement_is_revoked(bench: &Bench) {
    announced_beside(bench, DAY).await;
    bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap();
    revoke(bench, 2, RevocationReason::Superseded).await;
    assert_eq!(state(bench, 1).await, CertificateState::Superseded { at: NOW.after(DAY) });
    // The old one seen again does not come back to life.
    bench.sighted("acme-1", &sighting(1, "ca"), NOW.after(DAY)).await.unwrap();
    assert_eq!(state(bench, 1).await, CertificateState::Superseded { at: NOW.after(DAY) });
}

async fn a_replacement_revoked_before_it_was_seen_ends_nothing(bench: &Bench) {
    announced_beside(bench, DAY).await;
    revoke(bench, 2, RevocationReason::Superseded).await;
    bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap();
    assert_eq!(state(bench, 2).await.as_str(), "revoked");
    assert_eq!(state(bench, 1).await, CertificateState::Active);
}

async fn a_certificate_that_was_never_seen_is_replaced_too(bench: &Bench) {
    announced_beside(bench, DAY).await;
    announce(bench, "acme-1", 3, 2, DAY).await.unwrap();
    bench.sighted("acme-1", &sighting(3, "ca"), NOW).await.unwrap();
    assert_eq!(state(bench, 2).await, CertificateState::Superseded { at: NOW.after(DAY) });
    assert_eq!(state(bench, 1).await, CertificateState::Active, "that was the other one's to replace");
    // It may still be used within its overlap, and then replaces nothing.
    bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap();
    assert_eq!(state(bench, 1).await, CertificateState::Active);
}

/// The client's policy for renewals.
async fn renewing(bench: &Bench, overlap: Option<Duration>) {
    let renewing =
        Client { renewal_overlap_seconds: overlap.map(|overlap| overlap.as_secs()), ..client("acme-1", "acme") };
    bench.registry.change_client(renewing, Vec::new(), because("policy")).await.unwrap();
}

async fn a_renewal_leaves_the_others_alone_where_no_policy_says_otherwise(bench: &Bench) {
    bench.populate().await;
    for number in [1, 2] {
        bench.sighted("acme-1", &sighting(number, "ca"), NOW).await.unwrap();
    }
    assert_eq!(state(bench, 1).await, CertificateState::Active);
}

async fn a_renewal_ends_the_older_ones_after_the_overlap(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &["bolt-1"], "ca").await;
    renewing(bench, Some(DAY)).await;
    for (id, number) in [("acme-1", 1), ("bolt-1", 7)] {
        bench.sighted(id, &sighting(number, "ca"), NOW).await.unwrap();
    }
    bench.registry.add_certificate(client_id("acme-1"), facts(3), because("announced")).await.unwrap();
    let seen = NOW.after(Duration::from_secs(60));
    let before = bench.registry.version();
    let found = bench.sighted("acme-1", &sighting(2, "ca"), seen).await.unwrap();
    assert_eq!(found.version.0, before.0 + 1, "one transaction");
    assert_eq!(state(bench, 1).await, CertificateState::Superseded { at: seen.after(DAY) });
    assert_eq!(state(bench, 2).await, CertificateState::Active);
    assert_eq!(state(bench, 3).await, CertificateState::Announced);
    assert_eq!(state(bench, 7).await, CertificateState::Active, "another client's");
    // The next renewal ends that one, and leaves the end of the first where it was.
    let later = seen.after(Duration::from_secs(3_600));
    bench.sighted("acme-1", &sighting(4, "ca"), later).await.unwrap();
    assert_eq!(state(bench, 1).await, CertificateState::Superseded { at: seen.after(DAY) });
    assert_eq!(state(bench, 2).await, CertificateState::Superseded { at: later.after(DAY) });
    // One that was announced is no renewal by name: it ends what it was announced for, here nothing.
    bench.sighted("acme-1", &sighting(3, "ca"), later).await.unwrap();
    assert_eq!(state(bench, 4).await, CertificateState::Active);
}

async fn a_certificate_issued_earlier_renews_nothing(bench: &Bench) {
    bench.populate().await;
    renewing(bench, Some(DAY)).await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    let moved = |number, by: i64| {
        let not_before = UnixTime::from_millis(facts(1).not_before.as_millis() + by);
        Sighting { not_before, ..sighting(number, "ca") }
    };
    bench.sighted("acme-1", &moved(2, -1000), NOW).await.unwrap();
    assert_eq!(state(bench, 1).await, CertificateState::Active, "an older one does not push out the newer");
    bench.sighted("acme-1", &moved(3, 0), NOW).await.unwrap();
    assert_eq!(state(bench, 1).await, CertificateState::Superseded { at: NOW.after(DAY) });
}

async fn a_renewal_seen_twice_at_the_same_time_is_one_change(bench: &Bench) {
    bench.populate().await;
    renewing(bench, Some(DAY)).await;
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    let other = bench.another().await;
    let before = bench.registry.version();
    let both = [&bench.registry, &other].map(|registry| async {
        let proven = registry.client(&client_id("acme-1")).await.unwrap();
        registry.sighted(&proven, &sighting(2, "ca"), NOW).await.unwrap();
    });
    join_all(both).await;
    assert_eq!(bench.registry.catch_up().await.unwrap().0, before.0 + 1);
    assert_eq!(state(bench, 1).await, CertificateState::Superseded { at: NOW.after(DAY) });
}

async fn a_proof_for_the_replaced_one_is_older_than_the_replacement(bench: &Bench) {
    announced_beside(bench, Duration::ZERO).await;
    // The old one proves itself, and before its decision is on record the next one is seen elsewhere.
    let proven = bench.registry.client(&client_id("acme-1")).await.unwrap();
    bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap();
    let found = bench.registry.sighted(&proven, &sighting(1, "ca"), NOW).await.unwrap();
    assert_eq!(found.version, proven.version, "the fence has it decided again");
    assert!(found.record.rests_on(&Touched::Client(client_id("acme-1"))));
    assert_eq!(found.record.certificate(&facts(1).thumbprint).unwrap().state.as_str(), "superseded");
}

async fn a_sighting_without_a_path_knows_no_issuer(bench: &Bench) {
    bench.populate().await;
    let pathless = |number| Sighting { issuer_key: None, ..sighting(number, "ca") };
    bench.sighted("acme-1", &pathless(1), NOW).await.unwrap();
    assert_eq!(certificate(bench, 1).await.issuer_key, None);
    // The same key and serial number are the same certificate, whether or not the other one's path is known.
    for issuer_key in [None, facts(1).issuer_key] {
        let twin = Sighting { thumbprint: facts(2).thumbprint, issuer_key, ..sighting(1, "ca") };
        let refused = bench.sighted("acme-1", &twin, NOW).await;
        assert_eq!(refused.unwrap_err(), SightingRefusal::SerialTaken);
    }
    // Another key is another certificate; and its issuer is not its own key, so nobody's serial number is in its way.
    let other_key = Sighting { serial: facts(1).serial, ..pathless(3) };
    bench.sighted("acme-1", &other_key, NOW).await.unwrap();
    let issued_by_that_key =
        Sighting { issuer_key: Some(facts(1).key_hash), serial: facts(1).serial, ..sighting(4, "ca") };
    bench.sighted("acme-1", &issued_by_that_key, NOW).await.unwrap();
}

async fn a_sighting_without_a_path_keeps_the_issuer_that_was_known(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_certificate(client_id("acme-1"), facts(1), because("announced")).await.unwrap();
    bench.sighted("acme-1", &Sighting { issuer_key: None, ..sighting(1, "ca") }, NOW).await.unwrap();
    assert_eq!(certificate(bench, 1).await.issuer_key, facts(1).issuer_key);
}

async fn of_two_who_want_one_name_at_the_same_time_one_gets_it(bench: &Bench) {
    bench.join("acme", &[], "ca").await;
    bench.join("bolt", &[], "ca").await;
    let other = bench.another().await;
    for round in 0..8 {
        let wanted = format!("wanted-{round}.example");
        let both = [(&bench.registry, "acme"), (&other, "bolt")].map(|(registry, owner)| {
            let pending = Client {
                authentication: ClientAuthentication::TlsClientAuth { subject: dns(&wanted) },
                state: ClientState::Pending,
                ..client(&format!("{owner}-{round}"), owner)
            };
            registry.add_client(pending, vec![], because("at the same time"))
        });
        let (made, refused): (Vec<_>, Vec<_>) = join_all(both).await.into_iter().partition(Result::is_ok);
        assert_eq!((made.len(), refused.len()), (1, 1));
        assert!(matches!(refused[0], Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
    }
}

async fn a_grant_and_a_client_at_the_same_time_do_not_share_a_name(bench: &Bench) {
    bench.join("acme", &[], "ca").await;
    bench.join("bolt", &["bolt-1"], "other-ca").await;
    let other = bench.another().await;
    let named = Client {
        authentication: ClientAuthentication::TlsClientAuth { subject: dns("bolt-1.example") },
        ..client("acme-1", "acme")
    };
    let grant = other.grant_anchor(participant_id("bolt"), anchor_id("ca"), any_name(), because("share"));
    let add = bench.registry.add_client(named, vec![], because("that name"));
    let (granted, added) = tokio::join!(grant, add);
    assert!(granted.is_ok() != added.is_ok(), "{granted:?} {added:?}");
    for refused in [granted, added].into_iter().filter(Result::is_err) {
        assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
    }
}

async fn a_pending_clients_name_is_taken(bench: &Bench) {
    bench.join("acme", &[], "ca").await;
    bench.join("bolt", &[], "other-ca").await;
    let pending = |id: &str, owner: &str| Client {
        authentication: ClientAuthentication::TlsClientAuth { subject: dns("wanted.example") },
        state: ClientState::Pending,
        ..client(id, owner)
    };
    bench.registry.add_client(pending("acme-1", "acme"), vec![], because("waits")).await.unwrap();
    bench.registry.add_client(pending("bolt-1", "bolt"), vec![], because("other anchor")).await.unwrap();
    // Grant after client …
    let grant = || bench.registry.grant_anchor(participant_id("bolt"), anchor_id("ca"), any_name(), because("share"));
    assert!(matches!(grant().await, Err(EditRefusal::IdentityTaken { .. })));
    // … and client after grant.
    bench.registry.set_client_state(client_id("bolt-1"), ClientState::Retired, because("gone")).await.unwrap();
    grant().await.unwrap();
    let refused = bench.registry.add_client(pending("bolt-2", "bolt"), vec![], because("again")).await;
    assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
}

async fn an_anchor_withdrawn_and_granted_again_is_checked_again(bench: &Bench) {
    bench.populate().await;
    bench.join("bolt", &[], "ca").await;
    let (bolt, ca) = (|| participant_id("bolt"), || anchor_id("ca"));
    bench.registry.withdraw_anchor(bolt(), ca(), because("for a while")).await.unwrap();
    let twin = Client {
        authentication: ClientAuthentication::TlsClientAuth { subject: dns("acme-1.example") },
        ..client("bolt-1", "bolt")
    };
    bench.registry.add_client(twin, vec![], because("under nobody yet")).await.unwrap();
    let refused = bench.registry.grant_anchor(bolt(), ca(), any_name(), because("back")).await;
    assert!(matches!(refused, Err(EditRefusal::IdentityTaken { .. })), "{refused:?}");
}

async fn of_two_who_enrol_one_key_at_the_same_time_one_owns_it(bench: &Bench) {
    bench.join("acme", &[], "ca").await;
    bench.join("bolt", &[], "ca").await;
    let other = bench.another().await;
    let both = [(&bench.registry, "acme"), (&other, "bolt")].map(|(registry, owner)| {
        let mut theirs = anchor("shared-key");
        theirs.owner = AnchorOwner::Participant(participant_id(owner));
        registry.add_anchor(theirs, b"shared".to_vec(), because("ours"))
    });
    let (made, refused): (Vec<_>, Vec<_>) = join_all(both).await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    let [Err(refusal @ EditRefusal::AnchorKeyTaken)] = &refused[..] else { panic!("{refused:?}") };
    let sentence = refusal.to_string();
    assert!(!sentence.contains("acme") && !sentence.contains("bolt"), "{sentence}");
}

async fn certificates_are_found_by_serial_number(bench: &Bench) {
    bench.populate().await;
    let mut same = facts(2);
    same.serial = facts(1).serial;
    same.issuer_key = Some(KeyHash::of(b"another issuer"));
    for facts in [facts(1), same, facts(3)] {
        bench.registry.add_certificate(client_id("acme-1"), facts, because("announced")).await.unwrap();
    }
    let found = bench.registry.certificates_by_serial(facts(1).serial, Page::first(10)).await.unwrap();
    let mut thumbprints: Vec<_> = found.iter().map(|one| one.thumbprint.to_string()).collect();
    thumbprints.sort();
    let mut expected = [1, 2].map(|number| facts(number).thumbprint.to_string());
    expected.sort();
    assert_eq!(thumbprints, expected);
}
