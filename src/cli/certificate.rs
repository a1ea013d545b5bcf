//! `countersign certificate …`: the certificates of clients.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use countersign_resource_server::time::UnixTime;

use super::output::{Output, printable};
use super::session::{Failure, Session};
use super::{every, found};
use crate::client_auth::RegisteredKeys;
use crate::explanation::{self, Advice, Audience, Basis, Explanation, Facts, Outcome};
use crate::pki::certificate::{ParsedCertificate, certificates_from};
use crate::pki::{PresentedChain, Verifier};
use crate::registry::certificate::{Certificate, RevocationReason};
use crate::registry::edit::CertificateSelector;
use crate::registry::{ClientId, Thumbprint};

/// Certificates: enrol, explain, list, supersede, revoke.
#[derive(Debug, Subcommand)]
pub(super) enum CertificateCommand {
    /// Enrol a certificate before it is first seen.
    Add {
        /// PEM or DER.
        file: PathBuf,
        /// Whose it is.
        #[arg(long)]
        client: ClientId,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
    /// Say step by step whether a certificate would be let in, and if not, why; exit code 1 if not.
    Explain {
        /// PEM, the leaf first and its issuers behind it; or DER.
        file: PathBuf,
        /// As whom.
        #[arg(long)]
        client: ClientId,
        /// When, by RFC 3339; now, where it is not given.
        #[arg(long, value_parser = super::entitlement::instant)]
        at: Option<UnixTime>,
    },
    /// List all, or one client's.
    List {
        /// Whose.
        #[arg(long)]
        client: Option<ClientId>,
    },
    /// Show one.
    Show(Which),
    /// Set the end of its overlap with the one that replaces it: no new tokens afterwards.
    Supersede {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How long it may still be used, in hours.
        #[arg(long, default_value_t = 0)]
        overlap_hours: u64,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
    /// Revoke it, for good: no new token, and every live one is refused within a second.
    Revoke {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Milder reasons than key-compromise leave its key alone.
        #[arg(long, value_enum, default_value_t = Reason::KeyCompromise)]
        reason: Reason,
        /// Why, in your words, for the history.
        #[arg(long)]
        why: Option<String>,
    },
}

/// One certificate, by thumbprint or by file.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// SHA-256 of the DER in base64url without padding, as tokens have it in cnf.
    #[arg(value_parser = thumbprint)]
    thumbprint: Option<Thumbprint>,
    /// The certificate itself, PEM or DER.
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Reasons by RFC 5280 §5.3.1.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Reason {
    /// No longer needed; its key is left alone.
    CessationOfOperation,
    /// The key may be in other hands: revoked with it, for every client.
    KeyCompromise,
    /// Replaced; its key is left alone.
    Superseded,
    /// Not said; its key is revoked as well.
    Unspecified,
}

/// Runs the command.
///
/// # Errors
/// The file cannot be read, or what the registry refuses, as a sentence.
pub(super) async fn run(command: CertificateCommand, session: &Session) -> Result<(), Failure> {
    match command {
        CertificateCommand::Add { file, client, why } => {
            let facts = read_leaf(&file)?;
            let version =
                session.registry.add_certificate(client.clone(), facts.for_enrolment(), session.explain(why)).await?;
            let after = stored(facts.thumbprint(), session).await?;
            let sentence = format!(
                "certificate {} of {client} is {}, registry version {version}",
                after.thumbprint,
                after.state.as_str()
            );
            session.output.done(&sentence, &after)
        }
        CertificateCommand::Explain { file, client, at } => {
            let explanation = explained(&file, &client, at.unwrap_or(session.now), session).await?;
            match session.output {
                Output::Json => session.output.record(&explanation)?,
                Output::People => session.output.text(&in_words(&explanation))?,
            }
            match explanation.first_reason() {
                None => Ok(()),
                Some(reason) => Err(format!("it would not be let in: {reason}").into()),
            }
        }
        CertificateCommand::List { client } => {
            if let Some(client) = &client {
                super::client::stored(client, session).await?;
            }
            let id = |one: &Certificate| one.thumbprint.to_string();
            let all = every(|page| session.registry.certificates(client.as_ref(), page), id).await?;
            session.output.list(&all, ["thumbprint", "client", "state", "not after", "last seen", "subject"], |one| {
                [
                    one.thumbprint.to_string(),
                    one.client_id.to_string(),
                    one.state.as_str().to_owned(),
                    one.not_after.to_string(),
                    one.last_seen.map(|seen| seen.to_string()).unwrap_or_default(),
                    one.subject.clone(),
                ]
            })
        }
        CertificateCommand::Show(which) => session.output.record(&stored(&which.resolve()?, session).await?),
        CertificateCommand::Supersede { which, overlap_hours, why } => {
            let thumbprint = which.resolve()?;
            let at = session.now.after(Duration::from_secs(overlap_hours.saturating_mul(3600)));
            let version = session.registry.supersede_certificate(thumbprint, at, session.explain(why)).await?;
            let after = stored(&thumbprint, session).await?;
            session.output.done(
                &format!("certificate {thumbprint} gets no new tokens from {at} on, registry version {version}"),
                &after,
            )
        }
        CertificateCommand::Revoke { which, reason, why } => {
            let thumbprint = which.resolve()?;
            let reason = RevocationReason::from(reason);
            let selector = CertificateSelector::Thumbprint(thumbprint);
            let version = session.registry.revoke_certificate(selector, reason, session.explain(why)).await?;
            let after = stored(&thumbprint, session).await?;
            let key = if reason.revokes_key() { "with its key" } else { "its key is left alone" };
            session.output.done(
                &format!(
                    "certificate {thumbprint} of {} is revoked ({key}), registry version {version}",
                    after.client_id
                ),
                &after,
            )
        }
    }
}

/// The same path as a token request's, from this command's own view of the registry.
async fn explained(file: &Path, client: &ClientId, at: UnixTime, session: &Session) -> Result<Explanation, Failure> {
    let octets = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let peer =
        PresentedChain::read(&octets).map_err(|_| format!("{}: no certificate in PEM or DER", file.display()))?;
    let peer = Arc::new(peer);
    let (pki, keys) = (Verifier::new(), RegisteredKeys::new());
    let basis = Basis { registry: &session.registry, pki: &pki, keys: &keys, environment: session.config.environment };
    Ok(explanation::explain(&basis, &peer, client, Audience::Operator, at).await)
}

/// For people: a line for each step, and below it what was compared and what to do.
fn in_words(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |indent: usize, content: &str| {
        let _ = writeln!(text, "{:indent$}{}", "", printable(content));
    };
    if let Some(certificate) = &explanation.certificate {
        line(0, &format!("certificate {}", certificate.thumbprint));
        if let Some(read) = &certificate.read {
            line(0, &format!("  subject {}, issuer {}", or_none(&read.subject), or_none(&read.issuer)));
        }
    }
    line(0, &format!("as client {}, at {}", explanation.client_id, explanation.at));
    for step in &explanation.steps {
        let mark = match step.outcome {
            Outcome::Passed => "passed",
            Outcome::Refused => "REFUSED",
            Outcome::NotExamined => "-",
        };
        line(0, &format!("{:<12} {mark:<8} {}", step.step.as_str(), step.says));
        told_below(&mut line, &step.facts, step.advice.as_ref());
    }
    for finding in &explanation.besides {
        line(0, &format!("{:<12} {:<8} {}", "besides", "REFUSED", finding.says));
        told_below(&mut line, &finding.facts, Some(&finding.advice));
    }
    let verdict = if explanation.would_be_let_in { "it would be let in" } else { "it would not be let in" };
    line(0, verdict);
    text.trim_end().to_owned()
}

fn told_below(line: &mut impl FnMut(usize, &str), facts: &Facts, advice: Option<&Advice>) {
    for (name, value) in &facts.0 {
        line(22, &format!("{name}: {value}"));
    }
    if let Some(advice) = advice {
        line(22, &format!("-> {}: {}", advice.whose.as_str(), advice.text));
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

/// The first certificate of a PEM or DER file.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub(super) fn read_leaf(file: &Path) -> Result<ParsedCertificate, Failure> {
    ParsedCertificate::read(&leaf_der(file)?).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// The same, as it stands there, in DER.
///
/// # Errors
/// The file cannot be read, or has no certificate.
pub(super) fn leaf_der(file: &Path) -> Result<Vec<u8>, Failure> {
    let octets = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let certificates =
        certificates_from(&octets).map_err(|_| format!("{}: no certificate in PEM or DER", file.display()))?;
    let leaf = certificates.first().ok_or_else(|| format!("{}: no certificate in PEM or DER", file.display()))?;
    Ok(leaf.to_vec())
}

impl Which {
    fn resolve(&self) -> Result<Thumbprint, Failure> {
        match (&self.thumbprint, &self.file) {
            (Some(thumbprint), _) => Ok(*thumbprint),
            (None, Some(file)) => Ok(*read_leaf(file)?.thumbprint()),
            (None, None) => Err("name a certificate: its thumbprint, or --file".into()),
        }
    }
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::Superseded => Self::Superseded,
            Reason::Unspecified => Self::Unspecified,
        }
    }
}

async fn stored(thumbprint: &Thumbprint, session: &Session) -> Result<Certificate, Failure> {
    found(session.registry.certificate(thumbprint).await?, "certificate", thumbprint)
}

fn thumbprint(text: &str) -> Result<Thumbprint, String> {
    Thumbprint::parse(text).map_err(|error| error.to_string())
}
