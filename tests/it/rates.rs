//! How many requests a second anybody may make: per address before anything is read, per client and per resource server once
//! it has proven to be one (design §8).

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use countersign::registry::{ClientId, MemorySize, Registry, ResourceServerId};
use countersign::store::{self, Migrate};
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Name, Template};
use serde_json::Value;

use crate::rig::{Engine, Rig, Time, facts, thumbprint};
use crate::wire::{Answer, Request, Tls};
use crate::world::{Party, subject_of_a};

/// Two a second, hence four at once.
async fn two_a_second_per_client() -> Rig {
    Rig::configured(&Engine::Sqlite, Time::Standing, |config| config.limits.requests_per_client = 2).await
}

async fn two_a_second_per_address() -> Rig {
    Rig::configured(&Engine::Sqlite, Time::Standing, |config| config.limits.requests_per_address = 2).await
}

/// 429 in the protocol's form, and when to come again.
fn assert_refused(answer: &Answer, retry_after: &str) {
    assert_eq!((answer.status, answer.error().as_str()), (429, "invalid_request"), "{answer}");
    assert_eq!(answer.header("retry-after"), Some(retry_after), "{answer}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer}");
    assert!(answer.header("x-request-id").is_some(), "{answer}");
}

/// How many of `asked` requests for a token are granted; the others are refused for their number.
async fn granted(rig: &Rig, party: &Party, asked: usize) -> usize {
    let mut granted = 0;
    for _ in 0..asked {
        let answer = rig.ask(party).await;
        match answer.status {
            200 => granted += 1,
            _ => assert_eq!(answer.status, 429, "{answer}"),
        }
    }
    granted
}

/// The newest row of refusals for this reason.
async fn counted(rig: &Rig, reason: &str) -> Value {
    let mut records = rig.records(64).await;
    records.retain(|record| record["kind"] == "refusals" && record["reason"] == reason);
    records.pop().unwrap_or_else(|| panic!("no {reason} on record"))
}

fn revoke(party: &Party, token: &str) -> Request {
    Request::form("/revoke", &[("client_id", party.id), ("token", token)])
}

/// Another certificate of this client, not seen before.
fn renewed(rig: &Rig, party: &Party) -> Credential {
    rig.world.a_root.issue(&Template::client(subject_of_a(party.id), rig.world.now), KeyKind::P256)
}

/// The certificate of an API, enrolled for it.
async fn api(rig: &Rig, id: &str) -> Credential {
    let credential = Credential::self_signed(&Template::client(Name::common(id), rig.world.now), KeyKind::P256);
    let id = ResourceServerId::parse(id).unwrap();
    let mut record = rig.app.registry.resource_server(&id).await.unwrap().unwrap();
    record.certificates.push(thumbprint(&credential));
    rig.app.registry.change_resource_server(record, rig.explanation()).await.unwrap();
    credential
}

#[tokio::test]
async fn a_client_is_refused_beyond_its_rate_and_served_again_after_it() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Standing, |config| config.limits.requests_per_client = 2).await;
        let party = &rig.world.a_dn;
        assert_eq!(granted(&rig, party, 4).await, 4, "two seconds' worth at once");
        let refused = rig.ask(party).await;
        assert_refused(&refused, "1");
        let record = counted(&rig, "client_rate_exceeded").await;
        assert_eq!((&record["stage"], &record["claimed_client_id"]), (&"rate".into(), &party.id.into()), "{record}");
        assert_eq!(record["thumbprint"], party.credential.thumbprint());
        // Nobody else is hindered, and it is told where it stands.
        assert_eq!(rig.ask(&rig.world.a_two).await.status, 200);
        let check = Request::get(&format!("/certificate-check?client_id={}", party.id));
        let check = rig.peer(&party.credential).ask(rig.address, &check).await.unwrap();
        assert_eq!(check.json()["would_be_let_in"], true, "{check}");
        // Both edges of the half second after which there is one more.
        rig.clock.advance(Duration::from_millis(499));
        assert_refused(&rig.ask(party).await, "1");
        rig.clock.advance(Duration::from_millis(1));
        assert_eq!(granted(&rig, party, 3).await, 1);
        rig.clock.advance(Duration::from_secs(60));
        assert_eq!(granted(&rig, party, 10).await, 4, "and no more for a long pause");
        rig.stop().await;
    }
}

/// What is refused is thinned: no client fills the log by asking.
#[tokio::test]
async fn a_flood_of_one_client_is_a_few_rows_that_say_how_many() {
    let rig = two_a_second_per_client().await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    for at in 0..204 {
        assert_eq!(connection.ask(&party.request()).await.unwrap().status, if at < 4 { 200 } else { 429 });
    }
    let records = rig.records(256).await;
    let refused: Vec<&Value> = records.iter().filter(|record| record["reason"] == "client_rate_exceeded").collect();
    let told: u64 = refused.iter().map(|record| record["count"].as_u64().unwrap()).sum();
    assert_eq!(told, 200);
    assert!(refused.len() < 60, "a row each half second at most: {}", refused.len());
    assert_eq!(records.iter().filter(|record| record["outcome"] == "issued").count(), 4);
}

/// It has to have proven to be the client: whoever only names it uses up nothing.
#[tokio::test]
async fn a_stranger_who_names_a_client_uses_up_nothing_of_it() {
    let rig = two_a_second_per_client().await;
    let world = &rig.world;
    let party = &world.a_dn;
    let other = world.stranger_root.issue(&Template::client(subject_of_a(party.id), world.now), KeyKind::P256);
    for _ in 0..10 {
        for credential in [&world.b_dn.credential, &world.a_two.credential, &other] {
            let answer = rig.peer(credential).ask(rig.address, &party.request()).await.unwrap();
            assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
        }
        let answer = rig.anonymous().ask(rig.address, &party.request()).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
    }
    assert_eq!(granted(&rig, party, 10).await, 4);
    // And at its limit, a stranger learns nothing of that.
    let answer = rig.peer(&world.a_two.credential).ask(rig.address, &party.request()).await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
}

/// Every request counts that proves its client, whatever becomes of it.
#[tokio::test]
async fn a_request_that_is_refused_for_another_reason_counts_as_well() {
    let rig = two_a_second_per_client().await;
    for (party, status) in [(&rig.world.a_unentitled, 400), (&rig.world.a_suspended, 400)] {
        for _ in 0..4 {
            assert_eq!(rig.ask(party).await.status, status);
        }
        assert_refused(&rig.ask(party).await, "1");
    }
}

/// A client that shows ever new certificates is one client, and beyond its rate they cost the store nothing.
#[tokio::test]
async fn beyond_the_rate_no_new_certificate_is_put_on_record() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Standing, |config| config.limits.requests_per_client = 2).await;
        let (party, id) = (&rig.world.a_dn, ClientId::parse(rig.world.a_dn.id).unwrap());
        let before = rig.app.registry.version();
        for _ in 0..4 {
            let answer = rig.peer(&renewed(&rig, party)).ask(rig.address, &party.request()).await.unwrap();
            assert_eq!(answer.status, 200, "{answer}");
        }
        let used_up = rig.app.registry.version();
        assert_eq!(used_up.0, before.0 + 4, "each was put on record");
        let new = renewed(&rig, party);
        for request in [party.request(), revoke(party, "no.such.token"), party.request()] {
            assert_refused(&rig.peer(&new).ask(rig.address, &request).await.unwrap(), "1");
        }
        assert_eq!(counted(&rig, "client_rate_exceeded").await["thumbprint"], new.thumbprint());
        assert_eq!(rig.app.registry.catch_up().await.unwrap(), used_up);
        let record = rig.app.registry.client(&id).await.unwrap().record;
        assert!(record.certificate(&thumbprint(&new)).is_none(), "on {engine:?}");
        rig.clock.advance(Duration::from_millis(500));
        assert_eq!(rig.peer(&new).ask(rig.address, &party.request()).await.unwrap().status, 200);
        assert_eq!(rig.app.registry.version().0, used_up.0 + 1);
        rig.stop().await;
    }
}

/// Nor is the store asked, time and again, about a certificate that it refuses.
#[tokio::test]
async fn a_certificate_that_cannot_be_put_on_record_counts_as_well() {
    let rig = two_a_second_per_client().await;
    let party = &rig.world.a_dn;
    let taken = renewed(&rig, party);
    let other = ClientId::parse(rig.world.a_two.id).unwrap();
    rig.app.registry.add_certificate(other, facts(&taken), rig.explanation()).await.unwrap();
    for request in [party.request(), revoke(party, "no.such.token"), party.request(), party.request()] {
        let answer = rig.peer(&taken).ask(rig.address, &request).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
    }
    counted(&rig, "enrolment_certificate_taken").await;
    assert_refused(&rig.peer(&taken).ask(rig.address, &party.request()).await.unwrap(), "1");
    assert_refused(&rig.ask(party).await, "1");
}

#[tokio::test]
async fn one_kept_connection_counts_like_many() {
    let rig = two_a_second_per_client().await;
    let party = &rig.world.a_dn;
    let connection = rig.peer_with(&party.credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await.unwrap();
    let streams: Vec<_> = (0..32)
        .map(|_| {
            let (mut stream, request) = (connection.clone(), party.request());
            tokio::spawn(async move { stream.ask(&request).await.unwrap().status })
        })
        .collect();
    let mut granted = 0;
    for stream in streams {
        granted += usize::from(stream.await.unwrap() == 200);
    }
    assert_eq!(granted, 4, "of streams at once");
    assert_refused(&rig.ask(party).await, "1");
    let mut connection = connection;
    assert_refused(&connection.ask(&party.request()).await.unwrap(), "1");
    rig.clock.advance(Duration::from_millis(500));
    assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200, "the connection goes on");
}

/// The registry changes under a decision, which is then taken again: one request all the same.
#[tokio::test]
async fn a_request_that_is_decided_again_counts_once() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Standing, |config| config.limits.requests_per_client = 20).await;
        let party = &rig.world.a_dn;
        let other = store::open(rig.store.as_str(), Migrate::Check).await.unwrap();
        let registry = Registry::new(Arc::new(other.clone()), MemorySize::default(), "another").await.unwrap();
        let id = ClientId::parse(party.id).unwrap();
        let mut client = rig.app.registry.client(&id).await.unwrap().record.client.clone();
        let mut asked = 0;
        while !rig.records(64).await.iter().any(|record| record["kind"] == "withheld") {
            assert!(asked < 30, "this node always knew of the change before it decided");
            client.contact = Some(format!("{asked}@partner-a.example"));
            registry.change_client(client.clone(), Vec::new(), rig.explanation()).await.unwrap();
            assert_eq!(rig.ask(party).await.status, 200);
            asked += 1;
        }
        assert_eq!(asked + granted(&rig, party, 50).await, 40, "on {engine:?}");
        other.close().await;
        rig.stop().await;
    }
}

/// The client's record wins over the configuration, and what an operator changes is in force within a second.
#[tokio::test]
async fn a_client_has_a_rate_of_its_own_on_record() {
    for engine in Engine::every() {
        let rig = Rig::configured(&engine, Time::Standing, |config| config.limits.requests_per_client = 2).await;
        let party = &rig.world.a_dn;
        let change = async |requests: &str| {
            let changed =
                rig.command(&["--json", "client", "change", party.id, "--requests-per-second", requests]).await;
            assert!(changed.status.success(), "{requests}: {}", String::from_utf8_lossy(&changed.stderr));
            let wanted = NonZeroU32::new(requests.parse().unwrap_or(0));
            let id = ClientId::parse(party.id).unwrap();
            // What is seen here is what the next request is judged by.
            let in_force = tokio::time::timeout(Duration::from_secs(10), async {
                while rig.app.registry.client(&id).await.unwrap().record.client.requests_per_second != wanted {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            assert!(in_force.await.is_ok(), "{requests} is not in force");
            rig.clock.advance(Duration::from_secs(2));
            String::from_utf8(changed.stdout).unwrap()
        };
        let told = change("5").await;
        assert!(told.contains("\"requests_per_second\": 5"), "{told}");
        assert_eq!(granted(&rig, party, 20).await, 10);
        assert_eq!(granted(&rig, &rig.world.a_two, 20).await, 4, "another one's is the default");
        change("1").await;
        assert_eq!(granted(&rig, party, 20).await, 2);
        let told = change("default").await;
        assert!(!told.contains("requests_per_second"), "{told}");
        assert_eq!(granted(&rig, party, 20).await, 4);
        let history = rig.app.registry.history(countersign::registry::RegistryVersion(0), None, 1_000).await.unwrap();
        assert_eq!(history.last().unwrap().action, "client.change");
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_rate_that_is_none_is_no_ones() {
    let rig = Rig::start().await;
    for wrong in ["0", "-1", "1000001", "1.5", "", "none", "4294967296"] {
        let option = format!("--requests-per-second={wrong}");
        let refused = rig.command(&["client", "change", "a-dn", &option]).await;
        assert_eq!(refused.status.code(), Some(2), "{wrong}");
    }
    let unknown = rig.command(&["client", "change", "nobody", "--requests-per-second", "1"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    let retired = rig.command(&["client", "change", "a-retired", "--requests-per-second", "1"]).await;
    assert_eq!(retired.status.code(), Some(1));
}

/// One is registered with a rate of its own as well.
#[tokio::test]
async fn a_client_is_registered_with_a_rate() {
    let rig = Rig::start().await;
    let new = Template::client(subject_of_a("a-new"), rig.world.now);
    let file = rig.file("new.pem", &rig.world.a_root.issue(&new, KeyKind::P256).chain_pem()).display().to_string();
    let add = ["--json", "client", "add", "a-new", "--participant", "partner-a", "--certificate", &file];
    let refused = rig.command(&[&add[..], &["--requests-per-second", "0"]].concat()).await;
    assert_eq!(refused.status.code(), Some(2));
    let added = rig.command(&[&add[..], &["--requests-per-second", "1000000"]].concat()).await;
    let told = String::from_utf8(added.stdout).unwrap();
    assert!(told.contains("\"requests_per_second\": 1000000"), "{told}");
}

/// A change of the rate ends no token.
#[tokio::test]
async fn tokens_outlive_a_change_of_the_rate() {
    let rig = Rig::start().await;
    rig.ask(&rig.world.a_dn).await.token();
    let before = rig.app.registry.marks(rig.app.clock.now()).await.unwrap().marks;
    let changed = rig.command(&["client", "change", "a-dn", "--requests-per-second", "7"]).await;
    assert!(changed.status.success());
    assert_eq!(rig.app.registry.marks(rig.app.clock.now()).await.unwrap().marks, before);
}

#[tokio::test]
async fn revocations_are_of_the_same_allowance() {
    let rig = two_a_second_per_client().await;
    let party = &rig.world.a_dn;
    let token = rig.ask(party).await.token();
    let peer = rig.peer(&party.credential);
    let unknown = revoke(party, "no.such.token");
    for _ in 0..3 {
        assert_eq!(peer.ask(rig.address, &unknown).await.unwrap().status, 200);
    }
    assert_refused(&peer.ask(rig.address, &revoke(party, &token)).await.unwrap(), "1");
    counted(&rig, "client_rate_exceeded").await;
    assert_refused(&rig.ask(party).await, "1");
    rig.clock.advance(Duration::from_millis(500));
    assert_eq!(peer.ask(rig.address, &revoke(party, &token)).await.unwrap().status, 200, "it was not dead before");
    let record = rig.last_record().await;
    assert_eq!((&record["kind"], &record["outcome"]), (&"revocation".into(), &"revoked".into()), "{record}");
}

#[tokio::test]
async fn questions_about_tokens_count_for_each_resource_server() {
    let rig =
        Rig::configured(&Engine::Sqlite, Time::Standing, |config| config.limits.requests_per_resource_server = 2).await;
    let (accounts, next, payments) =
        (api(&rig, "accounts").await, api(&rig, "accounts").await, api(&rig, "payments").await);
    let token = rig.ask(&rig.world.a_dn).await.token();
    let about = Request::form("/introspect", &[("token", &token)]);
    let asks = async |credential: &Credential| rig.peer(credential).ask(rig.address, &about).await.unwrap();
    // Neither a client nor a stranger uses up anything of it.
    for _ in 0..10 {
        assert_eq!(asks(&rig.world.a_dn.credential).await.status, 400);
    }
    for credential in [&accounts, &next, &accounts, &next] {
        assert_eq!(asks(credential).await.json()["active"], true);
    }
    let refused = asks(&accounts).await;
    assert_refused(&refused, "1");
    assert_eq!(counted(&rig, "resource_server_rate_exceeded").await["stage"], "rate");
    assert_refused(&asks(&next).await, "1");
    assert_eq!(asks(&payments).await.status, 200, "another one");
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200, "and no client");
    rig.clock.advance(Duration::from_millis(500));
    assert_eq!(asks(&next).await.status, 200);
    assert_refused(&asks(&accounts).await, "1");
}

#[tokio::test]
async fn an_assertion_that_came_too_soon_is_not_used_up() {
    let rig = two_a_second_per_client().await;
    let party = &rig.world.a_jwt;
    let request = |jti: &str| party.request_with(&party.assertion(&rig.world, jti).compact());
    let peer = rig.peer(&party.credential);
    for jti in ["one", "two", "three", "four"] {
        assert_eq!(peer.ask(rig.address, &request(jti)).await.unwrap().status, 200);
    }
    let five = request("five");
    assert_refused(&peer.ask(rig.address, &five).await.unwrap(), "1");
    // An assertion of nobody's key proves nothing, and costs the client nothing.
    let forged = party.request_with(&rig.world.a_jwt_eddsa.assertion(&rig.world, "six").compact());
    assert_eq!(peer.ask(rig.address, &forged).await.unwrap().status, 400);
    rig.clock.advance(Duration::from_millis(500));
    assert_eq!(peer.ask(rig.address, &five).await.unwrap().status, 200);
    rig.clock.advance(Duration::from_millis(500));
    let replayed = peer.ask(rig.address, &five).await.unwrap();
    assert_eq!((replayed.status, replayed.error().as_str()), (400, "invalid_client"), "{replayed}");
}

/// Whatever it asks for, and whatever it shows.
#[tokio::test]
async fn an_address_is_refused_beyond_its_rate_before_anything_is_read() {
    let rig = two_a_second_per_address().await;
    let world = &rig.world;
    let party = &world.a_dn;
    assert_eq!(rig.ask(party).await.status, 200);
    let broken = Request::post("/token", b"{}".to_vec());
    assert_eq!(rig.anonymous().ask(rig.address, &broken).await.unwrap().status, 415);
    assert_eq!(rig.peer(&party.credential).ask(rig.address, &revoke(party, "x")).await.unwrap().status, 200);
    let question = Request::form("/introspect", &[("token", "x")]);
    assert_eq!(rig.peer(&world.a_two.credential).ask(rig.address, &question).await.unwrap().status, 400);
    // Used up, for everybody there and for each of the three.
    for (credential, request) in [
        (&world.b_dn.credential, world.b_dn.request()),
        (&party.credential, revoke(party, "x")),
        (&world.a_two.credential, question.clone()),
    ] {
        assert_refused(&rig.peer(credential).ask(rig.address, &request).await.unwrap(), "1");
        let record = counted(&rig, "too_many_requests").await;
        assert!(record.get("claimed_client_id").is_none_or(Value::is_null), "nothing of it was read: {record}");
    }
    // What anybody may read is not counted.
    for path in ["/jwks", "/revocations", "/.well-known/oauth-authorization-server"] {
        assert_eq!(rig.anonymous().ask(rig.address, &Request::get(path)).await.unwrap().status, 200, "{path}");
    }
    // Another address is another one.
    let (peer, request) = (rig.peer(&party.credential), party.request());
    let elsewhere = peer.ask_from(Ipv4Addr::new(127, 0, 0, 2), rig.address, &request).await.unwrap();
    assert_eq!(elsewhere.status, 200, "{elsewhere}");
    // Both edges of the half second after which there is one more.
    rig.clock.advance(Duration::from_millis(499));
    assert_refused(&rig.ask(party).await, "1");
    rig.clock.advance(Duration::from_millis(1));
    assert_eq!(rig.ask(party).await.status, 200);
    assert_refused(&rig.ask(party).await, "1");
}

/// A body that has not come is not waited for, and what comes of it afterwards is no request: the connection is over.
#[tokio::test]
async fn the_rest_of_a_body_that_was_refused_unread_is_no_request() {
    let rig = two_a_second_per_address().await;
    let party = &rig.world.a_dn;
    assert_eq!(granted(&rig, party, 4).await, 4);
    let rest = Request::get("/jwks").to_bytes();
    let mut request = party.request();
    request.body.extend_from_slice(b"&x=");
    request.body.extend_from_slice(&rest);
    let whole = request.to_bytes();
    let head_only = whole.len() - request.body.len();
    for cut in [whole.len() - rest.len(), head_only] {
        let (begun, rest) = whole.split_at(cut);
        let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
        connection.send(begun).await.unwrap();
        assert_refused(&connection.read_answer(false).await.unwrap(), "1");
        connection.send(rest).await.unwrap();
        let end = connection.read_answer(false).await.expect_err("a second answer");
        // Whichever is seen first: that it is over, or that what was sent after it went nowhere.
        let over = matches!(end.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset);
        assert!(over, "cut at {cut}: {end}");
    }
}

/// One that came with the head is passed over, whatever it says, and the connection goes on after it.
#[tokio::test]
async fn a_connection_outlives_the_refusal_of_a_request_that_came_whole() {
    let rig = two_a_second_per_address().await;
    let party = &rig.world.a_dn;
    assert_eq!(granted(&rig, party, 4).await, 4);
    let mut request = party.request();
    request.body.extend_from_slice(b"&x=");
    request.body.extend_from_slice(&Request::get("/revocations").to_bytes());
    let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    for _ in 0..3 {
        assert_refused(&connection.ask(&request).await.unwrap(), "1");
        let keys = connection.ask(&Request::get("/jwks")).await.unwrap();
        assert_eq!(keys.status, 200, "{keys}");
        assert!(keys.json()["keys"].is_array(), "the answer to this, and to nothing in the body: {keys}");
    }
}

/// Each node counts for itself.
#[tokio::test]
async fn another_node_has_counts_of_its_own() {
    let rig = two_a_second_per_client().await;
    let party = &rig.world.a_dn;
    let node = rig.another_node().await;
    assert_eq!(granted(&rig, party, 5).await, 4);
    assert_eq!(rig.peer(&party.credential).ask(node.address, &party.request()).await.unwrap().status, 200);
    node.stop().await;
}
