//! Whether and how the status of an anchor's certificates is asked for: the options for it, and in words.

use clap::{Args, ValueEnum};

use super::revocation::UnknownMeans;
use crate::cli::session::Failure;
use crate::fetch::is_allowed;
use crate::registry::trust_anchor::{NoncePolicy, OcspPolicy, TrustAnchor, Unknown};

/// Who is asked whether certificates are still good, and what it means that nobody says.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Ocsp {
    /// Ask for the status of every certificate under this anchor (OCSP). Goes with --ocsp-responder or --ocsp-url-prefix.
    #[arg(long)]
    ocsp: bool,
    /// The responder that is asked about all of them, whatever they say themselves: an http or https URL.
    #[arg(long, value_name = "URL", requires = "ocsp", conflicts_with = "ocsp_url_prefixes")]
    ocsp_responder: Option<String>,
    /// How the URLs begin that a certificate's own word may send us to; may be repeated.
    #[arg(long = "ocsp-url-prefix", value_name = "PREFIX", requires = "ocsp")]
    ocsp_url_prefixes: Vec<String>,
    /// What it means that the responder does not know a certificate [default: refuse].
    #[arg(long, value_enum, requires = "ocsp")]
    ocsp_unknown: Option<UnknownMeans>,
    /// What it means that no good answer comes in time [default: refuse].
    #[arg(long, value_enum, requires = "ocsp")]
    ocsp_unreachable: Option<UnknownMeans>,
    /// Whether answers must repeat the nonce of their request [default: if-present].
    #[arg(long, value_enum, requires = "ocsp")]
    ocsp_nonce: Option<Nonce>,
}

/// Whether answers must repeat the nonce of their request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Nonce {
    /// Responders may leave it out that sign beforehand; one that is there must be ours.
    IfPresent,
    /// It must be there.
    Required,
}

impl Ocsp {
    /// Whether nothing was said.
    pub(super) const fn is_empty(&self) -> bool {
        !self.ocsp
    }

    /// Puts what was said into `anchor`; what was not said stays.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(super) fn apply(&self, anchor: &mut TrustAnchor) -> Result<(), Failure> {
        if !self.ocsp {
            return Ok(());
        }
        if anchor.revocation.is_empty() {
            anchor.unknown_revocation = Unknown::Refuse; // for lists that may come later
        }
        let mut policy = anchor.revocation.ocsp.take().unwrap_or(OcspPolicy {
            responder_url: None,
            url_prefixes: Vec::new(),
            unknown: Unknown::Refuse,
            unreachable: Unknown::Refuse,
            nonce: NoncePolicy::IfPresent,
        });
        // The one takes the place of the other: beside a responder of the anchor's own, prefixes would mean nothing.
        if let Some(url) = &self.ocsp_responder {
            let whole = url.splitn(4, '/').nth(3).map_or_else(|| format!("{url}/"), |_| url.clone());
            if !is_allowed(&whole, std::slice::from_ref(&whole)) {
                return Err(format!("--ocsp-responder {url}: must be an http or https URL").into());
            }
            (policy.responder_url, policy.url_prefixes) = (Some(whole), Vec::new());
        }
        if !self.ocsp_url_prefixes.is_empty() {
            for prefix in &self.ocsp_url_prefixes {
                if !is_allowed(prefix, std::slice::from_ref(prefix)) {
                    let problem = "must be an http or https URL with a whole host and a slash after it";
                    return Err(format!("--ocsp-url-prefix {prefix}: {problem}").into());
                }
            }
            (policy.responder_url, policy.url_prefixes) = (None, self.ocsp_url_prefixes.clone());
        }
        if policy.responder_url.is_none() && policy.url_prefixes.is_empty() {
            return Err("--ocsp: say whom to ask, with --ocsp-responder or --ocsp-url-prefix".into());
        }
        if let Some(means) = self.ocsp_unknown {
            policy.unknown = means.into();
        }
        if let Some(means) = self.ocsp_unreachable {
            policy.unreachable = means.into();
        }
        match self.ocsp_nonce {
            Some(Nonce::IfPresent) => policy.nonce = NoncePolicy::IfPresent,
            Some(Nonce::Required) => policy.nonce = NoncePolicy::Required,
            None => {}
        }
        anchor.revocation.ocsp = Some(policy);
        Ok(())
    }
}

/// How the status of the anchor's certificates is asked for, in words; none if it is not.
pub(super) fn described(anchor: &TrustAnchor) -> Option<String> {
    let policy = anchor.revocation.ocsp.as_ref()?;
    let meaning = |unknown| match unknown {
        Unknown::Accept => "accepted",
        Unknown::Refuse => "refused",
    };
    let whom = match &policy.responder_url {
        Some(url) => url.clone(),
        None => format!("what certificates name under {}", policy.url_prefixes.join(", ")),
    };
    let nonce = match policy.nonce {
        NoncePolicy::IfPresent => "",
        NoncePolicy::Required => "; answers must repeat their request's nonce",
    };
    Some(format!(
        "status is asked of {whom}; a certificate that the responder does not know is {}, one without an answer is {}{nonce}",
        meaning(policy.unknown),
        meaning(policy.unreachable)
    ))
}
