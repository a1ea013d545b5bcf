//! Everything wired together: one [`Guard`] for one API.
//!
//! Takes the authorization server's issuer, the API's own resource identifier and a few options, gives the layers that
//! guard routes and the route that describes the API to clients. It keeps the background tasks that fetch keys and
//! revocation lists, and ends them with itself.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::follower::{self, Fetcher};
use crate::layer::RequireToken;
use crate::scope::{MalformedScope, Scope};
use crate::status::introspection::{self, Endpoint, Line};
use crate::status::{HeldList, Introspection, WhenStale};
use crate::time::{Clock, SystemClock};
use crate::token::access_token::AccessTokens;
use crate::token::held_keys::HeldKeys;
use crate::verification::{Binding, Judgement, Requirement, Revocation};

/// What a [`Guard`] is made of.
#[derive(Clone)]
pub struct GuardBuilder {
    issuer: String,
    resource: String,
    scopes: Vec<String>,
    tls: Option<ClientConfig>,
    certificate: Option<Arc<SingleCertAndKey>>,
    revocations_from: Option<String>,
    mirror_tls: Option<ClientConfig>,
    mirror_alone: bool,
    staleness_limit: Duration,
    when_stale: WhenStale,
    introspect_at: Option<String>,
    remembered_bytes: u64,
    clock: Arc<dyn Clock>,
}

impl GuardBuilder {
    /// The roots to trust when the authorization server is asked for keys and lists, in PEM. Without this or
    /// [`Self::tls`] nothing can be fetched, so one of them is needed.
    ///
    /// # Errors
    /// [`GuardError::Roots`] if there is no certificate among them, or one that cannot be a root.
    pub fn roots_pem(mut self, pem: &[u8]) -> Result<Self, GuardError> {
        self.tls = Some(trusting(pem)?);
        Ok(self)
    }

    /// The TLS configuration for asking the authorization server.
    #[must_use]
    pub fn tls(mut self, config: ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// The API's own certificate, the chain above it, and its private key: shown to the authorization server when it asks for
    /// one. It is the one that is enrolled there for this API (`resource-server change --certificate`), and takes the place of
    /// one in [`Self::tls`].
    ///
    /// # Errors
    /// [`GuardError::Certificate`] if there is no certificate or no key, or one is not the other's.
    pub fn client_certificate_pem(mut self, chain: &[u8], key: &[u8]) -> Result<Self, GuardError> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(GuardError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| GuardError::Certificate)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let own = CertifiedKey::from_der(chain, key, &provider).map_err(|_| GuardError::Certificate)?;
        self.certificate = Some(Arc::new(SingleCertAndKey::from(own)));
        Ok(self)
    }

    /// The scopes that exist here, for the metadata (RFC 9728 §2, `scopes_supported`).
    #[must_use]
    pub fn scopes_supported<I: IntoIterator<Item: Into<String>>>(mut self, scopes: I) -> Self {
        self.scopes = scopes.into_iter().map(Into::into).collect();
        self
    }

    /// Where to get the revocation list: a mirror or a cache of it, at this https URL, in the place of the authorization server.
    /// Whoever carries it need not be trusted: it is signed, never goes back, and ages. It is not shown the API's certificate,
    /// and it is not known to pass on what is new at once: where it knows no long poll, it is asked once a second.
    /// While it brings none, or one that is past half of the staleness limit, the authorization server is asked as well.
    #[must_use]
    pub fn revocations_from(mut self, url: impl Into<String>) -> Self {
        self.revocations_from = Some(url.into());
        self
    }

    /// The roots to trust when the mirror of [`Self::revocations_from`] is asked, in PEM; those for the authorization server
    /// unless told. Give a mirror of somebody else's these of its own: whoever is among the roots for the authorization server can
    /// pass himself off as it, and hand out keys.
    ///
    /// # Errors
    /// [`GuardError::Roots`] if there is no certificate among them, or one that cannot be a root.
    pub fn mirror_roots_pem(mut self, pem: &[u8]) -> Result<Self, GuardError> {
        self.mirror_tls = Some(trusting(pem)?);
        Ok(self)
    }

    /// Never asks the authorization server for the list, whatever becomes of the mirror: who runs the mirror can then let the
    /// list grow too old.
    #[must_use]
    pub const fn mirror_alone(mut self) -> Self {
        self.mirror_alone = true;
        self
    }

    /// How old the revocation list may become; 30 seconds unless told.
    #[must_use]
    pub const fn staleness_limit(mut self, limit: Duration) -> Self {
        self.staleness_limit = limit;
        self
    }

    /// What becomes of calls while it is older than that; they are refused unless told.
    #[must_use]
    pub const fn when_stale(mut self, choice: WhenStale) -> Self {
        self.when_stale = choice;
        self
    }

    /// Where to ask about tokens with [`WhenStale::Introspect`], where that is not `/introspect` of the issuer: its
    /// `mtls_endpoint_aliases` say another place if the issuer's own listener asks for no certificates (RFC 8705 §5).
    #[must_use]
    pub fn introspect_at(mut self, url: impl Into<String>) -> Self {
        self.introspect_at = Some(url.into());
        self
    }

    /// About how many bytes of verified tokens are remembered; 16 MiB unless told.
    #[must_use]
    pub const fn remembered_bytes(mut self, bytes: u64) -> Self {
        self.remembered_bytes = bytes;
        self
    }

    /// Where the time comes from; the machine's clock unless told.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Starts to fetch keys and revocation lists in the background, on the current tokio runtime. Calls are refused with
    /// 503 until both have been fetched; with [`WhenStale::Introspect`] keys are enough.
    ///
    /// # Errors
    /// [`GuardError`]
    pub fn start(mut self) -> Result<Guard, GuardError> {
        let runtime = Handle::try_current().map_err(|_| GuardError::NoRuntime)?;
        let mut tls = self.tls.take().ok_or(GuardError::Roots)?;
        let anonymous = without_certificate(tls.clone());
        let mirror = self.revocations_from.take().map(|url| {
            let tls = self.mirror_tls.take().map_or_else(|| anonymous.clone(), without_certificate);
            (Fetcher::new(tls), url)
        });
        if mirror.as_ref().is_some_and(|(_, url)| !is_identifier(url)) {
            return Err(GuardError::Mirror);
        }
        if let Some(certificate) = self.certificate.take() {
            tls.client_auth_cert_resolver = certificate;
            tls.resumption = Resumption::default(); // a session begun without the certificate goes on without it
        }
        let base = self.issuer.trim_end_matches('/').to_owned();
        let introspect_at = self.introspect_at.take().unwrap_or_else(|| format!("{base}/introspect"));
        let line = match self.when_stale {
            WhenStale::Refuse | WhenStale::AcceptFor(_) => None,
            // Whoever is not enrolled is told nothing.
            WhenStale::Introspect if !tls.client_auth_cert_resolver.has_certs() || !is_identifier(&introspect_at) => {
                return Err(GuardError::Introspection);
            }
            WhenStale::Introspect => Some(Endpoint::new(Fetcher::new(tls.clone()), introspect_at)),
        };
        let mirror_alone = self.mirror_alone;
        let guard = self.built(line.map(|line| (line, runtime.clone(), introspection::PATIENCE)))?;
        let fetcher = if tls.client_auth_cert_resolver.has_certs() {
            Fetcher::new(tls).or_else(Fetcher::new(anonymous))
        } else {
            Fetcher::new(tls)
        };
        let list = Arc::clone(&guard.judgement.revocations);
        let own = (fetcher.clone(), format!("{base}/revocations"));
        let mut tasks = vec![
            // Over connections of their own: the server knows by the list's who has taken it in.
            runtime.spawn(follower::follow_keys(fetcher.afresh(), format!("{base}/jwks"), Arc::clone(&guard.keys))),
            runtime.spawn(follower::report_age(Arc::clone(&list), Arc::clone(&guard.clock))),
        ];
        if let Some(introspection) = &guard.judgement.introspection {
            tasks.push(runtime.spawn(Arc::clone(introspection).sound_out()));
        }
        let (lists, url) = match mirror {
            None => own,
            Some(mirror) => {
                if !mirror_alone {
                    tasks.push(runtime.spawn(follower::relieve_the_mirror(own.0, own.1, Arc::clone(&list))));
                }
                mirror
            }
        };
        tasks.push(runtime.spawn(follower::follow_revocations(lists, url, list)));
        Ok(Guard { tasks: Arc::new(Tasks(tasks)), ..guard })
    }

    /// A guard that fetches nothing and asks nobody: keys and lists are handed to [`Guard::keys`] and [`Guard::revocations`].
    ///
    /// # Errors
    /// [`GuardError::Introspection`], [`GuardError::Issuer`], [`GuardError::Resource`]
    pub fn idle(self) -> Result<Guard, GuardError> {
        if self.when_stale == WhenStale::Introspect {
            return Err(GuardError::Introspection);
        }
        self.built(None::<(Endpoint, Handle, Duration)>)
    }

    /// A guard that asks by this line, if there is one, from this runtime, with this patience.
    pub(crate) fn built(self, line: Option<(impl Line, Handle, Duration)>) -> Result<Guard, GuardError> {
        if !is_identifier(&self.issuer) || self.issuer.contains('?') {
            return Err(GuardError::Issuer); // RFC 8414 §2
        }
        if !is_identifier(&self.resource) {
            return Err(GuardError::Resource); // RFC 9728 §1.2
        }
        let keys = Arc::new(HeldKeys::default());
        let list = HeldList::new(self.issuer.clone(), self.staleness_limit, Arc::clone(&keys), Arc::clone(&self.clock));
        let revocations = Arc::new(list.when_stale(self.when_stale));
        let tokens =
            AccessTokens::new(self.issuer.clone(), self.resource.clone(), Arc::clone(&keys), self.remembered_bytes);
        let introspection = line.map(|(line, runtime, patience)| {
            let (list, clock) = (Arc::clone(&revocations), Arc::clone(&self.clock));
            Arc::new(Introspection::new(line, list, clock, runtime, patience))
        });
        let description = Description::new(&self.issuer, &self.resource, &self.scopes);
        Ok(Guard {
            judgement: Arc::new(Judgement { tokens, revocations, introspection }),
            keys,
            clock: self.clock,
            description: Arc::new(description),
            tasks: Arc::new(Tasks(Vec::new())),
        })
    }
}

impl fmt::Debug for GuardBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardBuilder")
            .field("issuer", &self.issuer)
            .field("resource", &self.resource)
            .field("staleness_limit", &self.staleness_limit)
            .field("when_stale", &self.when_stale)
            .finish_non_exhaustive()
    }
}

/// Guards the routes of one API. Cheap to clone; the background tasks end with the last clone and the last layer.
#[derive(Clone, Debug)]
pub struct Guard {
    pub(crate) judgement: Arc<Judgement>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) description: Arc<Description>,
    keys: Arc<HeldKeys>,
    #[expect(dead_code, reason = "held so that the tasks end with the last clone")]
    tasks: Arc<Tasks>,
}

impl Guard {
    /// A guard for the API whose resource identifier is `resource` (the audience of its tokens), with tokens of `issuer`.
    pub fn builder(issuer: impl Into<String>, resource: impl Into<String>) -> GuardBuilder {
        GuardBuilder {
            issuer: issuer.into(),
            resource: resource.into(),
            scopes: Vec::new(),
            tls: None,
            certificate: None,
            revocations_from: None,
            mirror_tls: None,
            mirror_alone: false,
            staleness_limit: Duration::from_secs(30),
            when_stale: WhenStale::default(),
            introspect_at: None,
            remembered_bytes: 16 * 1024 * 1024,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// A layer for routes that need a token with every one of these scope tokens, separated by spaces; with none, any
    /// token for this API will do.
    ///
    /// # Errors
    /// [`MalformedScope`] if the text is neither empty nor a scope by RFC 6749 §3.3.
    pub fn require(&self, scope: &str) -> Result<RequireToken, MalformedScope> {
        let scope = if scope.is_empty() { Scope::default() } else { Scope::parse(scope)? };
        let required = Requirement { scope, binding: Binding::Required, revocation: Revocation::Checked };
        Ok(RequireToken::new(self.clone(), required))
    }

    /// The keys held.
    pub const fn keys(&self) -> &Arc<HeldKeys> {
        &self.keys
    }

    /// The revocation list held.
    pub fn revocations(&self) -> &Arc<HeldList> {
        &self.judgement.revocations
    }

    /// Whether calls can be judged now: keys are held, and a list that is not too old to judge by, or else somebody to ask who
    /// answered when last asked. For readiness probes.
    pub fn is_ready(&self) -> bool {
        let Judgement { revocations, introspection, .. } = &*self.judgement;
        let is_answered = || introspection.as_ref().is_some_and(|introspection| introspection.is_answered());
        self.keys.current().is_some() && (revocations.is_usable() || is_answered())
    }
}

/// Why there is no guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The API's own certificate or key cannot be used, or one is not the other's.
    #[error("give the API's own certificate and the private key that belongs to it, both as PEM")]
    Certificate,
    /// [`WhenStale::Introspect`] without a certificate to ask with, for a guard that asks nobody, or at what is no https URL.
    #[error(
        "to introspect, give the API's own certificate, as enrolled at the authorization server, and start the guard; \
         the endpoint has to be an https URL"
    )]
    Introspection,
    /// The issuer is not an https URL without query and fragment.
    #[error("the issuer has to be an https URL without query and fragment")]
    Issuer,
    /// The address of the revocation list is not an https URL without fragment.
    #[error("the address of the revocation list has to be an https URL without fragment")]
    Mirror,
    /// There is no tokio runtime here to fetch in.
    #[error("start the guard inside a tokio runtime")]
    NoRuntime,
    /// The resource identifier is not an https URL without fragment.
    #[error("the resource identifier has to be an https URL without fragment")]
    Resource,
    /// No roots to trust the authorization server's certificate by.
    #[error("give the roots that the authorization server's certificate leads to, as PEM, or a TLS configuration")]
    Roots,
}

/// How the API describes itself (RFC 9728).
#[derive(Debug)]
pub(crate) struct Description {
    /// Where the metadata is, as a path.
    pub(crate) path: String,
    /// Where the metadata is, as a URL.
    pub(crate) url: String,
    /// The metadata.
    pub(crate) json: String,
}

impl Description {
    fn new(issuer: &str, resource: &str, scopes: &[String]) -> Self {
        // RFC 9728 §3.1: the well-known segment goes between host and path, after a terminating slash that follows the
        // host has been removed.
        let after_scheme = resource.find("://").map_or(0, |at| at + 3);
        let path_starts = resource[after_scheme..].find(['/', '?']).map_or(resource.len(), |at| after_scheme + at);
        let (origin, path) = resource.split_at(path_starts);
        let path = if path == "/" { "" } else { path };
        let path = format!("/.well-known/oauth-protected-resource{path}");
        let mut metadata = serde_json::json!({
            "resource": resource,
            "authorization_servers": [issuer],
            "bearer_methods_supported": ["header"],
            "tls_client_certificate_bound_access_tokens": true,
        });
        if !scopes.is_empty() {
            metadata["scopes_supported"] = scopes.into();
        }
        Self { url: format!("{origin}{path}"), path, json: metadata.to_string() }
    }
}

/// Trusts these roots, and shows nobody a certificate.
fn trusting(pem: &[u8]) -> Result<ClientConfig, GuardError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(|_| GuardError::Roots)?).map_err(|_| GuardError::Roots)?;
    }
    if roots.is_empty() {
        return Err(GuardError::Roots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| GuardError::Roots)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn without_certificate(mut tls: ClientConfig) -> ClientConfig {
    tls.client_auth_cert_resolver = Arc::new(NoCertificate);
    tls.resumption = Resumption::default(); // a session begun with a certificate goes on with it
    tls
}

/// What is shown to whoever is nobody in particular.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

// Enough of RFC 3986 to be safe inside a header's quoted string, a JSON string and an axum path.
fn is_identifier(text: &str) -> bool {
    text.strip_prefix("https://").is_some_and(|rest| {
        !rest.is_empty()
            && !rest.starts_with(['/', '?'])
            && !rest.contains("/:")
            && !rest.contains("/*")
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use countersign_conformance::pki::Authority;

    use super::*;

    #[test]
    fn the_well_known_segment_goes_between_host_and_path() {
        for (resource, url, path) in [
            ("https://a.example", "https://a.example/.well-known/oauth-protected-resource", ""),
            ("https://a.example/", "https://a.example/.well-known/oauth-protected-resource", ""),
            ("https://a.example:8444", "https://a.example:8444/.well-known/oauth-protected-resource", ""),
            ("https://a.example/r1", "https://a.example/.well-known/oauth-protected-resource/r1", "/r1"),
            ("https://a.example/r1/", "https://a.example/.well-known/oauth-protected-resource/r1/", "/r1/"),
            ("https://a.example?q=1", "https://a.example/.well-known/oauth-protected-resource?q=1", "?q=1"),
        ] {
            let description = Description::new("https://as.example", resource, &[]);
            assert_eq!(description.url, url);
            assert_eq!(description.path, format!("/.well-known/oauth-protected-resource{path}"));
        }
    }

    #[test]
    fn identifiers_that_are_none() {
        let refused = |issuer: &str, resource: &str| Guard::builder(issuer, resource).idle().unwrap_err();
        for wrong in [
            "",
            "as.example",
            "http://as.example",
            "https://",
            "https:///x",
            "https://a#f",
            "https://a b",
            "https://a\"b",
            "https://a/{x}",
            "https://a/:x",
            "https://a/*",
            "https://a\\b",
            "https://\u{e4}.example",
            "https://a\n",
        ] {
            assert_eq!(refused(wrong, "https://api.example"), GuardError::Issuer, "{wrong}");
            assert_eq!(refused("https://as.example", wrong), GuardError::Resource, "{wrong}");
        }
        assert_eq!(refused("https://as.example?x", "https://api.example"), GuardError::Issuer);
    }

    #[test]
    fn roots_that_are_none() {
        let builder = || Guard::builder("https://as.example", "https://api.example");
        for wrong in ["", "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(builder().roots_pem(wrong.as_bytes()).unwrap_err(), GuardError::Roots);
            assert_eq!(builder().mirror_roots_pem(wrong.as_bytes()).unwrap_err(), GuardError::Roots);
        }
        assert_eq!(builder().start().unwrap_err(), GuardError::NoRuntime);
    }

    #[test]
    fn certificates_that_are_none() {
        let now = crate::double::NOW;
        let (own, other) = (Authority::root("CA", now).client("api"), Authority::root("CA", now).client("api"));
        let (chain, key) = (own.chain_pem(), own.key.to_pem());
        let taken = |chain: &str, key: &str| {
            Guard::builder("https://as.example", "https://api.example")
                .client_certificate_pem(chain.as_bytes(), key.as_bytes())
                .map(|_| ())
        };
        assert_eq!(taken(&chain, &key), Ok(()));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for (what, chain, key) in [
            ("no certificate", "", key.as_str()),
            ("no key", chain.as_str(), ""),
            ("the certificate in the place of the key", &chain, &chain),
            ("the key in the place of the certificate", &key, &key),
            ("another's key", &chain, &other.key.to_pem()),
            ("garbage", broken, &key),
        ] {
            assert_eq!(taken(chain, key), Err(GuardError::Certificate), "{what}");
        }
    }

    #[tokio::test]
    async fn mirrors_that_are_none() {
        let root = Authority::root("CA", crate::double::NOW).to_pem();
        let started = |url: &str| {
            let builder = Guard::builder("https://as.example", "https://api.example").revocations_from(url);
            builder.roots_pem(root.as_bytes()).unwrap().start().map(|_| ())
        };
        for wrong in ["", "mirror.example", "http://mirror.example/list", "https://", "https://a/#f", "https://a/ b"] {
            assert_eq!(started(wrong), Err(GuardError::Mirror), "{wrong}");
        }
        assert_eq!(started("https://mirror.example/list?of=as.example"), Ok(()));
    }

    #[tokio::test]
    async fn nobody_to_trust() {
        let builder = Guard::builder("https://as.example", "https://api.example");
        assert_eq!(builder.start().unwrap_err(), GuardError::Roots);
    }

    #[test]
    fn scopes_that_are_none() {
        let guard = Guard::builder("https://as.example", "https://api.example").idle().unwrap();
        for wrong in [" ", "a  b", "\"", "a\n"] {
            assert_eq!(guard.require(wrong).unwrap_err(), MalformedScope, "{wrong:?}");
        }
    }
}
