//! On PostgreSQL: the server is killed, the database is killed, the database is stopped in the midst of things, and both at
//! once. What was told is on record, and the server goes on by itself once the database is back.
//!
//! The database is a cluster of the test's own, because it is going to be killed.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::{Clock, SystemClock};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::load::{Load, Told};
use super::site::{Server, Site, readiness};
use super::{Moments, Starts, WORK, crashes, judge, reading};
use crate::cluster::Cluster;
use crate::wire::Peer;
use crate::world::Party;

/// What happens in a round.
const EVENTS: [Event; 4] = [Event::ServerKilled, Event::DatabaseStopped, Event::DatabaseKilled, Event::BothKilled];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    BothKilled,
    DatabaseKilled,
    /// `pg_ctl stop -m immediate`.
    DatabaseStopped,
    ServerKilled,
}

/// A cluster is slower to come back than a file: so many rounds fewer.
const FEWER: usize = 5;

/// As after a full disk.
const AGAIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_told_is_lost_when_the_server_or_its_postgresql_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = match Cluster::make(directory.path()).await {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIPPED, no PostgreSQL can be started here: {why}"),
    };
    cluster.start().await;
    let place = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::at(place.path(), &cluster.url()).await);
    let (mut moments, mut starts, mut resumed) = (Moments::new(), Starts::default(), Vec::new());
    let load = Load::begin(&site);
    let mut server = started(&site, &mut starts).await;
    for event in EVENTS.iter().cycle().take(crashes().div_ceil(FEWER)) {
        sleep(moments.below(WORK)).await;
        if moments.one_in(2) {
            load.kill_command();
        }
        server = match event {
            Event::ServerKilled => {
                server.kill().await;
                started(&site, &mut starts).await
            }
            Event::BothKilled => {
                cluster.kill().await;
                server.kill().await;
                cluster.start().await;
                started(&site, &mut starts).await
            }
            Event::DatabaseKilled | Event::DatabaseStopped => {
                match event {
                    Event::DatabaseKilled => cluster.kill().await,
                    _ => cluster.stop().await,
                }
                // Requests come in while there is no database.
                sleep(moments.below(WORK)).await;
                cluster.start().await;
                resumed.push(served_again(&site, &load).await);
                server
            }
        };
    }
    let journal = load.end().await;
    reading::settled(site.store()).await;
    server.stop().await;
    starts.hold("PostgreSQL, kill -9 and stop -m immediate");
    println!("served again after the database was back: {resumed:.0?}");
    judge(&site, &journal).await;
    cluster.stop().await;
}

async fn started(site: &Site, starts: &mut Starts) -> Server {
    let mut server = site.serve();
    starts.0.push(server.ready(&site.clock).await);
    server
}

/// Each node writes a chain of its own; a change goes into one of them, once, whichever node is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_told_is_lost_when_one_of_two_nodes_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = match Cluster::make(directory.path()).await {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIPPED, no PostgreSQL can be started here: {why}"),
    };
    cluster.start().await;
    let place = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::at(place.path(), &cluster.url()).await);
    let another = Arc::new(site.another_node());
    let (mut moments, mut starts) = (Moments::new(), Starts::default());
    let (load, load_of_another) = (Load::begin(&site), Load::of_clients(&another));
    let mut nodes = [started(&site, &mut starts).await, started(&another, &mut starts).await];
    for _ in 0..crashes().div_ceil(FEWER) {
        sleep(moments.below(WORK)).await;
        let [node, other] = nodes;
        nodes = if moments.one_in(2) {
            node.kill().await;
            [started(&site, &mut starts).await, other]
        } else {
            other.kill().await;
            [node, started(&another, &mut starts).await]
        };
    }
    let mut journal = load.end().await;
    let of_another = load_of_another.end().await;
    assert!(!of_another.tokens.is_empty());
    journal.tokens.extend(of_another.tokens);
    reading::settled(site.store()).await;
    for node in nodes {
        node.stop().await;
    }
    starts.hold("PostgreSQL, one of two nodes killed");
    judge(&site, &journal).await;
    cluster.stop().await;
}

/// Issue 6: killed, upgraded and started again while the other serves. A client that asks the other node once, where one gives it no
/// token, sees no failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_ask_the_other_node_see_no_failure_when_one_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = match Cluster::make(directory.path()).await {
        Ok(cluster) => cluster,
        Err(why) => return println!("SKIPPED, no PostgreSQL can be started here: {why}"),
    };
    cluster.start().await;
    let place = tempfile::tempdir().unwrap();
    let site = Arc::new(Site::at(place.path(), &cluster.url()).await);
    let another = Arc::new(site.another_node());
    let mut starts = Starts::default();
    let mut nodes = [started(&site, &mut starts).await, started(&another, &mut starts).await];
    let (told, (at_work, _)) = (Arc::new(Told::default()), watch::channel(true));
    let world = &site.world;
    let clients = [&world.a_dn, &world.a_uri, &world.a_self, &world.b_dn].map(|party| {
        let sites = [Arc::clone(&site), Arc::clone(&another)];
        tokio::spawn(asks_both(sites, party.clone(), Arc::clone(&told), at_work.subscribe()))
    });
    for round in 0..6 {
        sleep(WORK).await;
        let [node, other] = nodes;
        nodes = if round % 2 == 0 {
            node.kill().await;
            [started(&site, &mut starts).await, other]
        } else {
            other.kill().await;
            [node, started(&another, &mut starts).await]
        };
    }
    at_work.send_replace(false);
    let mut asked_twice = 0;
    for client in clients {
        asked_twice += client.await.unwrap();
    }
    assert!(asked_twice > 0, "nobody was in the way of a kill");
    reading::settled(site.store()).await;
    for node in nodes {
        node.stop().await;
    }
    judge(&site, &told.journal()).await;
    cluster.stop().await;
}

/// A client that asks the nodes in turn, and the other one where one gives no token: how often that was.
async fn asks_both(sites: [Arc<Site>; 2], party: Party, told: Arc<Told>, at_work: watch::Receiver<bool>) -> usize {
    let [one, _] = &sites;
    let clock = SystemClock::new();
    let peer = Peer::new(&one.world.server_authority.certificate, Some(&party.credential));
    let mut known = sites.each_ref().map(|site| site.addresses().borrow().expect("it listens").mtls);
    let mut open = [None, None];
    let (mut first, mut twice) = (0, 0);
    while *at_work.borrow() {
        first = 1 - first;
        let (mut seen, mut gone) = (Vec::new(), 0);
        for node in [first, 1 - first, first, 1 - first] {
            // Once more only where one of them answered, and was too busy with the start of the other.
            assert!(seen.len() < 2 || gone < 2, "no token of either node: {seen:?}");
            // One that is gone is asked where it was.
            known[node] = sites[node].addresses().borrow().map_or(known[node], |addresses| addresses.mtls);
            let asked = clock.now();
            let answer = async {
                let mut connection = match open[node].take() {
                    Some(connection) => connection,
                    None => peer.connect(known[node]).await?,
                };
                let answer = connection.ask(&party.request()).await?;
                open[node] = Some(connection);
                std::io::Result::Ok(answer)
            };
            match answer.await {
                Ok(answer) => {
                    told.answered(asked, clock.now(), &answer);
                    if answer.status == 200 {
                        break;
                    }
                    seen.push(answer.to_string());
                }
                Err(error) => {
                    gone += 1;
                    seen.push(error.to_string());
                }
            }
        }
        assert!(seen.len() < 4, "no token of either node: {seen:?}");
        twice += seen.len();
    }
    twice
}

/// The server that has been running all the time issues tokens again, and says that it is ready: after how long.
async fn served_again(site: &Site, load: &Load) -> Duration {
    let (back, at) = (site.clock.now(), site.clock.monotonic());
    let operations = site.addresses().borrow().unwrap().operations;
    let served = timeout(AGAIN, async {
        while load.told().served_since(back).is_empty() || readiness(operations).await != Some(200) {
            sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(served.await.is_ok(), "not served within {AGAIN:?}: {:?}", load.told().counts());
    site.clock.monotonic() - at
}
