//! Counting, one thing at a time.

use countersign_conformance::pki::Authority;
use countersign_resource_server::time::ManualClock;

use super::*;
use crate::pki::scene::{presented, presented_list};
use crate::registry::RegistryVersion;
use crate::registry::fixture::{NOW, client_id, resource_server, resource_server_id};

/// Drawn up at 7; its marks are the same since 5.
const LIST: ListVersion = ListVersion { epoch: 1, number: 7, unchanged_since: 5 };

struct Scene {
    followers: Followers,
    clock: Arc<ManualClock>,
    authority: Authority,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let time = Arc::<ManualClock>::clone(&clock);
        Self { followers: Followers::new(time), clock, authority: Authority::root("CA", NOW.as_seconds()) }
    }

    /// A connection with a certificate, on which the list after `said` was asked for.
    fn connected(&self, said: (i64, i64)) -> Arc<PresentedChain> {
        let peer = presented(&self.authority.client("api"));
        self.followers.asked(&peer, said);
        peer
    }

    /// The same, of the resource server with this id.
    fn of(&self, id: &str, said: (i64, i64)) -> Arc<PresentedChain> {
        let peer = self.connected(said);
        self.is(&peer, id);
        peer
    }

    fn is(&self, peer: &Arc<PresentedChain>, id: &str) {
        let server = Server::of(&resource_server(id), peer);
        assert!(server.is_some());
        self.followers.known(vec![(Arc::clone(peer), server)]);
    }

    fn summary(&self) -> Summary {
        self.followers.summary(LIST, self.clock.now())
    }

    /// How many resource servers have it, which do not, and how many others ask.
    fn counted(&self) -> (usize, Vec<String>, usize) {
        let summary = self.summary();
        (summary.taken, summary.behind.into_iter().map(|behind| behind.id).collect(), summary.others)
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_version_is_held_from_its_first_mark_to_its_number() {
    for (said, expected) in
        [((1, 4), false), ((1, 5), true), ((1, 7), true), ((1, 8), false), ((0, 7), false), ((2, 7), false)]
    {
        let scene = Scene::new();
        let _api = scene.of("api", said);
        assert_eq!(scene.summary().taken == 1, expected, "{said:?}");
    }
}

#[test]
fn what_was_said_last_counts() {
    let scene = Scene::new();
    let api = scene.of("api", (1, 7));
    assert_eq!(scene.counted(), (1, names(&[]), 0));
    scene.followers.asked(&api, (1, 4));
    assert_eq!(scene.counted(), (0, names(&["api"]), 0), "it went back");
    scene.followers.asked(&api, (1, 7));
    assert_eq!(scene.counted(), (1, names(&[]), 0));
}

#[test]
fn a_resource_server_has_it_once_each_of_its_connections_has() {
    let scene = Scene::new();
    let (_one, two, _other) = (scene.of("api", (1, 7)), scene.of("api", (1, 4)), scene.of("other", (1, 7)));
    assert_eq!(scene.counted(), (1, names(&["api"]), 0));
    scene.followers.asked(&two, (1, 5));
    let summary = scene.summary();
    assert_eq!((summary.taken, summary.heard.len()), (2, 2));
    let mut heard = ["api", "other"].map(|id| Heard::of(resource_server(id).resource.as_str()));
    heard.sort();
    assert_eq!(summary.heard, heard);
}

#[test]
fn whoever_is_no_resource_server_is_counted_and_not_named() {
    let scene = Scene::new();
    let nobody = presented_list(&[]);
    scene.followers.asked(&nobody, (1, 7));
    let (stranger, _not_looked_up) = (scene.connected((1, 7)), scene.connected((1, 7)));
    scene.followers.known(vec![(Arc::clone(&stranger), None)]);
    assert_eq!(scene.counted(), (0, names(&[]), 3));
    assert_eq!(scene.followers.unknown(9).len(), 1, "nobody is looked up twice");
}

#[test]
fn the_sixty_fifth_connection_is_none_of_its_resource_servers() {
    let scene = Scene::new();
    let mut held: Vec<_> = (0..MOST_OF_ONE).map(|_| scene.of("api", (1, 7))).collect();
    let _one_more = scene.of("api", (1, 4));
    let _of_another = scene.of("other", (1, 7));
    assert_eq!(scene.counted(), (2, names(&[]), 1));
    // One that comes in the place of one that is gone is no more than there were.
    held.pop();
    held.push(scene.of("api", (1, 7)));
    assert_eq!(scene.counted(), (2, names(&[]), 1));
}

#[test]
fn a_connection_that_is_gone_is_behind_until_another_takes_its_place() {
    let scene = Scene::new();
    let (gone, _stays) = (scene.of("api", (1, 4)), scene.of("api", (1, 7)));
    drop(gone);
    assert_eq!(scene.counted(), (0, names(&["api"]), 0));
    let _again = scene.of("api", (1, 7));
    assert_eq!(scene.counted(), (1, names(&[]), 0));
    assert_eq!(scene.followers.table.lock().unwrap().len(), 2);
}

#[test]
fn a_connection_of_anybody_else_is_forgotten_with_its_end() {
    let scene = Scene::new();
    let (nobody, unknown) = (presented_list(&[]), scene.connected((1, 7)));
    scene.followers.asked(&nobody, (1, 7));
    drop((nobody, unknown));
    assert_eq!(scene.counted(), (0, names(&[]), 0));
    assert!(scene.followers.table.lock().unwrap().is_empty());
}

#[test]
fn whoever_is_silent_for_a_minute_is_forgotten() {
    let scene = Scene::new();
    let (_silent, _other) = (scene.of("silent", (1, 4)), scene.of("other", (1, 7)));
    scene.clock.advance(Duration::from_secs(12));
    assert_eq!(scene.summary().behind[0].silent_seconds, 12);
    scene.clock.advance(Duration::from_secs(48) - Duration::from_millis(1));
    assert_eq!(scene.counted(), (1, names(&["silent"]), 0));
    scene.clock.advance(Duration::from_millis(1));
    assert_eq!(scene.counted(), (0, names(&[]), 0));
}

#[test]
fn a_calendar_that_is_set_forgets_nobody() {
    let scene = Scene::new();
    let _api = scene.of("api", (1, 4));
    scene.clock.step_to(NOW.after(Duration::from_secs(3_600)));
    assert_eq!(scene.counted(), (0, names(&["api"]), 0));
}

#[test]
fn a_certificate_that_is_out_of_date_speaks_for_nobody() {
    let scene = Scene::new();
    let api = scene.of("api", (1, 7));
    let end = api.leaf().unwrap().not_after().after(Duration::from_secs(1));
    let at = |now| scene.followers.summary(LIST, now);
    assert_eq!(at(end.before(Duration::from_millis(1))).taken, 1);
    assert_eq!((at(end).taken, at(end).others, at(end).heard.len()), (0, 1, 0));
}

#[test]
fn no_more_are_named_than_are_worth_it() {
    let scene = Scene::new();
    let _held: Vec<_> = (0..=MOST_NAMED).map(|number| scene.of(&format!("api-{number}"), (1, 4))).collect();
    let summary = scene.summary();
    assert_eq!((summary.taken, summary.behind.len(), summary.heard.len()), (0, MOST_NAMED, MOST_NAMED + 1));
}

#[test]
fn after_a_change_that_may_concern_it_a_connection_is_looked_up_again() {
    let change = |touched| Change { version: RegistryVersion(9), touched };
    let scene = Scene::new();
    let (api, other, stranger) = (scene.of("api", (1, 7)), scene.of("other", (1, 7)), scene.connected((1, 7)));
    scene.followers.known(vec![(Arc::clone(&stranger), None)]);
    let nobody = presented_list(&[]);
    scene.followers.asked(&nobody, (1, 7));
    let key = *api.leaf().unwrap().key_hash();
    let doubted = |changes: Option<&[Change]>| {
        scene.followers.doubt(changes);
        let unknown = scene.followers.unknown(9);
        scene.is(&api, "api");
        scene.is(&other, "other");
        scene.followers.known(vec![(Arc::clone(&stranger), None)]);
        let is_in = |peer: &Arc<PresentedChain>| unknown.iter().any(|one| Arc::ptr_eq(one, peer));
        (is_in(&api), is_in(&other), is_in(&stranger), is_in(&nobody))
    };
    let retired = [change(Touched::ResourceServer(resource_server_id("api")))];
    assert_eq!(doubted(Some(&retired)), (true, false, true, false));
    assert_eq!(doubted(Some(&[change(Touched::Key(key))])), (true, false, false, false));
    assert_eq!(doubted(Some(&[change(Touched::Client(client_id("acme-1")))])), (false, false, false, false));
    assert_eq!(doubted(None), (true, true, true, false), "it is not known what has changed");
}

#[test]
fn a_resource_server_that_has_left_is_not_waited_for() {
    let scene = Scene::new();
    drop(scene.of("api", (1, 4)));
    let touched = Touched::ResourceServer(resource_server_id("api"));
    scene.followers.doubt(Some(&[Change { version: RegistryVersion(9), touched }]));
    assert_eq!(scene.counted(), (0, names(&[]), 0));
}
