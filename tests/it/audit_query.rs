//! `countersign audit query` beside a running server: what a certificate, a client and a token did, as an operator asks it,
//! on both engines; and that nothing is shown before the asking is on record.

use countersign::registry::Thumbprint;
use serde_json::Value;

use crate::operations::said;
use crate::rig::{Engine, Rig, Time};

/// What the command found, as JSON.
async fn found(rig: &Rig, arguments: &[&str]) -> Vec<Value> {
    let output = rig.command(&[&["audit", "query", "--json"], arguments].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of<'a>(found: &'a [Value], member: &str) -> Vec<&'a Value> {
    found.iter().map(|one| &one["record"][member]).collect()
}

#[tokio::test]
async fn a_story_is_found_by_everything_in_it() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let party = &rig.world.a_dn;
        let issued = rig.ask(party).await;
        assert_eq!(issued.status, 200);
        let request = issued.header("x-request-id").unwrap().to_owned();
        let refused = rig.ask(&rig.world.a_suspended).await;
        assert_eq!(refused.status, 400);
        let entry = rig.entries(2).await.remove(0);
        let record: Value = serde_json::from_str(&entry.body).unwrap();
        let jti = record["token"]["jti"].as_str().unwrap().to_owned();
        let thumbprint = party.credential.thumbprint();
        let octets = *Thumbprint::parse(&thumbprint).unwrap().octets();
        let colons: Vec<String> = octets.iter().map(|octet| format!("{octet:02X}")).collect();

        // The very text that the hash covers, and where it is.
        let output = rig.command(&["audit", "query", "--json", "--request", &request]).await;
        assert!(String::from_utf8(output.stdout).unwrap().contains(&entry.body), "on {engine:?}");
        let story = found(&rig, &["--request", &request]).await;
        let [one] = &story[..] else { panic!("{story:?} on {engine:?}") };
        assert_eq!(one["hash"], entry.hash.to_string());
        assert_eq!((&one["chain"], &one["sequence"]), (&1.into(), &entry.position.sequence().into()));

        let colons = colons.join(":");
        for arguments in [
            &["--jti", &jti][..],
            &["--thumbprint", &thumbprint, "--outcome", "issued"],
            &["--thumbprint", &colons, "--kind", "decision"],
            &["--client", party.id, "--kind", "decision", "--since", "1h"],
        ] {
            let story = found(&rig, arguments).await;
            assert_eq!(of(&story, "request_id"), [request.as_str()], "{arguments:?} on {engine:?}");
        }
        let story = found(&rig, &["--reason", "client_suspended"]).await;
        assert_eq!(of(&story, "client_id"), [rig.world.a_suspended.id], "on {engine:?}");
        for nothing in [
            &["--client", party.id, "--reason", "client_suspended"][..],
            &["--request", &request, "--until", "1h"],
            &["--client", "'; DROP TABLE audit_record; --"],
            &["--thumbprint", &"0".repeat(64)],
        ] {
            assert_eq!(found(&rig, nothing).await, [Value::Null; 0], "{nothing:?} on {engine:?}");
        }
        // What the registry changed about the client is part of its story.
        assert!(said(&rig, &["client", "suspend", party.id, "--why", "a test"]).await.0);
        rig.app.audit.flush().await;
        let story = found(&rig, &["--client", party.id]).await;
        assert_eq!(of(&story, "action").pop(), Some(&"client.suspend".into()), "{story:?} on {engine:?}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn people_get_a_table_and_are_told_that_there_is_more() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    for _ in 0..3 {
        assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    }
    rig.app.audit.flush().await;
    let query = ["audit", "query", "--client", rig.world.a_dn.id, "--outcome", "issued"];
    let (done, table) = said(&rig, &query).await;
    assert!(done && table.lines().count() == 4, "{table}");
    assert!(table.starts_with("time") && table.contains(" issued ") && table.contains("127.0.0.1:"), "{table}");
    let (done, table) = said(&rig, &[&query[..], &["--limit", "2"]].concat()).await;
    assert!(done && table.lines().count() == 4 && table.contains("there are more: --since "), "{table}");
    let output = rig.command(&[&query[..], &["--limit", "2", "--json"]].concat()).await;
    assert_eq!(serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap().len(), 2);
    assert!(String::from_utf8(output.stderr).unwrap().contains("there are more"));
    let (done, table) = said(&rig, &[&query[..], &["--limit", "3"]].concat()).await;
    assert!(done && !table.contains("there are more"), "{table}");
    assert_eq!(said(&rig, &["audit", "query", "--client", "nobody"]).await, (true, "none\n".to_owned()));
    rig.stop().await;
}

#[tokio::test]
async fn who_asked_for_what_is_on_record() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let asked = ["--operator", "ann", "audit", "query", "--client", "acme \u{1b}[2J", "--since", "2026-01-01"];
        assert!(said(&rig, &asked).await.0);
        let story = found(&rig, &["--kind", "reading"]).await;
        let [reading, own] = &story[..] else { panic!("{story:?} on {engine:?}") };
        assert_eq!(own["record"]["asked"]["kind"], "reading", "this question is one too");
        assert_eq!(reading["record"]["actor"]["stated_name"], "ann");
        assert_eq!(reading["record"]["asked"]["client"], "acme \u{1b}[2J");
        assert_eq!(reading["record"]["asked"]["since"], 1_767_225_600_000_i64);
        // A chain of its own, which the next command takes again: no server's is forked.
        assert_ne!(reading["chain"], 1);
        assert_eq!(reading["chain"], own["chain"]);
        // To have been asked about is nothing that a client did.
        assert!(found(&rig, &["--client", "acme \u{1b}[2J"]).await.is_empty());
        rig.stop().await;
    }
}

#[tokio::test]
async fn nothing_is_shown_where_the_reading_cannot_be_put_on_record() {
    use sqlx::{Connection, Executor};
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
    rig.app.audit.flush().await;
    let mut other = sqlx::SqliteConnection::connect(rig.store.as_str()).await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let output = rig.command(&["audit", "query", "--client", rig.world.a_dn.id]).await;
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    other.execute("ROLLBACK").await.unwrap();
    let output = rig.command(&["audit", "query", "--client", rig.world.a_dn.id]).await;
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    rig.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_anything_is_opened() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let long = "x".repeat(1_025);
    for nonsense in [
        ["--thumbprint", "none"],
        ["--outcome", "maybe"],
        ["--kind", "token"],
        ["--since", "yesterday"],
        ["--until", "30m"],
        ["--limit", "0"],
        ["--client", ""],
        ["--client", &long],
    ] {
        let output = rig.command(&[&["audit", "query"][..], &nonsense].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{nonsense:?}");
    }
    assert!(found(&rig, &["--kind", "reading"]).await.len() == 1, "only this one");
    rig.stop().await;
}
