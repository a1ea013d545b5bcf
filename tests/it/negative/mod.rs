//! Requests with one defect each, and what becomes of them: an answer of the table of errors, a reason on record, no token.
//!
//! Every case starts from a request that succeeds (`every_case_starts_from_a_request_that_succeeds`) and breaks one thing.
//! The families generate cases from lists, so that a new defect is one line.

mod assertion;

mod certificate;

mod form;

mod http;

mod parameter;

use std::collections::BTreeSet;

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
    /// An error in JSON; the reason goes on record.
    Refused {
        /// The status.
        status: u16,
        /// The `error` member.
        error: &'static str,
        /// The reason on record.
        reason: &'static str,
    },
    /// What the HTTP library itself answers to a head it cannot read: a bare 4xx, or the end of the connection.
    Unreadable,
    /// No handshake: an alert, or the end of the connection.
    NoHandshake,
}

/// `invalid_client` by the table of errors, with this reason.
pub(crate) const fn invalid_client(reason: &'static str) -> Expected {
    Expected::Refused { status: 400, error: "invalid_client", reason }
}

/// `invalid_request` with this status and reason.
pub(crate) const fn invalid_request(status: u16, reason: &'static str) -> Expected {
    Expected::Refused { status, error: "invalid_request", reason }
}

/// Another code, with 400.
pub(crate) const fn refused(error: &'static str, reason: &'static str) -> Expected {
    Expected::Refused { status: 400, error, reason }
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
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases of one name: {:?}", repeated(cases.iter().map(|case| &case.name)));
    let sent: BTreeSet<(Option<&[u8]>, &[u8])> = cases
        .iter()
        .map(|case| (case.credential.as_ref().map(Credential::certificate), case.octets.as_slice()))
        .collect();
    assert_eq!(sent.len(), cases.len(), "two cases that send the same");
    cases
}

fn repeated<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}
