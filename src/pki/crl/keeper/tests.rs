//! What is held, for whom, and after what: against a registry and files of its own.

use countersign_conformance::KeyKind;
use countersign_conformance::crl::{RevocationList as Made, distribution_points};
use countersign_conformance::pki::{Authority, Name, Template};
use countersign_resource_server::time::{ManualClock, UnixTime};
use futures_util::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use rustls::ClientConfig;
use tempfile::TempDir;

use super::*;
use crate::pki::crl::Serial;
use crate::pki::crl::verification::verify;
use crate::pki::revocation::UnknownStatus;
use crate::pki::scene::{NOW, Scene, now, presented};
use crate::pki::{PeerRefusal, Verifier};
use crate::registry::fixture::{because, registry};
use crate::registry::trust_anchor::{AnchorOwner, CrlSource, NameSpace, Unknown};

const LONGEST_BYTES: usize = 1024 * 1024;

/// One anchor whose lists are in a directory.
struct Rig {
    directory: TempDir,
    registry: Arc<Registry>,
    clock: Arc<ManualClock>,
    root: Authority,
    scene: Scene,
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With the anchor bent by `change`.
    async fn with(change: impl FnOnce(&mut TrustAnchor)) -> Self {
        let (directory, registry) = registry().await;
        let root = Authority::root("Root", NOW);
        let lists = directory.path().join("lists");
        std::fs::create_dir(&lists).unwrap();
        let scene = Scene::new("partner-a").granting(
            &root.certificate,
            |anchor| {
                anchor.owner = AnchorOwner::Operator;
                anchor.unknown_revocation = Unknown::Refuse;
                anchor.revocation.crls = vec![CrlSource { location: lists.display().to_string(), issuer_der: None }];
                change(anchor);
            },
            NameSpace { any: true, ..NameSpace::default() },
        );
        let anchor = scene.record.anchors[0].anchor.as_ref().clone();
        registry.add_anchor(anchor, b"Root".to_vec(), because("theirs")).await.unwrap();
        Self { directory, registry, clock: Arc::new(ManualClock::at(now())), root, scene }
    }

    fn anchor(&self) -> AnchorId {
        self.scene.record.anchors[0].anchor.id.clone()
    }

    fn setup(&self) -> Setup {
        let tls = ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        Setup {
            registry: Arc::clone(&self.registry),
            fetcher: Fetcher::new(&Arc::new(tls)),
            clock: Arc::<ManualClock>::clone(&self.clock),
            lists: Arc::default(),
            directory: self.directory.path().join("crls"),
            longest_bytes: LONGEST_BYTES,
        }
    }

    /// A keeper that looks at nothing by itself, with what it has found in the cache.
    async fn keeping(&self) -> Keeping {
        let (events, _) = mpsc::channel(64);
        let mut keeping = Keeping::new(self.setup(), events);
        keeping.look_at_all_anchors().await.unwrap();
        keeping.load_cache().await;
        keeping
    }

    fn publish(&self, name: &str, octets: &[u8]) {
        std::fs::write(self.directory.path().join("lists").join(name), octets).unwrap();
    }

    fn take(&self, keeping: &mut Keeping, number: u64) -> Result<bool, ListRefusal> {
        let der = Made::new(number, NOW).signed_by(&self.root);
        let verified = verify(&der, &keeping.anchors[&self.anchor()].issuers, now()).unwrap();
        keeping.take(&self.anchor(), verified, Some(der.into()))
    }

    /// A list of the anchor's, as if it had been read, for certificates that name this point.
    fn at_point(&self, keeping: &Keeping, number: &str, point: usize, octets: usize) -> Verified {
        let issuer = Arc::clone(&keeping.anchors[&self.anchor()].issuers[0]);
        let list = RevocationList {
            issuer_key: issuer.key_hash,
            scope: Scope { points: Some(vec![format!("https://crl.example/{point}")]), ..Scope::default() },
            number: Serial::of_hex(number).unwrap(),
            this_update: now(),
            next_update: now().after(Duration::from_secs(60)),
            entries: Vec::new(),
            digest: [0; 32],
            octets,
        };
        Verified { list: Arc::new(list), issuer }
    }
}

/// A machine may come up before it knows what time it is: what was held before is not yesterday's for that, and whoever
/// replays an older list gains nothing.
#[tokio::test]
async fn a_clock_that_is_set_back_forgets_no_list() {
    let rig = Rig::new().await;
    let mut before = rig.keeping().await;
    assert_eq!(rig.take(&mut before, 8), Ok(true));
    let kept = rig.directory.path().join("crls");
    let is_written = || {
        std::fs::read_dir(&kept).unwrap().any(|file| file.unwrap().path().extension().is_some_and(|name| name == "crl"))
    };
    while !is_written() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(before);
    rig.clock.step_to(UnixTime::from_seconds(0));
    let mut after = rig.keeping().await;
    assert_eq!(after.setup.lists.now().all().count(), 1);
    rig.clock.step_to(now());
    assert_eq!(rig.take(&mut after, 7), Err(ListRefusal::Older));
    drop(after);
    assert_eq!(rig.keeping().await.setup.lists.now().all().count(), 1);
}

#[tokio::test]
async fn the_lists_of_one_anchor_are_so_many_and_no_more() {
    let rig = Rig::new().await;
    let mut keeping = rig.keeping().await;
    for point in 0..MOST_LISTS {
        let verified = rig.at_point(&keeping, "01", point, 100);
        assert_eq!(keeping.take(&rig.anchor(), verified, None), Ok(true), "{point}");
    }
    let one_more = rig.at_point(&keeping, "01", MOST_LISTS, 100);
    assert_eq!(keeping.take(&rig.anchor(), one_more, None), Err(ListRefusal::TooMany));
    let mut next = rig.at_point(&keeping, "02", 0, 100);
    Arc::get_mut(&mut next.list).unwrap().digest = [1; 32];
    assert_eq!(keeping.take(&rig.anchor(), next, None), Ok(true), "in the place of another");
}

#[tokio::test]
async fn the_lists_of_one_anchor_are_so_long_and_no_longer() {
    let rig = Rig::new().await;
    let mut keeping = rig.keeping().await;
    for (point, octets, expected) in [
        (0, LONGEST_BYTES, Ok(true)),
        (1, (MOST_LONGEST_LISTS - 1) * LONGEST_BYTES, Ok(true)),
        (2, 1, Err(ListRefusal::TooMany)),
    ] {
        let verified = rig.at_point(&keeping, "01", point, octets);
        assert_eq!(keeping.take(&rig.anchor(), verified, None), expected, "{point}");
    }
}

fn point(number: usize) -> String {
    format!("https://crl.example/{number}")
}

/// Whoever certifies under an anchor may name as many distribution points as it likes: so many are watched, and those that
/// certificates still name stay.
#[tokio::test]
async fn the_distribution_points_of_one_anchor_are_so_many_and_no_more() {
    let rig = Rig::with(|anchor| anchor.revocation.crl_url_prefixes = vec!["https://crl.example/".to_owned()]).await;
    let mut keeping = rig.keeping().await;
    let watched = |keeping: &Keeping| keeping.sources.values().filter(|source| source.point_since.is_some()).count();
    for number in 0..MOST_POINTS {
        assert!(keeping.point(&rig.anchor(), &point(number)).is_some(), "{number}");
    }
    let one_more = point(MOST_POINTS);
    assert!(keeping.point(&rig.anchor(), &one_more).is_none(), "one more than are watched");
    // All but one are named again a second later, and for as long as that one may go unnamed it keeps its place.
    keeping.tick = 1;
    for number in (0..MOST_POINTS).filter(|number| *number != 7) {
        assert!(keeping.point(&rig.anchor(), &point(number)).is_some(), "{number}");
    }
    keeping.tick = POINT_TICKS - 1;
    assert!(keeping.point(&rig.anchor(), &one_more).is_none(), "a second before the seven days are over");
    keeping.tick = POINT_TICKS;
    assert!(keeping.point(&rig.anchor(), &one_more).is_some());
    let id = |number| (rig.anchor(), point(number));
    assert!(!keeping.sources.contains_key(&id(7)), "which nobody named for seven days");
    assert_eq!(watched(&keeping), MOST_POINTS);
    // The others were named a second later than that one.
    assert!(keeping.point(&rig.anchor(), &point(7)).is_none());
    assert!(keeping.point(&rig.anchor(), &point(0)).is_some(), "one that is watched is watched on");
    // A place that the operator has named is no such point, and makes room for none.
    assert!(keeping.sources.values().any(|source| source.point_since.is_none()));
}

/// What a publisher writes in its lists makes no series, however often it changes: they are of anchors.
#[tokio::test]
async fn lists_whose_scope_changes_all_the_time_make_no_more_series() {
    let rig = Rig::new().await;
    let mut keeping = rig.keeping().await;
    let recorder = PrometheusBuilder::new().build_recorder();
    let shown = |keeping: &mut Keeping| {
        metrics::with_local_recorder(&recorder, || keeping.measure());
        let text = recorder.handle().render();
        let mut series: Vec<_> = text.lines().filter(|line| line.starts_with("countersign_crl_")).collect();
        series.sort_unstable();
        series.into_iter().map(|line| line.split_once(' ').unwrap().1).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(&mut keeping), "", "no list");
    for (point, age, left) in [(0, 5, 60), (1, 7, 50), (2, 6, 70)] {
        let mut verified = rig.at_point(&keeping, "01", point, 100);
        let list = Arc::get_mut(&mut verified.list).unwrap();
        list.this_update = UnixTime::from_seconds(NOW - age);
        list.next_update = UnixTime::from_seconds(NOW + left);
        list.digest = [u8::try_from(point).unwrap(); 32];
        assert_eq!(keeping.take(&rig.anchor(), verified, None), Ok(true));
    }
    // Of the oldest, of all of them, and of the first that runs out, as their names are ordered.
    assert_eq!(shown(&mut keeping), "7 0 50");
    rig.clock.advance(Duration::from_secs(50));
    assert_eq!(shown(&mut keeping), "57 0 0");
    assert_eq!(keeping.said_stale, HashSet::from([[1; 32]]));
    keeping.forget(&rig.anchor());
    assert_eq!(shown(&mut keeping), "NaN NaN NaN", "no list any more");
    assert!(keeping.said_stale.is_empty(), "nothing is remembered of what is gone");
}

/// A path may show an intermediate while the lists are being read by those known before: they are read once more.
#[tokio::test]
async fn an_intermediate_that_is_shown_during_a_look_has_the_lists_read_again() {
    let rig = Rig::new().await;
    let issuing = rig.root.intermediate("Issuing");
    rig.publish("issuing.crl", &Made::new(1, NOW).signed_by(&issuing));
    let (events, mut incoming) = mpsc::channel(64);
    let mut keeping = Keeping::new(rig.setup(), events);
    keeping.look_at_all_anchors().await.unwrap();
    // Begun, and not yet run: this test's thread is the only one.
    keeping.look_at_sources();
    keeping.learn(&rig.anchor(), vec![issuing.certificate.clone()], Vec::new());
    while keeping.setup.lists.now().all().count() == 0 {
        let event = tokio::time::timeout(Duration::from_secs(10), incoming.recv()).await;
        keeping.hear(event.expect("nothing is looked at any more").unwrap()).await;
    }
}

/// An intermediate was replaced: the first requests under the new one wait until its list was looked at.
#[tokio::test]
async fn the_first_requests_under_an_intermediate_wait_for_its_list() {
    let rig = Rig::new().await;
    let issuing = rig.root.intermediate("Issuing");
    let credential = issuing.client("client");
    rig.publish("root.crl", &Made::new(1, NOW).signed_by(&rig.root));
    rig.publish("issuing.crl", &Made::new(1, NOW).signed_by(&issuing));
    let setup = rig.setup();
    let lists = Arc::clone(&setup.lists);
    let (keeper, running) = Keeper::open(setup).await.unwrap();
    // The issuing authority's list was read and refused before.
    while lists.now().all().count() == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let verifier = Verifier::with_lists(lists).kept_by(keeper);
    let (peer, client) = (presented(&credential), rig.scene.client());
    let asked = join_all((0..10).map(|_| verifier.verify(&peer, &client, now()))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    // Where there is no list, it is not waited for again and again.
    let other = rig.root.intermediate("Other").client("client");
    assert!(verifier.verify(&presented(&other), &client, now()).await.is_err());
    running.abort();
}

/// Neither for a distribution point nor for what an unknown intermediate may bring.
#[tokio::test]
async fn beyond_so_many_of_one_anchor_nobody_waits_for_lists_that_do_not_come() {
    for prefixes in [vec!["http://crl.partner.example/".to_owned()], Vec::new()] {
        let (root, other) = (Authority::root("root", NOW), Authority::root("other", NOW));
        let asked = |authority: &Authority| {
            let change = |anchor: &mut TrustAnchor| {
                anchor.unknown_revocation = Unknown::Refuse;
                anchor.revocation.crls = vec![CrlSource { location: "/nowhere/root.crl".to_owned(), issuer_der: None }];
                anchor.revocation.crl_url_prefixes = prefixes.clone();
            };
            let everything = NameSpace { any: true, ..NameSpace::default() };
            Scene::new("partner-a").granting(&authority.certificate, change, everything).client()
        };
        // Nobody hears what is wanted.
        let (events, _unheard) = mpsc::channel(1_000);
        let verifier = Verifier::new().kept_by(Arc::new(Keeper { events }));
        let mut template = Template::client(Name::common("client"), NOW);
        template.extensions.push(distribution_points(&["http://crl.partner.example/root.crl"]));
        let (peer, client) = (presented(&root.issue(&template, KeyKind::P256)), asked(&root));
        let mut waiting: Vec<_> = (0..64).map(|_| Box::pin(verifier.verify(&peer, &client, now()))).collect();
        assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()), "so many wait");
        let refused = verifier.verify(&peer, &client, now()).now_or_never().expect("one more is answered at once");
        assert_eq!(refused.map(drop), Err(PeerRefusal::RevocationUnknown { why: UnknownStatus::NoList }));
        let (peer, client) = (presented(&other.issue(&template, KeyKind::P256)), asked(&other));
        assert!(verifier.verify(&peer, &client, now()).now_or_never().is_none(), "another anchor's may wait");
    }
}

#[tokio::test]
async fn a_change_that_was_not_read_when_it_was_told_is_read_with_the_next_tick() {
    let rig = Rig::new().await;
    let mut keeping = rig.keeping().await;
    let locations =
        |keeping: &Keeping| -> Vec<String> { keeping.sources.keys().map(|source| format!("{source:?}")).collect() };
    let before = locations(&keeping);
    assert_eq!(before.len(), 1);
    let elsewhere = rig.directory.path().join("elsewhere").display().to_string();
    let mut anchor = rig.scene.record.anchors[0].anchor.as_ref().clone();
    anchor.revocation.crls = vec![CrlSource { location: elsewhere.clone(), issuer_der: None }];
    rig.registry.change_anchor(anchor, because("moved")).await.unwrap();
    assert_ne!(keeping.seen, Some(rig.registry.stand()));
    assert_eq!(locations(&keeping), before);

    keeping.catch_up().await;
    assert_eq!(keeping.seen, Some(rig.registry.stand()));
    let [after] = &locations(&keeping)[..] else { panic!("one source") };
    assert!(after.contains(&elsewhere), "{after}");

    // A fault in the midst of it: everything is looked at.
    keeping.seen = None;
    keeping.catch_up().await;
    assert_eq!(keeping.seen, Some(rig.registry.stand()));
}
