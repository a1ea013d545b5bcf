//! Token Status Lists (draft-ietf-oauth-status-list-20), read by a validator that shares nothing with the server: from a
//! token to its list to its status.

use std::collections::HashSet;
use std::io::Read as _;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::registry::certificate::RevocationReason;
use countersign::registry::client::ClientState;
use countersign::registry::edit::CertificateSelector;
use countersign::registry::participant::ParticipantState;
use countersign::registry::resource_server::{ResourceServer, StatusClaim};
use countersign::registry::{ClientId, EntitlementId, ParticipantId, ResourceServerId};
use flate2::read::{GzDecoder, ZlibDecoder};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use tokio::time::Instant;

use crate::rig::{Engine, Rig, Time, thumbprint};
use crate::token;
use crate::wire::{Answer, Request};
use crate::world::{PAYMENTS, Party};

/// How soon a change has to be in force (issue 5).
const A_SECOND: Duration = Duration::from_secs(1);

const MEDIA_TYPE: &str = "application/statuslist+jwt";

/// A rig whose API `accounts` reads status lists.
async fn rig_with_lists(engine: &Engine) -> Rig {
    let rig = Rig::on(engine, Time::Machine).await;
    ask_for_lists(&rig, StatusClaim::StatusList).await;
    rig
}

async fn ask_for_lists(rig: &Rig, status: StatusClaim) {
    let id = ResourceServerId::parse("accounts").unwrap();
    let before = rig.app.registry.resource_server(&id).await.unwrap().unwrap();
    let after = ResourceServer { status, ..before };
    rig.app.registry.change_resource_server(after, rig.explanation()).await.unwrap();
}

async fn token_of(rig: &Rig, party: &Party) -> String {
    rig.ask(party).await.token()
}

/// What a token says of its status (§6.2).
async fn reference(rig: &Rig, token: &str) -> (u64, String) {
    let claims = token::read(rig, token).await.claims;
    let list = &claims["status"]["status_list"];
    assert_eq!(claims["status"].as_object().unwrap().len(), 1);
    (list["idx"].as_u64().unwrap(), list["uri"].as_str().unwrap().to_owned())
}

async fn fetch(rig: &Rig, node: SocketAddr, uri: &str) -> Answer {
    let path = uri.strip_prefix(&rig.world.issuer).expect("a list of this issuer");
    let request = Request::get(path).with_header("Accept", MEDIA_TYPE);
    rig.anonymous().ask(node, &request).await.unwrap()
}

/// §8.3, step by step: the status, or why no statement can be made.
async fn status_at(rig: &Rig, node: SocketAddr, token: &str) -> Result<u8, String> {
    // First the token itself; its signature is checked on the way.
    let (idx, uri) = reference(rig, token).await; // step 1
    let answer = fetch(rig, node, &uri).await; // step 2
    if answer.status != 200 {
        return Err(answer.to_string());
    }
    assert_eq!(answer.header("content-type"), Some(MEDIA_TYPE)); // §8.2
    let list = token::read(rig, std::str::from_utf8(&answer.body).unwrap()).await; // step 3
    assert_eq!(list.header["typ"], "statuslist+jwt"); // §5.1
    let claims = &list.claims;
    assert_eq!(claims["sub"], uri.as_str()); // step 4a
    let (iat, exp) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    let now = rig.app.clock.now().as_seconds();
    assert!(now - 10 <= iat && iat <= now, "signed at {iat}, now {now}"); // step 4b
    assert!(now < exp && exp <= now + 60, "until {exp}, now {now}"); // step 4c
    assert!((1..=10).contains(&claims["ttl"].as_i64().unwrap())); // step 4d
    let list = &claims["status_list"];
    assert_eq!(list["bits"], 1);
    let compressed = URL_SAFE_NO_PAD.decode(list["lst"].as_str().unwrap()).unwrap();
    let mut octets = Vec::new();
    ZlibDecoder::new(&*compressed).read_to_end(&mut octets).unwrap(); // step 5
    let idx = usize::try_from(idx).unwrap();
    let octet = octets.get(idx / 8).ok_or("the index is out of bounds")?; // step 6
    Ok(octet >> (idx % 8) & 1) // step 7
}

async fn status(rig: &Rig, token: &str) -> u8 {
    status_at(rig, rig.address, token).await.unwrap()
}

/// Waits until the list says `INVALID`: a second from the change at most.
async fn dies(rig: &Rig, token: &str, why: &str) {
    let began = Instant::now();
    loop {
        let asked_after = began.elapsed();
        if status(rig, token).await == 1 {
            return;
        }
        assert!(asked_after < A_SECOND, "still valid {asked_after:?} after {why}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn whatever_ends_a_token_is_on_its_list_within_a_second() {
    for engine in Engine::every() {
        let rig = rig_with_lists(&engine).await;
        let (registry, world) = (&rig.app.registry, &rig.world);
        let by_participant = token_of(&rig, &world.b_dn).await;
        let by_client = token_of(&rig, &world.a_dn).await;
        let by_certificate = token_of(&rig, &world.a_dns).await;
        let by_entitlement = token_of(&rig, &world.a_uri).await;
        let bystander = token_of(&rig, &world.a_email).await;
        for token in [&by_participant, &by_client, &by_certificate, &by_entitlement, &bystander] {
            assert_eq!(status(&rig, token).await, 0, "on {engine:?}");
        }

        let client = ClientId::parse(world.a_dn.id).unwrap();
        registry.set_client_state(client.clone(), ClientState::Suspended, rig.explanation()).await.unwrap();
        dies(&rig, &by_client, "its client was suspended").await;

        let certificate = CertificateSelector::Thumbprint(thumbprint(&world.a_dns.credential));
        registry.revoke_certificate(certificate, RevocationReason::KeyCompromise, rig.explanation()).await.unwrap();
        dies(&rig, &by_certificate, "its certificate was revoked").await;

        let entitlement = EntitlementId::parse(&format!("{}-accounts", world.a_uri.id)).unwrap();
        registry.end_entitlement(entitlement, rig.explanation()).await.unwrap();
        dies(&rig, &by_entitlement, "its entitlement ended").await;

        let partner = ParticipantId::parse("partner-b").unwrap();
        let suspended = ParticipantState::Suspended;
        registry.set_participant_state(partner.clone(), suspended, rig.explanation()).await.unwrap();
        dies(&rig, &by_participant, "its participant was suspended").await;
        assert_eq!(status(&rig, &bystander).await, 0, "nobody else's token on {engine:?}");

        // A reinstatement revives no old token and hinders no new one.
        registry.set_client_state(client, ClientState::Active, rig.explanation()).await.unwrap();
        registry.set_participant_state(partner, ParticipantState::Active, rig.explanation()).await.unwrap();
        for (party, old) in [(&world.a_dn, &by_client), (&world.b_dn, &by_participant)] {
            let new = token_of(&rig, party).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!((status(&rig, old).await, status(&rig, &new).await), (1, 0), "{} on {engine:?}", party.id);
            let again = token_of(&rig, party).await;
            assert_eq!(status(&rig, &again).await, 0);
        }

        // The list of a resource server that is retired says that all is over.
        let accounts = ResourceServerId::parse("accounts").unwrap();
        registry.retire_resource_server(accounts, rig.explanation()).await.unwrap();
        dies(&rig, &bystander, "its resource server was retired").await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_same_by_the_command_line() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let party = &rig.world.a_dn;
        let change = |to: &'static str| {
            let rig = &rig;
            async move {
                let done = rig.command(&["--json", "resource-server", "change", "accounts", "--status-list", to]).await;
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                serde_json::from_slice::<Value>(&done.stdout).unwrap()
            }
        };
        assert_eq!(token::read(&rig, &token_of(&rig, party).await).await.claims.get("status"), None);
        change("on").await;
        let token = within_a_second(&rig, party, true).await;
        assert_eq!(status(&rig, &token).await, 0);
        let suspended = rig.command(&["client", "suspend", party.id]).await;
        assert!(suspended.status.success(), "{}", String::from_utf8_lossy(&suspended.stderr));
        dies(&rig, &token, "its client was suspended by a command").await;
        assert!(rig.command(&["client", "reinstate", party.id]).await.status.success());
        change("off").await;
        within_a_second(&rig, party, false).await;
        assert_eq!(status(&rig, &token).await, 1, "what was issued before stays on its list");
        rig.stop().await;
    }
}

/// A token that says where its status is, or one that does not, as soon as the server issues such.
async fn within_a_second(rig: &Rig, party: &Party, with_status: bool) -> String {
    let began = Instant::now();
    loop {
        let answer = rig.ask(party).await;
        if answer.status == 200 {
            let token = answer.token();
            if token::read(rig, &token).await.claims.get("status").is_some() == with_status {
                return token;
            }
        }
        assert!(began.elapsed() < Duration::from_secs(5), "not in force");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// RFC 7009: the one token, and no other of the same client.
#[tokio::test]
async fn a_single_token_that_is_revoked_is_on_its_list_within_a_second() {
    for engine in Engine::every() {
        let rig = rig_with_lists(&engine).await;
        let party = &rig.world.a_dn;
        let (revoked, kept) = (token_of(&rig, party).await, token_of(&rig, party).await);
        let request = Request::form("/revoke", &[("client_id", party.id), ("token", &revoked)]);
        let answer = rig.peer(&party.credential).ask(rig.address, &request).await.unwrap();
        assert_eq!(answer.status, 200, "{answer}");
        dies(&rig, &revoked, "it was revoked").await;
        assert_eq!(status(&rig, &kept).await, 0);
        rig.stop().await;
    }
}

/// Any node serves the list of a token that another one has just issued, and no index is given out twice.
#[tokio::test]
async fn two_nodes_share_their_lists_and_no_index() {
    for engine in Engine::every() {
        let rig = rig_with_lists(&engine).await;
        let other = rig.another_node().await;
        let parties = [&rig.world.a_dn, &rig.world.a_dns, &rig.world.b_dn];
        let mut seen = HashSet::new();
        let mut tokens = Vec::new();
        for round in 0..20 {
            for (node, elsewhere) in [(rig.address, other.address), (other.address, rig.address)] {
                for party in parties {
                    let token = rig.peer(&party.credential).ask(node, &party.request()).await.unwrap().token();
                    if round == 0 {
                        assert_eq!(status_at(&rig, elsewhere, &token).await, Ok(0), "on {engine:?}");
                    }
                    assert!(seen.insert(reference(&rig, &token).await), "an index twice on {engine:?}");
                    tokens.push((party.id, token));
                }
            }
        }
        let client = ClientId::parse(rig.world.a_dn.id).unwrap();
        other.app.registry.set_client_state(client, ClientState::Suspended, rig.explanation()).await.unwrap();
        tokio::time::sleep(A_SECOND).await;
        for node in [rig.address, other.address] {
            for (id, token) in tokens.iter().step_by(7) {
                let expected = u8::from(*id == rig.world.a_dn.id);
                assert_eq!(status_at(&rig, node, token).await, Ok(expected), "{id} on {engine:?}");
            }
        }
        other.stop().await;
        rig.stop().await;
    }
}

/// §8.1, §8.2, §8.4, §9 and what HTTP has to say.
#[tokio::test]
async fn how_lists_are_served() {
    let rig = rig_with_lists(&Engine::Sqlite).await;
    let token = token_of(&rig, &rig.world.a_dn).await;
    let (idx, uri) = reference(&rig, &token).await;
    assert!(idx < 1 << 20);
    let path = uri.strip_prefix(&rig.world.issuer).unwrap().to_owned();
    let anonymous = rig.anonymous();
    let ask = async |request: Request| anonymous.ask(rig.address, &request).await.unwrap();
    // Neither the API nor the client is named, and there is nothing about one token in it (§12.2).
    assert!(!uri.contains("accounts") && !uri.contains(rig.world.a_dn.id) && !uri.contains('?'), "{uri}");

    for accept in [None, Some(MEDIA_TYPE), Some("*/*"), Some("application/*;q=0.1"), Some("text/html, */*;q=0.1")] {
        let request = Request::get(&path);
        let request = accept.iter().fold(request, |request, accept| request.with_header("Accept", accept));
        let answer = ask(request).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(MEDIA_TYPE)), "{accept:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=1"));
    }
    for accept in ["application/statuslist+cwt", "application/json", "application/statuslist+jwt;q=0"] {
        let answer = ask(Request::get(&path).with_header("Accept", accept)).await;
        assert_eq!((answer.status, answer.error().as_str()), (406, "invalid_request"), "{accept}");
    }
    let answer = ask(Request::get(&format!("{path}?time=1686925000"))).await;
    assert_eq!((answer.status, answer.error().as_str()), (501, "invalid_request"));
    for unknown in
        ["/status-lists/AAAAAAAAAAAAAAAAAAAAAA", "/status-lists/accounts", "/status-lists/", "/status-lists/%00"]
    {
        let answer = ask(Request::get(unknown)).await;
        assert_eq!((answer.status, answer.error().as_str()), (404, "invalid_request"), "{unknown}");
    }
    assert_eq!(ask(Request::post(&path, Vec::new())).await.status, 405);

    let plain = ask(Request::get(&path)).await;
    let packed = ask(Request::get(&path).with_header("Accept-Encoding", "gzip")).await;
    assert_eq!((packed.header("content-encoding"), packed.header("vary")), (Some("gzip"), Some("accept-encoding")));
    let mut unpacked = String::new();
    GzDecoder::new(&*packed.body).read_to_string(&mut unpacked).unwrap();
    assert_eq!(token::read(&rig, &unpacked).await.claims["sub"], uri.as_str());
    let (tag, packed_tag) = (plain.header("etag").unwrap(), packed.header("etag").unwrap());
    assert_ne!(tag, packed_tag);
    // Unless it was signed anew in between.
    if ask(Request::get(&path)).await.header("etag") == Some(tag) {
        let held = ask(Request::get(&path).with_header("If-None-Match", tag)).await;
        assert!(held.status == 304 || held.header("etag") != Some(tag), "{held}");
    }

    let metadata = ask(Request::get("/.well-known/oauth-authorization-server")).await.json();
    let aggregation = metadata["status_list_aggregation_endpoint"].as_str().unwrap().to_owned();
    let list = token::read(&rig, std::str::from_utf8(&plain.body).unwrap()).await;
    assert_eq!(list.claims["status_list"]["aggregation_uri"], aggregation.as_str()); // §9.2
    let aggregated = ask(Request::get(aggregation.strip_prefix(&rig.world.issuer).unwrap())).await;
    assert_eq!((aggregated.status, aggregated.header("content-type")), (200, Some("application/json"))); // §9.3
    assert_eq!(aggregated.json(), json!({ "status_lists": [uri] }));
}

/// Whoever does not ask for lists is not concerned, and the crate takes either kind of token.
#[tokio::test]
async fn the_guarded_api_takes_tokens_with_and_without_a_status() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let party = &rig.world.a_dn;
    for status in [StatusClaim::Absent, StatusClaim::StatusList, StatusClaim::Absent] {
        ask_for_lists(&rig, status).await;
        let token = token_of(&rig, party).await;
        assert_eq!(token::read(&rig, &token).await.claims.get("status").is_some(), status == StatusClaim::StatusList);
        let request = Request::get("/accounts").with_header("Authorization", &format!("Bearer {token}"));
        assert_eq!(rig.peer(&party.credential).ask(api.address, &request).await.unwrap().status, 200);
    }
}

/// What a token says of its status is on record with it: a single token is found in its list by that alone.
#[tokio::test]
async fn the_index_is_on_record() {
    let rig = rig_with_lists(&Engine::Sqlite).await;
    let token = token_of(&rig, &rig.world.a_dn).await;
    let (idx, uri) = reference(&rig, &token).await;
    assert_eq!(rig.last_record().await["token"]["status_list"], json!({ "idx": idx, "uri": uri }));
    let (party, payments) = (&rig.world.a_two, [("resource", PAYMENTS)]);
    let pairs = [("grant_type", "client_credentials"), ("client_id", party.id)].into_iter().chain(payments);
    let request = Request::form("/token", &pairs.collect::<Vec<_>>());
    let unasked = rig.peer(&party.credential).ask(rig.address, &request).await.unwrap().token();
    assert_eq!(token::read(&rig, &unasked).await.claims.get("status"), None);
    assert_eq!(rig.last_record().await["token"].get("status_list"), None);
}

/// Design §6: what is held ages, and is served as long as the store does not answer. A token without its index is none.
#[tokio::test]
async fn while_the_store_cannot_be_written_lists_are_served_and_no_token_is_issued() {
    let rig = rig_with_lists(&Engine::Sqlite).await;
    let (held, without) = (&rig.world.a_dn, &rig.world.a_dns);
    let token = token_of(&rig, held).await;
    let path = rig.store.as_str().strip_prefix("sqlite:").unwrap();
    let mut lock = sqlx::SqliteConnection::connect(&format!("sqlite://{path}")).await.unwrap();
    lock.execute("BEGIN IMMEDIATE").await.unwrap();
    for party in [held, without] {
        let answer = rig.ask(party).await;
        assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"), "{}", party.id);
    }
    assert_eq!(status(&rig, &token).await, 0);
    lock.execute("ROLLBACK").await.unwrap();
    let began = Instant::now();
    loop {
        let answer = rig.ask(without).await;
        if answer.status == 200 {
            assert_eq!(status(&rig, &answer.token()).await, 0);
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "the service did not resume");
    }
}
