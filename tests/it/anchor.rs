//! What the command line tells an operator of an anchor: when it is enrolled, when it is granted, and whenever it is looked at.

use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Authority, BasicConstraints, Name, Template};
use serde_json::Value;

use crate::rig::Rig;

async fn told(rig: &Rig, arguments: &[&str]) -> String {
    let done = rig.command(arguments).await;
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Enrols `authority` as the operator's and gives its id.
async fn enrolled(rig: &Rig, authority: &Authority) -> (String, String) {
    let file = rig.file("anchor.pem", &authority.to_pem());
    let told = told(rig, &["anchor", "add", file.to_str().unwrap()]).await;
    let id = told.split(' ').nth(1).unwrap().to_owned();
    (id, told)
}

#[tokio::test]
async fn what_may_surprise_is_said_at_entry_at_the_grant_and_ever_after() {
    let rig = Rig::start().await;
    let limited = Template {
        basic_constraints: Some(BasicConstraints { ca: true, path_length: Some(0) }),
        ..Template::authority(Name::common("Shared CA"), rig.world.now)
    };
    let (id, entered) = enrolled(&rig, &Authority::root_with(limited, KeyKind::P256, rig.world.now)).await;
    assert!(entered.contains("note: its path length is zero"), "{entered}");
    let grant = ["anchor", "grant", &id, "--participant", "partner-a"];
    let granted = told(&rig, &[&grant[..], &["--dns-suffix", "partner-a.example"]].concat()).await;
    assert!(!granted.contains("caution"), "{granted}");
    let granted = told(&rig, &[&grant[..], &["--any-name"]].concat()).await;
    assert!(granted.contains("caution: it is shared, and here it may vouch for any name"), "{granted}");
    let shown = told(&rig, &["anchor", "show", &id]).await;
    assert!(shown.contains("note: its path length is zero"), "{shown}");
    let shown: Value = serde_json::from_str(&told(&rig, &["--json", "anchor", "show", &id]).await).unwrap();
    assert_eq!(
        (&shown["id"], &shown["notes"][0]["name"]),
        (&id.as_str().into(), &"no_intermediates".into()),
        "{shown}"
    );
    let listed = told(&rig, &["anchor", "list"]).await;
    let line = listed.lines().find(|line| line.contains(&id)).unwrap();
    assert!(line.trim_end().ends_with("no_intermediates"), "{line}");
    // A CA that has expired is not taken at all.
    let over = Template { not_after: rig.world.now - 1, ..Template::authority(Name::common("Old CA"), rig.world.now) };
    let over = Authority::root_with(over, KeyKind::P256, rig.world.now);
    let file = rig.file("old.pem", &over.to_pem());
    let refused = rig.command(&["anchor", "add", file.to_str().unwrap()]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("it has expired"));
}

/// Partner A has one anchor of this name already: seven more, and the ninth is one too many.
#[tokio::test]
async fn of_one_name_eight_and_no_more() {
    let rig = Rig::start().await;
    for number in 2..=9 {
        let (id, _) = enrolled(&rig, &rig.world.a_root.twin()).await;
        let grant = ["anchor", "grant", &id, "--participant", "partner-a", "--dns-suffix", "partner-a.example"];
        let done = rig.command(&grant).await;
        let (told, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        if number <= 8 {
            assert!(told.contains("of the same name with another key"), "{number}: {told} {errors}");
        } else {
            assert_eq!(done.status.code(), Some(1), "{told}");
            assert!(errors.contains("participant partner-a has 8 active trust anchors of this name"), "{errors}");
        }
    }
    // All of them are tried, and the one that signed is found.
    assert_eq!(rig.ask(&rig.world.a_dn).await.status, 200);
}
