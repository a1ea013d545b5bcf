//! `countersign trust-domain …`: SPIFFE trust domains that may vouch for ids.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use countersign_resource_server::time::UnixTime;
use serde::Serialize;

use super::anchor::Eku;
use super::session::{Failure, Session};
use super::{every, found};
use crate::app;
use crate::pki::anchor::check_anchor;
use crate::pki::bundle::refresh::{Refreshed, endpoint_of, fetch, interval, refresh};
use crate::pki::bundle::{Bundle, Succession};
use crate::pki::identity;
use crate::pki::spiffe::TrustDomain;
use crate::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, BundleEndpoint, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use crate::registry::{AnchorId, ParticipantId};

/// Trust domains: enrol, show, refresh. Granted, withdrawn and retired they are by `countersign anchor`, with the id shown.
#[derive(Debug, Subcommand)]
pub(super) enum TrustDomainCommand {
    /// Enrol a trust domain and, with --owner, grant it to that participant.
    Add(Add),
    /// List all.
    List,
    /// Show one, with what its bundle holds.
    Show {
        /// Its name, for example prod.bank.example
        name: TrustDomain,
    },
    /// Ask its endpoint for the next bundle now, or take the one in a file.
    Refresh {
        /// Its name.
        name: TrustDomain,
        /// The next bundle, whatever its sequence: the operator's word counts (SPIFFE Federation §4.2).
        #[arg(long)]
        bundle: Option<PathBuf>,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
}

/// A new trust domain.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// Its name, for example prod.bank.example: never taken from a URL or a bundle.
    name: TrustDomain,
    /// Its bundle, the JSON of SPIFFE Trust Domain and Bundle §4; not needed where --bundle-url can be believed without.
    #[arg(long, required_unless_present = "bundle_url")]
    bundle: Option<PathBuf>,
    /// Where its bundle is fetched from, again and again; believed by the certificate authorities the system trusts.
    #[arg(long, value_name = "URL")]
    bundle_url: Option<String>,
    /// The SPIFFE ID of the server at --bundle-url, which is then believed by its X509-SVID alone.
    #[arg(long, value_name = "ID", requires = "bundle_url")]
    endpoint_spiffe_id: Option<String>,
    /// The participant it belongs to; the operator's, to be shared, where nobody is named.
    #[arg(long)]
    owner: Option<ParticipantId>,
    /// How the ids begin that it vouches for, for its owner: by default all of its own; may be repeated.
    #[arg(long = "uri-prefix", requires = "owner")]
    uri_prefixes: Vec<String>,
    /// What its X509-SVIDs must say about their purpose.
    #[arg(long, value_enum, default_value_t = Eku::IfPresent)]
    extended_key_usage: Eku,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A file or an endpoint gives no bundle, or what the registry refuses, as a sentence.
pub(super) async fn run(command: TrustDomainCommand, session: &Session) -> Result<(), Failure> {
    match command {
        TrustDomainCommand::Add(add) => enrol(add, session).await,
        TrustDomainCommand::List => {
            let all =
                every(|page| session.registry.trust_domains(page), |one: &TrustAnchor| one.id.to_string()).await?;
            let told: Vec<Told> = all.iter().filter_map(|anchor| Told::of(anchor, session.now)).collect();
            session.output.list(&told, ["trust domain", "state", "owner", "profile", "sequence", "keys"], |one| {
                [
                    one.trust_domain.to_string(),
                    one.state.as_str().to_owned(),
                    one.owner.clone(),
                    one.endpoint.profile().to_owned(),
                    one.sequence.map(|sequence| sequence.to_string()).unwrap_or_default(),
                    format!("{} X.509, {} JWT", one.x509_authorities.len(), one.jwt_authorities.len()),
                ]
            })
        }
        TrustDomainCommand::Show { name } => {
            let anchor = stored(&name, session).await?;
            let told = Told::of(&anchor, session.now).ok_or("this is no trust domain")?;
            session.output.record(&told)
        }
        TrustDomainCommand::Refresh { name, bundle, why } => {
            let anchor = stored(&name, session).await?;
            let refreshed = match bundle {
                Some(file) => by_hand(&anchor, &name, &file, why, session).await?,
                None => {
                    let fetcher = app::fetcher(&session.config)?;
                    refresh(&session.registry, &fetcher, &anchor, session.explain(why)).await?
                }
            };
            let anchor = stored(&name, session).await?;
            let told = Told::of(&anchor, session.now).ok_or("this is no trust domain")?;
            let sentence = match refreshed {
                Refreshed::Replaced { version } => {
                    format!(
                        "trust domain {name} has another bundle, registry version {version}{}",
                        told.findings_text()
                    )
                }
                Refreshed::Unchanged => format!("trust domain {name}: the bundle that is held is the latest"),
            };
            session.output.done(&sentence, &told)
        }
    }
}

async fn enrol(add: Add, session: &Session) -> Result<(), Failure> {
    let endpoint = match &add.bundle_url {
        None => BundleEndpoint::File,
        Some(url) => endpoint_of(url, add.endpoint_spiffe_id.as_deref())?,
    };
    let mut anchor = TrustAnchor {
        id: AnchorId::of_trust_domain(&add.name),
        subject: format!("spiffe://{}", add.name),
        owner: add.owner.clone().map_or(AnchorOwner::Operator, AnchorOwner::Participant),
        eku_policy: add.extended_key_usage.into(),
        unknown_revocation: Unknown::Accept,
        revocation: RevocationSources::default(),
        state: AnchorState::Active,
        material: AnchorMaterial::TrustDomain {
            trust_domain: add.name.clone(),
            endpoint: endpoint.clone(),
            bundle: add.bundle.as_deref().map(read).transpose()?.unwrap_or_default(),
        },
    };
    let serves_itself = matches!(&endpoint, BundleEndpoint::HttpsSpiffe { endpoint_spiffe_id, .. } if endpoint_spiffe_id.is_of(&add.name));
    if serves_itself && add.bundle.is_none() {
        // SPIFFE Federation §5.2.2.2.
        return Err(
            "an endpoint of the trust domain itself is believed by its bundle: give the first one with --bundle".into(),
        );
    }
    // The first bundle, or the next one if a file was given: what cannot be fetched now is not left to be found out later.
    if endpoint != BundleEndpoint::File {
        let fetcher = app::fetcher(&session.config)?;
        let fetched = fetch(&session.registry, &fetcher, &endpoint, Some(&anchor), session.now).await?;
        if let AnchorMaterial::TrustDomain { bundle, trust_domain, .. } = &mut anchor.material {
            let came = Bundle::parse(fetched.as_bytes(), trust_domain)?;
            match Bundle::parse(bundle.as_bytes(), trust_domain) {
                Ok(given) if came.succession(&given) == Succession::Older => {
                    return Err("the endpoint serves an older bundle than the one in the file".into());
                }
                _ => *bundle = fetched,
            }
        }
    }
    let AnchorMaterial::TrustDomain { bundle, .. } = &anchor.material else { return Err("no trust domain".into()) };
    if Bundle::parse(bundle.as_bytes(), &add.name)?.is_empty() {
        return Err(format!(
            "the bundle has no key that can be used: nothing could be believed of {}{}",
            add.name,
            Told::of(&anchor, session.now).map(|told| told.findings_text()).unwrap_or_default()
        )
        .into());
    }
    let prefixes = if add.uri_prefixes.is_empty() { vec![add.name.prefix()] } else { add.uri_prefixes };
    let name_space = identity::name_space(&NameSpace { uri_prefixes: prefixes, ..NameSpace::default() })?;
    let own = add.name.prefix();
    if !name_space.uri_prefixes.iter().all(|prefix| prefix.starts_with(&own)) {
        return Err(format!("a trust domain vouches for ids of its own only: prefixes begin with {own}").into());
    }
    let subject = anchor.subject.clone().into_bytes();
    let mut version = session.registry.add_anchor(anchor.clone(), subject, session.explain(add.why.clone())).await?;
    let told = Told::of(&anchor, session.now).ok_or("no trust domain")?;
    let mut sentence = format!("trust domain {} entered as anchor {}{}", add.name, anchor.id, told.findings_text());
    match add.owner {
        Some(participant) => {
            let explanation = session.explain(add.why);
            let prefixes = name_space.uri_prefixes.join(", ");
            version =
                session.registry.grant_anchor(participant.clone(), anchor.id.clone(), name_space, explanation).await?;
            sentence.push_str(&format!("\n  it vouches for {prefixes}… of {participant}"));
        }
        None => sentence.push_str(&format!(
            "\n  it is the operator's and vouches for nobody until `countersign anchor grant {} --uri-prefix {own}…` says so",
            anchor.id
        )),
    }
    if endpoint != BundleEndpoint::File {
        let seconds = interval(told.refresh_hint_seconds.map(std::time::Duration::from_secs)).as_secs();
        sentence.push_str(&format!("\n  its bundle is asked for every {seconds} s while a server runs"));
    }
    sentence.push_str(&format!("\n  registry version {version}"));
    session.output.done(&sentence, &told)
}

async fn by_hand(
    anchor: &TrustAnchor,
    name: &TrustDomain,
    file: &Path,
    why: Option<String>,
    session: &Session,
) -> Result<Refreshed, Failure> {
    let AnchorMaterial::TrustDomain { bundle: held, .. } = &anchor.material else {
        return Err("this is no trust domain".into());
    };
    let next = read(file)?;
    Bundle::parse(next.as_bytes(), name)?;
    if next == *held {
        return Ok(Refreshed::Unchanged);
    }
    let explanation = session.explain(why);
    let version = session.registry.replace_bundle(anchor.id.clone(), held.clone(), next, explanation).await?;
    Ok(Refreshed::Replaced { version })
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()).into())
}

async fn stored(name: &TrustDomain, session: &Session) -> Result<TrustAnchor, Failure> {
    found(session.registry.anchor(&AnchorId::of_trust_domain(name)).await?, "trust domain", name)
}

/// A trust domain as it is told: its bundle read, not as text.
#[derive(Debug, Serialize)]
struct Told {
    trust_domain: TrustDomain,
    id: AnchorId,
    state: AnchorState,
    owner: String,
    endpoint: BundleEndpoint,
    sequence: Option<u64>,
    refresh_hint_seconds: Option<u64>,
    x509_authorities: Vec<String>,
    jwt_authorities: Vec<String>,
    findings: Vec<String>,
}

impl Told {
    fn of(anchor: &TrustAnchor, now: UnixTime) -> Option<Self> {
        let AnchorMaterial::TrustDomain { trust_domain, endpoint, bundle } = &anchor.material else { return None };
        let mut told = Self {
            trust_domain: trust_domain.clone(),
            id: anchor.id.clone(),
            state: anchor.state,
            owner: super::anchor::owner(&anchor.owner),
            endpoint: endpoint.clone(),
            sequence: None,
            refresh_hint_seconds: None,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            findings: Vec::new(),
        };
        let bundle = match Bundle::parse(bundle.as_bytes(), trust_domain) {
            Ok(bundle) => bundle,
            Err(reason) => {
                told.findings.push(reason.to_string());
                return Some(told);
            }
        };
        (told.sequence, told.refresh_hint_seconds) = (bundle.sequence, bundle.refresh_hint.map(|hint| hint.as_secs()));
        for der in &bundle.x509_authorities {
            // What would not stop it from being one among others is told of the bundle all the same.
            match check_anchor(der, now) {
                Ok(facts) => {
                    let text = format!("{} until {}", facts.subject, facts.not_after);
                    told.findings.extend(facts.findings.iter().map(|finding| format!("{text}: {finding}")));
                    told.x509_authorities.push(text);
                }
                Err(reason) => told.findings.push(format!("an X.509 authority: {reason}")),
            }
        }
        told.jwt_authorities
            .extend(bundle.jwt_authorities.keys().iter().filter_map(|key| key.kid()).map(str::to_owned));
        let set_aside =
            |aside: &crate::pki::bundle::SetAside| format!("key {} is not used: {}", aside.index, aside.reason);
        told.findings.extend(bundle.set_aside.iter().map(set_aside));
        Some(told)
    }

    fn findings_text(&self) -> String {
        self.findings.iter().map(|finding| format!("\n  note: {finding}")).collect()
    }
}
