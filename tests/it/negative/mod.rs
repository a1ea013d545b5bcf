//! Requests with one defect each, and what becomes of them: an answer of the table of errors, a reason on record, no token.
//!
//! Every case starts from a request that succeeds (`every_case_starts_from_a_request_that_succeeds`) and breaks one thing.
//! The families generate cases from lists, so that a new defect is one line.

mod assertion;

pub(crate) mod certificate;

mod form;

mod http;

mod parameter;

use std::collections::{BTreeMap, BTreeSet};

use countersign_conformance::pki::Credential;

use crate::wire::Request;
use crate::world::{Party, World};

/// A request with one defect.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// Family and defect: `scope: tab between tokens`.
    pub(crate) name: String,
    /// What the peer presents in its handshake.
    pub(crate) credential: Option<Credential>,
    /// What it sends.
    pub(crate) octets: Vec<u8>,
    /// Whether the answer has no body by its method.
    pub(crate) head_only: bool,
    /// What has to come back.
    pub(crate) expected: Expected,
}

/// What has to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// An error in JSON; the reason goes on record where there was a decision.
    Refused {
        /// The status.
        status: u16,
        /// The `error` member.
        error: &'static str,
        /// The reason on record; none where the request reached no decision.
        reason: Option<&'static str>,
    },
    /// What the HTTP library itself answers to a head it cannot read: a bare 4xx, or the end of the connection.
    Unreadable,
    /// No handshake: an alert, or the end of the connection.
    NoHandshake,
}

/// `invalid_client` by the table of errors, with this reason.
pub(crate) const fn invalid_client(reason: &'static str) -> Expected {
    Expected::Refused { status: 400, error: "invalid_client", reason: Some(reason) }
}

/// `invalid_request` with this status and reason.
pub(crate) const fn invalid_request(status: u16, reason: &'static str) -> Expected {
    Expected::Refused { status, error: "invalid_request", reason: Some(reason) }
}

/// `invalid_request` with this status, where there was nothing to decide.
pub(crate) const fn undecided(status: u16) -> Expected {
    Expected::Refused { status, error: "invalid_request", reason: None }
}

/// Another code, with 400.
pub(crate) const fn refused(error: &'static str, reason: &'static str) -> Expected {
    Expected::Refused { status: 400, error, reason: Some(reason) }
}

impl Case {
    /// `party` presents its own certificate and sends `request`.
    pub(crate) fn of(name: impl Into<String>, party: &Party, request: &Request, expected: Expected) -> Self {
        Self::with(name, Some(&party.credential), request, expected)
    }

    /// A peer with this credential, or none, sends `request`.
    pub(crate) fn with(
        name: impl Into<String>,
        credential: Option<&Credential>,
        request: &Request,
        expected: Expected,
    ) -> Self {
        Self {
            name: name.into(),
            credential: credential.cloned(),
            octets: request.to_bytes(),
            head_only: request.method == "HEAD",
            expected,
        }
    }
}

/// Every case.
pub(crate) fn cases(world: &World) -> Vec<Case> {
    let cases: Vec<Case> = [
        form::cases(world),
        http::cases(world),
        parameter::cases(world),
        assertion::cases(world),
        certificate::cases(world),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut names = BTreeSet::new();
    let mut sent = BTreeMap::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two cases of one name: {}", case.name);
        let sends = (case.credential.as_ref().map(|credential| &credential.chain), &case.octets);
        if let Some(other) = sent.insert(sends, &case.name) {
            panic!("two cases that send the same: {other}; {}", case.name);
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::rig::Rig;
    use crate::wire::Answer;

    #[tokio::test]
    async fn every_case_starts_from_a_request_that_succeeds() {
        let rig = Rig::start().await;
        let world = &rig.world;
        for party in [
            &world.a_dn,
            &world.a_dns,
            &world.a_uri,
            &world.a_email,
            &world.a_self,
            &world.a_required,
            &world.a_two,
            &world.b_dn,
            &world.c_ip,
        ] {
            let answer = rig.ask(party).await;
            assert_eq!(answer.status, 200, "{}: {answer} {}", party.id, rig.last_record().await);
        }
        for party in [&world.a_jwt, &world.a_jwt_eddsa, &world.a_jwt_ps256] {
            let request = party.request_with(&party.assertion(world, "right").compact());
            let answer = rig.peer(&party.credential).ask(rig.address, &request).await.unwrap();
            assert_eq!(answer.status, 200, "{}: {answer} {}", party.id, rig.last_record().await);
        }
    }

    /// Three things of each: the answer on the wire, the reason in the audit log, and that nothing was issued.
    #[tokio::test]
    async fn no_request_with_a_defect_gets_a_token() {
        let rig = Rig::start().await;
        let cases = cases(&rig.world);
        assert!(cases.len() >= 500, "{} cases", cases.len());
        let mut wrong = Vec::new();
        let mut last = rig.entries(1).await.first().map(|entry| entry.position);
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for case in &cases {
            let answer = send(&rig, case).await;
            let entries = rig.entries(32).await;
            let new: Vec<serde_json::Value> = entries
                .iter()
                .filter(|entry| Some(entry.position) > last)
                .map(|entry| serde_json::from_str(&entry.body).unwrap())
                .collect();
            last = entries.last().map(|entry| entry.position);
            for record in &new {
                *reasons.entry(record["reason"].to_string()).or_default() += 1;
            }
            if let Err(complaint) = judge(case, &answer, &new) {
                wrong.push(format!("{}: {complaint}", case.name));
            }
        }
        println!("{} negative requests, by reason on record: {reasons:#?}", cases.len());
        assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    }

    async fn send(rig: &Rig, case: &Case) -> std::io::Result<Answer> {
        let peer = case.credential.as_ref().map_or_else(|| rig.anonymous(), |credential| rig.peer(credential));
        let mut connection = peer.connect(rig.address).await?;
        connection.send(&case.octets).await?;
        if case.expected == Expected::Unreadable {
            // Some of these leave the server waiting for more. Only then is it told that there is no more: an end that
            // comes early could hide a token.
            let waited = tokio::time::timeout(Duration::from_secs(2), connection.read_answer(false)).await;
            if let Ok(answer) = waited {
                return answer;
            }
            connection.finish().await?;
        }
        connection.read_answer(case.head_only).await
    }

    fn judge(case: &Case, answer: &std::io::Result<Answer>, records: &[serde_json::Value]) -> Result<(), String> {
        if let Ok(answer) = answer {
            let text = String::from_utf8_lossy(&answer.body);
            if answer.status < 400 || text.contains("access_token") {
                return Err(format!("succeeded: {answer}"));
            }
            if answer.status >= 500 {
                return Err(format!("the server's fault: {answer}"));
            }
        }
        if records
            .iter()
            .any(|record| record["outcome"] == "issued" || record.get("jti").is_some_and(|jti| !jti.is_null()))
        {
            return Err(format!("something was issued: {records:?}"));
        }
        match (case.expected, answer) {
            (Expected::Refused { status, error, reason }, Ok(answer)) => {
                let recorded: Vec<&str> = records.iter().filter_map(|record| record["reason"].as_str()).collect();
                if answer.status != status || (!case.head_only && answer.error() != error) {
                    return Err(format!("expected {status} {error}, got {answer}; on record: {recorded:?}"));
                }
                if answer.header("cache-control") != Some("no-store") {
                    return Err(format!("may be stored: {answer}"));
                }
                if answer.header("content-type") != Some("application/json") {
                    return Err(format!("not JSON: {answer}"));
                }
                if recorded != reason.as_slice() {
                    return Err(format!("expected {reason:?} on record, found {recorded:?}"));
                }
                Ok(())
            }
            (Expected::Unreadable, Ok(answer)) if (400..500).contains(&answer.status) => Ok(()),
            (Expected::Unreadable | Expected::NoHandshake, Err(error))
                if error.kind() != std::io::ErrorKind::TimedOut =>
            {
                Ok(())
            }
            (expected, answer) => Err(format!("expected {expected:?}, got {answer:?}")),
        }
    }
}
