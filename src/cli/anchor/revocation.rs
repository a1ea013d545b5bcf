//! Where an anchor says which certificates are taken back: the options for it, and what is found there now.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::app;
use crate::cli::session::{Failure, Session};
use crate::fetch::is_allowed;
use crate::pki::certificate::certificates_from;
use crate::pki::crl::check::{Report, check};
use crate::registry::trust_anchor::{CrlSource, RevocationSources, TrustAnchor, Unknown};

/// Where revocation lists are, and what unknown means.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Revocation {
    /// Where revocation lists are: a file, a directory, or an http or https URL; may be repeated.
    #[arg(long = "crl", value_name = "LOCATION")]
    crls: Vec<String>,
    /// The certificate of an intermediate that signs such lists, PEM or DER; may be repeated.
    #[arg(long = "crl-issuer", value_name = "FILE")]
    crl_issuers: Vec<PathBuf>,
    /// How the URLs begin that a certificate's own distribution points may be fetched from; may be repeated.
    #[arg(long = "crl-url-prefix", value_name = "PREFIX")]
    crl_url_prefixes: Vec<String>,
    /// What it means that nobody knows whether a certificate was revoked [default: refuse, once there is a source].
    #[arg(long, value_enum)]
    unknown_revocation: Option<UnknownMeans>,
}

/// What it means that something is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum UnknownMeans {
    /// Let it pass.
    Accept,
    /// Refuse.
    Refuse,
}

impl From<UnknownMeans> for Unknown {
    fn from(means: UnknownMeans) -> Self {
        match means {
            UnknownMeans::Accept => Self::Accept,
            UnknownMeans::Refuse => Self::Refuse,
        }
    }
}

impl Revocation {
    /// Whether nothing was said.
    pub(super) const fn is_empty(&self) -> bool {
        self.crls.is_empty()
            && self.crl_issuers.is_empty()
            && self.crl_url_prefixes.is_empty()
            && self.unknown_revocation.is_none()
    }

    /// Puts what was said into `anchor`; what was not said stays.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn apply(&self, anchor: &mut TrustAnchor) -> Result<(), Failure> {
        let had_sources = !anchor.revocation.is_empty();
        if self.crls.is_empty() && !self.crl_issuers.is_empty() {
            return Err("--crl-issuer goes with --crl: say where its lists are".into());
        }
        if !self.crls.is_empty() {
            anchor.revocation.crls = self.sources()?;
        }
        if !self.crl_url_prefixes.is_empty() {
            for prefix in &self.crl_url_prefixes {
                if !is_allowed(prefix, std::slice::from_ref(prefix)) {
                    let problem = "must be an http or https URL with a whole host and a slash after it";
                    return Err(format!("--crl-url-prefix {prefix}: {problem}").into());
                }
            }
            anchor.revocation.crl_url_prefixes = self.crl_url_prefixes.clone();
        }
        if let Some(means) = self.unknown_revocation {
            anchor.unknown_revocation = means.into();
        } else if !had_sources && !anchor.revocation.is_empty() {
            anchor.unknown_revocation = Unknown::Refuse;
        }
        Ok(())
    }

    fn sources(&self) -> Result<Vec<CrlSource>, Failure> {
        let mut issuers = Vec::new();
        for file in &self.crl_issuers {
            let octets = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let certificates =
                certificates_from(&octets).map_err(|_| format!("{}: no certificate in PEM or DER", file.display()))?;
            issuers.extend(certificates.into_iter().map(|certificate| certificate.to_vec()));
        }
        let mut locations = Vec::new();
        for location in &self.crls {
            let is_url = location.starts_with("http://") || location.starts_with("https://");
            locations.push(match location {
                url if is_url => url.clone(),
                other if other.contains("://") => {
                    return Err(format!("--crl {other}: must be a file, a directory, or an http or https URL").into());
                }
                // The server may run in another directory.
                path => std::path::absolute(path)?.display().to_string(),
            });
        }
        // An anchor's issuers are known for all of its places: which of them stands beside which place does not matter.
        let last = locations.last().cloned().unwrap_or_default();
        let count = locations.len().max(issuers.len());
        let mut issuers = issuers.into_iter();
        let mut locations = locations.into_iter();
        Ok((0..count)
            .map(|_| CrlSource {
                location: locations.next().unwrap_or_else(|| last.clone()),
                issuer_der: issuers.next(),
            })
            .collect())
    }
}

/// What the anchor's revocation rests on, in words.
pub(super) fn described(anchor: &TrustAnchor) -> String {
    let sources: &RevocationSources = &anchor.revocation;
    if sources.is_empty() {
        return "no revocation source: only what is revoked in this registry is refused".to_owned();
    }
    let unknown = match anchor.unknown_revocation {
        Unknown::Accept => "accepted",
        Unknown::Refuse => "refused",
    };
    format!("where nobody knows whether a certificate was revoked, it is {unknown}")
}

/// Looks at every list of the anchor once and says what is there.
///
/// # Errors
/// Nothing can be fetched with this configuration.
pub(super) async fn look(anchor: &TrustAnchor, session: &Session) -> Result<Vec<Report>, Failure> {
    let fetcher = app::fetcher(&session.config)?;
    Ok(check(anchor, &fetcher, session.config.crl_bytes, session.now).await)
}

/// One line for each list, and one for what it means where there is none.
pub(super) fn sentences(anchor: &TrustAnchor, reports: &[Report]) -> String {
    let mut text: String = reports.iter().map(|report| format!("\n  {}", sentence(report))).collect();
    if anchor.unknown_revocation == Unknown::Refuse && anchor.revocation.ocsp.is_none() && speak_for_nobody(reports) {
        text.push_str("\n  caution: every certificate under this anchor is refused until there is a list");
    }
    text
}

/// Whether lists are configured, and not one of them can be used now.
pub(super) fn speak_for_nobody(reports: &[Report]) -> bool {
    let is_good = |report: &Report| report.list.as_ref().is_some_and(|list| !list.stale);
    !reports.is_empty() && !reports.iter().any(is_good)
}

fn sentence(report: &Report) -> String {
    let Report { place, list, refusal } = report;
    match (list, refusal) {
        (Some(list), _) => format!(
            "{place}: revocation list {}, issued {}, next one by {}{}, {} revoked, for {}",
            list.number,
            list.this_update,
            list.next_update,
            if list.stale { " (which is over: what it speaks for is unknown)" } else { "" },
            list.entries,
            list.covers
        ),
        (None, Some(refusal)) => format!("note: {place}: not taken: {refusal}"),
        (None, None) => format!("{place}: nothing"),
    }
}
