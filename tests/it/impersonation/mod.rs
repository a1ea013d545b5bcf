//! The impersonation matrix: somebody else's certificate in a client's name, in every way that was thought of, times the
//! ways a client is registered, times the kinds of connection. None is accepted.
//!
//! Each attack starts from a twin that is honest: a certificate of the same making that succeeds, or the case would prove
//! nothing. Three things are looked at: the answer on the wire, the reason on record, and that nothing was issued.

/// The right name under the wrong authority, and certificates that signed themselves.
mod authority;

/// Somebody else's certificate, list, header or token.
mod borrowed;

/// The right authority, and a path that does not hold.
mod chain;

/// The right authority, and a leaf that is not what it should be.
mod leaf;

/// What was good a moment ago, on connections that are kept or resumed.
mod moment;

/// The right authority, and a name that only looks like the registered one.
mod name;

/// Two participants under one authority of the operator's.
mod shared;

use std::collections::BTreeSet;
use std::time::Duration;

use countersign_conformance::pki::{AltName, Authority, Credential, Name, Template};

use crate::rig::Rig;
use crate::wire::{Answer, Request, Tls};
use crate::world::{Party, World, subject_of_a};

/// A client to be impersonated.
#[derive(Clone, Debug)]
struct Victim {
    party: Party,
    /// What a certificate of its own looks like.
    template: Template,
    /// Whose word counts for it.
    authority: Authority,
    method: Method,
}

/// How it is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// By name, whatever certificate has it.
    OnFirstUse,
    /// By name, and each certificate is enrolled beforehand.
    Required,
    /// By the certificate itself.
    SelfSigned,
}

impl Victim {
    /// What is refused for this reason where a chain is asked for; where the certificate itself is registered, none other
    /// is looked at.
    fn refused(&self, reason: &'static str) -> Outcome {
        Outcome::Refused(if self.method == Method::SelfSigned { "peer_not_registered" } else { reason })
    }

    /// The request that would get it a token. Whoever impersonates a client of `private_key_jwt` is given its assertion
    /// too, right and unused: the certificate alone has to stop him.
    fn request(&self, world: &World, name: &str) -> Request {
        match self.party.signs {
            Some(_) => self.party.request_with(&self.party.assertion(world, &jti_of(name)).compact()),
            None => self.party.request(),
        }
    }
}

fn jti_of(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect()
}

/// One for each method and attribute.
fn victims(world: &World) -> Vec<Victim> {
    let named = |name: AltName| Template::client(Name::default(), world.now).with_alt_names([name]);
    let by_subject = |id: &str| Template::client(subject_of_a(id), world.now);
    let victim = |party: &Party, template: Template, authority: &Authority, method| Victim {
        party: party.clone(),
        template,
        authority: authority.clone(),
        method,
    };
    let dns = |name: &str| named(AltName::Dns(name.to_owned()));
    let uri = named(AltName::Uri("https://partner-a.example/clients/one".to_owned()));
    let email = named(AltName::Email("Client@partner-a.example".to_owned()));
    let ip = named(AltName::Ip([192, 0, 2, 7].into()));
    let own = Template::client(Name::common("self-signed client"), world.now);
    vec![
        victim(&world.a_dn, by_subject("a-dn"), &world.a_root, Method::OnFirstUse),
        victim(&world.a_dns, dns("client.partner-a.example"), &world.a_root, Method::OnFirstUse),
        victim(&world.a_uri, uri, &world.a_root, Method::OnFirstUse),
        victim(&world.a_email, email, &world.a_root, Method::OnFirstUse),
        victim(&world.c_ip, ip, &world.c_root, Method::OnFirstUse),
        victim(&world.a_jwt, dns("a-jwt.partner-a.example"), &world.a_root, Method::OnFirstUse),
        victim(&world.a_required, by_subject("a-required"), &world.a_root, Method::Required),
        victim(&world.a_self, own, &world.a_root, Method::SelfSigned),
    ]
}

/// Those for whom a chain is asked for.
fn chained_victims(world: &World) -> Vec<Victim> {
    victims(world).into_iter().filter(|victim| victim.method != Method::SelfSigned).collect()
}

/// An attempt to pass for somebody.
#[derive(Clone, Debug)]
struct Attempt {
    name: String,
    credential: Option<Credential>,
    request: Request,
    wire: Wire,
    outcome: Outcome,
}

/// Over what kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Tls12,
    Tls13,
    Http2,
}

const EVERY_WIRE: [Wire; 3] = [Wire::Tls12, Wire::Tls13, Wire::Http2];

/// What has to become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A token: the honest twin.
    Issued,
    /// `invalid_client`, in JSON, with this reason on record.
    Refused(&'static str),
    /// No handshake, with this reason on record.
    NoHandshake(&'static str),
}

/// Attempts of one family, and the honest twins that show what it would take.
#[derive(Debug)]
struct Family<'a> {
    world: &'a World,
    attempts: Vec<Attempt>,
}

impl<'a> Family<'a> {
    const fn of(world: &'a World) -> Self {
        Self { world, attempts: Vec::new() }
    }

    /// `credential` in the name of `victim`, over one kind of connection after the other.
    fn push(&mut self, attack: &str, victim: &Victim, credential: &Credential, outcome: Outcome) {
        let name = format!("{attack}, for {}", victim.party.id);
        let request = victim.request(self.world, &name);
        let wire = EVERY_WIRE[self.attempts.len() % EVERY_WIRE.len()];
        self.attempts.push(Attempt { name, credential: Some(credential.clone()), request, wire, outcome });
    }

    /// What `victim` itself may do.
    fn honest(&mut self, what: &str, victim: &Victim, credential: &Credential) {
        self.push(&format!("honest: {what}"), victim, credential, Outcome::Issued);
    }

    /// The attempts that must fail.
    fn hostile(&self) -> usize {
        self.attempts.iter().filter(|attempt| attempt.outcome != Outcome::Issued).count()
    }
}

/// Makes every attempt and complains about all that went otherwise than it should.
async fn run(rig: &Rig, family: &Family<'_>) {
    assert!(family.hostile() < family.attempts.len(), "no honest twin");
    let mut wrong = Vec::new();
    let mut last = rig.entries(1).await.first().map(|entry| entry.position);
    for attempt in &family.attempts {
        let answer = send(rig, attempt).await;
        let mut new = Vec::new();
        // What ends a handshake goes on record beside the connection, not before its end.
        for _ in 0..100 {
            let entries = rig.entries(16).await;
            new = entries
                .iter()
                .filter(|entry| Some(entry.position) > last)
                .map(|entry| serde_json::from_str::<serde_json::Value>(&entry.body).unwrap())
                .collect();
            if !new.is_empty() {
                last = entries.last().map(|entry| entry.position);
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if let Err(complaint) = judge(attempt, &answer, &new) {
            wrong.push(format!("{} over {:?}: {complaint}", attempt.name, attempt.wire));
        }
    }
    println!("{} attempts, {} of them hostile", family.attempts.len(), family.hostile());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), family.attempts.len(), wrong.join("\n"));
}

async fn send(rig: &Rig, attempt: &Attempt) -> std::io::Result<Answer> {
    let Some(credential) = &attempt.credential else {
        return rig.anonymous().ask(rig.address, &attempt.request).await;
    };
    match attempt.wire {
        Wire::Tls12 => rig.peer_with(credential, Tls::V1_2, &[b"http/1.1"]).ask(rig.address, &attempt.request).await,
        Wire::Tls13 => rig.peer(credential).ask(rig.address, &attempt.request).await,
        Wire::Http2 => {
            rig.peer_with(credential, Tls::V1_3, &[b"h2"]).connect_h2(rig.address).await?.ask(&attempt.request).await
        }
    }
}

fn judge(attempt: &Attempt, answer: &std::io::Result<Answer>, records: &[serde_json::Value]) -> Result<(), String> {
    let reasons: Vec<&str> = records.iter().filter_map(|record| record["reason"].as_str()).collect();
    let issued = records.iter().any(|record| record["outcome"] == "issued" || !record["token"].is_null());
    if let (Outcome::Issued, Ok(answer)) = (attempt.outcome, answer) {
        return if answer.status == 200 && issued { Ok(()) } else { Err(format!("refused: {answer} {reasons:?}")) };
    }
    if issued {
        return Err(format!("something was issued: {records:?}"));
    }
    match (attempt.outcome, answer) {
        (Outcome::Refused(reason), Ok(answer)) => {
            // RFC 6749 §5.2, and one sentence for all: nobody learns which check failed.
            let right = answer.status == 400
                && answer.error() == "invalid_client"
                && answer.header("content-type") == Some("application/json")
                && answer.header("cache-control") == Some("no-store")
                && !String::from_utf8_lossy(&answer.body).contains(reason);
            if right && reasons == [reason] {
                Ok(())
            } else {
                Err(format!("{answer}; expected {reason}, on record: {reasons:?}"))
            }
        }
        (Outcome::NoHandshake(reason), Err(error)) if error.kind() != std::io::ErrorKind::TimedOut => {
            if reasons == [reason] { Ok(()) } else { Err(format!("expected {reason}, on record: {reasons:?}")) }
        }
        (expected, answer) => Err(format!("expected {expected:?}, got {answer:?}; on record: {reasons:?}")),
    }
}

/// How many there are, each under a name of its own.
#[test]
fn at_least_three_hundred_attempts() {
    let world = World::new(1_800_000_000, "https://localhost:8443");
    let families = [
        authority::wrong(&world),
        authority::self_signed(&world),
        borrowed::certificates(&world),
        borrowed::lists(&world),
        borrowed::headers(&world),
        borrowed::twins(&world),
        chain::paths(&world),
        leaf::defects(&world),
        leaf::encodings(&world),
        name::kinds(&world),
        name::subjects(&world),
        name::alt_names(&world),
        shared::names(&world),
    ];
    for family in &families {
        let mut names = BTreeSet::new();
        for attempt in &family.attempts {
            assert!(names.insert(&attempt.name), "two attempts of one name: {}", attempt.name);
        }
    }
    let hostile: usize = families.iter().map(Family::hostile).sum();
    let honest: usize = families.iter().map(|family| family.attempts.len()).sum::<usize>() - hostile;
    println!("{hostile} hostile attempts, {honest} honest twins, before those of `moment` and at the API");
    assert!(hostile >= 300, "{hostile}");
}
