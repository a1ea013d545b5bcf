//! Lists that are published over HTTPS: taken from a server that is believed, and from nobody else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign::registry::trust_anchor::{CrlSource, RevocationSources, TrustAnchor, Unknown};
use countersign_conformance::KeyKind;
use countersign_conformance::crl::{RevocationList, Revoked};
use countersign_conformance::pki::{Authority, Credential, Defect, Template};

use super::{IN_FORCE, anchor, publisher, until};
use crate::https::{HttpsServer, rig_believing, seconds, web_authority, web_server};
use crate::rig::{Engine, Rig, Time, within};
use crate::wire::Answer;
use crate::world::subject_of_a;

/// A server that believes HTTPS servers of `web`, and a client of partner A directly under its anchor.
struct Afar {
    rig: Rig,
    web: Authority,
    credential: Credential,
    _roots: tempfile::TempDir,
}

impl Afar {
    async fn new() -> Self {
        let web = web_authority();
        let (rig, roots) = rig_believing(&Engine::Sqlite, Time::Standing, &web).await;
        let template = Template::client(subject_of_a("a-dn"), rig.world.now);
        let credential = rig.world.a_root.issue(&template, KeyKind::P256);
        Self { rig, web, credential, _roots: roots }
    }

    fn list(&self, number: u64) -> RevocationList {
        RevocationList::new(number, self.rig.world.now)
    }

    fn signed(&self, list: &RevocationList) -> Vec<u8> {
        list.signed_by(&self.rig.world.a_root)
    }

    /// From now on the anchor's lists are there.
    async fn look_at(&self, location: String) {
        let crls = vec![CrlSource { location, issuer_der: None }];
        let revocation = RevocationSources { crls, ..RevocationSources::default() };
        let changed = TrustAnchor { unknown_revocation: Unknown::Refuse, revocation, ..anchor(&self.rig).await };
        self.rig.app.registry.change_anchor(changed, self.rig.explanation()).await.unwrap();
    }

    async fn ask(&self) -> Answer {
        self.rig.peer(&self.credential).ask(self.rig.address, &self.rig.world.a_dn.request()).await.unwrap()
    }

    /// This server has the anchor's lists: it is tried, nothing comes of it, and the operator can read why.
    async fn is_of_no_use(&self, server: &HttpsServer, problem: &str, what: &str) {
        self.look_at(server.url("1.crl")).await;
        within(IN_FORCE, what, || server.reached.load(Ordering::SeqCst) > 0).await;
        let id = anchor(&self.rig).await.id;
        let output = self.rig.command(&["anchor", "check-revocation", id.as_str()]).await;
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!output.status.success() && text.contains(problem), "{what}: {text}");
        assert_eq!(self.ask().await.status, 400, "{what}");
        assert_eq!(self.rig.last_record().await["reason"], "peer_revocation_unknown", "{what}");
    }
}

/// Over HTTPS too: by whom the operator believes (`fetch.roots`).
#[tokio::test]
async fn a_list_that_is_published_over_https_is_in_force() {
    let scene = Afar::new().await;
    let server = HttpsServer::start(&web_server(&scene.web), "").await;
    // On hold, it stays as it was in the registry: what is refused is refused by the list.
    let on_hold = Revoked::certificate(scene.credential.certificate(), scene.rig.world.now - 60).because(6);
    for (name, list, expected) in
        [("1.crl", scene.list(1), "ok"), ("2.crl", scene.list(2).revoking(on_hold), "peer_on_hold")]
    {
        server.says("200 OK", scene.signed(&list));
        scene.look_at(server.url(name)).await;
        until(&scene.rig, expected, async || scene.ask().await).await;
    }
    scene.rig.stop().await;
}

/// The list would be good, and it is signed: it is not even asked for.
#[tokio::test]
async fn no_list_comes_from_a_web_server_that_is_not_believed() {
    let scene = Afar::new().await;
    let list = scene.signed(&scene.list(1));
    let issued = |template: Template| scene.web.issue(&template, KeyKind::P256);
    let local = Template::server(&["localhost"], seconds());
    for (what, certificate) in [
        ("another host's", issued(Template::server(&["crl.example"], seconds()))),
        ("of another authority of the same name", web_server(&scene.web.twin())),
        ("of a trust anchor, which vouches for clients", web_server(&scene.rig.world.a_root)),
        ("expired", issued(Template { not_after: seconds() - 1, ..local.clone() })),
        ("for code signing", issued(local.with(Defect::PurposeCodeSigning, seconds()))),
    ] {
        let server = HttpsServer::start(&certificate, &list).await;
        scene.is_of_no_use(&server, "it could not be fetched: no connection", what).await;
        assert_eq!(server.asked.load(Ordering::SeqCst), 0, "{what}");
    }
    scene.rig.stop().await;
}

/// Where a server that is believed sends us is a place that nobody has named.
#[tokio::test]
async fn a_list_is_fetched_where_its_address_says_and_nowhere_else() {
    let scene = Afar::new().await;
    let list = scene.signed(&scene.list(1));
    let elsewhere = HttpsServer::start(&web_server(&scene.web), &list).await;
    let (plain, plainly_asked) = publisher(list.clone(), Duration::ZERO).await;
    for (status, location) in [
        ("301 Moved Permanently", elsewhere.url("1.crl")),
        ("302 Found", elsewhere.url("1.crl")),
        ("302 Found", format!("http://{plain}/1.crl")),
        ("307 Temporary Redirect", elsewhere.url("1.crl")),
    ] {
        let server = HttpsServer::start(&web_server(&scene.web), "").await;
        // With the list as what it says beside, too.
        server.says(&format!("{status}\r\nlocation: {location}"), &list);
        scene.is_of_no_use(&server, &format!("the answer was {}", &status[..3]), &location).await;
    }
    assert_eq!(elsewhere.reached.load(Ordering::SeqCst), 0);
    assert_eq!(plainly_asked.load(Ordering::SeqCst), 0);
    // And there it would have been.
    scene.look_at(elsewhere.url("1.crl")).await;
    until(&scene.rig, "ok", async || scene.ask().await).await;
    scene.rig.stop().await;
}
