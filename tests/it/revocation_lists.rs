//! Certificate revocation lists: what an issuer takes back is refused on every kind of connection, and its tokens are dead,
//! within five seconds of the list being there; and nothing that comes in a list's place changes that.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use countersign::audit::RequestId;
use countersign::error::Refusal;
use countersign::issuance::issue;
use countersign::pki::{Handshake, PresentedChain};
use countersign::registry::trust_anchor::{CrlSource, RevocationSources, TrustAnchor, Unknown};
use countersign::registry::{ClientId, Page};
use countersign::request::Parameters;
use countersign_conformance::KeyKind;
use countersign_conformance::crl::{RevocationList, Revoked, distribution_points, to_pem};
use countersign_conformance::pki::{Authority, Credential, Template};
use futures_util::poll;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::circle::{call, calls};
use crate::operations::get;
use crate::rig::{Engine, Rig, Time, thumbprint, within};
use crate::sessions::{EVERY_WAY, Line};
use crate::wire::Answer;
use crate::world::{Party, subject_of_a};

mod over_https;

/// How soon what a list says is in force once it is there.
const IN_FORCE: Duration = Duration::from_secs(5);

/// Partner A's client under an intermediate, and a directory of lists.
struct Scene {
    rig: Rig,
    issuing: Authority,
    credential: Credential,
    lists: PathBuf,
}

impl Scene {
    /// With lists of root and intermediate that revoke nothing.
    async fn on(engine: &Engine, time: Time) -> Self {
        let scene = Self::without_sources(engine, time).await;
        let location = scene.lists.display().to_string();
        let issuer_der = Some(scene.issuing.certificate.clone());
        scene
            .configure(RevocationSources {
                crls: vec![CrlSource { location, issuer_der }],
                ..RevocationSources::default()
            })
            .await;
        scene
    }

    /// With lists that nobody looks for.
    async fn without_sources(engine: &Engine, time: Time) -> Self {
        let rig = Rig::on(engine, time).await;
        let issuing = rig.world.a_root.intermediate("Partner A Issuing 3");
        let credential = issuing.issue(&Template::client(subject_of_a("a-dn"), rig.world.now), KeyKind::P256);
        let lists = rig.directory().join("lists");
        std::fs::create_dir(&lists).unwrap();
        let scene = Self { rig, issuing, credential, lists };
        scene.publish_of_root(&scene.list(7));
        scene.publish(&scene.list(7));
        scene
    }

    async fn configure(&self, revocation: RevocationSources) {
        let registry = &self.rig.app.registry;
        let own = anchor(&self.rig).await;
        let changed = TrustAnchor { unknown_revocation: Unknown::Refuse, revocation, ..own };
        registry.change_anchor(changed, self.rig.explanation()).await.unwrap();
    }

    fn list(&self, number: u64) -> RevocationList {
        RevocationList::new(number, self.rig.world.now)
    }

    fn revoked(&self, reason: u8) -> Revoked {
        Revoked::certificate(self.credential.certificate(), self.rig.world.now - 60).because(reason)
    }

    fn publish(&self, list: &RevocationList) {
        put(&self.lists.join("issuing.crl"), &list.signed_by(&self.issuing));
    }

    fn publish_of_root(&self, list: &RevocationList) {
        put(&self.lists.join("root.pem"), to_pem(&list.signed_by(&self.rig.world.a_root)).as_bytes());
    }

    fn party(&self) -> &Party {
        &self.rig.world.a_dn
    }

    async fn ask(&self) -> Answer {
        self.rig.peer(&self.credential).ask(self.rig.address, &self.party().request()).await.unwrap()
    }

    /// Asks until the answer has this reason, `ok` for none.
    async fn until(&self, reason: &str) -> Answer {
        until(&self.rig, reason, async || self.ask().await).await
    }
}

pub(crate) async fn anchor(rig: &Rig) -> TrustAnchor {
    let anchors = rig.app.registry.anchors(Page::first(16)).await.unwrap();
    anchors.into_iter().find(|anchor| anchor.material.octets() == rig.world.a_root.certificate).unwrap()
}

async fn until(rig: &Rig, reason: &str, mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    let asked = tokio::time::timeout(IN_FORCE, async {
        loop {
            let answer = ask().await;
            let found = if answer.status == 200 { "ok".into() } else { rig.last_record().await["reason"].clone() };
            if found == reason {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    asked.await.unwrap_or_else(|_| panic!("not {reason} within {IN_FORCE:?}"))
}

/// As a publisher does: whole or not at all.
fn put(path: &Path, octets: &[u8]) {
    let beside = path.with_file_name(".new");
    std::fs::write(&beside, octets).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

#[tokio::test]
async fn what_a_list_takes_back_is_over_on_every_connection_and_at_the_api() {
    for engine in Engine::every() {
        for (reason, expected) in [(Some(1), "peer_revoked"), (Some(6), "peer_on_hold"), (None, "peer_issuer_revoked")]
        {
            let scene = Scene::on(&engine, Time::Machine).await;
            let (rig, party) = (&scene.rig, scene.party());
            let api = rig.guarded_api().await;
            let token = scene.until("ok").await.token();
            let mut lines = Vec::new();
            for kept in EVERY_WAY {
                let mut line = Line::open(rig, &scene.credential, kept).await;
                for resumed in [false, true] {
                    assert_eq!(line.ask(rig, party, resumed).await.status, 200, "{kept:?}");
                }
                lines.push((kept, line));
            }
            assert_eq!(calls(rig, &api, &scene.credential, &call(&token)).await.status, 200);

            match reason {
                Some(reason) => scene.publish(&scene.list(8).revoking(scene.revoked(reason))),
                None => {
                    let revoked = Revoked::certificate(&scene.issuing.certificate, rig.world.now);
                    scene.publish_of_root(&scene.list(8).revoking(revoked));
                }
            }
            let dead = tokio::time::timeout(IN_FORCE, async {
                scene.until(expected).await;
                while calls(rig, &api, &scene.credential, &call(&token)).await.status != 401 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            dead.await.unwrap_or_else(|_| panic!("{expected}: its token is alive after {IN_FORCE:?}"));
            for (kept, mut line) in lines {
                let answer = line.ask(rig, party, true).await;
                assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{kept:?}");
                assert_eq!(rig.last_record().await["reason"], expected, "{kept:?}");
            }
            // On hold, or below a revoked issuer, a certificate stays as it was.
            let record = rig.app.registry.certificate(&thumbprint(&scene.credential)).await.unwrap().unwrap();
            let state = if reason == Some(1) { "revoked" } else { "active" };
            assert_eq!(record.state.as_str(), state, "{expected}");
            scene.rig.stop().await;
        }
    }
}

#[tokio::test]
async fn released_from_hold_a_client_goes_on_and_its_old_tokens_do_not() {
    let scene = Scene::on(&Engine::Sqlite, Time::Machine).await;
    let api = scene.rig.guarded_api().await;
    let old = scene.until("ok").await.token();
    scene.publish(&scene.list(8).revoking(scene.revoked(6)));
    scene.until("peer_on_hold").await;
    let alive = async || calls(&scene.rig, &api, &scene.credential, &call(&old)).await.status != 401;
    while alive().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scene.publish(&scene.list(9));
    let new = scene.until("ok").await.token();
    assert_eq!(calls(&scene.rig, &api, &scene.credential, &call(&new)).await.status, 200);
    assert_eq!(calls(&scene.rig, &api, &scene.credential, &call(&old)).await.status, 401);
}

/// Two nodes look at the same files: the certificate is revoked once, and each refuses.
#[tokio::test]
async fn several_nodes_revoke_once() {
    for engine in Engine::every() {
        let scene = Scene::on(&engine, Time::Machine).await;
        scene.until("ok").await;
        let node = scene.rig.another_node().await;
        scene.publish(&scene.list(8).revoking(scene.revoked(4)));
        scene.until("peer_revoked").await;
        until(&scene.rig, "peer_revoked", async || {
            let answer = scene.rig.peer(&scene.credential).ask(node.address, &scene.party().request()).await.unwrap();
            node.app.audit.flush().await;
            answer
        })
        .await;
        let subject = format!("certificate:{}", thumbprint(&scene.credential));
        let history = async || {
            let since = countersign::registry::RegistryVersion(0);
            let all = scene.rig.app.registry.history(since, Some(subject.clone()), 100).await.unwrap();
            all.into_iter().filter(|entry| entry.action == "certificate.revoke").collect::<Vec<_>>()
        };
        while history().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let entries = history().await;
        assert_eq!(entries.len(), 1);
        assert!(entries[0].why.as_deref().unwrap().starts_with("revoked by revocation list 8 of issuer key "));
        let record = scene.rig.app.registry.certificate(&thumbprint(&scene.credential)).await.unwrap().unwrap();
        assert!(serde_json::to_string(&record).unwrap().contains("\"superseded\""), "the issuer's reason");
        node.stop().await;
        scene.rig.stop().await;
    }
}

/// A certificate is judged, then put on record, and a list that revokes it comes in between: it found nothing there whose
/// tokens it could end, so the very request that was judged before it is refused.
#[tokio::test]
async fn a_list_that_comes_between_proof_and_first_sighting_refuses_that_request() {
    for engine in Engine::every() {
        let scene = Scene::on(&engine, Time::Machine).await;
        // The intermediate, the lists and the client's record are known by an earlier certificate.
        scene.until("ok").await;
        // A store that answers at once lets the request come further than it should, one that is slow not far enough: then this
        // says nothing, and the next one may.
        let mut numbers = 8..18;
        while !list_comes_between(&scene, numbers.next().expect("one request waits for the store")).await {}
        scene.rig.stop().await;
    }
}

/// Whether a list of this number came between the proof and the first sighting of another certificate; that request was refused then.
async fn list_comes_between(scene: &Scene, number: u64) -> bool {
    let (app, party) = (Arc::clone(&scene.rig.app), scene.party());
    let next = scene.issuing.issue(&Template::client(subject_of_a("a-dn"), scene.rig.world.now), KeyKind::P256);
    let chain = next.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let remote = (Ipv4Addr::LOCALHOST, 50_000).into();
    let peer = Arc::new(PresentedChain::new(Handshake { remote, protocol: "TLSv1.3", resumed: false }, chain));
    let form = party.form().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let now = app.clock.now();
    let mut issuing = pin!(issue(&app, &peer, Ok(Parameters(form)), RequestId::random(now), now));
    // As far as it gets before the store is asked for something: which is to put the certificate on record.
    let is_waiting = poll!(issuing.as_mut()).is_pending();
    let revoked = Revoked::certificate(next.certificate(), scene.rig.world.now - 60).because(1);
    scene.publish(&scene.list(number).revoking(revoked));
    let id = ClientId::parse(party.id).unwrap();
    // Where the request stopped at loading the client, whoever else wants it waits for that request.
    let Ok(client) = tokio::time::timeout(IN_FORCE, app.registry.client(&id)).await else { return false };
    let client = client.unwrap();
    let in_force = tokio::time::timeout(IN_FORCE, async {
        while app.pki.verify(&peer, &client, now).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    in_force.await.unwrap_or_else(|_| panic!("not held within {IN_FORCE:?}"));
    if !is_waiting || app.registry.certificate(&thumbprint(&next)).await.unwrap().is_some() {
        return false;
    }

    let recorded = issuing.await;
    assert_eq!(recorded.answer().as_ref().map(|_| ()).map_err(Refusal::reason), Err("peer_revoked"));
    assert_eq!(scene.rig.last_record().await["reason"], "peer_revoked");
    // It was on record by then, which is after the first judgement.
    assert!(app.registry.certificate(&thumbprint(&next)).await.unwrap().is_some());
    true
}

/// What comes in a list's place and is none leaves what is held in force.
#[tokio::test]
async fn what_is_no_newer_list_changes_nothing() {
    let scene = Scene::on(&Engine::Sqlite, Time::Machine).await;
    scene.until("ok").await;
    scene.publish(&scene.list(8).revoking(scene.revoked(1)));
    scene.until("peer_revoked").await;
    let good = scene.list(9).signed_by(&scene.issuing);
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    let place = scene.lists.join("issuing.crl");
    for (what, octets) in [
        ("older", scene.list(7).signed_by(&scene.issuing)),
        ("the same number", scene.list(8).signed_by(&scene.issuing)),
        ("another's", scene.list(9).signed_by(&scene.rig.world.b_root)),
        ("broken", broken),
        ("cut short", good[..good.len() - 1].to_vec()),
        ("garbage", vec![0x30; 100_000]),
        ("nothing", Vec::new()),
    ] {
        let before = refusals(&scene.rig).await;
        put(&place, &octets);
        wait_for_refusal(&scene.rig, before, what).await;
        assert_eq!(scene.ask().await.status, 400, "{what}");
        assert_eq!(scene.rig.last_record().await["reason"], "peer_revoked", "{what}");
    }
    // Two gigabytes that are not there.
    let before = refusals(&scene.rig).await;
    let beside = scene.lists.join(".huge");
    std::fs::File::create(&beside).unwrap().set_len(2 << 30).unwrap();
    std::fs::rename(&beside, &place).unwrap();
    wait_for_refusal(&scene.rig, before, "two gigabytes").await;
    assert_eq!(scene.ask().await.status, 400);
    put(&place, &good);
    // The list no longer names it, the registry does: revoked is revoked.
    scene.until("certificate_revoked").await;
}

/// How often a list was refused so far, in this process.
async fn refusals(rig: &Rig) -> u64 {
    let metrics = get(rig, "/metrics").await.1;
    let lines = metrics.lines().filter(|line| line.starts_with("countersign_crls_refused_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn wait_for_refusal(rig: &Rig, before: u64, what: &str) {
    let waited = tokio::time::timeout(IN_FORCE, async {
        while refusals(rig).await == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what} is not refused");
}

#[tokio::test]
async fn a_restart_forgets_no_newer_list_and_starts_with_it() {
    let scene = Scene::on(&Engine::Sqlite, Time::Machine).await;
    scene.until("ok").await;
    scene.publish(&scene.list(8).revoking(scene.revoked(6)));
    scene.until("peer_on_hold").await;
    let kept = scene.rig.directory().join("crls");
    within(IN_FORCE, "both lists are written down", || std::fs::read_dir(&kept).unwrap().count() >= 2).await;
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o700);
    for file in std::fs::read_dir(&kept).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    // While it is down somebody puts an older list back, in which the certificate is good.
    tokio::time::sleep(Duration::from_millis(200)).await;
    scene.publish(&scene.list(7));
    let Scene { rig, issuing, credential, lists } = scene;
    let scene = Scene { rig: rig.restarted().await, issuing, credential, lists };
    assert_eq!(scene.ask().await.status, 400);
    assert_eq!(scene.rig.last_record().await["reason"], "peer_on_hold");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(scene.ask().await.status, 400);
    assert_eq!(scene.rig.last_record().await["reason"], "peer_on_hold");
}

#[tokio::test]
async fn a_list_past_its_time_is_no_list() {
    let scene = Scene::on(&Engine::Sqlite, Time::Standing).await;
    scene.until("ok").await;
    let end = Duration::from_secs(86_400);
    scene.rig.clock.advance(end - Duration::from_secs(1));
    assert_eq!(scene.ask().await.status, 200, "its last second");
    scene.rig.clock.advance(Duration::from_secs(1));
    assert_eq!(scene.ask().await.status, 400);
    assert_eq!(scene.rig.last_record().await["reason"], "peer_revocation_unknown");
    // And a new one puts it right.
    let later = RevocationList { next_update: Some(scene.rig.world.now + 2 * 86_400), ..scene.list(8) };
    scene.publish(&later);
    scene.publish_of_root(&later);
    scene.until("ok").await;
    let id = anchor(&scene.rig).await.id;
    for name in ["countersign_crl_age_seconds", "countersign_crl_seconds_until_next_update", "countersign_crl_entries"]
    {
        let series = format!("{name}{{anchor=\"{id}\"}} ");
        let shown = tokio::time::timeout(IN_FORCE, async {
            while !get(&scene.rig, "/metrics").await.1.contains(&series) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        assert!(shown.await.is_ok(), "{series}");
    }
}

/// The operator names a directory; which intermediate signs a list in it is learnt from the first path that leads there.
#[tokio::test]
async fn an_intermediates_list_is_known_once_a_path_has_shown_it() {
    let scene = Scene::without_sources(&Engine::Sqlite, Time::Machine).await;
    let location = scene.lists.display().to_string();
    let crls = vec![CrlSource { location, issuer_der: None }];
    scene.configure(RevocationSources { crls, ..RevocationSources::default() }).await;
    scene.until("ok").await;
    // A stranger's intermediate of the same name beside it, with a list of its own, changes nothing.
    let stranger = scene.rig.world.stranger_root.intermediate("Partner A Issuing 3");
    put(&scene.lists.join("stranger.crl"), &scene.list(99).revoking(scene.revoked(1)).signed_by(&stranger));
    let mut chain = scene.credential.clone();
    chain.chain.push(stranger.certificate.clone());
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let answer = scene.rig.peer(&chain).ask(scene.rig.address, &scene.party().request()).await.unwrap();
    assert_eq!(answer.status, 200, "{answer}");
    scene.publish(&scene.list(8).revoking(scene.revoked(1)));
    scene.until("peer_revoked").await;
}

/// From the command line to the next request, and what the operator reads on the way.
#[tokio::test]
async fn an_operator_names_a_list_and_sees_what_is_there() {
    let scene = Scene::without_sources(&Engine::Sqlite, Time::Machine).await;
    let rig = &scene.rig;
    let id = anchor(rig).await.id.to_string();
    let said = async |arguments: &[&str]| {
        let output = rig.command(arguments).await;
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.success(), text)
    };
    let (_, text) = said(&["anchor", "check-revocation", &id]).await;
    assert!(text.contains("no revocation source: only what is revoked in this registry is refused"), "{text}");
    let issuer = rig.file("issuing.pem", &scene.issuing.to_pem()).display().to_string();
    put(&scene.lists.join("readme"), b"no list");
    let (changed, text) = said(&["anchor", "change", &id, "--crl", "lists", "--crl-issuer", &issuer]).await;
    assert!(changed, "{text}");
    for part in [
        "it is refused",
        "issuing.crl: revocation list 7, issued ",
        "root.pem: revocation list 7, issued ",
        "0 revoked, for all certificates of its issuer",
        "note: ",
        "readme: not taken: there is no revocation list there",
        "tokens it vouched for have ended",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    scene.until("ok").await;
    scene.publish(&scene.list(8).revoking(scene.revoked(1)));
    scene.until("peer_revoked").await;
    let (_, text) = said(&["--json", "anchor", "check-revocation", &id]).await;
    let reports: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reports[0]["list"]["entries"], 1, "{reports}");
    for (arguments, problem) in [
        (vec!["anchor", "change", &id], "say what changes"),
        (vec!["anchor", "change", &id, "--crl", "ldap://crl.example/"], "must be a file, a directory, or an http"),
        (vec!["anchor", "change", &id, "--crl-url-prefix", "http://crl.example"], "a whole host and a slash"),
        (vec!["anchor", "change", &id, "--crl-issuer", &issuer], "goes with --crl"),
        (vec!["anchor", "change", &id, "--no-crl", "--crl", "x"], "cannot be used with"),
    ] {
        let (changed, text) = said(&arguments).await;
        assert!(!changed && text.contains(problem), "{problem}: {text}");
    }
    // A source that fails is a note and no error; without lists nothing is unknown.
    let (changed, text) = said(&["anchor", "change", &id, "--crl", "missing.crl"]).await;
    assert!(changed && text.contains("missing.crl: not taken: it cannot be read"), "{text}");
    assert!(text.contains("every certificate under this anchor is refused until there is a list"), "{text}");
    // Whoever asks is told so by the exit code.
    let (good, text) = said(&["anchor", "check-revocation", &id]).await;
    assert!(!good && text.contains("no revocation list of this anchor can be used now"), "{text}");
    let (changed, text) = said(&["anchor", "change", &id, "--no-crl"]).await;
    assert!(changed && text.contains("no revocation source"), "{text}");
    let (changed, text) = said(&["anchor", "change", &id, "--no-crl"]).await;
    assert!(!changed && text.contains("is so already"), "{text}");
}

/// A server of lists, and how often it was asked.
pub(crate) async fn publisher(list: Vec<u8>, patience: Duration) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (list, counter) = (list.clone(), Arc::clone(&counter));
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(patience).await;
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", list.len());
                let _ = stream.write_all(&[answer.as_bytes(), &list].concat()).await;
            });
        }
    });
    (address, asked)
}

/// A client whose certificate names a distribution point, and an anchor that lets it be fetched.
async fn at_a_point(
    url: impl Fn(SocketAddr) -> String,
    prefix: &str,
    patience: Duration,
) -> (Rig, Credential, Arc<AtomicUsize>) {
    let rig = Rig::on(&Engine::Sqlite, Time::Standing).await;
    let list = RevocationList::new(1, rig.world.now).signed_by(&rig.world.a_root);
    let (address, asked) = publisher(list, patience).await;
    let mut template = Template::client(subject_of_a("a-dn"), rig.world.now);
    template.extensions.push(distribution_points(&[&url(address)]));
    let credential = rig.world.a_root.issue(&template, KeyKind::P256);
    let own = anchor(&rig).await;
    let prefix = prefix.replace("ADDRESS", &address.to_string());
    let revocation = RevocationSources { crl_url_prefixes: vec![prefix], ..RevocationSources::default() };
    let changed = TrustAnchor { unknown_revocation: Unknown::Refuse, revocation, ..own };
    rig.app.registry.change_anchor(changed, rig.explanation()).await.unwrap();
    (rig, credential, asked)
}

#[tokio::test]
async fn a_distribution_point_is_fetched_once_for_all_who_wait() {
    let url = |address| format!("http://{address}/lists/1.crl");
    let (rig, credential, asked) = at_a_point(url, "http://ADDRESS/lists/", Duration::from_millis(300)).await;
    let requests = (0..20).map(|_| async {
        let answer = rig.peer(&credential).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
        assert_eq!(answer.status, 200, "{answer}");
    });
    futures_util::future::join_all(requests).await;
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_distribution_point_that_is_not_allowed_is_not_fetched() {
    let url = |address| format!("http://{address}/elsewhere/1.crl");
    let (rig, credential, asked) = at_a_point(url, "http://ADDRESS/lists/", Duration::ZERO).await;
    for _ in 0..2 {
        let answer = rig.peer(&credential).ask(rig.address, &rig.world.a_dn.request()).await.unwrap();
        assert_eq!(answer.status, 400);
        assert_eq!(rig.last_record().await["reason"], "peer_revocation_unknown");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_distribution_point_that_does_not_answer_holds_a_request_up_for_two_seconds() {
    let url = |address| format!("http://{address}/lists/1.crl");
    let (rig, credential, asked) = at_a_point(url, "http://ADDRESS/lists/", Duration::from_secs(600)).await;
    let (peer, request) = (rig.peer(&credential), rig.world.a_dn.request());
    let answer = tokio::time::timeout(Duration::from_secs(4), peer.ask(rig.address, &request));
    assert_eq!(answer.await.expect("an answer in time").unwrap().status, 400);
    assert_eq!(rig.last_record().await["reason"], "peer_revocation_unknown");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}
