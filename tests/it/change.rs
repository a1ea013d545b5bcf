//! A change made elsewhere is in force in a running server within a second: another process on the same store, on both
//! engines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use countersign::registry::client::ClientState;
use countersign::registry::{ClientId, MemorySize, Registry};
use countersign::store::{self, Migrate};

use crate::rig::{Engine, Rig, Time, within};

#[tokio::test]
async fn a_change_made_by_another_node_is_in_force_within_a_second() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let other = store::open(rig.store.as_str(), Migrate::Check).await.unwrap();
        let registry = Registry::new(Arc::new(other.clone()), MemorySize::default(), "another").await.unwrap();
        let party = &rig.world.a_dn;
        let peer = rig.peer(&party.credential);
        let mut connection = peer.connect(rig.address).await.unwrap();
        assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200);
        for (to, status) in [(ClientState::Suspended, 400), (ClientState::Active, 200)] {
            let client = ClientId::parse(party.id).unwrap();
            registry.set_client_state(client, to, rig.explanation()).await.unwrap();
            let in_force = tokio::time::timeout(Duration::from_secs(1), async {
                while connection.ask(&party.request()).await.unwrap().status != status {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            assert!(in_force.await.is_ok(), "{to:?} not in force a second later on {engine:?}");
        }
        other.close().await;
        rig.stop().await;
    }
}

/// The same by the command line, as an operator does it.
#[tokio::test]
async fn a_change_made_by_the_command_line_is_in_force_within_a_second() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let party = &rig.world.a_dn;
        let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
        assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200);
        for (verb, status) in [("suspend", 400), ("reinstate", 200)] {
            let done = rig.command(&["client", verb, party.id, "--why", "an integration test"]).await;
            assert!(done.status.success(), "{verb} on {engine:?}: {}", String::from_utf8_lossy(&done.stderr));
            let in_force = tokio::time::timeout(Duration::from_secs(1), async {
                while connection.ask(&party.request()).await.unwrap().status != status {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
            assert!(in_force.await.is_ok(), "{verb} not in force a second later on {engine:?}");
        }
        let thumbprint = party.credential.thumbprint();
        let revoked = rig.command(&["--json", "certificate", "revoke", &thumbprint]).await;
        assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
        let in_force = tokio::time::timeout(Duration::from_secs(1), async {
            while connection.ask(&party.request()).await.unwrap().status != 400 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(in_force.await.is_ok(), "the revocation not in force a second later on {engine:?}");
        rig.stop().await;
    }
}

/// The fence (design §2): once a change is acknowledged, no token leaves any node that it forbids, not even one whose
/// decision was under way.
#[tokio::test]
async fn no_token_leaves_after_the_change_that_forbids_it_was_acknowledged() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let other = store::open(rig.store.as_str(), Migrate::Check).await.unwrap();
        let registry = Registry::new(Arc::new(other.clone()), MemorySize::default(), "another").await.unwrap();
        let party = &rig.world.a_dn;
        let acknowledged = Arc::new(AtomicBool::new(false));
        let granted = Arc::new(AtomicU32::new(0));
        let mut callers = Vec::new();
        for _ in 0..4 {
            let mut connection = rig.peer(&party.credential).connect(rig.address).await.unwrap();
            let (request, acknowledged, granted) = (party.request(), Arc::clone(&acknowledged), Arc::clone(&granted));
            callers.push(tokio::spawn(async move {
                let mut after = 0;
                while after < 20 {
                    // Looked at before the request leaves: what was acknowledged by then binds the answer.
                    let forbidden = acknowledged.load(Ordering::SeqCst);
                    let status = connection.ask(&request).await.unwrap().status;
                    assert!(status == 400 || (status == 200 && !forbidden), "{status} after the acknowledgement");
                    after += u32::from(forbidden);
                    granted.fetch_add(u32::from(status == 200), Ordering::SeqCst);
                }
            }));
        }
        within(Duration::from_secs(20), "some tokens before the change", || granted.load(Ordering::SeqCst) >= 40).await;
        let client = ClientId::parse(party.id).unwrap();
        registry.set_client_state(client, ClientState::Suspended, rig.explanation()).await.unwrap();
        acknowledged.store(true, Ordering::SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        other.close().await;
        rig.stop().await;
    }
}
