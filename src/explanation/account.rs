//! What is said of each step: sentences, and the facts behind them.
//!
//! Takes what each stage was given and what it answered, gives [`Step`]s and [`Finding`]s. It judges nothing: that a
//! certificate is refused, and why, is told to it.

use std::time::Duration;

use countersign_resource_server::time::UnixTime;

use super::{Facts, Finding, Outcome, Step, StepName, advice};
use crate::admission::{self, AdmissionRefusal};
use crate::client_auth::ClientAuthRefusal;
use crate::error::Refusal;
use crate::pki::{Kinship, ParsedCertificate, PeerRefusal, PresentedChain, Standing as PeerStanding, VerifiedPeer};
use crate::policy::{Obtainable, PolicyRefusal};
use crate::registry::certificate::CertificateState;
use crate::registry::client::{ClientAuthentication, Environment, SubjectRule};
use crate::registry::edit::LIVE_CERTIFICATES;
use crate::registry::trust_anchor::NameSpace;
use crate::registry::{AnchorId, ClientRecord, FoundClient, GrantedAnchor, GrantedEntitlement, SightingRefusal};
use crate::tls::HandshakeRefusal;

/// How many of one kind are named at most, names, anchors or certificates: what is told has a bound.
const MOST_NAMED: usize = 8;

/// The steps told so far.
#[derive(Debug)]
pub(super) struct Account {
    now: UnixTime,
    client: Option<FoundClient>,
    steps: Vec<Step>,
}

/// What a refusal is told from.
struct Scene<'a> {
    record: &'a ClientRecord,
    peer: &'a PresentedChain,
    kinship: Option<&'a Kinship>,
    /// What revocation is judged by.
    sources: Vec<(&'static str, Vec<String>)>,
    /// Whether states and other certificates of the client may be told too.
    tells_all: bool,
    environment: Environment,
    now: UnixTime,
}

impl Account {
    pub(super) const fn new(now: UnixTime) -> Self {
        Self { now, client: None, steps: Vec::new() }
    }

    pub(super) const fn client(&self) -> Option<&FoundClient> {
        self.client.as_ref()
    }

    pub(super) fn finish(self) -> (Vec<Step>, Option<FoundClient>) {
        (self.steps, self.client)
    }

    fn passed(&mut self, step: StepName, says: String, facts: Vec<(&'static str, String)>) {
        let facts = Facts(facts);
        self.steps.push(Step { step, outcome: Outcome::Passed, stage: None, reason: None, says, facts, advice: None });
    }

    fn not_examined(&mut self, step: StepName, says: &str) {
        let says = says.to_owned();
        let (outcome, facts) = (Outcome::NotExamined, Facts::default());
        self.steps.push(Step { step, outcome, stage: None, reason: None, says, facts, advice: None });
    }

    pub(super) fn found(&mut self, client: &FoundClient) {
        let record = &client.record;
        let method = record.client.authentication.method();
        let facts = vec![("token_endpoint_auth_method", method.to_owned())];
        self.passed(StepName::Client, format!("The client is registered, and authenticates by {method}."), facts);
        self.client = Some(client.clone());
    }

    pub(super) fn verified(&mut self, peer: &VerifiedPeer, record: &ClientRecord) {
        let mut facts = dates(peer.leaf());
        let left = span(peer.leaf().not_after().since(self.now));
        let says = match peer.standing() {
            PeerStanding::Chained { anchor } => {
                facts.push(("anchor", anchor_text(record, anchor)));
                format!("The certificate leads to an enrolled CA, and has {left} left.")
            }
            PeerStanding::Svid { anchor, id } => {
                facts.push(("anchor", anchor_text(record, anchor)));
                facts.push(("spiffe_id", id.to_string()));
                format!("The certificate is an X509-SVID of an enrolled trust domain, and has {left} left.")
            }
            PeerStanding::Registered => format!("The certificate is registered itself, and has {left} left."),
        };
        self.passed(StepName::Certificate, says, facts);
        if record.client.authentication.asks_for_assertion() {
            let says = "An assertion has to come with each token request. It is not looked at here.";
            self.not_examined(StepName::Assertion, says);
        }
    }

    pub(super) fn proven(&mut self, peer: &VerifiedPeer, record: &ClientRecord) {
        let name = match &record.client.authentication {
            ClientAuthentication::TlsClientAuth { subject } | ClientAuthentication::SpiffeX509 { subject } => {
                Some(subject)
            }
            ClientAuthentication::SelfSignedTlsClientAuth { .. } => None,
            // Of one that is enrolled the name is not asked.
            ClientAuthentication::SpiffeJwt { subject } => {
                Some(subject).filter(|_| record.certificate(peer.thumbprint()).is_none())
            }
            ClientAuthentication::PrivateKeyJwt { subject, .. } => {
                subject.as_ref().filter(|_| record.certificate(peer.thumbprint()).is_none())
            }
        };
        let (says, facts) = match name {
            Some(rule) => ("The certificate carries the registered name.", registered_name(rule)),
            None => (
                "The certificate is one of those registered for this client.",
                vec![("thumbprint", peer.thumbprint().to_string())],
            ),
        };
        self.passed(StepName::Proof, says.to_owned(), facts);
    }

    pub(super) fn enrolled(&mut self, peer: &VerifiedPeer, record: &ClientRecord, would_be: bool) {
        let says = match record.certificate(peer.thumbprint()) {
            Some(_) if would_be => "The certificate was announced, and becomes active when it is first used.",
            Some(_) => "The certificate is on record.",
            None => "The certificate is new, and is put on record when it is first used.",
        };
        self.passed(StepName::Enrolment, says.to_owned(), Vec::new());
    }

    pub(super) fn admitted(&mut self, record: &ClientRecord) {
        let facts = vec![
            ("participant", record.participant.state.as_str().to_owned()),
            ("client", record.client.state.as_str().to_owned()),
            ("environment", record.client.environment.as_str().to_owned()),
        ];
        let says = "Participant, client, certificate and CA are all good now.";
        self.passed(StepName::Admission, says.to_owned(), facts);
    }

    pub(super) fn entitled(&mut self, obtainable: &[Obtainable]) {
        let says = match obtainable {
            [one] => format!("Tokens can be had for {}.", one.resource_server.resource),
            several => {
                format!("Tokens can be had for {} APIs: name one as resource in each token request.", several.len())
            }
        };
        let each = |one: &Obtainable| {
            let until = one.ends_at.map(|end| format!(" until {end}")).unwrap_or_default();
            format!("{} ({}){until}", one.resource_server.resource, one.scope)
        };
        let facts = vec![("obtainable", listed(obtainable.iter().map(each)))];
        self.passed(StepName::Entitlement, says, facts);
    }

    /// Tells the first refusal and that nothing after it was examined; gives what would be refused besides.
    pub(super) fn refused(
        &mut self,
        refusal: &Refusal,
        environment: Environment,
        peer: &PresentedChain,
        kinship: Option<&Kinship>,
        sources: Vec<(&'static str, Vec<String>)>,
        tells_all: bool,
    ) -> Vec<Finding> {
        let (mut says, mut facts, mut besides) = (refusal.meaning().to_owned(), Vec::new(), Vec::new());
        if let Some(client) = &self.client {
            let scene = Scene { record: &client.record, peer, kinship, sources, tells_all, environment, now: self.now };
            (says, facts) = scene.tell(refusal);
            besides = scene.besides(refusal);
        }
        let step = step_of(refusal);
        self.steps.push(Step {
            step,
            outcome: Outcome::Refused,
            stage: Some(refusal.stage()),
            reason: Some(refusal.reason()),
            says,
            facts: Facts(facts),
            advice: Some(advice::on(refusal)),
        });
        let client = self.client.as_ref();
        let asks = client.is_some_and(|client| client.record.client.authentication.asks_for_assertion());
        for later in StepName::ALL.into_iter().filter(|later| *later > step) {
            if later != StepName::Assertion || asks {
                self.not_examined(later, "Not examined, because an earlier step was refused.");
            }
        }
        besides
    }
}

/// A handshake that would fail: then nothing else is asked.
pub(super) fn of_the_handshake(refusal: &HandshakeRefusal) -> Finding {
    Finding {
        stage: HandshakeRefusal::STAGE,
        reason: refusal.reason(),
        says: refusal.meaning().to_owned(),
        facts: Facts::default(),
        advice: advice::on_handshake(refusal),
    }
}

/// In which step a refusal of the path is told.
const fn step_of(refusal: &Refusal) -> StepName {
    match refusal {
        Refusal::Request(_) | Refusal::Lookup(_) => StepName::Client,
        Refusal::Peer(_) => StepName::Certificate,
        Refusal::ClientAuth(_) => StepName::Proof,
        Refusal::Sighting(_) => StepName::Enrolment,
        Refusal::Admission(_) => StepName::Admission,
        // What comes after entitlement is not examined here.
        Refusal::Rate(_)
        | Refusal::Policy(_)
        | Refusal::Mint(_)
        | Refusal::Revocation(_)
        | Refusal::Introspection(_)
        | Refusal::Audit(_) => StepName::Entitlement,
    }
}

impl Scene<'_> {
    /// A refusal in words, with what was compared.
    fn tell(&self, refusal: &Refusal) -> (String, Vec<(&'static str, String)>) {
        let (detail, facts) = match refusal {
            Refusal::Peer(refusal) => self.of_the_certificate(refusal),
            Refusal::ClientAuth(refusal) => self.of_the_proof(refusal),
            Refusal::Sighting(refusal) => self.of_the_enrolment(refusal),
            Refusal::Admission(refusal) => self.of_the_admission(refusal),
            Refusal::Policy(refusal) => self.of_the_entitlement(refusal),
            Refusal::Request(_)
            | Refusal::Lookup(_)
            | Refusal::Rate(_)
            | Refusal::Mint(_)
            | Refusal::Revocation(_)
            | Refusal::Introspection(_)
            | Refusal::Audit(_) => (None, Vec::new()),
        };
        let meaning = refusal.meaning();
        (detail.map_or_else(|| meaning.to_owned(), |detail| format!("{meaning} {detail}")), facts)
    }

    fn finding(&self, refusal: &Refusal) -> Finding {
        let (says, facts) = self.tell(refusal);
        let (stage, reason) = (refusal.stage(), refusal.reason());
        Finding { stage, reason, says, facts: Facts(facts), advice: advice::on(refusal) }
    }

    fn of_the_certificate(&self, refusal: &PeerRefusal) -> (Option<String>, Vec<(&'static str, String)>) {
        let Some(leaf) = self.peer.leaf() else { return (None, Vec::new()) };
        let now = ("now", self.now.to_string());
        match refusal {
            PeerRefusal::NotYetValid | PeerRefusal::Expired => {
                let detail = self.out_of_date((leaf.not_before(), leaf.not_after()));
                (detail, dates(leaf).into_iter().chain([now]).collect())
            }
            PeerRefusal::IssuerOutOfDate => {
                let each = |(from, until): (UnixTime, UnixTime)| format!("{from} to {until}");
                let facts = vec![("issuers_presented", listed(self.peer.issuer_dates().map(each))), now];
                (self.peer.issuer_dates().find_map(|dates| self.out_of_date(dates)), facts)
            }
            PeerRefusal::AnchorOutOfDate => {
                let Some(kinship) = self.kinship else { return (None, vec![now]) };
                let (from, until) = kinship.anchor_dates;
                let anchor = ("anchor", anchor_text(self.record, &kinship.anchor));
                let facts = vec![anchor, ("not_before", from.to_string()), ("not_after", until.to_string()), now];
                (self.out_of_date(kinship.anchor_dates), facts)
            }
            PeerRefusal::PurposeMissing => {
                let mut facts = vec![("extended_key_usage", leaf.purposes_text().to_owned())];
                if let Some(granted) = self.kinship.and_then(|kinship| granted(self.record, &kinship.anchor)) {
                    facts.push(("anchor", anchor_text(self.record, &granted.anchor.id)));
                    facts.push(("eku_policy", format!("{:?}", granted.anchor.eku_policy).to_lowercase()));
                }
                (None, facts)
            }
            PeerRefusal::NameMalformed => {
                let why = leaf.names().err().map(|malformed| format!("What was found: {malformed}."));
                (why, Vec::new())
            }
            PeerRefusal::OutsideNameSpace { name } => {
                let mut facts = vec![("outside", name.clone())];
                if let Some(granted) = self.kinship.and_then(|kinship| granted(self.record, &kinship.anchor)) {
                    facts.push(("anchor", anchor_text(self.record, &granted.anchor.id)));
                    facts.push(("name_space", name_space_text(&granted.name_space)));
                }
                (Some(format!("The name is {name}.")), facts)
            }
            PeerRefusal::NotRegistered => {
                let mut facts = vec![("thumbprint", leaf.thumbprint().to_string())];
                if self.tells_all {
                    facts.push(("registered", self.certificates()));
                }
                (None, facts)
            }
            PeerRefusal::IssuerUnknown | PeerRefusal::SignatureInvalid | PeerRefusal::AnchorRetired => {
                let anchors = || self.record.anchors.iter().map(|granted| &granted.anchor);
                let same_name = anchors().any(|anchor| anchor.subject == leaf.issuer_text());
                let sent = self.peer.certificates().len().saturating_sub(1);
                let detail = match (refusal, same_name, sent) {
                    (PeerRefusal::SignatureInvalid, true, _) => {
                        "An enrolled CA has the name of its issuer, but another key.".to_owned()
                    }
                    (PeerRefusal::IssuerUnknown, false, 0) => {
                        "No CA was sent along with it, and none that is enrolled has the name of its issuer.".to_owned()
                    }
                    (PeerRefusal::IssuerUnknown, false, sent) => {
                        format!("Certificates sent along with it: {sent}; they lead to none that is enrolled.")
                    }
                    _ => String::new(),
                };
                let all = anchors().map(|anchor| anchor_text(self.record, &anchor.id));
                let facts = vec![("issuer", leaf.issuer_text().to_owned()), ("anchors", listed(all))];
                ((!detail.is_empty()).then_some(detail), facts)
            }
            PeerRefusal::NameConstraintViolated | PeerRefusal::TrustDomainUnknown => (None, names_text(leaf)),
            PeerRefusal::Revoked { at } => {
                let facts = self.of_revocation(leaf, Some(("revoked_at", at.to_string())));
                // Asked about an instant before that, it is revoked all the same: as of now.
                let detail = if *at <= self.now {
                    format!("It was revoked {} ago.", span(self.now.since(*at)))
                } else {
                    format!("It was revoked at {at}.")
                };
                (Some(detail), facts)
            }
            PeerRefusal::RevocationUnknown { why } => {
                (Some(format!("What is missing: {}.", why.as_str())), self.of_revocation(leaf, None))
            }
            PeerRefusal::IssuerRevoked | PeerRefusal::OnHold => (None, self.of_revocation(leaf, None)),
            PeerRefusal::NoCertificate
            | PeerRefusal::Malformed
            | PeerRefusal::VersionUnsupported
            | PeerRefusal::KeyTooWeak
            | PeerRefusal::IsAuthority
            | PeerRefusal::KeyUsageForbids
            | PeerRefusal::CriticalExtensionUnknown
            | PeerRefusal::SpiffeIdAmbiguous
            | PeerRefusal::SpiffeIdMissing
            | PeerRefusal::SpiffeIdMalformed
            | PeerRefusal::SvidExtensionWrong
            | PeerRefusal::IssuerSpiffeIdWrong
            | PeerRefusal::IssuerNotAuthority
            | PeerRefusal::IssuerKeyTooWeak
            | PeerRefusal::PathTooLong
            | PeerRefusal::PathTooComplex => (None, Vec::new()),
        }
    }

    /// How its issuer knows the certificate, and what was looked at.
    fn of_revocation(
        &self,
        leaf: &ParsedCertificate,
        found: Option<(&'static str, String)>,
    ) -> Vec<(&'static str, String)> {
        let known_by = [("serial", leaf.serial().to_owned()), ("issuer", leaf.issuer_text().to_owned())];
        let sources = self
            .sources
            .iter()
            .map(|(name, all)| (*name, if all.is_empty() { "none".to_owned() } else { listed(all.iter()) }));
        known_by.into_iter().chain(found).chain(sources).collect()
    }

    /// By how much, of a certificate that is not in date: whole seconds, the last one included (RFC 5280 §4.1.2.5).
    fn out_of_date(&self, (from, until): (UnixTime, UnixTime)) -> Option<String> {
        let now = self.now.as_seconds();
        if now < from.as_seconds() {
            return Some(format!("It begins in {}.", span(from.since(self.now))));
        }
        (now > until.as_seconds()).then(|| format!("It ended {} ago.", span(self.now.since(until))))
    }

    fn of_the_proof(&self, refusal: &ClientAuthRefusal) -> (Option<String>, Vec<(&'static str, String)>) {
        let (Some(leaf), Some(thumbprint)) = (self.peer.leaf(), self.peer.thumbprint()) else {
            return (None, Vec::new());
        };
        match (refusal, self.record.client.authentication.subject()) {
            (ClientAuthRefusal::NameMismatch, Some(rule)) => {
                let Ok(names) = leaf.names() else { return (None, registered_name(rule)) };
                let mut facts = registered_name(rule);
                facts.push(("presented", listed(names.of(rule.attribute))));
                let differences: Vec<String> = names.differences(rule).iter().map(ToString::to_string).collect();
                let detail = (!differences.is_empty()).then(|| format!("What was found: {}.", differences.join("; ")));
                (detail, facts)
            }
            (ClientAuthRefusal::NameMismatch, None) => {
                (Some("No name is registered for this client.".to_owned()), Vec::new())
            }
            (ClientAuthRefusal::CertificateNotEnrolled | ClientAuthRefusal::CertificateNotInJwks, _) => {
                let mut facts = vec![("thumbprint", thumbprint.to_string())];
                if self.tells_all {
                    facts.push(("enrolled", self.certificates()));
                }
                (None, facts)
            }
            (ClientAuthRefusal::CertificateTwin, _) => {
                let twin = self.record.certificates.iter().find(|own| own.serial == leaf.serial());
                let on_record = twin.map(|twin| twin.thumbprint.to_string()).unwrap_or_default();
                let facts = vec![
                    ("thumbprint", thumbprint.to_string()),
                    ("on_record", on_record),
                    ("serial", leaf.serial().to_owned()),
                ];
                (None, facts)
            }
            _ => (None, Vec::new()),
        }
    }

    fn of_the_enrolment(&self, refusal: &SightingRefusal) -> (Option<String>, Vec<(&'static str, String)>) {
        match refusal {
            SightingRefusal::LimitReached => {
                let facts = vec![
                    ("live_certificates", self.record.live_certificates(self.now).to_string()),
                    ("limit", LIVE_CERTIFICATES.to_string()),
                ];
                (None, facts)
            }
            SightingRefusal::SerialTaken => {
                let serial = self.peer.leaf().map(|leaf| leaf.serial().to_owned()).unwrap_or_default();
                (None, vec![("serial", serial)])
            }
            SightingRefusal::KeyRevoked => {
                let key = self.peer.leaf().map(|leaf| leaf.key_hash().to_string()).unwrap_or_default();
                (None, vec![("key_hash", key)])
            }
            SightingRefusal::CertificateTaken
            | SightingRefusal::Required
            | SightingRefusal::ClientUnknown
            | SightingRefusal::RegistryUnavailable => (None, Vec::new()),
        }
    }

    fn of_the_admission(&self, refusal: &AdmissionRefusal) -> (Option<String>, Vec<(&'static str, String)>) {
        match refusal {
            AdmissionRefusal::ParticipantPending
            | AdmissionRefusal::ParticipantSuspended
            | AdmissionRefusal::ParticipantWithdrawn => {
                (None, vec![("participant", self.record.participant.state.as_str().to_owned())])
            }
            AdmissionRefusal::ClientPending | AdmissionRefusal::ClientSuspended | AdmissionRefusal::ClientRetired => {
                (None, vec![("client", self.record.client.state.as_str().to_owned())])
            }
            AdmissionRefusal::EnvironmentMismatch => {
                let facts = vec![
                    ("client", self.record.client.environment.as_str().to_owned()),
                    ("server", self.environment.as_str().to_owned()),
                ];
                (None, facts)
            }
            AdmissionRefusal::CertificateSuperseded { at } => {
                let detail = format!("It ended {} ago.", span(self.now.since(*at)));
                (Some(detail), vec![("superseded_at", at.to_string()), ("now", self.now.to_string())])
            }
            AdmissionRefusal::CertificateRevoked { at } => {
                let mut facts = vec![("revoked_at", at.to_string())];
                let on_record = self.peer.thumbprint().and_then(|thumbprint| self.record.certificate(thumbprint));
                if let Some(CertificateState::Revoked { reason, .. }) = on_record.map(|certificate| &certificate.state)
                {
                    facts.push(("revocation_reason", reason.as_str().to_owned()));
                }
                (Some(format!("It has been since {at}, for {}.", span(self.now.since(*at)))), facts)
            }
            AdmissionRefusal::CertificateNotOnRecord | AdmissionRefusal::AnchorRetired => (None, Vec::new()),
        }
    }

    fn of_the_entitlement(&self, refusal: &PolicyRefusal) -> (Option<String>, Vec<(&'static str, String)>) {
        if *refusal == PolicyRefusal::CertificateEnding {
            return (None, self.peer.leaf().map(|leaf| dates(leaf)).unwrap_or_default());
        }
        let each = |granted: &GrantedEntitlement| {
            let entitlement = &granted.entitlement;
            let until = entitlement.end().map(|end| format!(" until {end}")).unwrap_or_default();
            let retired = granted.resource_server.state.as_str();
            format!("{} ({retired}) from {}{until}", granted.resource_server.resource, entitlement.starts_at)
        };
        let all = listed(self.record.entitlements.iter().map(each));
        (None, if all.is_empty() { Vec::new() } else { vec![("entitlements", all)] })
    }

    /// What would be refused besides the first refusal, each by itself: not what only follows from it.
    fn besides(&self, first: &Refusal) -> Vec<Finding> {
        let Some(leaf) = self.peer.leaf() else { return Vec::new() };
        let mut refusals: Vec<Refusal> = Vec::new();
        let on_record = self.record.certificate(leaf.thumbprint());
        if matches!(first, Refusal::Peer(_)) {
            self.of_the_peer(leaf, &mut refusals);
        }
        if self.tells_all {
            let is_good = |state: &CertificateState| matches!(state, CertificateState::Announced);
            if let Some(certificate) = on_record.filter(|certificate| !is_good(&certificate.state)) {
                refusals.extend(admission::certificate_is_good(certificate, self.now).err().map(Refusal::from));
            }
            refusals.extend(admission::examine_client(self.record, self.environment).err().map(Refusal::from));
            if self.record.entitlements.is_empty() {
                refusals.push(PolicyRefusal::NoEntitlement.into());
            }
        }
        let mut told = vec![first.reason()];
        let mut findings = Vec::new();
        for refusal in refusals {
            if !told.contains(&refusal.reason()) {
                told.push(refusal.reason());
                findings.push(self.finding(&refusal));
            }
        }
        findings
    }

    fn of_the_peer(&self, leaf: &ParsedCertificate, refusals: &mut Vec<Refusal>) {
        let authentication = &self.record.client.authentication;
        let on_record = self.record.certificate(leaf.thumbprint());
        let is_chained = match authentication {
            ClientAuthentication::TlsClientAuth { .. } | ClientAuthentication::SpiffeX509 { .. } => true,
            ClientAuthentication::SelfSignedTlsClientAuth { .. } => false,
            ClientAuthentication::SpiffeJwt { .. } => on_record.is_none_or(|certificate| certificate.anchor.is_some()),
            ClientAuthentication::PrivateKeyJwt { subject, .. } => match on_record {
                Some(certificate) => certificate.anchor.is_some(),
                None => subject.is_some(),
            },
        };
        let defects = leaf.defects(self.now);
        let is_of_every_certificate = |refusal: &PeerRefusal| {
            matches!(refusal, PeerRefusal::Expired | PeerRefusal::NotYetValid | PeerRefusal::KeyTooWeak)
        };
        refusals.extend(
            defects.iter().filter(|refusal| is_chained || is_of_every_certificate(refusal)).cloned().map(Refusal::from),
        );
        if !is_chained {
            return;
        }
        match self.kinship {
            // Of a certificate that is no end entity's no path is looked for: nothing is known of its issuer then.
            None if !defects.is_empty() && defects.iter().all(is_of_every_certificate) => {
                refusals.push(PeerRefusal::IssuerUnknown.into());
            }
            Some(Kinship { outside: Some(name), .. }) if leaf.names().is_ok() => {
                refusals.push(PeerRefusal::OutsideNameSpace { name: name.clone() }.into());
            }
            None | Some(_) => {}
        }
        if on_record.is_none()
            && let (Some(rule), Ok(names)) = (authentication.subject(), leaf.names())
            && !names.match_rule(rule)
        {
            refusals.push(ClientAuthRefusal::NameMismatch.into());
        }
    }

    /// The client's certificates that have not ended.
    fn certificates(&self) -> String {
        let live = self.record.certificates.iter().filter(|own| own.live_until() > self.now);
        listed(live.map(|own| format!("{} ({})", own.thumbprint, own.state.as_str())))
    }
}

fn granted<'a>(record: &'a ClientRecord, id: &AnchorId) -> Option<&'a GrantedAnchor> {
    record.anchors.iter().find(|granted| granted.anchor.id == *id)
}

fn anchor_text(record: &ClientRecord, id: &AnchorId) -> String {
    match granted(record, id) {
        Some(granted) => format!("{} ({id}, {})", granted.anchor.subject, granted.anchor.state.as_str()),
        None => id.to_string(),
    }
}

fn name_space_text(space: &NameSpace) -> String {
    if space.any {
        return "any name".to_owned();
    }
    let of =
        |kind: &'static str, texts: &[String]| texts.iter().map(|text| format!("{kind} {text}")).collect::<Vec<_>>();
    let all = [of("DN", &space.dn_suffixes), of("DNS", &space.dns_suffixes), of("URI", &space.uri_prefixes)].concat();
    if all.is_empty() { "no name".to_owned() } else { listed(all.into_iter()) }
}

fn registered_name(rule: &SubjectRule) -> Vec<(&'static str, String)> {
    vec![("attribute", rule.attribute.as_str().to_owned()), ("registered", rule.canonical.clone())]
}

fn names_text(leaf: &ParsedCertificate) -> Vec<(&'static str, String)> {
    vec![
        ("subject", leaf.subject_text().to_owned()),
        ("subject_alt_names", listed(leaf.subject_alt_names_text().iter())),
    ]
}

fn dates(leaf: &ParsedCertificate) -> Vec<(&'static str, String)> {
    vec![("not_before", leaf.not_before().to_string()), ("not_after", leaf.not_after().to_string())]
}

/// Some of them, and how many more there are.
fn listed<T: ToString>(all: impl Iterator<Item = T>) -> String {
    let all: Vec<String> = all.map(|one| one.to_string()).collect();
    let more = all.len().saturating_sub(MOST_NAMED);
    let mut text = all.into_iter().take(MOST_NAMED).collect::<Vec<_>>().join("; ");
    if more > 0 {
        text.push_str(&format!("; and {more} more"));
    }
    text
}

/// For people: the two largest units.
fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [
        ("day", seconds / 86_400),
        ("hour", seconds / 3_600 % 24),
        ("minute", seconds / 60 % 60),
        ("second", seconds % 60),
    ];
    let some: Vec<String> = units
        .into_iter()
        .skip_while(|(_, count)| *count == 0)
        .take(2)
        .filter(|(_, count)| *count > 0)
        .map(|(unit, count)| format!("{count} {unit}{}", if count == 1 { "" } else { "s" }))
        .collect();
    if some.is_empty() { "less than a second".to_owned() } else { some.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        for (seconds, text) in [
            (0, "less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (61, "1 minute 1 second"),
            (3_600, "1 hour"),
            (86_400 + 61, "1 day"),
            (2 * 86_400 + 3 * 3_600 + 59, "2 days 3 hours"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_list_has_an_end() {
        assert_eq!(listed(0..2), "0; 1");
        assert_eq!(listed(0..10), "0; 1; 2; 3; 4; 5; 6; 7; and 2 more");
        assert_eq!(listed(std::iter::empty::<u8>()), "");
    }
}
