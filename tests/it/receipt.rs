//! What a command that ends something says died with it: every token that was issued and lives, and no other.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::rig::{Engine, Rig, Time, thumbprint};
use crate::token;
use crate::world::{ACCOUNTS, Party};

async fn jti(rig: &Rig, party: &Party) -> String {
    let token = rig.ask(party).await.token();
    token::read(rig, &token).await.claims["jti"].as_str().unwrap().to_owned()
}

/// What died, by the command's own words, and where.
async fn ended(rig: &Rig, arguments: &[&str]) -> (BTreeSet<String>, Value) {
    let output = rig.command(&[&["--json"], arguments].concat()).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ended = &told["ended"];
    let jtis: BTreeSet<String> =
        ended["jtis"].as_array().unwrap().iter().map(|jti| jti.as_str().unwrap().to_owned()).collect();
    assert_eq!(ended["tokens"].as_u64().unwrap(), u64::try_from(jtis.len()).unwrap());
    (jtis, ended["resource_servers"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_something_says_what_died() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Machine).await;
        let world = &rig.world;
        let set = |jtis: &[&String]| jtis.iter().map(|jti| (*jti).clone()).collect::<BTreeSet<String>>();
        let dn = [jti(&rig, &world.a_dn).await, jti(&rig, &world.a_dn).await, jti(&rig, &world.a_dn).await];
        let two = jti(&rig, &world.a_two).await;
        let dns = jti(&rig, &world.a_dns).await;
        let of_b = jti(&rig, &world.b_dn).await;
        let uri = jti(&rig, &world.a_uri).await;
        // A refusal is no token.
        assert_eq!(rig.ask(&world.a_suspended).await.status, 400);

        let (died, servers) = ended(&rig, &["client", "suspend", "a-dn"]).await;
        assert_eq!(died, set(&[&dn[0], &dn[1], &dn[2]]), "{engine:?}");
        assert_eq!(servers, serde_json::json!({ ACCOUNTS: 3 }));
        let two_thumbprint = thumbprint(&world.a_two.credential).to_string();
        for reason in ["superseded", "key-compromise"] {
            let (died, _) = ended(&rig, &["certificate", "revoke", &two_thumbprint, "--reason", reason]).await;
            assert_eq!(died, set(&[&two]), "{engine:?} {reason}");
        }
        let listed = rig.command(&["--json", "entitlement", "list", "--client", "a-uri"]).await;
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let entitlement = listed[0]["id"].as_str().unwrap().to_owned();
        let (died, _) = ended(&rig, &["entitlement", "end", &entitlement]).await;
        assert_eq!(died, set(&[&uri]), "{engine:?}");
        let (died, _) = ended(&rig, &["participant", "suspend", "partner-b"]).await;
        assert_eq!(died, set(&[&of_b]), "{engine:?}");
        let (died, _) = ended(&rig, &["participant", "suspend", "partner-a"]).await;
        assert_eq!(died, set(&[&dn[0], &dn[1], &dn[2], &two, &dns, &uri]), "{engine:?}");
        let (died, servers) = ended(&rig, &["client", "suspend", "c-ip"]).await;
        assert_eq!((died.len(), servers), (0, serde_json::json!({})), "{engine:?}");

        let said = rig.command(&["client", "retire", "a-dn"]).await;
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains("3 tokens issued and not expired died with it"), "{said}");
        let readings = rig.command(&["--json", "audit", "query", "--kind", "reading"]).await;
        assert!(String::from_utf8(readings.stdout).unwrap().contains("\"receipt\""), "a look-up is on record");
        rig.stop().await;
    }
}
