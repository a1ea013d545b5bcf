//! The perimeter (design §3): whose certificate maps to nobody is answered in JSON, or, where the operator wants it
//! strict, not at all.

use countersign::config::Perimeter;
use countersign::registry::certificate::RevocationReason;
use countersign::registry::edit::CertificateSelector;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{AltName, Credential, Template};

use crate::rig::{Engine, Rig, Time, thumbprint};
use crate::wire::{Request, Tls};
use crate::world::{Party, World, subject_of_a};

fn strangers(world: &World) -> Vec<(&'static str, Credential)> {
    let template = |name: &str| Template::client(subject_of_a(name), world.now);
    vec![
        ("a stranger under a stranger's authority", world.stranger_root.client("stranger")),
        (
            "a name nobody registered, under partner A's authority",
            world.a_root.issue(&template("nobody"), KeyKind::P256),
        ),
        ("signed by itself", Credential::self_signed(&template("nobody"), KeyKind::P256)),
        ("a new certificate where each has to be enrolled", world.a_root.issue(&template("a-required"), KeyKind::P256)),
    ]
}

#[tokio::test]
async fn by_default_a_stranger_is_told_in_json() {
    let rig = Rig::start().await;
    for (who, credential) in strangers(&rig.world) {
        let answer = rig.peer(&credential).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{who}: {answer}");
        assert_eq!(rig.peer(&credential).ask(rig.address, &Request::get("/jwks")).await.unwrap().status, 200, "{who}");
    }
}

#[tokio::test]
async fn a_strict_perimeter_closes_on_whoever_maps_to_nobody() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Standing, |config| config.perimeter = Perimeter::Strict).await;
    let world = &rig.world;
    for (who, credential) in strangers(world) {
        for request in [world.a_dn.request(), Request::get("/jwks")] {
            let answer = rig.peer(&credential).ask(rig.address, &request).await;
            assert!(answer.is_err(), "{who} was answered: {answer:?}");
        }
        let record = rig.last_record().await;
        assert_eq!((&record["stage"], &record["reason"]), (&"tls".into(), &"perimeter_closed".into()), "{who}");
        assert_eq!(record["thumbprint"], credential.thumbprint(), "{who}");
    }
    // Enrolled, or under the name of a client that enrols on first use.
    let new = world.a_root.issue(&Template::client(subject_of_a("a-dn"), world.now), KeyKind::P256);
    let names = (0..40).map(|number| AltName::Dns(format!("host-{number}.partner-a.example")));
    let many = Template::client(subject_of_a("a-dn"), world.now).with_alt_names(names);
    let many = world.a_root.issue(&many, KeyKind::P256);
    let known: [(&Party, &Credential); 5] = [
        (&world.a_dn, &world.a_dn.credential),
        (&world.a_dn, &new),
        (&world.a_dn, &many),
        (&world.a_required, &world.a_required.credential),
        (&world.a_self, &world.a_self.credential),
    ];
    for (party, credential) in known {
        let answer = rig.peer(credential).ask(rig.address, &party.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{}: {answer}", party.id);
    }
    // Who shows none reads what is public, and gets no token.
    assert_eq!(rig.anonymous().ask(rig.address, &Request::get("/jwks")).await.unwrap().status, 200);
    let answer = rig.anonymous().ask(rig.address, &world.a_dn.request()).await.unwrap();
    assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{answer}");
}

#[tokio::test]
async fn a_resumed_session_meets_a_strict_perimeter_again() {
    let rig = Rig::configured(&Engine::Sqlite, Time::Standing, |config| config.perimeter = Perimeter::Strict).await;
    let party = &rig.world.a_self;
    for tls in [Tls::V1_2, Tls::V1_3] {
        let peer = rig.peer_with(&party.credential, tls, &[b"http/1.1"]);
        for resumed in [false, true] {
            let mut connection = peer.connect(rig.address).await.unwrap();
            assert_eq!(connection.ask(&party.request()).await.unwrap().status, 200);
            assert_eq!(connection.resumed(), resumed);
        }
        if tls == Tls::V1_3 {
            let certificate = CertificateSelector::Thumbprint(thumbprint(&party.credential));
            let reason = RevocationReason::KeyCompromise;
            rig.app.registry.revoke_certificate(certificate, reason, rig.explanation()).await.unwrap();
            assert!(peer.ask(rig.address, &party.request()).await.is_err());
            let record = rig.last_record().await;
            assert_eq!(record["reason"], "perimeter_closed", "{record}");
            assert_eq!(record["thumbprint"], party.credential.thumbprint(), "{record}");
        }
    }
}
