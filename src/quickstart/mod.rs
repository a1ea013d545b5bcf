//! Everything on one machine, nothing to prepare: the main job, step by step.
//!
//! Takes a data directory and ports, gives a running authorization server and a guarded API with two partners enrolled,
//! and shows a token used, stolen and revoked, each step with the curl command that repeats it. It goes through the same
//! doors as everybody else: the registry's operations, TLS, HTTP.

/// Certificates for one machine.
mod development_pki;

/// One caller, with one certificate.
mod caller;

/// The example API: the very source file that the crate's `examples/` shows.
#[path = "../../resource-server/examples/guarded_api.rs"]
#[expect(unreachable_pub, reason = "the file is an example of another crate first")]
mod guarded_api;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::{Clock, SystemClock, UnixTime};
use countersign_resource_server::token::jws::SigningAlgorithm;
use http::StatusCode;
use tokio::sync::oneshot;

use crate::app::App;
use crate::cli::{Failure, system_user};
use crate::config::{Config, Issuer};
use crate::pki::anchor::check_anchor;
use crate::pki::certificate::{ParsedCertificate, certificates_from};
use crate::pki::identity;
use crate::registry::certificate::{CertificateState, RevocationReason};
use crate::registry::client::{Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute};
use crate::registry::edit::CertificateSelector;
use crate::registry::entitlement::Entitlement;
use crate::registry::history::{Actor, Explanation};
use crate::registry::participant::{Contacts, Participant, ParticipantState};
use crate::registry::resource_server::{ResourceServer, ResourceServerState, StatusClaim};
use crate::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use crate::registry::{ClientId, EntitlementId, Page, ParticipantId, ResourceIndicator, ResourceServerId};
use caller::{Answer, Caller};
use development_pki::{DevelopmentAuthority, LeafFiles};

/// What a quickstart may be told.
#[derive(Clone, Debug)]
pub struct Quickstart {
    /// Where everything is kept.
    pub data_directory: PathBuf,
    /// The authorization server's port on localhost.
    pub port: u16,
    /// The guarded API's port on localhost.
    pub api_port: u16,
    /// The port of health and metrics.
    pub operations_port: u16,
    /// End after the last step instead of staying up.
    pub exit: bool,
}

/// Revocation is promised to bite within this time.
const PROMISED: Duration = Duration::from_secs(1);

/// How long a step may wait for the API to have fetched keys and revocation list.
const PATIENCE: Duration = Duration::from_secs(10);

const SCOPE: &str = "accounts:read";

/// An organisation of the story, with its one client.
struct Partner {
    participant: &'static str,
    legal_name: &'static str,
    client: &'static str,
    dns_name: &'static str,
}

const FIRST: Partner = Partner {
    participant: "alder-bank",
    legal_name: "Alder Bank AG",
    client: "alder-payments",
    dns_name: "payments.alder-bank.example",
};

const SECOND: Partner = Partner {
    participant: "birch-insurance",
    legal_name: "Birch Insurance plc",
    client: "birch-claims",
    dns_name: "claims.birch-insurance.example",
};

/// Runs the quickstart.
///
/// # Errors
/// A step that went wrong, in words.
pub async fn run(
    quickstart: Quickstart,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
) -> Result<(), Failure> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let stage = Stage::set(&quickstart, &clock, metrics).await?;
    let played = stage.play(&clock).await;
    if played.is_ok() && !quickstart.exit {
        stage.renew_first(clock.now())?;
        say(
            "\nBoth servers stay up until Ctrl-C. The first client has a new certificate in place of the revoked one,\nso the commands above can be repeated from the top.",
        )?;
        tokio::signal::ctrl_c().await?;
    }
    stage.strike().await;
    played
}

/// The two servers, with two partners enrolled.
struct Stage {
    app: Arc<App>,
    running: crate::server::Running,
    api: tokio::task::JoinHandle<std::io::Result<()>>,
    stop_api: oneshot::Sender<()>,
    guard: countersign_resource_server::Guard,
    server_authority: DevelopmentAuthority,
    first_authority: DevelopmentAuthority,
    first: LeafFiles,
    second: LeafFiles,
    token_url: String,
    api_url: String,
}

impl Stage {
    async fn set(
        quickstart: &Quickstart,
        clock: &Arc<dyn Clock>,
        metrics: metrics_exporter_prometheus::PrometheusHandle,
    ) -> Result<Self, Failure> {
        let now = clock.now();
        let directory = &quickstart.data_directory;
        say(&format!("Countersign quickstart: everything is kept in {}", directory.display()))?;
        let clients = directory.join("clients");
        std::fs::create_dir_all(&clients)?;

        let mut config = Config::embedded(directory);
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        config.issuer = Issuer::parse(&format!("https://localhost:{}", quickstart.port))?;
        config.listen = local(quickstart.port);
        config.operations = local(quickstart.operations_port);

        let server_authority = DevelopmentAuthority::open(directory, "server-ca", "Countersign quickstart", now)?;
        let server_leaf = LeafFiles { certificate: config.tls.certificate.clone(), key: config.tls.key.clone() };
        if let Some(parent) = server_leaf.key.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if !is_good_until(&server_leaf, now.after(Duration::from_secs(86_400))) {
            server_authority.server_leaf(&server_leaf, now)?;
        }
        let first_authority = DevelopmentAuthority::open(&clients, "alder-ca", FIRST.legal_name, now)?;
        let second_authority = DevelopmentAuthority::open(&clients, "birch-ca", SECOND.legal_name, now)?;
        let first = LeafFiles::named(&clients, FIRST.client);
        let second = LeafFiles::named(&clients, SECOND.client);

        let app = App::open(config, Arc::clone(clock)).await?;
        let api_url = format!("https://localhost:{}", quickstart.api_port);
        enter_api(&app, &api_url, now).await?;
        for (partner, authority, leaf) in [(FIRST, &first_authority, &first), (SECOND, &second_authority, &second)] {
            enrol(&app, &partner, authority, now).await?;
            if !is_usable(&app, leaf, now).await? {
                authority.client_leaf(partner.legal_name, partner.dns_name, leaf, now)?;
            }
        }

        let running = crate::server::serve(&app, metrics).await?;
        let settings = guarded_api::Settings {
            listen: local(quickstart.api_port),
            issuer: app.config.issuer.to_string(),
            resource: api_url.clone(),
            certificate_pem: std::fs::read(&server_leaf.certificate)?,
            key_pem: std::fs::read(&server_leaf.key)?,
            roots_pem: server_authority.certificate_pem.clone().into_bytes(),
        };
        let (ready, api_ready) = oneshot::channel();
        let (stop_api, stopped) = oneshot::channel::<()>();
        let mut api = tokio::spawn(guarded_api::serve(settings, ready, async {
            let _told_or_gone = stopped.await;
        }));
        let (_, guard) = tokio::select! {
            ready = api_ready => ready.map_err(|_| "the guarded API did not start")?,
            ended = &mut api => {
                let why = ended?.err().map_or_else(|| "it ended".to_owned(), |error| error.to_string());
                return Err(format!("the guarded API at {api_url} did not start: {why}").into());
            }
        };
        say(&format!(
            "  authorization server  {}\n  guarded API           {api_url}\n  health and metrics    http://127.0.0.1:{}/metrics\n  partners              {} ({}), {} ({})",
            app.config.issuer,
            quickstart.operations_port,
            FIRST.legal_name,
            FIRST.client,
            SECOND.legal_name,
            SECOND.client
        ))?;
        let token_url = app.config.mtls_url_of(crate::endpoint::path::TOKEN);
        Ok(Self {
            app,
            running,
            api,
            stop_api,
            guard,
            server_authority,
            first_authority,
            first,
            second,
            token_url,
            api_url,
        })
    }

    /// The five steps. The first that goes wrong ends them.
    async fn play(&self, clock: &Arc<dyn Clock>) -> Result<(), Failure> {
        let roots = self.server_authority.certificate_pem.as_bytes();
        let first = Caller::new(roots, &self.first)?;
        let second = Caller::new(roots, &self.second)?;
        let accounts = format!("{}/accounts", self.api_url);
        let call_command =
            |leaf: &LeafFiles| format!("{} -H \"Authorization: Bearer $TOKEN\" {accounts}", self.curl(leaf));

        say("\n1. The first client asks for a token with its certificate")?;
        say(&format!(
            "   TOKEN=$({} -s {} -d grant_type=client_credentials -d client_id={} | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')",
            self.curl(&self.first),
            self.token_url,
            FIRST.client
        ))?;
        let form = format!("grant_type=client_credentials&client_id={}", FIRST.client);
        let answer = first.post(&self.token_url, &form).await?;
        expect(&answer, StatusCode::OK, None)?;
        let token = answer.member("access_token").ok_or("the answer has no access_token")?;
        shown(
            &answer,
            &format!("a token bound to that certificate, for {} s", answer.member("expires_in").unwrap_or_default()),
        )?;

        say("\n2. It calls the API with that token and the same certificate")?;
        say(&format!("   {}", call_command(&self.first)))?;
        let answer = self.when_ready(&first, &accounts, &token).await?;
        expect(&answer, StatusCode::OK, None)?;
        shown(&answer, &answer.text)?;

        say("\n3. The same token, stolen: it comes with the second client's certificate")?;
        say(&format!("   {}", call_command(&self.second)))?;
        let answer = second.get(&accounts, &token).await?;
        expect(&answer, StatusCode::UNAUTHORIZED, Some("invalid_token"))?;
        shown(&answer, &answer.challenge)?;

        say("\n4. The operator revokes the first client's certificate")?;
        let program =
            std::env::current_exe().map_or_else(|_| "countersign".to_owned(), |path| path.display().to_string());
        say(&format!(
            "   COUNTERSIGN_DATA_DIRECTORY={} {program} certificate revoke --file {}",
            self.app.config.data_directory.display(),
            self.first.certificate.display()
        ))?;
        let thumbprint = *read_leaf(&self.first.certificate)?.thumbprint();
        self.app
            .registry
            .revoke_certificate(
                CertificateSelector::Thumbprint(thumbprint),
                RevocationReason::KeyCompromise,
                explanation(clock.now(), "quickstart, step 4"),
            )
            .await?;
        let revoked = clock.monotonic();
        say(&format!("   revoked: {thumbprint}, with its key"))?;

        say("\n5. The same call as in step 2, on the same connection")?;
        say(&format!("   {}", call_command(&self.first)))?;
        let answer = loop {
            let answer = first.get(&accounts, &token).await?;
            if answer.status != StatusCode::OK || clock.monotonic().saturating_sub(revoked) > PROMISED {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let took = clock.monotonic().saturating_sub(revoked);
        expect(&answer, StatusCode::UNAUTHORIZED, Some("invalid_token"))?;
        if took > PROMISED {
            return Err(format!("refused only after {} ms", took.as_millis()).into());
        }
        shown(&answer, &format!("refused {} ms after the revocation; the token had not expired", took.as_millis()))?;
        let answer = first.post(&self.token_url, &form).await?;
        expect(&answer, StatusCode::BAD_REQUEST, Some("invalid_client"))?;
        say("   and no new token is issued to it either: 400 invalid_client")
    }

    /// The API refuses with 503 until it has fetched keys and revocation list: that is waited for, and nothing else.
    async fn when_ready(&self, caller: &Caller, url: &str, token: &str) -> Result<Answer, Failure> {
        let calls = async {
            loop {
                let answer = caller.get(url, token).await?;
                if answer.status != StatusCode::SERVICE_UNAVAILABLE {
                    return Ok(answer);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, calls).await.map_err(|_| "the API has not fetched its keys in time")?
    }

    fn curl(&self, leaf: &LeafFiles) -> String {
        format!(
            "curl --cacert {} --cert {} --key {}",
            self.server_authority.certificate_path.display(),
            leaf.certificate.display(),
            leaf.key.display()
        )
    }

    fn renew_first(&self, now: UnixTime) -> Result<(), Failure> {
        Ok(self.first_authority.client_leaf(FIRST.legal_name, FIRST.dns_name, &self.first, now)?)
    }

    async fn strike(self) {
        // If it is gone already, all the better.
        let _told_or_gone = self.stop_api.send(());
        drop(self.guard);
        self.api.abort();
        self.running.stop(self.app.config.drain.min(Duration::from_secs(1))).await;
        self.app.close().await;
    }
}

async fn enter_api(app: &App, url: &str, now: UnixTime) -> Result<(), Failure> {
    let id = ResourceServerId::parse("example-api")?;
    match app.registry.resource_server(&id).await? {
        Some(entered) if entered.resource.as_str() == url => return Ok(()),
        Some(entered) => {
            return Err(format!(
                "this data directory was made for an API at {}: use --api-port as then, or another --data-directory",
                entered.resource
            )
            .into());
        }
        None => {}
    }
    let api = ResourceServer {
        id,
        resource: ResourceIndicator::parse(url)?,
        scopes: Scope::parse(SCOPE)?,
        owner: None,
        access_token_lifetime_seconds: None,
        subject: None,
        status: StatusClaim::Absent,
        certificates: Vec::new(),
        introspection_signed_response_alg: SigningAlgorithm::ES256,
        state: ResourceServerState::Active,
    };
    app.registry.add_resource_server(api, explanation(now, "quickstart")).await?;
    Ok(())
}

/// Enters the organisation, its anchor, its client and what that may do: whatever is not there yet, so that a run that
/// was cut short is no obstacle.
async fn enrol(app: &App, partner: &Partner, authority: &DevelopmentAuthority, now: UnixTime) -> Result<(), Failure> {
    let registry = &app.registry;
    let why = || explanation(now, "quickstart");
    let participant = ParticipantId::parse(partner.participant)?;
    if registry.participant(&participant).await?.is_none() {
        let organisation = Participant {
            id: participant.clone(),
            legal_name: partner.legal_name.to_owned(),
            registration_number: None,
            country: None,
            roles: vec!["partner".to_owned()],
            contacts: Contacts::default(),
            state: ParticipantState::Active,
        };
        registry.add_participant(organisation, why()).await?;
    }

    let certificates = certificates_from(authority.certificate_pem.as_bytes())?;
    let certificate = certificates.first().ok_or("the development CA has no certificate")?;
    let facts = check_anchor(certificate, now)?;
    if registry.anchor(&facts.id).await?.is_none() {
        let anchor = TrustAnchor {
            id: facts.id.clone(),
            material: AnchorMaterial::X509 { certificate_der: certificate.to_vec() },
            subject: facts.subject,
            owner: AnchorOwner::Participant(participant.clone()),
            eku_policy: EkuPolicy::Required,
            unknown_revocation: Unknown::Accept,
            revocation: RevocationSources::default(),
            state: AnchorState::Active,
        };
        registry.add_anchor(anchor, facts.subject_der, why()).await?;
    }
    let granted = registry.grants(&participant, Page::first(10)).await?;
    if !granted.iter().any(|grant| grant.anchor_id == facts.id) {
        let (_, domain) = partner.dns_name.split_once('.').ok_or("the client's name has no domain")?;
        let names = NameSpace {
            any: false,
            dn_suffixes: vec![format!("O={}", partner.legal_name)],
            dns_suffixes: vec![domain.to_owned()],
            uri_prefixes: Vec::new(),
        };
        registry.grant_anchor(participant.clone(), facts.id, identity::name_space(&names)?, why()).await?;
    }

    let id = ClientId::parse(partner.client)?;
    if registry.client(&id).await.is_err() {
        let client = Client {
            id: id.clone(),
            participant_id: participant,
            environment: Environment::Sandbox,
            contact: None,
            authentication: ClientAuthentication::TlsClientAuth {
                subject: identity::subject_rule(SubjectAttribute::TlsClientAuthSanDns, partner.dns_name)?,
            },
            access_token_signing_alg: SigningAlgorithm::ES256,
            access_token_lifetime_seconds: None,
            enrolment: Enrolment::OnFirstUse,
            renewal_overlap_seconds: None,
            requests_per_second: None,
            software_id: None,
            state: ClientState::Active,
        };
        registry.add_client(client, Vec::new(), why()).await?;
    }
    let entitlement = EntitlementId::parse(&format!("{}.example-api", partner.client))?;
    if registry.entitlement(&entitlement).await?.is_none() {
        let entitlement = Entitlement {
            id: entitlement,
            client_id: id,
            resource_server_id: ResourceServerId::parse("example-api")?,
            scopes: Scope::parse(SCOPE)?,
            starts_at: now,
            ends_at: None,
            reason: "quickstart".to_owned(),
            ended_at: None,
        };
        registry.add_entitlement(entitlement, why()).await?;
    }
    Ok(())
}

/// Whether a client's certificate is there, in date for a day more, and not revoked by an earlier run.
async fn is_usable(app: &App, leaf: &LeafFiles, now: UnixTime) -> Result<bool, Failure> {
    if !is_good_until(leaf, now.after(Duration::from_secs(86_400))) {
        return Ok(false);
    }
    let known = app.registry.certificate(read_leaf(&leaf.certificate)?.thumbprint()).await?;
    Ok(!known.is_some_and(|certificate| matches!(certificate.state, CertificateState::Revoked { .. })))
}

fn is_good_until(leaf: &LeafFiles, then: UnixTime) -> bool {
    leaf.exist() && read_leaf(&leaf.certificate).is_ok_and(|certificate| certificate.not_after() > then)
}

fn read_leaf(path: &Path) -> Result<ParsedCertificate, Failure> {
    let certificates = certificates_from(&std::fs::read(path)?)?;
    Ok(ParsedCertificate::read(certificates.first().ok_or("no certificate")?)?)
}

fn explanation(at: UnixTime, why: &str) -> Explanation {
    let actor = Actor::Operator { system_user: system_user(), stated_name: Some("quickstart".to_owned()) };
    Explanation { actor, at, why: Some(why.to_owned()) }
}

fn expect(answer: &Answer, status: StatusCode, error: Option<&str>) -> Result<(), Failure> {
    let as_expected = answer.status == status
        && error.is_none_or(|error| answer.text.contains(error) || answer.challenge.contains(error));
    if as_expected {
        Ok(())
    } else {
        Err(format!(
            "expected {status} {}, but got {}: {} {}",
            error.unwrap_or_default(),
            answer.status,
            answer.challenge,
            answer.text
        )
        .into())
    }
}

fn shown(answer: &Answer, what: &str) -> Result<(), Failure> {
    say(&format!("   -> {}: {what}", answer.status))
}

fn say(text: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}
