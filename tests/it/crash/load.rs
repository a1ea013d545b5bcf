//! Clients that ask for tokens all the time and an operator that changes the registry all the time, each of whom writes
//! down what they were told.
//!
//! Takes a [`Site`], gives a [`Journal`]. They survive the server: who loses a connection opens the next one wherever the
//! server listens by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::audit::RequestId;
use countersign_conformance::forge;
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::ledger::{Acknowledged, Journal, Token};
use super::site::{Addresses, Site};
use crate::wire::{Answer, Peer, Request};
use crate::world::{Party, World};

/// How long a client waits that found nobody at home.
const PAUSE: Duration = Duration::from_millis(5);

/// The clients and the operator at work.
#[derive(Debug)]
pub(crate) struct Load {
    told: Arc<Told>,
    at_work: watch::Sender<bool>,
    kills: watch::Sender<u32>,
    tasks: Vec<JoinHandle<()>>,
}

/// What they were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    journal: Mutex<Journal>,
    /// Answers by status and error, and what became of commands.
    counts: Mutex<BTreeMap<String, u64>>,
}

impl Told {
    pub(crate) fn count(&self, what: &str) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    /// How often this was answered.
    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.counts.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    /// All of that.
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.counts.lock().unwrap().clone()
    }

    /// Whose tokens were asked for since then.
    pub(crate) fn served_since(&self, since: UnixTime) -> BTreeSet<String> {
        let journal = self.journal.lock().unwrap();
        let late = journal.tokens.iter().rev().take_while(|token| token.received >= since);
        late.filter(|token| token.asked >= since).map(|token| token.client.clone()).collect()
    }

    /// Takes an answer down.
    pub(crate) fn answered(&self, asked: UnixTime, received: UnixTime, answer: &Answer) {
        if answer.status == 200 {
            self.count("200");
            let token = read(&answer.token(), asked, received);
            self.journal.lock().unwrap().tokens.push(token);
        } else {
            self.count(&format!("{} {}", answer.status, answer.error()));
        }
    }

    /// Takes down that a change was acknowledged.
    pub(crate) fn acknowledged(&self, change: Acknowledged) {
        self.journal.lock().unwrap().changes.push(change);
    }

    /// Takes down what others were told.
    pub(crate) fn take(&self, others: Journal) {
        let mut journal = self.journal.lock().unwrap();
        journal.tokens.extend(others.tokens);
        journal.changes.extend(others.changes);
    }

    /// All of it.
    pub(crate) fn journal(&self) -> Journal {
        self.journal.lock().unwrap().clone()
    }
}

impl Load {
    /// Sets everybody to work: eight clients on connections that they keep, one of them with assertions, one of them
    /// suspended and reinstated by the operator again and again.
    pub(crate) fn begin(site: &Arc<Site>) -> Self {
        let load = Self::of_clients(site);
        let world = &site.world;
        let operator = Operator {
            site: Arc::clone(site),
            told: Arc::clone(&load.told),
            clients: [world.a_dns.id, world.c_ip.id],
            at_work: load.at_work.subscribe(),
            kills: load.kills.subscribe(),
        };
        let mut load = load;
        load.tasks.push(tokio::spawn(operator.work()));
        load
    }

    /// The clients alone.
    pub(crate) fn of_clients(site: &Arc<Site>) -> Self {
        let told = Arc::new(Told::default());
        let (at_work, _) = watch::channel(true);
        let (kills, _) = watch::channel(0);
        let world = &site.world;
        let parties = [
            &world.a_dn,
            &world.a_dn,
            &world.a_dns,
            &world.a_uri,
            &world.a_self,
            &world.b_dn,
            &world.c_ip,
            &world.a_jwt,
        ];
        let tasks = parties.map(|party| {
            let caller = Caller {
                party: party.clone(),
                world: Arc::clone(world),
                told: Arc::clone(&told),
                addresses: site.addresses(),
                at_work: at_work.subscribe(),
                clock: SystemClock::new(),
            };
            tokio::spawn(caller.work())
        });
        Self { told, at_work, kills, tasks: tasks.into() }
    }

    /// What they were told so far.
    pub(crate) fn told(&self) -> &Told {
        &self.told
    }

    /// Kills the command that the operator is giving, if there is one.
    pub(crate) fn kill_command(&self) {
        self.kills.send_modify(|kills| *kills += 1);
    }

    /// Has everybody finish what they are at.
    pub(crate) async fn end(self) -> Journal {
        self.at_work.send_replace(false);
        for task in self.tasks {
            task.await.unwrap();
        }
        println!("answers: {:?}", self.told.counts());
        self.told.journal()
    }
}

/// A token as it reads; its signature is other tests' business.
fn read(compact: &str, asked: UnixTime, received: UnixTime) -> Token {
    let claims = compact.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Token {
        jti: text(&claims["jti"]),
        client: text(&claims["client_id"]),
        thumbprint: text(&claims["cnf"]["x5t#S256"]),
        expires_at: claims["exp"].as_i64().unwrap(),
        registry_version: claims["registry_version"].as_i64().unwrap(),
        asked,
        received,
    }
}

/// The request of this client that the server has not seen before.
pub(crate) fn request(party: &Party, world: &World, now: UnixTime) -> Request {
    let Some((algorithm, key)) = &party.signs else { return party.request() };
    let jti = RequestId::random(now);
    let assertion = forge::Token::assertion(party.id, &world.issuer, now.as_seconds(), jti.as_str(), *algorithm, key);
    party.request_with(&assertion.compact())
}

/// Asks for one token, on a connection of its own; what came of it is taken down. Gives the status of the answer.
pub(crate) async fn ask(site: &Site, party: &Party, told: &Told) -> u16 {
    let Addresses { mtls, .. } = site.addresses().borrow().expect("a server that listens");
    let peer = Peer::new(&site.world.server_authority.certificate, Some(&party.credential));
    let asked = site.clock.now();
    let answer = peer.ask(mtls, &request(party, &site.world, asked)).await.unwrap();
    told.answered(asked, site.clock.now(), &answer);
    answer.status
}

/// A client that asks for tokens all the time.
struct Caller {
    party: Party,
    world: Arc<World>,
    told: Arc<Told>,
    addresses: watch::Receiver<Option<Addresses>>,
    at_work: watch::Receiver<bool>,
    clock: SystemClock,
}

impl Caller {
    async fn work(mut self) {
        let peer = Peer::new(&self.world.server_authority.certificate, Some(&self.party.credential));
        while *self.at_work.borrow() {
            let Some(Addresses { mtls, .. }) = *self.addresses.borrow_and_update() else {
                sleep(PAUSE).await;
                continue;
            };
            let Ok(mut connection) = peer.connect(mtls).await else {
                self.told.count("no connection");
                sleep(PAUSE).await;
                continue;
            };
            while *self.at_work.borrow() {
                let asked = self.clock.now();
                // Only an answer that is there to its last octet counts as one.
                let Ok(answer) = connection.ask(&request(&self.party, &self.world, asked)).await else {
                    self.told.count("connection lost");
                    break;
                };
                self.told.answered(asked, self.clock.now(), &answer);
            }
        }
    }
}

/// An operator who suspends and reinstates clients, one command after the other.
struct Operator {
    site: Arc<Site>,
    told: Arc<Told>,
    clients: [&'static str; 2],
    at_work: watch::Receiver<bool>,
    kills: watch::Receiver<u32>,
}

impl Operator {
    async fn work(mut self) {
        let mut number = 0;
        while *self.at_work.borrow() {
            for client in self.clients {
                // Whatever state a command that was killed left it in: one of them is refused, the other one is not.
                for verb in ["suspend", "reinstate"] {
                    number += 1;
                    self.change(client, verb, &format!("{verb} {number}")).await;
                }
            }
        }
    }

    async fn change(&mut self, client: &str, verb: &str, why: &str) {
        self.kills.mark_unchanged();
        let mut child = self.site.command(&["client", verb, client, "--why", why]).spawn().unwrap();
        let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let answer = async {
            let (mut said, mut complained) = (String::new(), String::new());
            let (_, _) = tokio::join!(stdout.read_to_string(&mut said), stderr.read_to_string(&mut complained));
            (said, complained)
        };
        let (said, complained) = tokio::select! {
            answer = answer => answer,
            _ = self.kills.changed() => {
                child.start_kill().unwrap();
                child.wait().await.unwrap();
                return self.told.count("command killed");
            }
        };
        let told = self.site.clock.now();
        if child.wait().await.unwrap().success() {
            self.told.acknowledged(acknowledgement(&said, why, told));
            self.told.count("command done");
        } else if complained.contains("already") || complained.contains("cannot become") {
            self.told.count("command idle");
        } else {
            self.told.count(&format!("command failed: {}", complained.trim()));
        }
    }
}

/// What a command said that changed the registry.
pub(crate) fn acknowledgement(said: &str, why: &str, told: UnixTime) -> Acknowledged {
    // What died with it is told after that.
    let first = said.lines().next().unwrap_or_default();
    let (_, version) = first.trim().rsplit_once("registry version ").expect(said);
    Acknowledged { version: version.parse().expect(said), why: why.to_owned(), told }
}
