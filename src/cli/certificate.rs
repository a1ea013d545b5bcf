//! `countersign certificate …`: the certificates of clients.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use countersign_resource_server::time::{SystemClock, UnixTime};
use serde::Serialize;

use super::expiring::{self, ExpiringArguments};
use super::output::{Output, printable};
use super::receipt::{self, Ended};
use super::session::{Failure, Session};
use super::{every, found};
use crate::app;
use crate::audit::receipt::Concerned;
use crate::client_auth::RegisteredKeys;
use crate::explanation::{self, Advice, Audience, Basis, Explanation, Facts, Outcome};
use crate::pki::certificate::{ParsedCertificate, certificates_from, key_hash_from};
use crate::pki::crl::HeldLists;
use crate::pki::crl::check::{Report, Shelves, hold_for};
use crate::pki::ocsp::Responders;
use crate::pki::revocation::{self, AsOf};
use crate::pki::{PresentedChain, Verifier};
use crate::registry::certificate::{Certificate, Replacement, RevocationReason};
use crate::registry::edit::CertificateSelector;
use crate::registry::trust_anchor::AnchorState;
use crate::registry::{ClientId, KeyHash, Thumbprint};

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
        /// The certificate whose place it takes once it is seen: its thumbprint.
        #[arg(long, value_name = "THUMBPRINT", allow_hyphen_values = true, value_parser = thumbprint)]
        replaces: Option<Thumbprint>,
        /// How long that one may still be used from then on, in hours.
        #[arg(long, default_value_t = 24, requires = "replaces", value_parser = clap::value_parser!(u64).range(..=87_600))]
        overlap_hours: u64,
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
        /// When, by RFC 3339; now, where it is not given. Whether it is revoked is always asked as of now.
        #[arg(long, value_parser = super::entitlement::instant)]
        at: Option<UnixTime>,
    },
    /// List all, or one client's.
    List {
        /// Whose.
        #[arg(long)]
        client: Option<ClientId>,
    },
    /// List what expires soon, the soonest first: certificates, the intermediates in their paths, trust anchors.
    Expiring(ExpiringArguments),
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
        which: Named,
        /// Its serial number in hexadecimal, with --issuer or --issuer-key.
        #[arg(long, value_name = "HEX", value_parser = serial)]
        serial: Option<String>,
        /// Milder reasons than key-compromise leave its key alone.
        #[arg(long, value_enum, default_value_t = Reason::KeyCompromise)]
        reason: Reason,
        /// Why, in your words, for the history.
        #[arg(long)]
        why: Option<String>,
    },
    /// Revoke a key, for good and for every client, whether or not a certificate with it is enrolled.
    RevokeKey {
        /// A certificate with that key or the public key itself, PEM or DER; or the SHA-256 of its SubjectPublicKeyInfo in
        /// base64url without padding.
        #[arg(allow_hyphen_values = true)]
        key: String,
        /// Why, for the history.
        #[arg(long)]
        why: Option<String>,
    },
}

/// One certificate, by thumbprint or by file.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Which {
    /// SHA-256 of the DER in base64url without padding, as tokens have it in cnf.
    #[arg(allow_hyphen_values = true, value_parser = thumbprint)]
    thumbprint: Option<Thumbprint>,
    /// The certificate itself, PEM or DER.
    #[arg(long)]
    file: Option<PathBuf>,
}

/// One certificate, by itself or by what its issuer calls it.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Named {
    /// SHA-256 of the DER in base64url without padding, as tokens have it in cnf.
    #[arg(allow_hyphen_values = true, value_parser = thumbprint)]
    thumbprint: Option<Thumbprint>,
    /// The certificate itself, PEM or DER.
    #[arg(long)]
    file: Option<PathBuf>,
    /// The certificate of its issuer, PEM or DER.
    #[arg(long, requires = "serial")]
    issuer: Option<PathBuf>,
    /// The SHA-256 of its issuer's SubjectPublicKeyInfo in base64url without padding.
    #[arg(long, value_name = "HASH", requires = "serial", allow_hyphen_values = true, value_parser = key_hash)]
    issuer_key: Option<KeyHash>,
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
        CertificateCommand::Add { file, client, replaces, overlap_hours, why } => {
            let (leaf, why) = (read_leaf(&file)?, session.explain(why));
            let facts = leaf.for_enrolment();
            let overlap_seconds = overlap_hours.saturating_mul(3600);
            let version = match replaces.map(|thumbprint| Replacement { thumbprint, overlap_seconds }) {
                None => session.registry.add_certificate(client.clone(), facts, why).await?,
                Some(replaces) => session.registry.announce_replacement(client.clone(), facts, replaces, why).await?,
            };
            let after = stored(leaf.thumbprint(), session).await?;
            let mut sentence = format!(
                "certificate {} of {client} is {}, registry version {version}",
                after.thumbprint,
                after.state.as_str()
            );
            if let Some(replaces) = &after.replaces {
                sentence.push_str(&format!(
                    "\n  when it is first seen, {} may still be used for {overlap_hours} hours",
                    replaces.thumbprint
                ));
            }
            session.output.done(&sentence, &after)
        }
        CertificateCommand::Explain { file, client, at } => {
            let told = explained(&file, &client, at.unwrap_or(session.now), session).await?;
            match session.output {
                Output::Json => session.output.record(&told)?,
                Output::People => session.output.text(&in_words(&told))?,
            }
            match told.explanation.first_reason() {
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
        CertificateCommand::Expiring(arguments) => expiring::run(&arguments, session).await,
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
        CertificateCommand::Revoke { which, serial, reason, why } => {
            let reason = RevocationReason::from(reason);
            let (thumbprint, selector) = which.resolve(serial, session).await?;
            let earlier = receipt::before(session).await;
            let version = session.registry.revoke_certificate(selector, reason, session.explain(why)).await?;
            let after = stored(&thumbprint, session).await?;
            let key = if reason.revokes_key() { "with its key" } else { "its key is left alone" };
            let concerned = Concerned::Certificate {
                client: after.client_id.clone(),
                thumbprint,
                key: reason.revokes_key().then_some(after.key_hash),
            };
            let sentence = format!(
                "certificate {thumbprint} of {} is revoked ({key}), registry version {version}",
                after.client_id
            );
            receipt::done(session, Ended { concerned, earlier, version, sentence: &sentence }, &after).await
        }
        CertificateCommand::RevokeKey { key, why } => revoke_key(&key, why, session).await,
    }
}

async fn revoke_key(key: &str, why: Option<String>, session: &Session) -> Result<(), Failure> {
    let file = Path::new(key);
    let key = match (KeyHash::parse(key), std::fs::read(file)) {
        (Some(hash), _) => hash,
        (None, Ok(octets)) => key_hash_from(&octets)
            .map_err(|_| format!("{}: neither a certificate nor a public key in PEM or DER", file.display()))?,
        (None, Err(error)) => {
            return Err(format!("{key} is neither the hash of a key in base64url nor a file ({error})").into());
        }
    };
    let earlier = receipt::before(session).await;
    let version = session.registry.revoke_key(key, session.explain(why)).await?;
    let sentence = format!(
        "key {key} is revoked for every client, with all certificates that have it, registry version {version}"
    );
    let record = serde_json::json!({ "key_hash": key, "registry_version": version });
    let concerned = Concerned::Key(key);
    receipt::done(session, Ended { concerned, earlier, version, sentence: &sentence }, &record).await
}

/// What this command tells.
#[derive(Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    explanation: Explanation,
    /// Lists and responders know of no other instant than now, whichever is asked about.
    #[serde(serialize_with = "explanation::as_text")]
    revocation_as_of: UnixTime,
    /// What was found where the client's anchors say that revocation lists are.
    revocation_lists: Vec<Report>,
}

/// The same path as a token request's, from this command's own view of the registry, of revocation lists and of responders.
/// What it finds revoked it says, and puts nowhere on record.
async fn explained(file: &Path, client: &ClientId, at: UnixTime, session: &Session) -> Result<Told, Failure> {
    let octets = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let peer =
        PresentedChain::read(&octets).map_err(|_| format!("{}: no certificate in PEM or DER", file.display()))?;
    let peer = Arc::new(peer);
    let (config, now) = (&session.config, session.now);
    let fetcher = app::fetcher(config)?;
    let (lists, mut revocation_lists) = (Arc::new(HeldLists::as_of(now)), Vec::new());
    // Where there is no such client, or no store, the explanation says so.
    if let Ok(found) = session.registry.client(client).await {
        let directory = app::lists_directory(config);
        let shelves = Shelves { fetcher: &fetcher, directory, longest_bytes: config.crl_bytes };
        for anchor in found.record.anchors.iter().map(|granted| &granted.anchor) {
            if anchor.state == AnchorState::Active && revocation::uses_lists(&anchor.revocation) {
                revocation_lists.extend(hold_for(&lists, anchor, &peer, &shelves, now).await);
            }
        }
    }
    let responders = Arc::new(Responders::new(fetcher, Arc::new(SystemClock::new())));
    let pki = Verifier::with_lists(lists).asking(Arc::new(AsOf { source: responders, at: now }));
    let keys = RegisteredKeys::new();
    let basis = Basis { registry: &session.registry, pki: &pki, keys: &keys, environment: config.environment };
    let explanation = explanation::explain(&basis, &peer, client, Audience::Operator, at).await;
    Ok(Told { explanation, revocation_as_of: now, revocation_lists })
}

/// For people: a line for each step, and below it what was compared and what to do.
fn in_words(told: &Told) -> String {
    let explanation = &told.explanation;
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
    if explanation.at != told.revocation_as_of {
        line(0, &format!("whether it is revoked: as of now, {}", told.revocation_as_of));
    }
    for report in &told.revocation_lists {
        if let Some(refusal) = &report.refusal {
            line(0, &format!("revocation list {}: not taken: {refusal}", report.place));
        }
    }
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

impl Named {
    async fn resolve(
        &self,
        serial: Option<String>,
        session: &Session,
    ) -> Result<(Thumbprint, CertificateSelector), Failure> {
        let issuer = match (&self.issuer, &self.issuer_key) {
            (Some(file), _) => Some(*read_leaf(file)?.key_hash()),
            (None, key) => *key,
        };
        match (issuer, serial) {
            (Some(issuer), Some(serial)) => {
                let id = |one: &Certificate| one.thumbprint.to_string();
                let all = every(|page| session.registry.certificates_by_serial(serial.clone(), page), id).await?;
                match all.iter().find(|one| one.issuer_key == Some(issuer)) {
                    Some(known) => Ok((known.thumbprint, CertificateSelector::IssuerAndSerial(issuer, serial))),
                    None => Err(unknown_serial(&serial, &all).into()),
                }
            }
            (None, Some(_)) => Err("--serial goes with --issuer or --issuer-key".into()),
            (_, None) => {
                let which = Which { thumbprint: self.thumbprint, file: self.file.clone() };
                let thumbprint = which.resolve()?;
                Ok((thumbprint, CertificateSelector::Thumbprint(thumbprint)))
            }
        }
    }
}

/// Nothing of that issuer. What was announced and never seen has no issuer on record: only a path tells whose key it was.
fn unknown_serial(serial: &str, same_serial: &[Certificate]) -> String {
    let mut sentence = format!("no certificate with serial number {serial} of this issuer has been seen");
    for unseen in same_serial.iter().filter(|one| one.issuer_key.is_none()) {
        sentence.push_str(&format!(
            "\n  {} of {} has this serial number and an issuer that is not known yet: if it is the one, name it by its thumbprint",
            unseen.thumbprint, unseen.client_id
        ));
    }
    sentence
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

pub(super) fn thumbprint(text: &str) -> Result<Thumbprint, String> {
    Thumbprint::parse(text).map_err(|error| error.to_string())
}

fn key_hash(text: &str) -> Result<KeyHash, String> {
    KeyHash::parse(text).ok_or_else(|| "must be a SHA-256 hash in base64url without padding".to_owned())
}

/// A serial number as people and tools write it, in the form records have: lower-case hexadecimal of the content octets of
/// a DER INTEGER (X.690 §8.3), the shortest that is not negative.
fn serial(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let digits: String = digits.chars().filter(|&character| !matches!(character, ':' | ' ')).collect();
    if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("must be hexadecimal, as `openssl x509 -serial` writes it".to_owned());
    }
    let digits = digits.to_ascii_lowercase();
    let significant = digits.trim_start_matches('0');
    let even = if significant.is_empty() {
        "00".to_owned()
    } else {
        format!("{}{significant}", if significant.len().is_multiple_of(2) { "" } else { "0" })
    };
    Ok(if even.starts_with(['8', '9', 'a', 'b', 'c', 'd', 'e', 'f']) { format!("00{even}") } else { even })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_read_however_it_is_written() {
        for (written, canonical) in [
            ("01", "01"),
            ("1", "01"),
            ("0", "00"),
            ("000001", "01"),
            ("7F", "7f"),
            ("80", "0080"),
            ("0080", "0080"),
            ("0xDEADBEEF", "00deadbeef"),
            ("0a:1b:2C", "0a1b2c"),
            ("A1B", "0a1b"),
        ] {
            assert_eq!(serial(written).as_deref(), Ok(canonical), "{written}");
        }
        for bad in ["", "0x", "-01", "xyz", ":", &"1".repeat(65)] {
            assert!(serial(bad).is_err(), "{bad}");
        }
    }
}
