//! The whole way: a backup under load, a store that is lost, another one in its place, and what becomes of tokens.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use countersign::app::{App, AppError};
use countersign::config::StoreUrl;
use countersign::registry::ClientId;
use countersign::registry::client::ClientState;
use countersign_conformance::pki::Credential;
use serde_json::Value;
use sqlx::{AnyConnection, Connection};

use super::{backed_up, done, refused, text};
use crate::circle::{call, calls};
use crate::rig::{Engine, GuardedApi, Rig, Time, within};
use crate::token;
use crate::wire::Request;

/// A store of the second engine for every store of the first.
fn pairs() -> Vec<(Engine, Engine)> {
    let every = Engine::every();
    every.iter().flat_map(|from| every.iter().map(move |to| (from.clone(), to.clone()))).collect()
}

/// A place for another store of the rig.
pub(crate) async fn fresh(rig: &Rig, engine: &Engine, name: &str) -> StoreUrl {
    let directory = rig.directory().join(name);
    std::fs::create_dir(&directory).unwrap();
    engine.fresh(&directory).await
}

/// Waits until the API answers a call with this status.
pub(super) async fn answers(rig: &Rig, api: &GuardedApi, credential: &Credential, token: &str, status: u16) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while calls(rig, api, credential, &call(token)).await.status != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "the API does not come to answer {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_made_under_load_is_restored_confirmed_and_served() {
    for (from, to) in pairs() {
        let rig = Arc::new(Rig::on(&from, Time::Machine).await);
        let is_over = Arc::new(AtomicBool::new(false));
        let load = tokio::spawn({
            let (rig, is_over) = (Arc::clone(&rig), Arc::clone(&is_over));
            async move {
                let two = ClientId::parse("a-two").unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
                    for state in [ClientState::Suspended, ClientState::Active] {
                        rig.app.registry.set_client_state(two.clone(), state, rig.explanation()).await.unwrap();
                    }
                }
            }
        });
        let (file, told) = backed_up(&rig, "backup.gz").await;
        is_over.store(true, Ordering::Relaxed);
        load.await.unwrap();
        let mut rig = Arc::into_inner(rig).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!((told["signed"].clone(), told["registry"]["epoch"].as_i64()), (Value::Bool(true), Some(1)));
        let record = done(&rig, &rig.store, &["--json", "audit", "query", "--kind", "reading", "--since", "1h"]).await;
        assert!(record.contains(told["sha256"].as_str().unwrap()), "that it was made is on record: {record}");

        // What happens after the backup is lost with the store, a revocation among it.
        let world = Arc::clone(&rig.world);
        let (a, b) = (&world.a_dn, &world.b_dn);
        let api = rig.guarded_api().await;
        let of_a = rig.ask(a).await.token();
        let of_b = rig.ask(b).await.token();
        let before = token::read(&rig, &of_a).await.claims["registry_version"].as_i64().unwrap();
        let b_dn = ClientId::parse("b-dn").unwrap();
        rig.app.registry.set_client_state(b_dn, ClientState::Suspended, rig.explanation()).await.unwrap();
        answers(&rig, &api, &b.credential, &of_b, 401).await;
        answers(&rig, &api, &a.credential, &of_a, 200).await;
        rig.go_down().await;

        let store = fresh(&rig, &to, "restored").await;
        let said = done(&rig, &store, &["restore", "--from", &text(&file), "--why", "the disk is gone"]).await;
        for part in ["Every token of before is dead", "restore confirm", "The checkpoint that was kept"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        let again = refused(&rig, &store, &["restore", "--from", &text(&file)]).await;
        assert!(again.contains("is not empty"), "{again}");

        // Nobody serves it, neither the command nor whoever opens it as a server does.
        let served = refused(&rig, &store, &["serve"]).await;
        assert!(served.contains("restore confirm"), "{served}");
        let mut config = rig.app.config.clone();
        config.store = store.clone();
        let opened = App::open(config, Arc::clone(&rig.app.clock)).await;
        assert!(matches!(opened, Err(AppError::Restored(_))), "{opened:?}");
        let status = done(&rig, &store, &["restore", "status"]).await;
        assert!(status.contains("NOT CONFIRMED"), "{status}");

        // The operator gives again what was lost, and confirms.
        done(&rig, &store, &["client", "suspend", "b-dn", "--why", "was suspended on the day of the crash"]).await;
        let unsaid = refused(&rig, &store, &["restore", "confirm", "--why", " "]).await;
        assert!(unsaid.contains("sentence"), "{unsaid}");
        done(&rig, &store, &["restore", "confirm", "--why", "went through the tickets of that day"]).await;
        let twice = refused(&rig, &store, &["restore", "confirm", "--why", "once more"]).await;
        assert!(twice.contains("nothing to confirm"), "{twice}");

        rig.come_up_on(store.clone()).await;
        answers(&rig, &api, &a.credential, &of_a, 401).await;
        answers(&rig, &api, &b.credential, &of_b, 401).await;
        let list = rig.app.status.current();
        assert!(list.epoch > 1_700_000_000, "{}", list.epoch);
        let new = rig.ask(a).await.token();
        let claims = token::read(&rig, &new).await.claims;
        let version = claims["registry_version"].as_i64().unwrap();
        assert!(version > before + (1 << 40) && version < 1 << 53, "{version}");
        answers(&rig, &api, &a.credential, &new, 200).await;
        assert_eq!(rig.ask(b).await.status, 400, "what was given again holds");

        // It is on record, in the history and in a chain; and the log verifies, whatever was kept of the lost one.
        let history = done(&rig, &store, &["--json", "history", "--since", &before.to_string()]).await;
        for action in ["registry.restore", "registry.confirm_restore", "the disk is gone", "tickets of that day"] {
            assert!(history.contains(action), "{action}: {history}");
        }
        rig.app.audit.flush().await;
        let aside = std::fs::read_dir(rig.directory()).unwrap().filter_map(|entry| {
            let path = entry.unwrap().path();
            text(&path).contains("audit-checkpoint.until-").then_some(path)
        });
        let aside: Vec<_> = aside.collect();
        assert_eq!(aside.len(), 1, "{aside:?}");
        let verified = done(&rig, &store, &["audit", "verify", "--checkpoint", &text(&aside[0])]).await;
        assert!(verified.contains("Nothing was changed"), "{from:?} to {to:?}: {verified}");
        assert!(verified.contains("are of what was lost before a restore"), "{verified}");
        assert!(verified.contains("restored at") && verified.contains("these records are not here"), "{verified}");
        rig.stop().await;
    }
}

#[tokio::test]
async fn tokens_of_before_live_on_where_the_operator_says_so() {
    let mut rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let world = Arc::clone(&rig.world);
    let api = rig.guarded_api().await;
    let (of_a, of_b) = (rig.ask(&world.a_dn).await.token(), rig.ask(&world.b_dn).await.token());
    let (file, _) = backed_up(&rig, "backup.gz").await;
    rig.go_down().await;
    let store = fresh(&rig, &Engine::Sqlite, "restored").await;
    done(&rig, &store, &["restore", "--from", &text(&file)]).await;
    done(&rig, &store, &["participant", "suspend", "partner-b", "--why", "was suspended"]).await;
    done(&rig, &store, &["restore", "confirm", "--keep-tokens", "--why", "nothing else was revoked"]).await;
    rig.come_up_on(store).await;
    answers(&rig, &api, &world.b_dn.credential, &of_b, 401).await;
    assert!(rig.app.status.current().epoch > 1);
    answers(&rig, &api, &world.a_dn.credential, &of_a, 200).await;
    rig.stop().await;
}

/// What the lost store remembered of it is gone; the token it was good for is not to be had twice.
#[tokio::test]
async fn an_assertion_used_after_the_backup_is_not_good_again() {
    let mut rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let world = Arc::clone(&rig.world);
    let party = &world.a_jwt;
    let (file, _) = backed_up(&rig, "backup.gz").await;
    let used = party.request_with(&party.assertion(&world, "used").compact());
    let ask = async |rig: &Rig, request: &Request| {
        rig.peer(&party.credential).ask(rig.address, request).await.unwrap().status
    };
    assert_eq!(ask(&rig, &used).await, 200);
    rig.go_down().await;
    let store = fresh(&rig, &Engine::Sqlite, "restored").await;
    done(&rig, &store, &["restore", "--from", &text(&file)]).await;
    done(&rig, &store, &["restore", "confirm", "--why", "nothing was revoked"]).await;
    rig.come_up_on(store).await;
    assert_eq!(ask(&rig, &used).await, 400);
    assert_eq!(rig.last_record().await["reason"], "assertion_of_before_restore");
    // Not from the restore on, for its clock may be wrong, but from when a node has served since: later than that.
    let begun = rig.app.registry.epoch_begun(rig.app.clock.now());
    assert!(begun.as_seconds() > rig.app.status.current().epoch);
    let begun = begun.as_seconds();
    let is_another_second = || rig.app.clock.now().as_seconds() > begun;
    within(Duration::from_secs(10), "an assertion may be dated ten seconds ahead", is_another_second).await;
    let dated = |jti, iat| {
        let assertion = party.assertion(&world, jti).claims(|claims| claims.with("iat", iat)).compact();
        party.request_with(&assertion)
    };
    assert_eq!(ask(&rig, &dated("early", begun + 9)).await, 400);
    assert_eq!(ask(&rig, &dated("late", begun + 11)).await, 200);
    rig.stop().await;
}

/// Whoever makes what is missing on a new host serves nobody: the lost store may serve on until the first node comes up.
#[tokio::test]
async fn init_is_not_the_first_to_serve_what_was_restored() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let (file, _) = backed_up(&rig, "backup.gz").await;
    let store = fresh(&rig, &Engine::Sqlite, "restored").await;
    done(&rig, &store, &["restore", "--from", &text(&file)]).await;
    done(&rig, &store, &["restore", "confirm", "--why", "nothing was revoked"]).await;
    done(&rig, &store, &["init"]).await;
    let served_from = async || {
        let mut connection = AnyConnection::connect(store.as_str()).await.unwrap();
        let record: String =
            sqlx::query_scalar("SELECT record FROM restoration").fetch_one(&mut connection).await.unwrap();
        serde_json::from_str::<Value>(&record).unwrap()["served_from"].clone()
    };
    assert_eq!(served_from().await, Value::Null);
    let mut rig = rig;
    rig.go_down().await;
    rig.come_up_on(store.clone()).await;
    assert!(!served_from().await.is_null());
    rig.stop().await;
}

/// Restored twice from one file, as where the restored store was lost as well: neither epoch nor version comes again.
#[tokio::test]
async fn the_same_backup_begins_another_epoch_each_time() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let (file, _) = backed_up(&rig, "backup.gz").await;
    let mut seen: Vec<(i64, i64)> = Vec::new();
    for name in ["one", "two", "three"] {
        let store = fresh(&rig, &Engine::Sqlite, name).await;
        let said = done(&rig, &store, &["--json", "restore", "--from", &text(&file)]).await;
        let told: Value = serde_json::from_str(&said).unwrap();
        seen.push((told["epoch"].as_i64().unwrap(), told["first_version"].as_i64().unwrap()));
    }
    for pair in seen.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].1 + 1_000_000 < pair[1].1, "{seen:?}");
    }
    let answer = rig.anonymous().ask(rig.address, &Request::get("/jwks")).await.unwrap();
    assert_eq!(answer.status, 200, "the server went on all the while");
    rig.stop().await;
}
