//! Trust domains that publish their bundles: both profiles, over real TLS, by the command line and by the running server.

use std::sync::atomic::Ordering;
use std::time::Duration;

use countersign::pki::bundle::refresh::{RefreshError, Refreshed, refresh};
use countersign::pki::spiffe::TrustDomain;
use countersign::registry::AnchorId;
use countersign::registry::trust_anchor::TrustAnchor;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{Credential, Template};
use countersign_conformance::spiffe::{Domain, bundle};
use serde_json::Value;

use crate::https::{HttpsServer, rig_believing, seconds, web_authority, web_server};
use crate::rig::{Engine, Rig, Time, within};
use crate::wire::Request;
use crate::world::form_request;

async fn run(rig: &Rig, arguments: &[&str]) -> Result<Value, String> {
    let arguments = [&["--json"], arguments].concat();
    let output = rig.command(&arguments).await;
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

async fn stored(rig: &Rig, name: &str) -> TrustAnchor {
    let id = AnchorId::of_trust_domain(&TrustDomain::parse(name).unwrap());
    rig.app.registry.anchor(&id).await.unwrap().unwrap()
}

async fn refreshed(rig: &Rig, name: &str) -> Result<Refreshed, RefreshError> {
    let anchor = stored(rig, name).await;
    refresh(&rig.app.registry, &rig.app.fetcher, &anchor, rig.explanation()).await
}

fn ask_as(client_id: &str) -> Request {
    form_request(&[("grant_type", "client_credentials".to_owned()), ("client_id", client_id.to_owned())])
}

/// From the command line to a token, on both stores: the draft's client_id, a bundle by `https_web`, then its successor.
#[tokio::test]
async fn from_the_command_line_to_a_token_by_https_web() {
    for engine in Engine::every() {
        let web = web_authority();
        let (rig, _directory) = rig_believing(&engine, Time::Machine, &web).await;
        let old = Domain::new("partner-a.test", rig.world.now);
        let new = old.rotated();
        let endpoint = HttpsServer::start(&web_server(&web), &old.bundle(1)).await;
        let url = endpoint.url("bundle.json");
        let added =
            run(&rig, &["trust-domain", "add", "partner-a.test", "--bundle-url", &url, "--owner", "partner-a"]).await;
        let added = added.unwrap();
        assert_eq!((&added["sequence"], &added["endpoint"]["profile"]), (&1.into(), &"https_web".into()), "{added}");
        let id = "spiffe://partner-a.test/client";
        run(&rig, &["client", "add", id, "--participant", "partner-a", "--auth-method", "spiffe_x509"]).await.unwrap();
        let entitle =
            ["entitlement", "add", "--client", id, "--resource-server", "accounts", "--scope", "accounts:read"];
        run(&rig, &[&entitle[..], &["--reason", "an integration test"]].concat()).await.unwrap();
        let ask =
            async |credential: &Credential| rig.peer(credential).ask(rig.address, &ask_as(id)).await.unwrap().status;
        within_a_second(async || ask(&old.svid("/client")).await == 200, "a token").await;
        assert_eq!(ask(&new.svid("/client")).await, 400);

        assert_eq!(refreshed(&rig, "partner-a.test").await.unwrap(), Refreshed::Unchanged);
        endpoint.says("200 OK", new.bundle(2));
        let shown = run(&rig, &["trust-domain", "refresh", "partner-a.test"]).await.unwrap();
        assert_eq!(shown["sequence"], 2, "{shown}");
        within_a_second(async || ask(&new.svid("/client")).await == 200, "a token by the new authority").await;
        assert_eq!(ask(&old.svid("/client")).await, 400);
        let listed = run(&rig, &["trust-domain", "list"]).await.unwrap();
        assert_eq!(
            (listed[0]["trust_domain"].as_str(), listed[0]["sequence"].as_i64()),
            (Some("partner-a.test"), Some(2))
        );
        rig.stop().await;
    }
}

async fn within_a_second(mut done: impl AsyncFnMut() -> bool, what: &str) {
    let waited = tokio::time::timeout(Duration::from_secs(1), async {
        while !done().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within a second: {what}");
}

/// Every failure leaves the bundle that is held.
#[tokio::test]
async fn what_an_endpoint_may_say_and_what_it_may_not() {
    let web = web_authority();
    let (rig, _directory) = rig_believing(&Engine::Sqlite, Time::Standing, &web).await;
    let domain = Domain::new("partner-a.test", rig.world.now);
    let held = domain.bundle(5);
    let endpoint = HttpsServer::start(&web_server(&web), &held).await;
    let add = ["trust-domain", "add", "partner-a.test", "--owner", "partner-a", "--bundle-url"];
    run(&rig, &[&add[..], &[endpoint.url("bundle.json").as_str()]].concat()).await.unwrap();
    let elsewhere = HttpsServer::start(&web_server(&web), &domain.rotated().bundle(9)).await;
    let moved = format!("302 Found\r\nlocation: {}", elsewhere.url("bundle.json"));
    let huge = format!("{{\"keys\":[],\"spiffe_sequence\":9{}}}", " ".repeat(300_000));
    for (status, body, wanted) in [
        ("200 OK", "", "what came is not taken"),
        ("200 OK", "{}", "what came is not taken"),
        ("200 OK", "<html>", "what came is not taken"),
        ("200 OK", r#"{"keys":[],"spiffe_sequence":"6"}"#, "what came is not taken"),
        ("200 OK", r#"{"keys":[],"spiffe_sequence":4}"#, "an older bundle is not taken"),
        ("200 OK", huge.as_str(), "too long"),
        ("404 Not Found", held.as_str(), "404"),
        ("500 Internal Server Error", held.as_str(), "500"),
        (moved.as_str(), "", "302"),
    ] {
        endpoint.says(status, body);
        let refused = refreshed(&rig, "partner-a.test").await.unwrap_err().to_string();
        assert!(refused.contains(wanted), "{status} {body:.40}: {refused}");
        assert_eq!(stored(&rig, "partner-a.test").await.material.octets(), held.as_bytes());
    }
    assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 0, "a redirect was followed");
    // §4.1.1: another content under the same sequence is no news; §4.1.3: no key at all is.
    endpoint.says("200 OK", r#"{"keys":[],"spiffe_sequence":5}"#);
    assert_eq!(refreshed(&rig, "partner-a.test").await.unwrap(), Refreshed::Unchanged);
    endpoint.says("200 OK", r#"{"keys":[],"spiffe_sequence":6}"#);
    assert!(matches!(refreshed(&rig, "partner-a.test").await.unwrap(), Refreshed::Replaced { .. }));
    // An older one by the operator's hand: his word counts.
    let file = rig.file("bundle.json", &held);
    let file = file.to_str().unwrap();
    let shown = run(&rig, &["trust-domain", "refresh", "partner-a.test", "--bundle", file]).await.unwrap();
    assert_eq!(shown["sequence"], 5);
    rig.stop().await;
}

/// A server of the right name that nobody vouches for.
#[tokio::test]
async fn a_web_server_that_is_not_believed() {
    let web = web_authority();
    let (rig, _directory) = rig_believing(&Engine::Sqlite, Time::Standing, &web).await;
    let domain = Domain::new("partner-a.test", rig.world.now);
    let twin = web.twin();
    let other_name = web.issue(&Template::server(&["other.example"], seconds()), KeyKind::P256);
    for (credential, what) in [
        (web_server(&twin), "another authority of the same name"),
        (other_name, "another host"),
        (domain.svid("/bundle"), "an SVID"),
    ] {
        let endpoint = HttpsServer::start(&credential, &domain.bundle(1)).await;
        let add = ["trust-domain", "add", "partner-a.test", "--owner", "partner-a", "--bundle-url"];
        let refused = run(&rig, &[&add[..], &[endpoint.url("bundle.json").as_str()]].concat()).await.unwrap_err();
        assert!(refused.contains("could not be fetched"), "{what}: {refused}");
        assert_eq!(endpoint.asked.load(Ordering::SeqCst), 0, "{what}");
    }
    rig.stop().await;
}

/// `https_spiffe`: an endpoint that serves its own trust domain, through a rotation of the keys it is believed by.
#[tokio::test]
async fn an_endpoint_that_serves_itself_by_https_spiffe() {
    let web = web_authority();
    let (rig, _directory) = rig_believing(&Engine::Sqlite, Time::Standing, &web).await;
    let old = Domain::new("partner-a.test", rig.world.now);
    let new = old.rotated();
    // Its certificate says nothing of a host name; the URL says localhost.
    let endpoint = HttpsServer::start(&old.svid("/bundle"), &old.bundle(1)).await;
    let (url, id) = (endpoint.url("bundle.json"), old.id("/bundle"));
    let add = ["trust-domain", "add", "partner-a.test", "--owner", "partner-a", "--bundle-url", &url];
    let with_id = [&add[..], &["--endpoint-spiffe-id", &id]].concat();
    let refused = run(&rig, &with_id).await.unwrap_err();
    assert!(refused.contains("--bundle"), "{refused}");
    let file = rig.file("bundle.json", &old.bundle(1));
    let added = run(&rig, &[&with_id[..], &["--bundle", file.to_str().unwrap()]].concat()).await.unwrap();
    assert_eq!(added["endpoint"]["profile"], "https_spiffe", "{added}");

    // Both keys, then a server with a certificate by the new one, at the same place as far as the registry knows.
    let both = bundle(2, &[old.x509_key(), new.x509_key(), new.jwt_authority()]);
    endpoint.says("200 OK", &both);
    assert!(matches!(refreshed(&rig, "partner-a.test").await.unwrap(), Refreshed::Replaced { .. }));
    let rotated = HttpsServer::start(&new.svid("/bundle"), &new.bundle(3)).await;
    let moved = moved_to(&rig, &rotated.url("bundle.json")).await;
    let outcome = refresh(&rig.app.registry, &rig.app.fetcher, &moved, rig.explanation()).await;
    assert!(matches!(outcome, Ok(Refreshed::Replaced { .. })), "{outcome:?}");
    // The old key is gone: who still has it is not the endpoint any more.
    let stale = moved_to(&rig, &endpoint.url("bundle.json")).await;
    let refused = refresh(&rig.app.registry, &rig.app.fetcher, &stale, rig.explanation()).await.unwrap_err();
    assert!(refused.to_string().contains("peer_signature_invalid"), "{refused}");
    // Another workload of the trust domain, and a web server that anybody believes.
    for credential in [new.svid("/other"), web_server(&web)] {
        let wrong = HttpsServer::start(&credential, &new.bundle(9)).await;
        let moved = moved_to(&rig, &wrong.url("bundle.json")).await;
        let refused = refresh(&rig.app.registry, &rig.app.fetcher, &moved, rig.explanation()).await;
        assert!(matches!(refused, Err(RefreshError::Fetch(_))), "{refused:?}");
        assert_eq!(wrong.asked.load(Ordering::SeqCst), 0);
    }
    rig.stop().await;
}

/// The trust domain as it is stored, its endpoint elsewhere.
async fn moved_to(rig: &Rig, url: &str) -> TrustAnchor {
    use countersign::registry::trust_anchor::{AnchorMaterial, BundleEndpoint};
    let mut anchor = stored(rig, "partner-a.test").await;
    if let AnchorMaterial::TrustDomain { endpoint: BundleEndpoint::HttpsSpiffe { url: own, .. }, .. } =
        &mut anchor.material
    {
        url.clone_into(own);
    }
    anchor
}

/// `https_spiffe` by another trust domain, whose bundle is held (SPIFFE Federation §5.2.2, figure 4).
#[tokio::test]
async fn an_endpoint_of_another_trust_domain_by_https_spiffe() {
    let (rig, _directory) = rig_believing(&Engine::Sqlite, Time::Standing, &web_authority()).await;
    let (serving, served) =
        (Domain::new("federation.test", rig.world.now), Domain::new("partner-a.test", rig.world.now));
    let endpoint = HttpsServer::start(&serving.svid("/bundles"), &served.bundle(1)).await;
    let (url, id) = (endpoint.url("bundle.json"), serving.id("/bundles"));
    let add = ["trust-domain", "add", "partner-a.test", "--owner", "partner-a", "--bundle-url", &url];
    let add = [&add[..], &["--endpoint-spiffe-id", &id]].concat();
    let refused = run(&rig, &add).await.unwrap_err();
    assert!(refused.contains("federation.test"), "{refused}");
    let file = rig.file("federation.json", &serving.bundle(1));
    run(&rig, &["trust-domain", "add", "federation.test", "--bundle", file.to_str().unwrap()]).await.unwrap();
    let added = run(&rig, &add).await.unwrap();
    assert_eq!(added["sequence"], 1, "{added}");
    // A trust domain that has been retired says nothing of anybody any more.
    rig.app.registry.retire_anchor(stored(&rig, "federation.test").await.id, rig.explanation()).await.unwrap();
    let refused = refreshed(&rig, "partner-a.test").await;
    assert!(matches!(refused, Err(RefreshError::EndpointUnknown(_))), "{refused:?}");
    rig.stop().await;
}

/// A serving node asks by itself, and says how it stands.
#[tokio::test]
async fn a_running_server_asks_by_itself() {
    let web = web_authority();
    let (rig, _directory) = rig_believing(&Engine::Sqlite, Time::Standing, &web).await;
    let domain = Domain::new("asked-by-itself.test", rig.world.now);
    let endpoint = HttpsServer::start(&web_server(&web), &domain.bundle(1)).await;
    let add = ["trust-domain", "add", "asked-by-itself.test", "--owner", "partner-a", "--bundle-url"];
    run(&rig, &[&add[..], &[endpoint.url("bundle.json").as_str()]].concat()).await.unwrap();
    endpoint.says("200 OK", domain.bundle(7));
    // Started anew, it asks at once.
    let rig = rig.restarted().await;
    within(Duration::from_secs(10), "the endpoint is asked", || endpoint.asked.load(Ordering::SeqCst) > 1).await;
    let held = || async { stored(&rig, "asked-by-itself.test").await.material.octets() == domain.bundle(7).as_bytes() };
    within_a_second(async || held().await, "the next bundle is held").await;
    let history = rig.app.registry.history(countersign::registry::RegistryVersion(0), None, 10_000).await.unwrap();
    let last = history.iter().rfind(|entry| entry.action == "anchor.replace_bundle").unwrap();
    assert_eq!(serde_json::to_value(&last.actor).unwrap()["kind"], "server");
    let (_, metrics) = crate::operations::get(&rig, "/metrics").await;
    assert!(
        metrics.contains("countersign_trust_domain_bundle_age_seconds{trust_domain=\"asked-by-itself.test\"}"),
        "{metrics}"
    );
    rig.stop().await;
}

/// What an operator is told that cannot be.
#[tokio::test]
async fn trust_domains_that_cannot_be_enrolled() {
    let (rig, _directory) = rig_believing(&Engine::Sqlite, Time::Standing, &web_authority()).await;
    let domain = Domain::new("partner-a.test", rig.world.now);
    let good = rig.file("good.json", &domain.bundle(1));
    let empty = rig.file("empty.json", r#"{"keys":[]}"#);
    let foreign = rig.file("foreign.json", &bundle(1, &[domain.x509_key()]));
    let (good, empty, foreign) = (good.to_str().unwrap(), empty.to_str().unwrap(), foreign.to_str().unwrap());
    let add = async |arguments: &[&str]| run(&rig, &[&["trust-domain", "add"], arguments].concat()).await;
    let owner = ["--owner", "partner-a"];
    for (arguments, wanted) in [
        (vec!["partner-a.test", "--bundle", empty], "no key that can be used"),
        (vec!["other.test", "--bundle", foreign], "another trust domain's"),
        (vec!["partner-a.test", "--bundle", good, "--uri-prefix", "spiffe://b.test/"], "of its own only"),
        (vec!["partner-a.test", "--bundle", good, "--uri-prefix", "spiffe://partner-a.test"], "of its own only"),
        (vec!["partner-a.test", "--bundle-url", "http://localhost/"], "https://"),
        (vec!["partner-a.test", "--bundle", "nowhere.json"], "nowhere.json"),
    ] {
        let refused = add(&[&arguments[..], &owner[..]].concat()).await.unwrap_err();
        assert!(refused.contains(wanted), "{arguments:?}: {refused}");
    }
    add(&[&["partner-a.test", "--bundle", good][..], &owner[..]].concat()).await.unwrap();
    let refused = add(&["partner-a.test", "--bundle", good, "--owner", "partner-b"]).await.unwrap_err();
    assert!(refused.contains("ask the operator") && !refused.contains("partner-a "), "{refused}");
    // And clients.
    let client = async |arguments: &[&str]| run(&rig, &[&["client", "add"], arguments].concat()).await;
    let id = "spiffe://partner-a.test/x";
    for (arguments, wanted) in [
        (vec!["a-new", "--auth-method", "spiffe_x509"], "--spiffe-id"),
        (vec!["a-new", "--auth-method", "spiffe_jwt", "--spiffe-id", "spiffe://partner-a.test"], "path"),
        (vec![id, "--auth-method", "spiffe_jwt", "--spiffe-id", "spiffe://partner-a.test/y"], "client's own"),
        (vec![id, "--auth-method", "spiffe_jwt", "--san-dns", "x.example"], "--spiffe-id"),
        (vec!["a-new", "--spiffe-id", id], "--spiffe-id"),
    ] {
        let refused = client(&[&arguments[..], &["--participant", "partner-a"]].concat()).await.unwrap_err();
        assert!(refused.contains(wanted), "{arguments:?}: {refused}");
    }
    let by_jwt = ["a-jwt-svid", "--auth-method", "spiffe_jwt", "--spiffe-id", id, "--participant", "partner-a"];
    let added = client(&by_jwt).await.unwrap();
    assert_eq!(added["authentication"]["token_endpoint_auth_method"], "spiffe_jwt");
    assert_eq!(added["authentication"]["subject"]["canonical"], id);
    rig.stop().await;
}
