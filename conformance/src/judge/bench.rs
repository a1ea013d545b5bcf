//! One case against the target: its steps, the names it may use, what it made and kept.

use std::cell::RefCell;
use std::collections::BTreeMap;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::case::{Step, Words};
use super::certificate::{self, Identity, Party};
use super::exchange::{self, Exchange};
use super::expectation::{self, Sight, Unmet};
use super::facts::Facts;
use super::issuer::Keys;
use super::target::Target;
use super::template::{self, Names, Unfilled};
use super::token::{self, Signers};
use super::wire::hello::greet;
use super::wire::{Address, Answer, Request, send};
use crate::clock::{self, Since};

/// The content type of a form (RFC 6749 §4.4.2).
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";

/// How long a target that follows an address may take to do so after it has answered.
const AFTERMATH: std::time::Duration = std::time::Duration::from_millis(250);

/// The name of the address where the judge waits for whoever follows it.
pub(crate) const TRAP: &str = "trap";

/// How long to wait before a step is asked again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// What every case is judged with.
pub(crate) struct Court<'a> {
    pub(crate) target: &'a Target,
    pub(crate) facts: &'a Facts,
    pub(crate) words: &'a Words,
    pub(crate) keys: &'a Keys,
    pub(crate) trap: &'a super::issuer::Trap,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// An expectation did not hold.
    Fail(String),
    /// The judge could not ask.
    Error(String),
}

/// Runs the steps of a case.
pub(crate) async fn run(steps: &[Step], court: &Court<'_>) -> (Verdict, Vec<Exchange>) {
    let bench = Bench {
        court,
        random: random(),
        kept: RefCell::default(),
        minted: BTreeMap::new(),
        secrets: Vec::new(),
        exchanges: Vec::new(),
    };
    bench.steps(steps).await
}

struct Bench<'a> {
    court: &'a Court<'a>,
    random: String,
    /// What was captured or forged.
    kept: RefCell<BTreeMap<String, Value>>,
    minted: BTreeMap<String, Party>,
    secrets: Vec<String>,
    exchanges: Vec<Exchange>,
}

/// Why a step ended the case.
enum Ended {
    Fail(String),
    Error(String),
}

impl From<Unmet> for Ended {
    fn from(unmet: Unmet) -> Self {
        match unmet {
            Unmet::Failed(why) => Self::Fail(why),
            Unmet::Unjudged(why) => Self::Error(why),
        }
    }
}

impl Bench<'_> {
    async fn steps(mut self, steps: &[Step]) -> (Verdict, Vec<Exchange>) {
        let before = self.court.trap.touched();
        for (at, step) in steps.iter().enumerate() {
            let place = |why: String| if steps.len() > 1 { format!("step {}: {why}", at + 1) } else { why };
            match self.in_time(step, before).await {
                Ok(()) => {}
                Err(Ended::Fail(why)) => return (Verdict::Fail(place(self.clean(&why))), self.exchanges),
                Err(Ended::Error(why)) => return (Verdict::Error(place(self.clean(&why))), self.exchanges),
            }
        }
        (Verdict::Pass, self.exchanges)
    }

    fn clean(&self, why: &str) -> String {
        exchange::masked(why, &self.secrets)
    }

    /// The step; where it may take a while, again and again until it holds or the time is over.
    async fn in_time(&mut self, step: &Step, touched_before: usize) -> Result<(), Ended> {
        let since = Since::now();
        loop {
            let seen = self.exchanges.len();
            match self.step(step, touched_before).await {
                Err(Ended::Fail(_)) if step.within.is_some_and(|seconds| since.elapsed().as_secs() < seconds) => {
                    // Only the last attempt is shown.
                    self.exchanges.truncate(seen);
                    tokio::time::sleep(AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn step(&mut self, step: &Step, touched_before: usize) -> Result<(), Ended> {
        let is_trap = step.mentions(self.court.words, TRAP);
        let step = step.upon(self.court.words).map_err(Ended::Error)?;
        let mut made = self.mint(&step).map_err(Ended::Error)?;
        made.extend(self.forge(&step).map_err(Ended::Error)?);
        let since = Since::now();
        let (sent, party, answer) = match &step.hello {
            Some(offer) => {
                let url = self.url(step.to.as_deref().unwrap_or("token")).map_err(Ended::Error)?;
                let address = Address::parse(&url).ok_or_else(|| Ended::Error(format!("{url}: not an https URL")))?;
                let heard = greet(&address, offer, octets()).await.map_err(Ended::Error)?;
                let sent = format!("ClientHello to {}:{}\n{}", address.host, address.port, offer.told());
                (sent, "none".to_owned(), Answer::Hello(heard))
            }
            None if step.to.is_none() => return Ok(()),
            None => self.request(&step).await.map_err(Ended::Error)?,
        };
        if is_trap {
            tokio::time::sleep(AFTERMATH).await;
        }
        self.secrets.extend(exchange::secrets(&answer));
        self.exchanges.push(Exchange {
            party,
            made: made.iter().map(|shown| self.clean(shown)).collect(),
            sent: self.clean(&sent),
            received: exchange::answer(&answer, &self.secrets),
            milliseconds: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
        });
        let missing = self.capture(&step, &answer);
        if let Some(expected) = &step.expect {
            let sight = Sight {
                words: self.court.words,
                jwks: &self.court.facts.jwks,
                now: clock::now(),
                fetched: self.court.trap.touched() != touched_before,
            };
            // What was to be kept and is not there is the target's fault, said after what else it did wrong.
            let gone = |why: &Unfilled| matches!(why, Unfilled::Unknown(name) if missing.contains(name));
            let outcome = expectation::judge(expected, &answer, &sight, &|value| {
                template::fill_value(value, self).or_else(|why| {
                    if gone(&why) {
                        let mut without = value.clone();
                        without["jwt"] = Value::Null;
                        return Ok(without);
                    }
                    Err(why.to_string())
                })
            });
            outcome?;
        }
        match missing.first() {
            Some(name) => Err(Ended::Fail(format!("the answer has no {}", step.capture[name]))),
            None => Ok(()),
        }
    }

    /// Sends the step's request: what was sent, by whom, and the answer.
    async fn request(&self, step: &Step) -> Result<(String, String, Answer), String> {
        let to = step.to.as_deref().unwrap_or_default();
        let mut url = self.url(to)?;
        let query = self.pairs(&step.query)?;
        if !query.is_empty() {
            let query = form(query.iter().map(|(name, value)| (name.as_str(), value.as_str())));
            url = format!("{url}{}{query}", if url.contains('?') { '&' } else { '?' });
        }
        let mut headers = Vec::new();
        let mut body = step.body.as_ref().map(|body| self.text(body)).transpose()?;
        let mut content_type = step.content_type.clone();
        if body.is_none()
            && let Some(pairs) = &step.form
        {
            let pairs = self.bent(pairs, step)?;
            body = Some(form(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))));
            content_type = content_type.or_else(|| Some(FORM.to_owned()));
        }
        if let Some(value) = content_type
            && !value.is_empty()
        {
            headers.push(("content-type".to_owned(), value));
        }
        for (name, values) in &step.headers {
            for value in values.values() {
                match template::fill_text(value, self) {
                    Ok(value) => headers.push((name.clone(), value)),
                    Err(Unfilled::LeftOut) => {}
                    Err(why) => return Err(why.to_string()),
                }
            }
        }
        let fallback = match to {
            "resource" => self.court.target.protected_resource.as_ref().map(|resource| resource.method.clone()),
            "forged" => self.court.target.forged.as_ref().map(|forged| forged.resource.method.clone()),
            _ => None,
        };
        let method = step.method.clone().or(fallback);
        let method = method.unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
        let request = Request { method, url, headers, body };
        let name = step.party.as_deref().unwrap_or("none");
        let party = match name {
            "none" => None,
            name => Some(self.party(name).ok_or_else(|| format!("the target has no {name}"))?),
        };
        let answer = send(&request, party, self.roots(to)).await?;
        Ok((exchange::request(&request, &self.secrets), name.to_owned(), answer))
    }

    fn mint(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let mut shown = Vec::new();
        for (name, wanted) in &step.mint {
            let known = |name: &str| self.party(name);
            let party = certificate::mint(wanted, self.court.target.ca.as_ref(), &known, clock::now())?;
            shown.push(format!("{name}: a certificate {}", wanted.told()));
            self.minted.insert(name.clone(), party);
        }
        Ok(shown)
    }

    fn forge(&mut self, step: &Step) -> Result<Vec<String>, String> {
        let mut shown = Vec::new();
        for (name, wanted) in &step.forge {
            let forged = token::forge(wanted, &self.court.words.token, self, self)?;
            shown.push(format!("{name}: {}", forged.shown));
            self.secrets.extend(exchange::written(&forged.compact));
            self.kept.borrow_mut().insert(name.clone(), forged.compact.into());
        }
        Ok(shown)
    }

    /// Keeps what is to be kept, and says what was not there.
    fn capture(&self, step: &Step, answer: &Answer) -> Vec<String> {
        let text = match answer {
            Answer::Response(response) => response.body.as_str(),
            _ => "",
        };
        let body: Value = serde_json::from_str(text).unwrap_or_default();
        let mut missing = Vec::new();
        for (name, pointer) in &step.capture {
            // `/access_token>/jti`: into the claims of the JWT that stands there.
            let found = match pointer.split_once('>') {
                None if pointer == "body" => Some(text.trim().into()),
                None => body.pointer(pointer).cloned(),
                Some((token, claim)) => body
                    .pointer(token)
                    .and_then(Value::as_str)
                    .and_then(super::jws::decode)
                    .and_then(|(_, claims)| claims.pointer(claim).cloned()),
            };
            match found {
                Some(value) => {
                    self.kept.borrow_mut().insert(name.clone(), value);
                }
                None => missing.push(name.clone()),
            }
        }
        missing
    }

    /// The form's pairs with `set`, `drop` and `add` applied.
    fn bent(&self, pairs: &[(String, String)], step: &Step) -> Result<Vec<(String, String)>, String> {
        let mut bent: Vec<(String, String)> = pairs.to_vec();
        for (name, value) in &step.set {
            match bent.iter_mut().find(|(own, _)| own == name) {
                Some((_, own)) => value.clone_into(own),
                None => bent.push((name.clone(), value.clone())),
            }
        }
        bent.retain(|(name, _)| !step.drop.contains(name));
        bent.extend(step.add.iter().cloned());
        self.pairs(&bent)
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Vec<(String, String)>, String> {
        let mut filled = Vec::new();
        for (name, value) in pairs {
            match template::fill_text(value, self) {
                Ok(value) => filled.push((self.text(name)?, value)),
                Err(Unfilled::LeftOut) => {}
                Err(why) => return Err(why.to_string()),
            }
        }
        Ok(filled)
    }

    fn text(&self, text: &str) -> Result<String, String> {
        template::fill_text(text, self).map_err(|why| why.to_string())
    }

    fn url(&self, to: &str) -> Result<String, String> {
        if let Some(url) = self.court.facts.endpoints.get(to) {
            return Ok(url.clone());
        }
        let url = self.text(to)?;
        if url.contains("://") { Ok(url) } else { Err(format!("the target has no endpoint {to:?}")) }
    }

    fn roots(&self, to: &str) -> &[CertificateDer<'static>] {
        let target = self.court.target;
        let resource = match to {
            "resource" | "resource_metadata" => target.protected_resource.as_ref(),
            "forged" => target.forged.as_ref().map(|forged| &forged.resource),
            _ => None,
        };
        resource.map_or(&target.roots, |resource| &resource.roots)
    }

    fn party(&self, name: &str) -> Option<&Party> {
        self.minted.get(name).or_else(|| self.court.target.parties.get(name))
    }
}

impl Names for Bench<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        let (target, facts) = (self.court.target, self.court.facts);
        if let Some(value) = self.kept.borrow().get(name) {
            return Some(value.clone());
        }
        if let Some(offset) = name.strip_prefix("now") {
            let offset = if offset.is_empty() { 0 } else { offset.parse::<i64>().ok()? };
            return Some((clock::now() + offset).into());
        }
        let text = |text: &str| Some(Value::from(text));
        match name {
            "issuer" => return text(&target.issuer),
            "scope" => return text(&target.scope),
            "other_scope" => return text(target.other_scope.as_deref()?),
            "resource" => return text(target.resource.as_deref()?),
            "random" => return Some(random().into()),
            "case.random" => return text(&self.random),
            TRAP => return text(&self.court.trap.address().to_string()),
            _ => {}
        }
        let (head, member) = name.split_once('.')?;
        match head {
            "metadata" => facts.metadata.get(member).cloned(),
            "endpoint" => text(facts.endpoints.get(member)?),
            "protected_resource" if member == "url" => text(&target.protected_resource.as_ref()?.url),
            "forged" => {
                let forged = target.forged.as_ref();
                match member {
                    "url" => text(&forged?.resource.url),
                    "issuer" => text(&forged?.issuer),
                    "audience" => text(&forged?.audience),
                    "scope" => text(&forged?.scope),
                    _ => identity_value(&self.court.keys.forged, member),
                }
            }
            "forged_rsa" => identity_value(&self.court.keys.forged_rsa, member),
            "stranger" if member == "certificate" => Some(STANDARD.encode(&self.court.keys.certificate).into()),
            "stranger" => identity_value(&self.court.keys.stranger, member),
            party => self.party(party)?.value(member),
        }
    }
}

fn identity_value(identity: &Identity, member: &str) -> Option<Value> {
    match member {
        "kid" => Some(identity.kid.as_str().into()),
        "alg" => Some(identity.alg.as_str().into()),
        "jwk" => Some(identity.key.jwk()),
        _ => None,
    }
}

impl Signers for Bench<'_> {
    fn identity(&self, name: &str) -> Option<Identity> {
        match name {
            "forged" => Some(self.court.keys.forged.clone()),
            "forged_rsa" => Some(self.court.keys.forged_rsa.clone()),
            "stranger" => Some(self.court.keys.stranger.clone()),
            party => self.party(party)?.assertions.clone(),
        }
    }

    fn published(&self, kid: Option<&str>) -> Option<Value> {
        let keys = self.court.facts.jwks["keys"].as_array()?;
        let named = kid.and_then(|kid| keys.iter().find(|key| key["kid"] == json!(kid)));
        named.or_else(|| keys.first()).cloned()
    }
}

/// Pairs as a form (WHATWG URL §5.2): what is not a letter, a digit or one of `*-._` is percent-encoded, a space is `+`.
pub(crate) fn form<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect::<Vec<_>>().join("&")
}

/// One name or value of a form.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|octet| match octet {
            b' ' => "+".to_owned(),
            octet if octet.is_ascii_alphanumeric() || b"*-._".contains(&octet) => char::from(octet).to_string(),
            octet => format!("%{octet:02X}"),
        })
        .collect()
}

fn octets() -> [u8; 32] {
    let mut octets = [0; 32];
    // Without randomness the octets stay zero, which no target can take for its own.
    let _filled = SystemRandom::new().fill(&mut octets);
    octets
}

fn random() -> String {
    URL_SAFE_NO_PAD.encode(&octets()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_judged_is_an_error_and_no_pass() {
        assert!(matches!(Ended::from(Unmet::Unjudged(String::new())), Ended::Error(_)));
        assert!(matches!(Ended::from(Unmet::Failed(String::new())), Ended::Fail(_)));
    }

    #[test]
    fn forms_encode_what_has_a_meaning() {
        let pairs = [("a b", "c&d=é"), ("scope", "x:y")];
        assert_eq!(form(pairs.into_iter()), "a+b=c%26d%3D%C3%A9&scope=x%3Ay");
    }
}
