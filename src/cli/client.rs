//! `countersign client …`: participants' applications.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use countersign_resource_server::token::jws::SigningAlgorithm;

use super::certificate::{leaf_der, read_leaf};
use super::receipt::{self, Ended};
use super::session::{Failure, Session};
use super::{every, found};
use crate::audit::receipt::{Concerned, EarlierMarks};
use crate::client_auth;
use crate::pki::certificate::ParsedCertificate;
use crate::pki::identity::{self, Names};
use crate::pki::spiffe::SpiffeId;
use crate::registry::client::{
    Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute, SubjectRule,
};
use crate::registry::trust_anchor::AnchorGrant;
use crate::registry::{AnchorId, ClientId, LookupRefusal, ParticipantId};

/// Clients: register, change, suspend, reinstate, retire.
#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Register a client; active at once unless --pending is given.
    Add(Box<Add>),
    /// List all, or one participant's.
    List {
        /// Whose.
        #[arg(long)]
        participant: Option<ParticipantId>,
    },
    /// Change how many requests a second it may make.
    Change(Alteration),
    /// Show one.
    Show {
        /// Its id.
        id: ClientId,
    },
    /// Let a pending one act.
    Activate(Change),
    /// Stop it until it is reinstated.
    Suspend(Change),
    /// Let a suspended one act again.
    Reinstate(Change),
    /// End it, for good.
    Retire(Change),
}

/// A new client.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its client_id.
    id: ClientId,
    /// Whose it is.
    #[arg(long)]
    participant: ParticipantId,
    /// How it proves itself.
    #[arg(long, value_enum, default_value_t = Method::TlsClientAuth)]
    auth_method: Method,
    /// A certificate of it: enrolled with the client, and the source of the proposed name where none is given.
    #[arg(long)]
    certificate: Option<PathBuf>,
    /// The name its certificates carry.
    #[command(flatten)]
    name: Name,
    /// A JWK Set (RFC 7517 §5): with self_signed_tls_client_auth each key carries x5c, with private_key_jwt the keys of its assertions.
    #[arg(long)]
    jwks: Option<PathBuf>,
    /// With private_key_jwt: the one algorithm of its assertions.
    #[arg(long, value_enum, default_value_t = Algorithm::Es256)]
    assertion_alg: Algorithm,
    /// The algorithm of its access tokens.
    #[arg(long, value_enum, default_value_t = Algorithm::Es256)]
    token_alg: Algorithm,
    /// The longest life of its tokens, in seconds.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..=3600))]
    lifetime_seconds: Option<i64>,
    /// Where it may act; where this server acts, if not given.
    #[arg(long, value_enum)]
    environment: Option<Where>,
    /// What happens to a certificate never seen before that carries the registered name.
    #[arg(long, value_enum, default_value_t = Policy::OnFirstUse)]
    enrolment: Policy,
    /// When a new certificate is enrolled as it is first seen, end the client's older ones after so many hours; they are
    /// left alone where this is not given. Whoever its CA gives a certificate with the client's name can end them too.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=87_600))]
    renewal_overlap_hours: Option<u64>,
    /// How many requests a second it may make at each node, where that is not what limits.requests_per_client says.
    #[arg(long, value_parser = requests)]
    requests_per_second: Option<NonZeroU32>,
    /// E-mail of its owner.
    #[arg(long)]
    contact: Option<String>,
    /// RFC 7591 §2.
    #[arg(long)]
    software_id: Option<String>,
    /// Register it without letting it act yet.
    #[arg(long)]
    pending: bool,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// The one attribute of RFC 8705 §2.1.2.
#[derive(Clone, Debug, Args)]
#[group(required = false, multiple = false)]
pub(super) struct Name {
    /// tls_client_auth_subject_dn: a distinguished name by RFC 4514, most specific first.
    #[arg(long)]
    subject_dn: Option<String>,
    /// tls_client_auth_san_dns.
    #[arg(long)]
    san_dns: Option<String>,
    /// tls_client_auth_san_uri.
    #[arg(long)]
    san_uri: Option<String>,
    /// tls_client_auth_san_ip.
    #[arg(long)]
    san_ip: Option<String>,
    /// tls_client_auth_san_email.
    #[arg(long)]
    san_email: Option<String>,
    /// With spiffe_x509 and spiffe_jwt: the SPIFFE ID, spiffe://TRUST-DOMAIN/PATH; not needed where it is the client_id.
    #[arg(long)]
    spiffe_id: Option<SpiffeId>,
}

/// A change of state.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// Its client_id.
    id: ClientId,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// What changes of a client.
#[derive(Debug, Args)]
pub(super) struct Alteration {
    /// Its client_id.
    id: ClientId,
    /// How many requests a second it may make at each node; `default` is what limits.requests_per_client says.
    #[arg(long, value_name = "N|default", value_parser = requests_or_default)]
    requests_per_second: Requests,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// What a client's record is to say of its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requests {
    /// Nothing.
    Default,
    /// So many a second.
    Own(NonZeroU32),
}

/// `token_endpoint_auth_method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Method {
    /// RFC 8705 §2.1: a certificate of its participant's CA with the registered name.
    TlsClientAuth,
    /// RFC 8705 §2.2: exactly a registered certificate.
    SelfSignedTlsClientAuth,
    /// RFC 7523: a signed assertion; the token is bound to the certificate all the same.
    PrivateKeyJwt,
    /// SPIFFE client authentication draft: an X509-SVID with the registered SPIFFE ID.
    #[value(name = "spiffe_x509")]
    SpiffeX509,
    /// SPIFFE client authentication draft: a JWT-SVID; the token is bound to the certificate all the same.
    SpiffeJwt,
}

/// Signing algorithms (RFC 7518 §3.1, RFC 8037, RFC 9864).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Algorithm {
    /// ECDSA on P-256.
    #[value(name = "ES256")]
    Es256,
    /// Ed25519.
    #[value(name = "EdDSA")]
    EdDsa,
    /// Ed25519, by its fully specified name.
    #[value(name = "Ed25519")]
    Ed25519,
    /// RSASSA-PSS.
    #[value(name = "PS256")]
    Ps256,
}

/// Environments.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Where {
    /// The real thing.
    Production,
    /// For trying out.
    Sandbox,
}

/// Enrolment policies.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Policy {
    /// Enrolled when first seen.
    OnFirstUse,
    /// Refused until it is enrolled.
    Required,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read, or what the registry refuses, as a sentence.
pub(super) async fn run(command: ClientCommand, session: &Session) -> Result<(), Failure> {
    match command {
        ClientCommand::Add(add) => register(*add, session).await,
        ClientCommand::List { participant } => {
            if let Some(participant) = &participant {
                found(session.registry.participant(participant).await?, "participant", participant)?;
            }
            let id = |one: &Client| one.id.to_string();
            let all = every(|page| session.registry.clients(participant.as_ref(), page), id).await?;
            session.output.list(&all, ["client_id", "participant", "state", "environment", "method", "name"], |one| {
                [
                    one.id.to_string(),
                    one.participant_id.to_string(),
                    one.state.as_str().to_owned(),
                    one.environment.as_str().to_owned(),
                    one.authentication.method().to_owned(),
                    one.authentication.subject().map(|rule| rule.value.clone()).unwrap_or_default(),
                ]
            })
        }
        ClientCommand::Change(change) => alter(change, session).await,
        ClientCommand::Show { id } => session.output.record(&stored(&id, session).await?),
        ClientCommand::Activate(change) | ClientCommand::Reinstate(change) => {
            set(change, ClientState::Active, session).await
        }
        ClientCommand::Suspend(change) => set(change, ClientState::Suspended, session).await,
        ClientCommand::Retire(change) => set(change, ClientState::Retired, session).await,
    }
}

async fn register(add: Add, session: &Session) -> Result<(), Failure> {
    if add.renewal_overlap_hours.is_some()
        && (matches!(add.enrolment, Policy::Required) || add.auth_method == Method::SelfSignedTlsClientAuth)
    {
        return Err(
            "--renewal-overlap-hours goes with certificates that are enrolled when first seen: announce these with `countersign certificate add --replaces`"
                .into(),
        );
    }
    let leaf = add.certificate.as_deref().map(read_leaf).transpose()?;
    let is_spiffe = matches!(add.auth_method, Method::SpiffeX509 | Method::SpiffeJwt);
    let rule = match if is_spiffe { Some(spiffe_rule(&add)?) } else { add.name.read()? } {
        Some(rule) => Some(rule),
        None if add.auth_method == Method::SelfSignedTlsClientAuth => None,
        None => leaf.as_ref().map(proposed).transpose()?,
    };
    let jwks = match &add.jwks {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?),
        None => None,
    };
    let mut certificates = Vec::new();
    let authentication = match (add.auth_method, rule.clone(), jwks) {
        (Method::TlsClientAuth | Method::SpiffeX509, Some(subject), None)
            if !leaf.as_ref().is_none_or(|leaf| carries(leaf, &subject)) =>
        {
            return Err(format!("the certificate does not carry this name: {}", subject.canonical).into());
        }
        (Method::TlsClientAuth, Some(subject), None) => ClientAuthentication::TlsClientAuth { subject },
        (Method::TlsClientAuth, None, None) => {
            return Err(
                "give the name its certificates carry (--san-dns, --subject-dn, …), or --certificate to propose one"
                    .into(),
            );
        }
        (Method::TlsClientAuth, _, Some(_)) => return Err("--jwks does not go with tls_client_auth".into()),
        (Method::SelfSignedTlsClientAuth, None, jwks) => {
            let jwks = match (jwks, &add.certificate) {
                (Some(jwks), None) => jwks,
                (None, Some(path)) => client_auth::jwks_of(&leaf_der(path)?)?,
                _ => return Err("give either --certificate or --jwks: the certificates it may present".into()),
            };
            for registered in client_auth::registered_certificates(&jwks)? {
                certificates.push(registered.for_enrolment());
            }
            ClientAuthentication::SelfSignedTlsClientAuth { jwks }
        }
        (Method::SelfSignedTlsClientAuth, Some(_), _) => {
            return Err(
                "a name does not go with self_signed_tls_client_auth: the certificate itself is registered".into()
            );
        }
        (Method::PrivateKeyJwt, subject, Some(jwks)) => {
            let signing_alg = add.assertion_alg.into();
            client_auth::check_keys(&jwks, signing_alg)?;
            ClientAuthentication::PrivateKeyJwt { jwks, signing_alg, subject }
        }
        (Method::PrivateKeyJwt, _, None) => return Err("give --jwks: the keys its assertions are signed with".into()),
        (Method::SpiffeX509, Some(subject), None) => ClientAuthentication::SpiffeX509 { subject },
        (Method::SpiffeJwt, Some(subject), None) => ClientAuthentication::SpiffeJwt { subject },
        (Method::SpiffeX509 | Method::SpiffeJwt, _, _) => {
            return Err("--jwks does not go with a SPIFFE ID: the keys are its trust domain's".into());
        }
    };
    if add.auth_method != Method::SelfSignedTlsClientAuth {
        certificates.extend(leaf.as_ref().map(ParsedCertificate::for_enrolment));
    }
    let client = Client {
        id: add.id,
        participant_id: add.participant,
        environment: add.environment.map_or(session.config.environment, Environment::from),
        contact: add.contact,
        authentication,
        access_token_signing_alg: add.token_alg.into(),
        access_token_lifetime_seconds: add.lifetime_seconds,
        enrolment: match add.enrolment {
            Policy::OnFirstUse => Enrolment::OnFirstUse,
            Policy::Required => Enrolment::Required,
        },
        renewal_overlap_seconds: add.renewal_overlap_hours.map(|hours| hours.saturating_mul(3600)),
        requests_per_second: add.requests_per_second,
        software_id: add.software_id,
        state: if add.pending { ClientState::Pending } else { ClientState::Active },
    };
    let version = session.registry.add_client(client.clone(), certificates, session.explain(add.why)).await?;
    session.output.done(&format!("client {} registered, registry version {version}", client.id), &client)?;
    if let Some(rule) = &rule {
        session.output.note(&format!(
            "  recognised by  {}\n  as written     {}\n  as compared    {}",
            rule.attribute.as_str(),
            rule.value,
            rule.canonical
        ))?;
    }
    if let Some(doubt) = doubts(&client, leaf.as_ref(), session).await? {
        session.output.note(&format!("  note: {doubt}"))?;
    }
    session.output.note(&sheet(&client, session))
}

/// What is still missing before this client can get a token, as far as it can be told from what was given. That it is
/// entitled to nothing yet goes without saying: an entitlement names a client, so it comes after it.
async fn doubts(
    client: &Client,
    leaf: Option<&ParsedCertificate>,
    session: &Session,
) -> Result<Option<String>, Failure> {
    let Client { id, participant_id: participant, .. } = client;
    match client.authentication {
        ClientAuthentication::SelfSignedTlsClientAuth { .. } => return Ok(None),
        ClientAuthentication::PrivateKeyJwt { subject: None, .. } => {
            // Its certificate has to be an enrolled one then.
            return Ok(leaf.is_none().then(|| {
                format!(
                    "it has neither a certificate nor a name yet: `countersign certificate add FILE --client {id}` before it asks for a token"
                )
            }));
        }
        ClientAuthentication::PrivateKeyJwt { .. } if leaf.is_some() => return Ok(None),
        ClientAuthentication::PrivateKeyJwt { .. } | ClientAuthentication::TlsClientAuth { .. } => {}
        ClientAuthentication::SpiffeX509 { ref subject } | ClientAuthentication::SpiffeJwt { ref subject } => {
            return no_trust_domain(participant, subject, session).await;
        }
    }
    let grants =
        every(|page| session.registry.grants(participant, page), |one: &AnchorGrant| one.anchor_id.to_string());
    let grants = grants.await?;
    if grants.is_empty() {
        return Ok(Some(format!(
            "{participant} has no trust anchor: `countersign anchor add CA.pem --owner {participant} …` before it asks for a token"
        )));
    }
    let Some(names) = leaf.and_then(|leaf| leaf.names().ok()) else { return Ok(None) };
    let mut outside = None;
    for grant in &grants {
        match names.first_outside(&grant.name_space) {
            Some(name) => outside = Some(name),
            None => return Ok(None),
        }
    }
    Ok(outside.map(|name| {
        format!(
            "no trust anchor of {participant} vouches for all names of this certificate, not for {name}: `countersign anchor grant` widens what one vouches for, and until then it is refused (peer_outside_name_space)"
        )
    }))
}

/// What stands between a client that is known by a SPIFFE ID and its first token: a trust domain that vouches for the id.
async fn no_trust_domain(
    participant: &ParticipantId,
    subject: &SubjectRule,
    session: &Session,
) -> Result<Option<String>, Failure> {
    let trust_domain = SpiffeId::parse(&subject.canonical)?.trust_domain();
    let id = AnchorId::of_trust_domain(&trust_domain);
    let grants =
        every(|page| session.registry.grants(participant, page), |one: &AnchorGrant| one.anchor_id.to_string()).await?;
    let vouches = |grant: &AnchorGrant| {
        grant.anchor_id == id
            && (grant.name_space.any || Names::is_under_a_prefix(&subject.canonical, &grant.name_space))
    };
    Ok((!grants.iter().any(vouches)).then(|| {
        format!(
            "trust domain {trust_domain} does not vouch for this SPIFFE ID of {participant}: `countersign trust-domain add {trust_domain} --owner {participant} …`, or `countersign anchor grant {id} …`, before it asks for a token"
        )
    }))
}

/// The SPIFFE ID a client is known by: as given, or its client_id, which the draft wants to be the same.
fn spiffe_rule(add: &Add) -> Result<SubjectRule, Failure> {
    let name = Name { spiffe_id: None, ..add.name.clone() };
    if name.read()?.is_some() {
        return Err("with spiffe_x509 and spiffe_jwt the name is the SPIFFE ID: give --spiffe-id".into());
    }
    spiffe_rule_of(&add.id, add.name.spiffe_id.as_ref())
}

/// The rule of a client that is known by a SPIFFE ID.
///
/// # Errors
/// There is none, or it is no workload's.
pub(super) fn spiffe_rule_of(client_id: &ClientId, given: Option<&SpiffeId>) -> Result<SubjectRule, Failure> {
    let by_client_id = SpiffeId::parse(client_id.as_str()).ok();
    let id = match (given, by_client_id) {
        (Some(given), Some(own)) if *given != own => {
            return Err("a client_id that is a SPIFFE ID is the client's own".into());
        }
        (Some(given), _) => given.clone(),
        (None, Some(own)) => own,
        (None, None) => return Err("give --spiffe-id: spiffe://TRUST-DOMAIN/PATH".into()),
    };
    if !id.has_path() {
        return Err("a SPIFFE ID without a path is the trust domain's, no workload's (X509-SVID section 3.1)".into());
    }
    Ok(identity::subject_rule(SubjectAttribute::TlsClientAuthSanUri, id.as_str())?)
}

/// What the partner is sent.
fn sheet(client: &Client, session: &Session) -> String {
    let issuer = &session.config.issuer;
    let token_url = session.config.mtls_url_of("/token");
    let check_url = session.config.mtls_url_of("/certificate-check");
    let assertion = match client.authentication {
        ClientAuthentication::PrivateKeyJwt { .. } => {
            " \\\n      -d client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer \\\n      -d client_assertion=\"$ASSERTION\""
        }
        ClientAuthentication::SpiffeJwt { .. } => {
            " \\\n      -d client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-spiffe \\\n      -d client_assertion=\"$JWT_SVID\""
        }
        _ => "",
    };
    format!(
        "\nFor the partner:\n  issuer     {issuer}\n  token URL  {token_url}\n  client_id  {id}\n  method     {method}\n\n  \
         curl --cert certificate.pem --key certificate.key {token_url} \\\n      -d grant_type=client_credentials -d client_id={id}{assertion}\n\n  \
         would the certificate be let in, and if not, why:\n  \
         curl --cert certificate.pem --key certificate.key '{check_url}?client_id={id}'",
        id = client.id,
        method = client.authentication.method(),
    )
}

fn carries(leaf: &ParsedCertificate, rule: &SubjectRule) -> bool {
    leaf.names().is_ok_and(|names| names.match_rule(rule))
}

/// The name a certificate proposes: its one DNS name or URI, where there is exactly one, else its subject.
fn proposed(leaf: &ParsedCertificate) -> Result<SubjectRule, Failure> {
    let rules = leaf.proposed_rules();
    [
        SubjectAttribute::TlsClientAuthSanUri,
        SubjectAttribute::TlsClientAuthSanDns,
        SubjectAttribute::TlsClientAuthSubjectDn,
    ]
    .into_iter()
    .find_map(|attribute| {
        let mut of_kind = rules.iter().filter(|rule| rule.attribute == attribute);
        of_kind.next().filter(|_| of_kind.next().is_none()).cloned()
    })
    .ok_or_else(|| {
        "the certificate proposes no single name: give --san-dns, --san-uri, --subject-dn, --san-ip or --san-email"
            .into()
    })
}

impl Name {
    fn read(&self) -> Result<Option<SubjectRule>, Failure> {
        let given = [
            (SubjectAttribute::TlsClientAuthSubjectDn, &self.subject_dn),
            (SubjectAttribute::TlsClientAuthSanDns, &self.san_dns),
            (SubjectAttribute::TlsClientAuthSanUri, &self.san_uri),
            (SubjectAttribute::TlsClientAuthSanIp, &self.san_ip),
            (SubjectAttribute::TlsClientAuthSanEmail, &self.san_email),
        ];
        for (attribute, value) in given {
            if let Some(value) = value {
                return Ok(Some(identity::subject_rule(attribute, value)?));
            }
        }
        if self.spiffe_id.is_some() {
            return Err("--spiffe-id goes with --auth-method spiffe_x509 and spiffe_jwt; else it is --san-uri".into());
        }
        Ok(None)
    }
}

impl From<Algorithm> for SigningAlgorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Es256 => Self::ES256,
            Algorithm::EdDsa => Self::EdDSA,
            Algorithm::Ed25519 => Self::Ed25519,
            Algorithm::Ps256 => Self::PS256,
        }
    }
}

impl From<Where> for Environment {
    fn from(place: Where) -> Self {
        match place {
            Where::Production => Self::Production,
            Where::Sandbox => Self::Sandbox,
        }
    }
}

async fn set(change: Change, to: ClientState, session: &Session) -> Result<(), Failure> {
    let ends = matches!(to, ClientState::Suspended | ClientState::Retired);
    let earlier = if ends { receipt::before(session).await } else { EarlierMarks::default() };
    let version = session.registry.set_client_state(change.id.clone(), to, session.explain(change.why)).await?;
    let after = stored(&change.id, session).await?;
    let sentence = format!("client {} is {}, registry version {version}", change.id, to.as_str());
    if ends {
        let concerned = Concerned::Client(change.id);
        return receipt::done(session, Ended { concerned, earlier, version, sentence: &sentence }, &after).await;
    }
    session.output.done(&sentence, &after)
}

/// Ends no token: nothing that one rests on is changed.
async fn alter(change: Alteration, session: &Session) -> Result<(), Failure> {
    let requests_per_second = match change.requests_per_second {
        Requests::Default => None,
        Requests::Own(requests) => Some(requests),
    };
    let changed = Client { requests_per_second, ..stored(&change.id, session).await? };
    let version = session.registry.change_client(changed.clone(), Vec::new(), session.explain(change.why)).await?;
    session.output.done(&format!("client {} changed, registry version {version}", change.id), &changed)
}

pub(super) fn requests(text: &str) -> Result<NonZeroU32, String> {
    let requests = text.parse().ok().filter(|requests: &NonZeroU32| requests.get() <= 1_000_000);
    requests.ok_or_else(|| "a whole number from 1 to 1000000".to_owned())
}

fn requests_or_default(text: &str) -> Result<Requests, String> {
    if text == "default" { Ok(Requests::Default) } else { requests(text).map(Requests::Own) }
}

/// The client with this id.
///
/// # Errors
/// There is none, or the store does not answer.
pub(super) async fn stored(id: &ClientId, session: &Session) -> Result<Client, Failure> {
    match session.registry.client(id).await {
        Ok(found) => Ok(found.record.client.clone()),
        Err(LookupRefusal::ClientUnknown) => Err(format!("there is no client {id}").into()),
        Err(LookupRefusal::RegistryUnavailable) => Err("the registry did not answer".into()),
    }
}
