//! The answer to a peer that asks about its own certificate: what it may know, put on record.
//!
//! Takes the certificates of a connection and a `client_id`, gives an [`Answer`]. What is registered and in which state is
//! told only where the certificate is the client's or its participant's own; everybody else gets the facts of their own
//! certificate and one sentence, whether or not there is such a client. It knows nothing of HTTP.

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use serde::Serialize;

use super::{Advice, Audience, Explanation, Facts, Finding, OwnFacts, Standing, advice, explain};
use crate::app::App;
use crate::audit::{Recorded, RequestId, Trail};
use crate::error::Refusal;
use crate::pki::{PeerRefusal, PresentedChain};
use crate::registry::{LookupRefusal, SightingRefusal};
use crate::request::{CheckRequest, Parameters, RequestRefusal};

/// A stranger's answer leaves so long after its request came, or twice, three times as long where the work took longer:
/// how long a client that exists takes to be read and its anchors to be tried says nothing then.
pub const STRANGERS_WAIT: Duration = Duration::from_millis(100);

/// What a peer is told.
#[derive(Debug)]
pub enum Answer {
    /// No certificate came with the connection.
    NoCertificate(Strangers),
    /// The certificate is neither the client's nor its participant's, or there is no such client.
    NotKnown(Strangers),
    /// It is: everything.
    Told(Box<Explanation>),
}

/// What everybody may know.
#[derive(Debug, Serialize)]
pub struct Strangers {
    would_be_let_in: bool,
    known_here: bool,
    says: &'static str,
    advice: Advice,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<OwnFacts>,
    findings: Vec<Finding>,
}

impl Strangers {
    fn without_certificate() -> Self {
        Self {
            would_be_let_in: false,
            known_here: false,
            says: "No certificate came with this connection.",
            advice: advice::on(&Refusal::Peer(PeerRefusal::NoCertificate)),
            certificate: None,
            findings: Vec::new(),
        }
    }

    /// From the certificate alone: not one word of it depends on the registry.
    fn of(peer: &PresentedChain, now: UnixTime) -> Self {
        let finding = |refusal: PeerRefusal| {
            let refusal = Refusal::from(refusal);
            Finding {
                stage: refusal.stage(),
                reason: refusal.reason(),
                says: refusal.meaning().to_owned(),
                facts: Facts::default(),
                advice: advice::on(&refusal),
            }
        };
        let defects = peer.leaf().map_or_else(|| vec![PeerRefusal::Malformed], |leaf| leaf.defects(now));
        Self {
            would_be_let_in: false,
            known_here: false,
            says: "This certificate is not known here as one of the client that was named.",
            advice: Advice {
                whose: advice::Whose::Partner,
                text: "Check client_id, that this is the server it was given for, and that the certificate is the one that was enrolled, sent with the CAs above it. If all of that is right, give the operator its thumbprint.",
            },
            certificate: OwnFacts::of(peer),
            findings: defects.into_iter().map(finding).collect(),
        }
    }
}

/// Answers what a peer asks about its own certificate. Every outcome is recorded; of a client's own certificate before it is
/// answered.
pub async fn check(
    app: &App,
    peer: &Arc<PresentedChain>,
    parameters: Result<Parameters, RequestRefusal>,
    request_id: RequestId,
    now: UnixTime,
) -> Recorded<Result<Answer, Refusal>> {
    let mut trail = Trail::begin(peer, request_id, now);
    let client_id = match parameters.and_then(|parameters| CheckRequest::parse(&parameters)) {
        Ok(CheckRequest { client_id }) => client_id,
        Err(refusal) => {
            let refusal = Refusal::from(refusal);
            return app.audit.count_check(&trail, &refusal.clone(), Err(refusal));
        }
    };
    trail.asked_about(&client_id);
    if peer.certificates().is_empty() {
        let answer = Answer::NoCertificate(Strangers::without_certificate());
        return app.audit.count_check(&trail, &PeerRefusal::NoCertificate.into(), Ok(answer));
    }
    let explanation = explain(&app.explanation(), peer, &client_id, Audience::Peer, now).await;
    // Made for everybody, so that making it tells nobody apart.
    let strangers = Strangers::of(peer, now);
    if let Some(client) = &explanation.client {
        if explanation.is_proven_by_certificate() {
            trail.authenticated(client);
        } else {
            trail.found(client);
        }
    }
    match explanation.refusal.clone() {
        Some(
            refusal @ (Refusal::Lookup(LookupRefusal::RegistryUnavailable)
            | Refusal::Sighting(SightingRefusal::RegistryUnavailable)),
        ) => app.audit.count_check(&trail, &refusal.clone(), Err(refusal)),
        Some(refusal) if explanation.standing == Standing::Stranger => {
            app.audit.count_check(&trail, &refusal, Ok(Answer::NotKnown(strangers)))
        }
        Some(refusal) if explanation.standing == Standing::OfTheParticipant => {
            app.audit.count_check(&trail, &refusal, Ok(Answer::Told(Box::new(explanation))))
        }
        refusal => app.audit.record_check(trail, refusal.as_ref(), Answer::Told(Box::new(explanation))).await,
    }
}
