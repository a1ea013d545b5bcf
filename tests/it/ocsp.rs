//! Certificates whose status is asked for: at a responder on the loopback interface, from the first request to the death of
//! tokens that were issued before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use countersign::registry::certificate::{CertificateState, RevocationReason};
use countersign::registry::edit::RecordKind;
use countersign::registry::trust_anchor::{NoncePolicy, OcspPolicy, RevocationSources, TrustAnchor, Unknown};
use countersign::registry::{Page, RegistryVersion, Thumbprint};
use countersign_conformance::KeyKind;
use countersign_conformance::ocsp::{self, Asked, HttpResponder, Reply, Status};
use countersign_conformance::pki::{Authority, Template};
use countersign_resource_server::time::Clock;

use crate::circle::{call, calls};
use crate::operations::{get, said};
use crate::rig::{Engine, Rig, Time, thumbprint};
use crate::sessions::{EVERY_WAY, Line};
use crate::wire::Answer;
use crate::world::{Party, subject_of_a};

/// How soon what a responder said has to be in force (design §6).
const FIVE_SECONDS: Duration = Duration::from_secs(5);

/// Longer than an answer goes without being renewed.
const RENEWAL: Duration = Duration::from_secs(301);

/// Partner A's anchor with a responder, and a client of partner A.
struct Stage {
    rig: Rig,
    responder: HttpResponder,
    says: Arc<Said>,
    party: Party,
}

/// What the responder says, by serial number; of every other certificate that it is good.
struct Said {
    /// Those it speaks for: its own key signs for all of them.
    issuers: Vec<Authority>,
    clock: Arc<dyn Clock>,
    lasts: i64,
    of: Mutex<HashMap<Vec<u8>, Status>>,
}

impl Said {
    fn reply(&self, asked: &Asked) -> Reply {
        let id = asked.ids[0].clone();
        let says = self.of.lock().unwrap().get(&id.serial).cloned().unwrap_or(Status::Good);
        let now = self.clock.now().as_seconds();
        let of_its_own = |issuer: &&Authority| ocsp::CertId::new(&issuer.name, &issuer.key.spki(), &id.serial) == id;
        match self.issuers.iter().find(of_its_own) {
            Some(issuer) => {
                let mut response = ocsp::Response::by_issuer(issuer, id, says, asked.nonce.clone(), now);
                response.entries[0].next_update = Some(now + self.lasts);
                Reply::Octets(response.signed(&issuer.key))
            }
            None => Reply::Octets(ocsp::unsuccessful(6)),
        }
    }

    /// From now on.
    fn say(&self, certificate: &[u8], status: Status) {
        self.of.lock().unwrap().insert(ocsp::serial_of(certificate).to_vec(), status);
    }
}

impl Stage {
    async fn set(rig: Rig, lasts: i64, change: impl FnOnce(&mut OcspPolicy, &HttpResponder)) -> Self {
        Self::under(rig, lasts, None, |_| {}, change).await
    }

    /// With a leaf directly under the anchor or under this intermediate of it, bent.
    async fn under(
        rig: Rig,
        lasts: i64,
        intermediate: Option<&Authority>,
        bend: impl FnOnce(&mut Template),
        change: impl FnOnce(&mut OcspPolicy, &HttpResponder),
    ) -> Self {
        let root = rig.world.a_root.clone();
        let mut issuers = vec![root.clone()];
        issuers.extend(intermediate.cloned());
        let clock = Arc::clone(&rig.app.clock);
        let says = Arc::new(Said { issuers, clock, lasts, of: Mutex::default() });
        let own = Arc::clone(&says);
        let responder = HttpResponder::start(move |asked| own.reply(asked)).unwrap();
        let mut policy = OcspPolicy {
            responder_url: Some(responder.url()),
            url_prefixes: Vec::new(),
            unknown: Unknown::Refuse,
            unreachable: Unknown::Refuse,
            nonce: NoncePolicy::Required,
        };
        change(&mut policy, &responder);
        let anchors = rig.app.registry.anchors(Page::first(16)).await.unwrap();
        let anchor = anchors.into_iter().find(|anchor| anchor.material.octets() == root.certificate).unwrap();
        let revocation = RevocationSources { ocsp: Some(policy), ..RevocationSources::default() };
        let anchor = TrustAnchor { revocation, ..anchor };
        rig.app.registry.change_anchor(anchor, rig.explanation()).await.unwrap();
        let mut template = Template::client(subject_of_a("a-dn"), rig.world.now);
        bend(&mut template);
        let credential = intermediate.unwrap_or(&root).issue(&template, KeyKind::P256);
        let party = Party { credential, ..rig.world.a_dn.clone() };
        Self { rig, responder, says, party }
    }

    async fn ask(&self) -> Answer {
        self.rig.ask(&self.party).await
    }

    /// The answer is a refusal for this reason, which the peer does not learn.
    async fn refused(&self, answer: &Answer, reason: &str, what: &str) {
        assert_eq!((answer.status, answer.error().as_str()), (400, "invalid_client"), "{what}: {answer}");
        assert_eq!(self.rig.last_record().await["reason"], reason, "{what}");
    }

    async fn state(&self) -> Option<CertificateState> {
        let thumbprint: Thumbprint = thumbprint(&self.party.credential);
        self.rig.app.registry.certificate(&thumbprint).await.unwrap().map(|certificate| certificate.state)
    }

    fn leaf(&self) -> &[u8] {
        self.party.credential.certificate()
    }
}

fn revoked(rig: &Rig, reason: u8) -> Status {
    Status::Revoked { at: rig.world.now - 100, reason: Some(reason) }
}

/// Waits at most five seconds, looking every few milliseconds.
async fn within_five_seconds<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = tokio::time::timeout(FIVE_SECONDS, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("not within five seconds: {what}"))
}

#[tokio::test]
async fn a_certificate_found_revoked_is_refused_on_every_connection_and_on_record() {
    for engine in Engine::every() {
        let stage = Stage::set(Rig::on(&engine, Time::Standing).await, 3_600, |_, _| {}).await;
        let mut lines = Vec::new();
        for kept in EVERY_WAY {
            let mut line = Line::open(&stage.rig, &stage.party.credential, kept).await;
            for resumed in [false, true] {
                let answer = line.ask(&stage.rig, &stage.party, resumed).await;
                assert_eq!(answer.status, 200, "{kept:?}: {answer}");
            }
            lines.push((kept, line));
        }
        assert_eq!(stage.responder.asked().len(), 1, "one question for all of them");
        assert_eq!(stage.state().await, Some(CertificateState::Active));
        let other = stage.rig.another_node().await;
        stage.says.say(stage.leaf(), revoked(&stage.rig, 1));
        stage.rig.clock.advance(RENEWAL);
        // Nobody asks: the server looks itself.
        let state = within_five_seconds("the certificate is revoked in the registry", async || {
            stage.state().await.filter(|state| *state != CertificateState::Active)
        })
        .await;
        let CertificateState::Revoked { reason: RevocationReason::KeyCompromise, .. } = state else {
            panic!("{state:?}")
        };
        for (kept, mut line) in lines {
            let answer = line.ask(&stage.rig, &stage.party, true).await;
            stage.refused(&answer, "peer_revoked", &format!("{kept:?}")).await;
        }
        let answer = stage.ask().await;
        stage.refused(&answer, "peer_revoked", "a new connection").await;
        // Another node that has asked nobody, and whose responder is gone: the registry says it.
        stage.responder.reply(|_| Reply::Http(503));
        let answer = stage.rig.peer(&stage.party.credential).ask(other.address, &stage.party.request()).await.unwrap();
        assert_eq!(answer.status, 400, "{answer}");
        other.stop().await;
        stage.rig.stop().await;
    }
}

/// A request that meets the revocation itself is refused, on the kind of line it came on.
#[tokio::test]
async fn the_request_that_waits_for_the_answer_is_refused() {
    for kept in EVERY_WAY {
        let stage = Stage::set(Rig::start().await, 3_600, |_, _| {}).await;
        stage.says.say(stage.leaf(), revoked(&stage.rig, 1));
        let mut line = Line::open(&stage.rig, &stage.party.credential, kept).await;
        let answer = line.ask(&stage.rig, &stage.party, false).await;
        stage.refused(&answer, "peer_revoked", &format!("{kept:?}")).await;
        let answer = line.ask(&stage.rig, &stage.party, true).await;
        stage.refused(&answer, "peer_revoked", &format!("{kept:?} again")).await;
        assert_eq!(stage.responder.asked().len(), 1);
    }
}

/// A token from before dies at the API within five seconds, whether its certificate is revoked, on hold, or its issuer is.
#[tokio::test]
async fn tokens_issued_before_die_at_the_guarded_api() {
    for (what, of_issuer, reason) in [("revoked", false, 4), ("on hold", false, 6), ("its issuer revoked", true, 1)] {
        let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
        let issuing = rig.world.a_issuing();
        // Answers of four seconds are renewed every two.
        let stage = Stage::under(rig, 4, Some(&issuing), |_| {}, |_, _| {}).await;
        let api = stage.rig.guarded_api().await;
        let token = stage.ask().await.token();
        let calls = async || calls(&stage.rig, &api, &stage.party.credential, &call(&token)).await;
        let answer = calls().await;
        assert_eq!(answer.status, 200, "{what}: {answer}");
        let taken_back = if of_issuer { &issuing.certificate[..] } else { stage.leaf() };
        stage.says.say(taken_back, revoked(&stage.rig, reason));
        within_five_seconds(what, async || (calls().await.status == 401).then_some(())).await;
        let expected = if reason == 4 { "revoked" } else { "active" };
        assert_eq!(stage.state().await.unwrap().as_str(), expected, "{what}");
        let answer = stage.ask().await;
        let reason = match (of_issuer, reason) {
            (true, _) => "peer_issuer_revoked",
            (false, 6) => "peer_on_hold",
            (false, _) => "peer_revoked",
        };
        stage.refused(&answer, reason, what).await;
    }
}

#[tokio::test]
async fn a_hold_is_lifted() {
    let stage = Stage::set(Rig::start().await, 3_600, |_, _| {}).await;
    let answer = stage.ask().await;
    assert_eq!(answer.status, 200, "{answer}");
    for _ in 0..2 {
        stage.says.say(stage.leaf(), revoked(&stage.rig, 6));
        stage.rig.clock.advance(RENEWAL);
        within_five_seconds("the hold", async || (stage.ask().await.status == 400).then_some(())).await;
        let answer = stage.ask().await;
        stage.refused(&answer, "peer_on_hold", "on hold").await;
        assert_eq!(stage.state().await, Some(CertificateState::Active));
        stage.says.say(stage.leaf(), Status::Good);
        stage.rig.clock.advance(RENEWAL);
        within_five_seconds("its end", async || (stage.ask().await.status == 200).then_some(())).await;
    }
}

/// A node that finds a hold later than another has issued tokens meanwhile: it ends them too.
#[tokio::test]
async fn every_node_ends_the_tokens_of_a_hold() {
    let stage = Stage::set(Rig::start().await, 3_600, |_, _| {}).await;
    let other = stage.rig.another_node().await;
    let ask_other =
        async || stage.rig.peer(&stage.party.credential).ask(other.address, &stage.party.request()).await.unwrap();
    assert_eq!((stage.ask().await.status, ask_other().await.status), (200, 200));
    stage.says.say(stage.leaf(), revoked(&stage.rig, 6));
    stage.rig.clock.advance(RENEWAL);
    let subject = RecordKind::Certificate.subject(&thumbprint(&stage.party.credential).to_string());
    let mut nodes = within_five_seconds("both have ended its tokens", async || {
        let history = stage.rig.app.registry.history(RegistryVersion(0), Some(subject.clone()), 100).await.unwrap();
        let ended = history.into_iter().filter(|entry| entry.action == "certificate.end_tokens");
        let nodes: Vec<_> = ended.map(|entry| entry.actor).collect();
        (nodes.len() == 2).then_some(nodes)
    })
    .await;
    nodes.dedup();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    assert_eq!((stage.ask().await.status, ask_other().await.status), (400, 400));
    other.stop().await;
}

type Rule = fn(&Asked) -> Reply;

#[tokio::test]
async fn what_unknown_and_silence_mean_is_the_anchors_word() {
    let replies: [(&str, Rule); 4] = [
        ("down", |_| Reply::Http(503)),
        ("tryLater", |_| Reply::Octets(ocsp::unsuccessful(3))),
        ("garbage", |_| Reply::Octets(b"garbage".to_vec())),
        ("silent", |_| Reply::Silence),
    ];
    for (what, reply) in replies {
        let stage = Stage::set(Rig::start().await, 3_600, |_, _| {}).await;
        stage.responder.reply(reply);
        let begun = tokio::time::Instant::now();
        let answer = stage.ask().await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{what}: {:?}", begun.elapsed());
        stage.refused(&answer, "peer_revocation_unknown", what).await;
        let accepting = |policy: &mut OcspPolicy, _: &HttpResponder| {
            (policy.unreachable, policy.nonce) = (Unknown::Accept, NoncePolicy::IfPresent);
        };
        let stage = Stage::set(Rig::start().await, 3_600, accepting).await;
        stage.responder.reply(reply);
        assert_eq!(stage.ask().await.status, 200, "{what}");
        // While that stands, nobody waits again.
        let begun = tokio::time::Instant::now();
        assert_eq!(stage.ask().await.status, 200, "{what}");
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{what}: {:?}", begun.elapsed());
        // It does not accept what is unknown, nor what is revoked.
        let stage = Stage::set(Rig::start().await, 3_600, accepting).await;
        stage.says.say(stage.leaf(), Status::Unknown);
        let answer = stage.ask().await;
        stage.refused(&answer, "peer_revocation_unknown", "unknown").await;
    }
    let stage = Stage::set(Rig::start().await, 3_600, |policy, _| policy.unknown = Unknown::Accept).await;
    stage.says.say(stage.leaf(), Status::Unknown);
    assert_eq!(stage.ask().await.status, 200);
    stage.says.say(stage.leaf(), revoked(&stage.rig, 5));
    stage.rig.clock.advance(RENEWAL);
    let answer = stage.ask().await;
    stage.refused(&answer, "peer_revoked", "unknown before").await;
}

#[tokio::test]
async fn a_certificates_own_responder_is_asked_only_if_it_is_allowed() {
    let good = HttpResponder::start(|_| Reply::Http(500)).unwrap();
    let named = |url: String| move |template: &mut Template| template.extensions.push(ocsp::responders(&[&url]));
    // The stage's responder starts with it, so that its URL is known only then: a certificate names it afterwards.
    let stage = Stage::under(Rig::start().await, 3_600, None, named(good.url()), |policy, responder| {
        policy.responder_url = None;
        policy.url_prefixes = vec![responder.url()];
    })
    .await;
    let answer = stage.ask().await;
    stage.refused(&answer, "peer_revocation_unknown", "another responder than is allowed").await;
    assert!(good.asked().is_empty() && stage.responder.asked().is_empty());
    let mut template = Template::client(subject_of_a("a-dn"), stage.rig.world.now);
    named(stage.responder.url())(&mut template);
    let credential = stage.rig.world.a_root.issue(&template, KeyKind::P256);
    let party = Party { credential, ..stage.party.clone() };
    assert_eq!(stage.rig.ask(&party).await.status, 200);
    assert_eq!(stage.responder.asked().len(), 1);
}

/// Every certificate of the path is asked after, each of its own issuer.
#[tokio::test]
async fn intermediates_are_asked_after_as_well() {
    let rig = Rig::start().await;
    let issuing = rig.world.a_issuing();
    let stage = Stage::under(rig, 3_600, Some(&issuing), |_| {}, |_, _| {}).await;
    assert_eq!(stage.ask().await.status, 200);
    let mut asked: Vec<_> = stage.responder.asked().into_iter().map(|asked| asked.ids[0].clone()).collect();
    asked.sort_by_key(|id| id.serial != ocsp::serial_of(stage.leaf()));
    let of_issuing = ocsp::CertId::of(&issuing.certificate, &stage.rig.world.a_root);
    assert_eq!(asked, [ocsp::CertId::of(stage.leaf(), &issuing), of_issuing]);
}

/// A hostile authority cannot shut out somebody else's key by revoking a certificate it put that key in.
#[tokio::test]
async fn a_key_is_revoked_only_with_a_certificate_that_has_authenticated() {
    let stage = Stage::set(Rig::start().await, 3_600, |_, _| {}).await;
    let theirs = stage.rig.world.a_root.issue_for(
        &Template::client(subject_of_a("a-two"), stage.rig.world.now),
        Arc::clone(&stage.party.credential.key),
    );
    let facts = crate::rig::facts(&theirs);
    let issuer_key = countersign::registry::KeyHash::of(&stage.rig.world.a_root.key.spki());
    let known = countersign::registry::certificate::CertificateFacts { issuer_key: Some(issuer_key), ..facts };
    let client = countersign::registry::ClientId::parse("a-two").unwrap();
    stage.rig.app.registry.add_certificate(client, known, stage.rig.explanation()).await.unwrap();
    stage.says.say(theirs.certificate(), revoked(&stage.rig, 1));
    let twin = Party { credential: theirs.clone(), ..stage.rig.world.a_two.clone() };
    let answer = stage.rig.ask(&twin).await;
    stage.refused(&answer, "peer_revoked", "the certificate that is revoked").await;
    within_five_seconds("it is on record", async || {
        let certificate = stage.rig.app.registry.certificate(&thumbprint(&theirs)).await.unwrap().unwrap();
        (certificate.state.as_str() == "revoked").then_some(())
    })
    .await;
    assert_eq!(stage.ask().await.status, 200, "the key's holder");
}

#[tokio::test]
async fn the_status_is_shown_in_metrics() {
    let stage = Stage::set(Rig::on(&Engine::Sqlite, Time::Machine).await, 3_600, |_, _| {}).await;
    assert_eq!(stage.ask().await.status, 200);
    let text = within_five_seconds("the metrics", async || {
        let (_, text) = get(&stage.rig, "/metrics").await;
        text.contains("countersign_ocsp_remembered_certificates").then_some(text)
    })
    .await;
    for line in ["countersign_ocsp_answers_total{outcome=\"good\"}", "countersign_ocsp_exchange_duration_seconds_count"]
    {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test]
async fn an_operator_says_who_is_asked() {
    let rig = Rig::start().await;
    let root = rig.file("root.pem", &rig.world.stranger_root.to_pem()).display().to_string();
    let add = async |more: &[&str]| said(&rig, &[&["anchor", "add", &root][..], more].concat()).await;
    for (wrong, sentence) in [
        (&["--ocsp"][..], "say whom to ask"),
        (&["--ocsp", "--ocsp-unreachable", "accept"], "say whom to ask"),
        (&["--ocsp-responder", "http://ocsp.partner.example/"], "--ocsp"),
        (&["--ocsp", "--ocsp-responder", "ldap://ocsp.partner.example/"], "must be an http or https URL"),
        (&["--ocsp", "--ocsp-responder", "http://user@ocsp.partner.example/"], "must be an http or https URL"),
        (&["--ocsp", "--ocsp-url-prefix", "http://ocsp.partner.example"], "a whole host and a slash"),
        (
            &["--ocsp", "--ocsp-responder", "http://a.example/", "--ocsp-url-prefix", "http://b.example/"],
            "cannot be used",
        ),
    ] {
        let (done, told) = add(wrong).await;
        assert!(!done && told.contains(sentence), "{wrong:?}: {told}");
    }
    let (done, told) = add(&["--ocsp", "--ocsp-responder", "http://ocsp.partner.example"]).await;
    let expected = "status is asked of http://ocsp.partner.example/; a certificate that the responder does not know is \
                    refused, one without an answer is refused";
    assert!(done && told.contains(expected), "{told}");
    let anchors = rig.app.registry.anchors(Page::first(16)).await.unwrap();
    let anchor = anchors.into_iter().find(|anchor| anchor.material.octets() == rig.world.stranger_root.certificate);
    let id = anchor.unwrap().id.to_string();
    let change = async |more: &[&str]| said(&rig, &[&["anchor", "change", &id][..], more].concat()).await;
    let prefix = ["--ocsp", "--ocsp-url-prefix", "http://a.example/", "--ocsp-unreachable", "accept"];
    let (done, told) = change(&[&prefix[..], &["--ocsp-nonce", "required"]].concat()).await;
    let expected = "status is asked of what certificates name under http://a.example/; a certificate that the responder \
                    does not know is refused, one without an answer is accepted; answers must repeat";
    assert!(done && told.contains(expected), "{told}");
    // What is not said stays.
    let (done, told) = change(&["--ocsp", "--ocsp-unknown", "accept"]).await;
    assert!(
        done && told.contains("does not know is accepted, one without an answer is accepted; answers must"),
        "{told}"
    );
    let (done, told) = change(&["--no-ocsp"]).await;
    assert!(done && told.contains("no revocation source"), "{told}");
}
