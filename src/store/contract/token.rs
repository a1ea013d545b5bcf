//! Single tokens and signing keys.

use countersign_resource_server::token::claims::StatusReference;

use super::*;
use crate::registry::ParticipantId;
use crate::registry::token::{
    AskedBy, KnownToken, REVOKED_TOKENS, REVOKED_TOKENS_OF_ALL, REVOKED_TOKENS_OF_PARTICIPANT, SigningKeyChange,
    TokenRevocation,
};
use crate::status_list::store::StatusListStore;

contract!(
    a_revoked_token_leaves_a_mark_until_it_has_expired,
    a_token_is_revoked_once,
    a_mark_that_is_over_by_a_wrong_calendar_is_made_again,
    a_mark_without_a_place_gets_the_one_that_a_later_asker_knows,
    of_sixteen_who_revoke_a_token_one_does,
    a_token_of_which_only_the_name_is_known_is_marked_as_long_as_any_may_live,
    a_client_has_so_many_tokens_revoked_and_no_more,
    the_clients_of_a_participant_have_so_many_tokens_revoked,
    all_clients_together_have_so_many_tokens_revoked,
    the_end_of_a_token_touches_no_record,
    a_withdrawn_signing_key_leaves_a_mark,
    a_certificate_is_one_resource_servers,
    a_certificate_or_a_key_that_a_client_has_shown_is_no_resource_servers,
);

fn token(jti: &str, asked_by: AskedBy) -> TokenRevocation {
    TokenRevocation {
        jti: jti.to_owned(),
        token: Some(KnownToken {
            client_id: client_id("acme-1"),
            participant_id: ParticipantId::parse("acme").unwrap(),
            aud: resource_server("api").resource,
            expires_at: NOW.after(Duration::from_secs(300)),
            status_list: None,
        }),
        asked_by,
    }
}

async fn a_revoked_token_leaves_a_mark_until_it_has_expired(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    let version = bench.registry.revoke_token(token("j", AskedBy::Client), because("x")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::Jti, "j").await, Some(version));
    // Its end and a minute: the leeway of those who read it.
    let end = NOW.after(Duration::from_secs(300 + 60));
    assert_eq!(bench.registry.marks(end.before(Duration::from_millis(1))).await.unwrap().marks.len(), 1);
    assert_eq!(bench.registry.marks(end).await.unwrap().marks, []);
    let entries = bench.registry.history(before, Some("token:j".to_owned()), 10).await.unwrap();
    assert_eq!((entries.len(), entries[0].action.as_str()), (1, "token.revoke"));
    let after = entries[0].after.as_ref().unwrap();
    assert_eq!(
        (after["client_id"].as_str(), after["participant_id"].as_str(), after["asked_by"].as_str()),
        (Some("acme-1"), Some("acme"), Some("client"))
    );
}

async fn a_token_is_revoked_once(bench: &Bench) {
    bench.populate().await;
    let version = bench.registry.revoke_token(token("j", AskedBy::Client), because("x")).await.unwrap();
    let again = bench.registry.revoke_token(token("j", AskedBy::Operator), because("x")).await;
    assert!(matches!(again, Err(EditRefusal::StateForbids { kind: RecordKind::Token, .. })), "{again:?}");
    assert_eq!(bench.another().await.version(), version, "what is refused takes no version");
}

/// The command that made it ran where the clock is hours behind.
async fn a_mark_that_is_over_by_a_wrong_calendar_is_made_again(bench: &Bench) {
    bench.populate().await;
    let over = NOW.as_millis() - 1;
    let insert = "INSERT INTO revocation_mark (kind, id, version, forget_after)";
    bench.tamper(&format!("{insert} VALUES ('jti', 'j', 1, {over})")).await;
    let version = bench.registry.revoke_token(token("j", AskedBy::Client), because("x")).await.unwrap();
    let marks = bench.registry.marks(NOW).await.unwrap().marks;
    assert!(marks.iter().any(|mark| mark.id == "j" && mark.version == version), "{marks:?}");
}

async fn a_mark_without_a_place_gets_the_one_that_a_later_asker_knows(bench: &Bench) {
    bench.populate().await;
    let unknown = TokenRevocation { jti: "j".to_owned(), token: None, asked_by: AskedBy::Operator };
    bench.registry.revoke_token(unknown, because("x")).await.unwrap();
    let mut known = token("j", AskedBy::Client);
    let status = StatusReference { idx: 7, uri: "https://as.example/status-lists/L".to_owned() };
    known.token.as_mut().unwrap().status_list = Some(status);
    bench.registry.revoke_token(known.clone(), because("x")).await.unwrap();
    let again = bench.registry.revoke_token(known, because("x")).await;
    assert!(matches!(again, Err(EditRefusal::StateForbids { .. })), "{again:?}");
    let state = bench.store.status_lists(NOW).await.unwrap();
    assert_eq!(state.dead_indexes, [("L".to_owned(), 7)]);
}

async fn of_sixteen_who_revoke_a_token_one_does(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    let revoke = |_| bench.registry.revoke_token(token("j", AskedBy::Client), because("x"));
    let done = join_all((0..16).map(revoke)).await;
    assert_eq!(done.iter().filter(|one| one.is_ok()).count(), 1);
    let refused = done.iter().filter(|one| matches!(one, Err(EditRefusal::StateForbids { .. }))).count();
    assert_eq!(refused, 15, "{done:?}");
    assert_eq!(bench.another().await.version().0, before.0 + 1);
}

async fn a_token_of_which_only_the_name_is_known_is_marked_as_long_as_any_may_live(bench: &Bench) {
    bench.populate().await;
    let revocation = TokenRevocation { jti: "j".to_owned(), token: None, asked_by: AskedBy::Operator };
    bench.registry.revoke_token(revocation, because("x")).await.unwrap();
    let end = NOW.after(crate::store::registry::MARK_LIFETIME);
    assert_eq!(bench.registry.marks(end.before(Duration::from_millis(1))).await.unwrap().marks.len(), 1);
    assert_eq!(bench.registry.marks(end).await.unwrap().marks, []);
}

async fn a_client_has_so_many_tokens_revoked_and_no_more(bench: &Bench) {
    bench.populate().await;
    let end = NOW.after(Duration::from_secs(360)).as_millis();
    let rows: Vec<String> =
        (1..REVOKED_TOKENS).map(|number| format!("('jti', 'j{number}', 1, {end}, 'acme-1')")).collect();
    bench
        .tamper(&format!(
            "INSERT INTO revocation_mark (kind, id, version, forget_after, client_id) VALUES {}",
            rows.join(",")
        ))
        .await;
    let registry = &bench.registry;
    registry.revoke_token(token("the thousandth", AskedBy::Client), because("x")).await.unwrap();
    assert_eq!(registry.revoked_tokens(&client_id("acme-1"), NOW).await.unwrap(), REVOKED_TOKENS);
    assert_eq!(registry.revoked_tokens(&client_id("acme-2"), NOW).await.unwrap(), 0);
    let version = registry.version();
    let refused = registry.revoke_token(token("one more", AskedBy::Client), because("x")).await;
    assert!(matches!(refused, Err(EditRefusal::TokenLimit { .. })), "{refused:?}");
    assert_eq!((bench.mark_of(MarkKind::Jti, "one more").await, registry.version()), (None, version));
    // An operator is not held up by what a client has done; and what has expired does not count.
    registry.revoke_token(token("one more", AskedBy::Operator), because("x")).await.unwrap();
    let later = UnixTime::from_millis(end);
    assert_eq!(registry.revoked_tokens(&client_id("acme-1"), later).await.unwrap(), 0);
    registry.revoke_token(token("later", AskedBy::Client), because_at("x", later)).await.unwrap();
}

/// A partner with a thousand clients takes nothing from any other.
async fn the_clients_of_a_participant_have_so_many_tokens_revoked(bench: &Bench) {
    bench.populate().await;
    bench.registry.add_client(client("acme-2", "acme"), vec![], because("new client")).await.unwrap();
    bench.join("globex", &["globex-1"], "ca").await;
    let (others, end) = (REVOKED_TOKENS_OF_PARTICIPANT - 1, NOW.after(Duration::from_secs(360)).as_millis());
    bench
        .tamper(&format!(
            "WITH RECURSIVE n (v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < {others}) \
             INSERT INTO revocation_mark (kind, id, version, forget_after, client_id) \
             SELECT 'jti', 'j' || v, 1, {end}, 'acme-2' FROM n"
        ))
        .await;
    let registry = &bench.registry;
    registry.revoke_token(token("the last", AskedBy::Client), because("x")).await.unwrap();
    let refused = registry.revoke_token(token("one more", AskedBy::Client), because("x")).await;
    let limit = REVOKED_TOKENS_OF_PARTICIPANT;
    assert!(matches!(&refused, Err(EditRefusal::TokenLimit { limit: met, .. }) if *met == limit), "{refused:?}");
    // Of another participant's clients.
    let mut of_another = token("of another", AskedBy::Client);
    of_another.token.as_mut().unwrap().client_id = client_id("globex-1");
    registry.revoke_token(of_another, because("x")).await.unwrap();
}

/// What a resource server can take in is bounded, and no crowd of clients may fill it.
async fn all_clients_together_have_so_many_tokens_revoked(bench: &Bench) {
    bench.populate().await;
    let (all, end) = (REVOKED_TOKENS_OF_ALL - 1, NOW.after(Duration::from_secs(360)).as_millis());
    bench
        .tamper(&format!(
            "WITH RECURSIVE n (v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < {all}) \
             INSERT INTO revocation_mark (kind, id, version, forget_after, client_id) \
             SELECT 'jti', 'j' || v, 1, {end}, 'c' || (v % 500) FROM n"
        ))
        .await;
    bench.registry.revoke_token(token("the last", AskedBy::Client), because("x")).await.unwrap();
    let refused = bench.registry.revoke_token(token("one more", AskedBy::Client), because("x")).await;
    assert!(matches!(refused, Err(EditRefusal::TokenLimit { limit: REVOKED_TOKENS_OF_ALL, .. })), "{refused:?}");
    bench.registry.revoke_token(token("one more", AskedBy::Operator), because("x")).await.unwrap();
}

async fn the_end_of_a_token_touches_no_record(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.client(&client_id("acme-1")).await.unwrap();
    bench.registry.revoke_token(token("j", AskedBy::Client), because("x")).await.unwrap();
    let after = bench.registry.client(&client_id("acme-1")).await.unwrap();
    assert!(Arc::ptr_eq(&before.record, &after.record), "remembered still");
    assert!(after.version > before.version);
}

async fn a_withdrawn_signing_key_leaves_a_mark(bench: &Bench) {
    bench.populate().await;
    let before = bench.registry.version();
    let rotated =
        SigningKeyChange::Rotated { kid: "k2".to_owned(), alg: "ES256", signs_from: NOW, next: "k3".to_owned() };
    bench.registry.change_signing_keys(vec![rotated], because("x")).await.unwrap();
    assert_eq!(bench.registry.marks(NOW).await.unwrap().marks, []);
    let withdrawn = SigningKeyChange::Withdrawn { kid: "k1".to_owned(), successor: Some("k2".to_owned()) };
    let version = bench.registry.change_signing_keys(vec![withdrawn], because("stolen")).await.unwrap();
    assert_eq!(bench.mark_of(MarkKind::SigningKey, "k1").await, Some(version));
    let entries = bench.registry.history(before, None, 10).await.unwrap();
    let told: Vec<_> = entries.iter().map(|entry| (entry.action.as_str(), entry.subject.as_str())).collect();
    assert_eq!(told, [("signing_key.rotate", "signing_key:k2"), ("signing_key.withdraw", "signing_key:k1")]);
}

async fn a_certificate_is_one_resource_servers(bench: &Bench) {
    bench.populate().await;
    let registry = &bench.registry;
    let (one, next) = (facts(1), facts(2));
    let asker = async |facts: &crate::registry::CertificateFacts| {
        registry
            .asker(&facts.thumbprint, &facts.key_hash)
            .await
            .unwrap()
            .resource_server
            .as_ref()
            .map(|one| one.id.to_string())
    };
    let mut api = resource_server("api");
    api.certificates = vec![one.thumbprint, next.thumbprint];
    registry.change_resource_server(api.clone(), because("both for a while")).await.unwrap();
    assert_eq!((asker(&one).await, asker(&next).await), (Some("api".to_owned()), Some("api".to_owned())));
    assert!(registry.knows(&one.thumbprint, &[]).await.unwrap());

    let mut other = resource_server("other");
    other.certificates = vec![one.thumbprint];
    let refused = registry.add_resource_server(other.clone(), because("another's")).await;
    assert!(matches!(refused, Err(EditRefusal::CertificateTaken)), "{refused:?}");
    let mut twice = api.clone();
    twice.certificates.push(one.thumbprint);
    let refused = registry.change_resource_server(twice, because("twice")).await;
    assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{refused:?}");
    let mut nine = api.clone();
    nine.certificates = (1..=9).map(|number| facts(number).thumbprint).collect();
    let refused = registry.change_resource_server(nine, because("nine")).await;
    assert!(matches!(refused, Err(EditRefusal::Malformed(_))), "{refused:?}");

    // What is taken away is free again, and a retired one has none.
    api.certificates = vec![next.thumbprint];
    registry.change_resource_server(api, because("the old one is gone")).await.unwrap();
    assert_eq!(asker(&one).await, None);
    registry.add_resource_server(other, because("its own now")).await.unwrap();
    assert_eq!(asker(&one).await, Some("other".to_owned()));
    registry.retire_resource_server(resource_server_id("api"), because("over")).await.unwrap();
    assert_eq!(asker(&next).await, None);
    assert!(!registry.knows(&next.thumbprint, &[]).await.unwrap());
}

async fn a_certificate_or_a_key_that_a_client_has_shown_is_no_resource_servers(bench: &Bench) {
    bench.populate().await;
    let registry = &bench.registry;
    let is_a_client =
        async |thumbprint: &Thumbprint, key: &KeyHash| registry.asker(thumbprint, key).await.unwrap().is_a_client;
    let (own, foreign) = (facts(1), facts(2).thumbprint);
    assert!(!is_a_client(&own.thumbprint, &own.key_hash).await);
    // Announced: nobody has shown that he holds the key.
    registry.add_certificate(client_id("acme-1"), own.clone(), because("announced")).await.unwrap();
    assert!(is_a_client(&own.thumbprint, &own.key_hash).await);
    assert!(!is_a_client(&foreign, &own.key_hash).await);
    bench.sighted("acme-1", &sighting(1, "ca"), NOW).await.unwrap();
    assert!(is_a_client(&foreign, &own.key_hash).await);
    // And the other way round: a resource server's is enrolled for no client, not even on first use.
    let mut api = resource_server("api");
    api.certificates = vec![foreign];
    registry.change_resource_server(api, because("its own")).await.unwrap();
    assert_eq!(bench.sighted("acme-1", &sighting(2, "ca"), NOW).await.unwrap_err(), SightingRefusal::CertificateTaken);
    let key = facts(2).key_hash;
    assert!(!registry.asker(&foreign, &key).await.unwrap().key_is_revoked);
    registry.revoke_key(key, because("x")).await.unwrap();
    assert!(registry.asker(&foreign, &key).await.unwrap().key_is_revoked);
}
