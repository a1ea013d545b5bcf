//! `countersign anchor …`: what may vouch for names.

mod ocsp;

mod revocation;

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use self::ocsp::Ocsp;
use self::revocation::Revocation;
use super::output::Output;
use super::receipt::{self, Ended};
use super::session::{Failure, Session};
use super::{every, found};
use crate::audit::receipt::Concerned;
use crate::pki::anchor::{AnchorNote, check_anchor, grant_notes, notes};
use crate::pki::certificate::certificates_from;
use crate::pki::identity;
use crate::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use crate::registry::{AnchorId, ParticipantId};

/// Trust anchors: enrol, grant, change, withdraw, retire.
#[derive(Debug, Subcommand)]
pub(super) enum AnchorCommand {
    /// Enrol a CA certificate and, with --owner, grant it to that participant.
    Add(Add),
    /// Change what an anchor's leaves must say, or where its revocations are. What is not given stays.
    Change(Change),
    /// Look at every revocation list of an anchor once, and say what is there.
    CheckRevocation {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: AnchorId,
    },
    /// Let an anchor vouch for a participant's names, or replace which names.
    Grant {
        /// Its id: the hash of its key.
        #[arg(allow_hyphen_values = true)]
        id: AnchorId,
        /// Whose names.
        #[arg(long)]
        participant: ParticipantId,
        /// Which names.
        #[command(flatten)]
        names: Names,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
    /// List all, or those granted to one participant.
    List {
        /// Whose.
        #[arg(long)]
        participant: Option<ParticipantId>,
    },
    /// Show one.
    Show {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: AnchorId,
    },
    /// Take an anchor away from a participant.
    Withdraw {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: AnchorId,
        /// From whom.
        #[arg(long)]
        participant: ParticipantId,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
    /// Retire an anchor, for good and for everybody.
    Retire {
        /// Its id.
        #[arg(allow_hyphen_values = true)]
        id: AnchorId,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
}

/// A new anchor.
#[derive(Debug, Args)]
pub(super) struct Add {
    /// The CA's certificate, PEM or DER: a root or an intermediate.
    file: PathBuf,
    /// The participant it belongs to; the operator's, to be shared, where nobody is named.
    #[arg(long)]
    owner: Option<ParticipantId>,
    /// What its leaves must say about their purpose.
    #[arg(long, value_enum, default_value_t = Eku::Required)]
    extended_key_usage: Eku,
    /// Which names it vouches for, for its owner.
    #[command(flatten)]
    names: Names,
    /// Where its revocations are.
    #[command(flatten)]
    revocation: Revocation,
    /// Whether the status of its certificates is asked for.
    #[command(flatten)]
    ocsp: Ocsp,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// What changes about an anchor.
#[derive(Debug, Args)]
pub(super) struct Change {
    /// Its id.
    #[arg(allow_hyphen_values = true)]
    id: AnchorId,
    /// What its leaves must say about their purpose.
    #[arg(long, value_enum)]
    extended_key_usage: Option<Eku>,
    /// Where its revocations are.
    #[command(flatten)]
    revocation: Revocation,
    /// No revocation list any more, and no distribution point.
    #[arg(long, conflicts_with_all = ["crls", "crl_issuers", "crl_url_prefixes"])]
    no_crl: bool,
    /// Whether the status of its certificates is asked for.
    #[command(flatten)]
    ocsp: Ocsp,
    /// No status asked for any more.
    #[arg(long, conflicts_with = "ocsp")]
    no_ocsp: bool,
    /// Why, for the history.
    #[arg(long)]
    why: Option<String>,
}

/// A name space. Empty vouches for nothing.
#[derive(Clone, Debug, Args)]
pub(super) struct Names {
    /// A subject DN by RFC 4514 under which names lie, for example "O=Example Bank,C=DE"; may be repeated.
    #[arg(long = "dn-suffix")]
    dn_suffixes: Vec<String>,
    /// A DNS name at or below which names lie, for example bank.example; may be repeated.
    #[arg(long = "dns-suffix")]
    dns_suffixes: Vec<String>,
    /// How URIs begin, for example spiffe://bank.example/; may be repeated.
    #[arg(long = "uri-prefix")]
    uri_prefixes: Vec<String>,
    /// Every name there is. Right only for a CA that issues to nobody but this participant.
    #[arg(long)]
    any_name: bool,
}

/// Extended key usage policies.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Eku {
    /// Any purpose will do.
    Any,
    /// If the extension is there, it must say clientAuth.
    IfPresent,
    /// The extension must be there and say clientAuth.
    Required,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read or is no CA, or what the registry refuses, as a sentence.
pub(super) async fn run(command: AnchorCommand, session: &Session) -> Result<(), Failure> {
    match command {
        AnchorCommand::Add(add) => enrol(add, session).await,
        AnchorCommand::Change(change) => amend(change, session).await,
        AnchorCommand::CheckRevocation { id } => {
            let anchor = found(session.registry.anchor(&id).await?, "trust anchor", &id)?;
            let reports = revocation::look(&anchor, session).await?;
            let sentence =
                format!("anchor {id}: {}{}", revocation::described(&anchor), revocation::sentences(&anchor, &reports));
            session.output.done(&sentence, &reports)?;
            if revocation::speak_for_nobody(&reports) {
                return Err("no revocation list of this anchor can be used now".into());
            }
            Ok(())
        }
        AnchorCommand::Grant { id, participant, names, why } => {
            let name_space = names.read()?;
            let anchor = found(session.registry.anchor(&id).await?, "trust anchor", &id)?;
            let cautions = cautions(&anchor, &participant, &name_space, session).await?;
            let version = session
                .registry
                .grant_anchor(participant.clone(), id.clone(), name_space.clone(), session.explain(why))
                .await?;
            let sentence = format!(
                "anchor {id} vouches for {} of {participant}, registry version {version}{cautions}",
                described(&name_space)
            );
            session.output.done(&sentence, &name_space)
        }
        AnchorCommand::List { participant: None } => {
            let all = every(|page| session.registry.anchors(page), |one: &TrustAnchor| one.id.to_string()).await?;
            let all: Vec<Noted<'_>> = all.iter().map(|anchor| Noted::now(anchor, session)).collect();
            session.output.list(&all, ["id", "state", "owner", "subject", "notes"], |Noted { anchor, notes }| {
                let names: Vec<&str> = notes.iter().map(|note| note.name).collect();
                [
                    anchor.id.to_string(),
                    anchor.state.as_str().to_owned(),
                    owner(&anchor.owner),
                    anchor.subject.clone(),
                    names.join(" "),
                ]
            })
        }
        AnchorCommand::List { participant: Some(participant) } => {
            found(session.registry.participant(&participant).await?, "participant", &participant)?;
            let grants = every(
                |page| session.registry.grants(&participant, page),
                |one: &crate::registry::trust_anchor::AnchorGrant| one.anchor_id.to_string(),
            )
            .await?;
            session
                .output
                .list(&grants, ["id", "vouches for"], |one| [one.anchor_id.to_string(), described(&one.name_space)])
        }
        AnchorCommand::Show { id } => {
            let anchor = found(session.registry.anchor(&id).await?, "trust anchor", &id)?;
            let noted = Noted::now(&anchor, session);
            match session.output {
                Output::Json => session.output.record(&noted),
                Output::People => {
                    session.output.record(&anchor)?;
                    noted.notes.iter().try_for_each(|note| session.output.note(&format!("note: {}", note.sentence)))
                }
            }
        }
        AnchorCommand::Withdraw { id, participant, why } => {
            let version =
                session.registry.withdraw_anchor(participant.clone(), id.clone(), session.explain(why)).await?;
            let anchor = found(session.registry.anchor(&id).await?, "trust anchor", &id)?;
            session.output.done(
                &format!("anchor {id} vouches for nothing of {participant} any more, registry version {version}"),
                &anchor,
            )
        }
        AnchorCommand::Retire { id, why } => {
            let earlier = receipt::before(session).await;
            let version = session.registry.retire_anchor(id.clone(), session.explain(why)).await?;
            let anchor = found(session.registry.anchor(&id).await?, "trust anchor", &id)?;
            let sentence = format!("anchor {id} is retired, registry version {version}");
            let concerned = Concerned::Anchor(id);
            receipt::done(session, Ended { concerned, earlier, version, sentence: &sentence }, &anchor).await
        }
    }
}

async fn enrol(add: Add, session: &Session) -> Result<(), Failure> {
    let octets = std::fs::read(&add.file).map_err(|error| format!("{}: {error}", add.file.display()))?;
    let certificates =
        certificates_from(&octets).map_err(|_| format!("{}: no certificate in PEM or DER", add.file.display()))?;
    let [certificate] = certificates.as_slice() else {
        return Err(
            format!("{}: give one CA certificate to a file, so that each is a choice", add.file.display()).into()
        );
    };
    let facts = check_anchor(certificate, session.now)?;
    let name_space = add.names.read()?;
    let mut anchor = TrustAnchor {
        id: facts.id.clone(),
        material: AnchorMaterial::X509 { certificate_der: certificate.to_vec() },
        subject: facts.subject.clone(),
        owner: add.owner.clone().map_or(AnchorOwner::Operator, AnchorOwner::Participant),
        eku_policy: add.extended_key_usage.into(),
        // Without a source there is nothing that could be unknown.
        unknown_revocation: Unknown::Accept,
        revocation: RevocationSources::default(),
        state: AnchorState::Active,
    };
    add.revocation.apply(&mut anchor)?;
    add.ocsp.apply(&mut anchor)?;
    let mut version = session
        .registry
        .add_anchor(anchor.clone(), facts.subject_der.clone(), session.explain(add.why.clone()))
        .await?;
    let mut sentence = format!("anchor {} entered: {}", anchor.id, anchor.subject);
    for finding in &facts.findings {
        sentence.push_str(&format!("\n  note: {finding}"));
    }
    if let Some(participant) = add.owner {
        let cautions = cautions(&anchor, &participant, &name_space, session).await?;
        version = session
            .registry
            .grant_anchor(participant.clone(), anchor.id.clone(), name_space.clone(), session.explain(add.why))
            .await?;
        sentence.push_str(&format!("\n  it vouches for {} of {participant}{cautions}", described(&name_space)));
    } else {
        sentence.push_str("\n  it is the operator's and vouches for nobody until `countersign anchor grant` says so");
    }
    sentence.push_str(&format!("\n  {}", revoked(&anchor)));
    sentence.push_str(&revocation::sentences(&anchor, &revocation::look(&anchor, session).await?));
    sentence.push_str(&format!("\n  registry version {version}"));
    session.output.done(&sentence, &anchor)
}

async fn amend(change: Change, session: &Session) -> Result<(), Failure> {
    let before = found(session.registry.anchor(&change.id).await?, "trust anchor", &change.id)?;
    let about_sources = !change.revocation.is_empty() || !change.ocsp.is_empty() || change.no_crl || change.no_ocsp;
    if !about_sources && change.extended_key_usage.is_none() {
        return Err("say what changes: see `countersign anchor change --help`".into());
    }
    let mut anchor = before.clone();
    if change.no_crl {
        (anchor.revocation.crls, anchor.revocation.crl_url_prefixes) = (Vec::new(), Vec::new());
    }
    if change.no_ocsp {
        anchor.revocation.ocsp = None;
    }
    if let Some(eku) = change.extended_key_usage {
        anchor.eku_policy = eku.into();
    }
    change.revocation.apply(&mut anchor)?;
    change.ocsp.apply(&mut anchor)?;
    if anchor == before {
        return Err(format!("anchor {} is so already: nothing was changed", anchor.id).into());
    }
    let version = session.registry.change_anchor(anchor.clone(), session.explain(change.why)).await?;
    let mut sentence = format!("anchor {} changed: {}", anchor.id, revoked(&anchor));
    sentence.push_str(&revocation::sentences(&anchor, &revocation::look(&anchor, session).await?));
    if before.is_narrowed_by(&anchor) {
        sentence.push_str("\n  tokens it vouched for have ended: clients ask for new ones");
    }
    sentence.push_str(&format!("\n  registry version {version}"));
    session.output.done(&sentence, &anchor)
}

/// An anchor with what there is to say of it now.
#[derive(Debug, Serialize)]
struct Noted<'a> {
    #[serde(flatten)]
    anchor: &'a TrustAnchor,
    notes: Vec<AnchorNote>,
}

impl<'a> Noted<'a> {
    fn now(anchor: &'a TrustAnchor, session: &Session) -> Self {
        Self { anchor, notes: notes(anchor, session.now) }
    }
}

/// What there is to say of granting `anchor` to `participant` for these names, each on a line of its own.
async fn cautions(
    anchor: &TrustAnchor,
    participant: &ParticipantId,
    name_space: &NameSpace,
    session: &Session,
) -> Result<String, Failure> {
    let granted = every(
        |page| session.registry.grants(participant, page),
        |one: &crate::registry::trust_anchor::AnchorGrant| one.anchor_id.to_string(),
    )
    .await?;
    let mut others = Vec::new();
    for grant in granted {
        others.extend(session.registry.anchor(&grant.anchor_id).await?);
    }
    let notes = grant_notes(anchor, name_space, &others, session.now);
    Ok(notes.iter().map(|note| format!("\n  caution: {}", note.sentence)).collect())
}

/// What says that a certificate is taken back, in words.
fn revoked(anchor: &TrustAnchor) -> String {
    match ocsp::described(anchor) {
        // Of lists there is nothing to say where there are none.
        Some(asked) if anchor.revocation.crls.is_empty() && anchor.revocation.crl_url_prefixes.is_empty() => asked,
        Some(asked) => format!("{}\n  {asked}", revocation::described(anchor)),
        None => revocation::described(anchor),
    }
}

impl Names {
    fn read(&self) -> Result<NameSpace, Failure> {
        let written = NameSpace {
            any: self.any_name,
            dn_suffixes: self.dn_suffixes.clone(),
            dns_suffixes: self.dns_suffixes.clone(),
            uri_prefixes: self.uri_prefixes.clone(),
        };
        Ok(identity::name_space(&written)?)
    }
}

impl From<Eku> for EkuPolicy {
    fn from(eku: Eku) -> Self {
        match eku {
            Eku::Any => Self::Any,
            Eku::IfPresent => Self::IfPresent,
            Eku::Required => Self::Required,
        }
    }
}

pub(super) fn owner(owner: &AnchorOwner) -> String {
    match owner {
        AnchorOwner::Operator => "(operator)".to_owned(),
        AnchorOwner::Participant(id) => id.to_string(),
    }
}

fn described(names: &NameSpace) -> String {
    if names.any {
        return "any name".to_owned();
    }
    let all: Vec<String> = names
        .dn_suffixes
        .iter()
        .map(|suffix| format!("DN …,{suffix}"))
        .chain(names.dns_suffixes.iter().map(|suffix| format!("DNS [….]{suffix}")))
        .chain(names.uri_prefixes.iter().map(|prefix| format!("URI {prefix}…")))
        .collect();
    if all.is_empty() { "no name (give it a name space)".to_owned() } else { all.join("; ") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        add: Add,
    }

    fn policy(arguments: &[&str]) -> EkuPolicy {
        let line = ["add", "ca.pem"].iter().chain(arguments);
        Line::try_parse_from(line).unwrap().add.extended_key_usage.into()
    }

    /// Issue 3, item 1: whoever says nothing gets the strictest policy.
    #[test]
    fn client_auth_is_required_of_new_anchors() {
        assert_eq!(policy(&[]), EkuPolicy::Required);
        assert_eq!(policy(&["--extended-key-usage", "any"]), EkuPolicy::Any);
    }
}
