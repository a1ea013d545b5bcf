//! What outlives a connection, a node, a process: records, used assertions, states, keys.

use std::time::Duration;

use countersign::registry::ClientId;
use countersign::registry::client::ClientState;
use sqlx::{Connection as _, Executor as _};
use tokio::time::timeout;

use crate::rig::{Engine, Rig, Time};
use crate::token;
use crate::wire::Request;

/// Design §4: no answer before its record; and from the decision on nothing is cancellable: whoever hangs up meanwhile
/// still leaves one.
#[tokio::test]
async fn an_answer_waits_for_its_record_and_a_hang_up_does_not_undo_it() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200);
    let before = issued_to(&rig, party.id).await;

    let mut lock = locked(&rig).await;
    connection.send(&party.request().to_bytes()).await.unwrap();
    let early = timeout(Duration::from_millis(300), connection.read_answer(false)).await;
    assert!(early.is_err(), "an answer without a record: {early:?}");
    drop(connection);
    lock.execute("ROLLBACK").await.unwrap();

    let recorded = timeout(Duration::from_secs(10), async {
        while issued_to(&rig, party.id).await < before + 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(recorded.await.is_ok(), "the decision left no record");
}

/// Design §4: if the record cannot be written within two seconds the answer is 503, and the service resumes by itself.
#[tokio::test]
async fn without_a_record_there_is_no_token() {
    let rig = Rig::start().await;
    let party = &rig.world.a_dn;
    let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
    assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200);

    let mut lock = locked(&rig).await;
    let answer = timeout(Duration::from_secs(5), connection.ask(&party.request())).await.expect("an answer in time");
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (503, "temporarily_unavailable"), "{answer}");
    assert!(answer.header("retry-after").is_some());
    assert!(answer.json().get("access_token").is_none());
    lock.execute("ROLLBACK").await.unwrap();

    let resumed = timeout(Duration::from_secs(5), async {
        loop {
            let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
            if connection.ask(&party.request()).await.unwrap().status == 200 {
                return;
            }
        }
    });
    assert!(resumed.await.is_ok(), "the service did not resume");
}

/// Another process writes to the store and does not come to an end.
async fn locked(rig: &Rig) -> sqlx::SqliteConnection {
    let path = rig.store.as_str().strip_prefix("sqlite:").unwrap();
    let mut connection = sqlx::SqliteConnection::connect(&format!("sqlite://{path}")).await.unwrap();
    connection.execute("BEGIN IMMEDIATE").await.unwrap();
    connection
}

/// Two requests in one segment are two requests, answered in order (RFC 9112 §9.3.2).
#[tokio::test]
async fn pipelined_requests_are_each_decided() {
    let rig = Rig::start().await;
    let (good, bad) = (&rig.world.a_dn, &rig.world.a_two);
    let mut connection = rig.peer(&good.credential).connect(rig.address).await.unwrap();
    let both = [good.request().to_bytes(), bad.request().to_bytes(), good.request().to_bytes()].concat();
    connection.send(&both).await.unwrap();
    for status in [200, 400, 200] {
        assert_eq!(connection.read_answer(false).await.unwrap().status, status);
    }
}

/// A token without a record does not exist: every `jti` that left is in the log.
#[tokio::test]
async fn every_token_has_its_record() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let party = &rig.world.a_dn;
        let mut callers = Vec::new();
        for _ in 0..4 {
            let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
            let request = party.request();
            callers.push(tokio::spawn(async move {
                let mut tokens = Vec::new();
                for _ in 0..10 {
                    tokens.push(connection.ask(&request).await.unwrap().token());
                }
                tokens
            }));
        }
        let mut jtis = std::collections::BTreeSet::new();
        for caller in callers {
            for compact in caller.await.unwrap() {
                jtis.insert(token::read(&rig, &compact).await.claims["jti"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(jtis.len(), 40, "no jti twice");
        let records = rig.records(200).await;
        for jti in jtis {
            assert!(records.iter().any(|record| record["token"]["jti"] == jti.as_str()), "{jti} is not on record");
        }
        rig.stop().await;
    }
}

/// RFC 7523 §3 item 7, on every node and after every restart.
#[tokio::test]
async fn a_used_assertion_is_used_everywhere_and_for_good() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let node = rig.another_node().await;
        let party = rig.world.a_jwt.clone();
        let first = party.request_with(&party.assertion(&rig.world, "here first").compact());
        let second = party.request_with(&party.assertion(&rig.world, "there first").compact());
        let peer = rig.peer(&party.credential);
        assert_eq!(peer.ask(rig.address, &first).await.unwrap().status, 200);
        assert_eq!(peer.ask(node.address, &first).await.unwrap().error(), "invalid_client", "used here, shown there");
        assert_eq!(peer.ask(node.address, &second).await.unwrap().status, 200);
        assert_eq!(peer.ask(rig.address, &second).await.unwrap().error(), "invalid_client", "used there, shown here");
        node.stop().await;
        let rig = rig.restarted().await;
        for request in [&first, &second] {
            assert_eq!(peer.ask(rig.address, request).await.unwrap().error(), "invalid_client", "after a restart");
        }
        rig.stop().await;
    }
}

/// A change acknowledged by one node binds the other's next answer (design §2, the fence).
#[tokio::test]
async fn a_suspension_on_one_node_binds_the_other_at_once() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let node = rig.another_node().await;
        let party = &rig.world.a_dn;
        let mut connection = rig.peer(&party.credential).connect(node.address).await.unwrap();
        for (to, before, after) in [(ClientState::Suspended, 200, 400), (ClientState::Active, 400, 200)] {
            assert_eq!(connection.ask(&party.request()).await.unwrap().status, before);
            let client = ClientId::parse(party.id).unwrap();
            rig.app.registry.set_client_state(client, to, rig.explanation()).await.unwrap();
            if after == 400 {
                assert_eq!(connection.ask(&party.request()).await.unwrap().status, after, "at once, on {engine:?}");
            } else {
                // What is allowed again may take a second to be noticed.
                let noticed = timeout(Duration::from_secs(1), async {
                    while connection.ask(&party.request()).await.unwrap().status != after {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                });
                assert!(noticed.await.is_ok(), "not noticed within a second on {engine:?}");
            }
        }
        node.stop().await;
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let before = rig.ask(&rig.world.a_dn).await.token();
        let rig = rig.restarted().await;
        let world = &rig.world;
        // The token of before still verifies under the published keys.
        token::read(&rig, &before).await;
        assert_eq!(rig.ask(&world.a_dn).await.status, 200);
        for (party, reason) in [
            (&world.a_suspended, "client_suspended"),
            (&world.a_revoked, "certificate_revoked"),
            (&world.a_superseded, "certificate_superseded"),
            (&world.d_dn, "participant_suspended"),
        ] {
            assert_eq!(rig.ask(party).await.status, 400, "{}", party.id);
            assert_eq!(rig.last_record().await["reason"], reason);
        }
        rig.stop().await;
    }
}

/// `countersign key rotate` in a running server: tokens of before and after are both good at the API.
#[tokio::test]
async fn a_rotation_refuses_no_good_token() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let party = &rig.world.a_dn;
    let call = |token: &str| Request::get("/accounts").with_header("Authorization", &format!("Bearer {token}"));
    let peer = rig.peer(&party.credential);
    let before = rig.ask(party).await.token();
    let rotated = rig.command(&["key", "rotate"]).await;
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let after = rig.ask(party).await.token();
    for (when, token) in [("before", &before), ("after", &after)] {
        let answer = peer.ask(api.address, &call(token)).await.unwrap();
        assert_eq!(answer.status, 200, "{when} the rotation: {answer}");
    }
    // A withdrawn key signs no more, and what it signed is dead once the list says so.
    let kid = token::read(&rig, &after).await.header["kid"].as_str().unwrap().to_owned();
    let retired = rig.command(&["key", "retire", "--now", &kid]).await;
    if retired.status.success() {
        let gone = timeout(Duration::from_secs(5), async {
            loop {
                let jwks = rig.anonymous().ask(rig.address, &Request::get("/jwks")).await.unwrap();
                if !jwks.json().to_string().contains(&kid) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(gone.await.is_ok(), "the key is still published");
        let next = rig.ask(party).await;
        if next.status == 200 {
            assert_ne!(token::read(&rig, &next.token()).await.header["kid"], kid.as_str());
        }
    }
}

async fn issued_to(rig: &Rig, client: &str) -> usize {
    let records = rig.records(500).await;
    records.iter().filter(|record| record["outcome"] == "issued" && record["client_id"] == client).count()
}
