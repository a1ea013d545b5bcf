//! What the operator wants: the one file that reads configuration.
//!
//! Takes a TOML file and `COUNTERSIGN_…` environment variables, gives a [`Config`] whose types cannot be wrong
//! afterwards, or every mistake at once. It opens nothing but the file itself and knows nothing of what the values are for.
//!
//! Every key of the file can be said as an environment variable instead, which then wins: `issuer` is
//! `COUNTERSIGN_ISSUER`, `tls.certificate` is `COUNTERSIGN_TLS__CERTIFICATE`. A relative path in the file starts at the
//! file's directory, one in the environment at the working directory.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Table;

/// Settings, taken out one by one.
mod reader;

use self::reader::Reader;
use crate::mint::key_encryption::EncryptionKeySource;
use crate::registry::client::Environment;
use crate::store::Standby;
use crate::tls::ClientFiles;

/// Everything that can be configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// `issuer`: who signs the tokens (RFC 8414 §2). Required in production.
    pub issuer: Issuer,
    /// `environment`: the one environment this server serves. Default `sandbox`.
    pub environment: Environment,
    /// `node`: what this node calls itself in the audit log. Default `node-1`.
    pub node: NodeName,
    /// `data_directory`: where everything lies that has no path of its own. Default `countersign-data`.
    pub data_directory: PathBuf,
    /// `store`: `sqlite:PATH` or `postgres://…`. Default: `countersign.db` in the data directory.
    pub store: StoreUrl,
    /// `require_synchronous`: whether to serve only while the database has every acknowledged change on a standby's disk as
    /// well, so that no fail-over can lose one. PostgreSQL only. Default `false`.
    pub require_synchronous: bool,
    /// `keys_directory`: the signing keys, where no key-encryption key is configured. Default: `keys` in the data directory.
    pub keys_directory: PathBuf,
    /// `key_encryption_key`: a file with the key that encrypts the signing keys in the store, where all nodes share them; or
    /// `COUNTERSIGN_KEY_ENCRYPTION_KEY_VALUE`: that key itself. Default: none, and the signing keys are in `keys_directory`.
    pub key_encryption_key: Option<EncryptionKeySource>,
    /// `tls.certificate` and `tls.key`. Required in production.
    pub tls: TlsFiles,
    /// `listen`: where TLS with client certificates is served. Default `127.0.0.1:8443`.
    pub listen: SocketAddr,
    /// `public.*`: a second listener that asks for no client certificate.
    pub public: Option<PublicFace>,
    /// `operations.listen`: health and metrics over plain HTTP. Default `127.0.0.1:9443`.
    pub operations: SocketAddr,
    /// `access_token_lifetime_seconds`: the longest life of a token where nothing shorter applies. Default 300, at most 3600.
    pub access_token_lifetime: Duration,
    /// `perimeter`: what a certificate meets that maps to no one enrolled. Default `json`.
    pub perimeter: Perimeter,
    /// `limits.*`.
    pub limits: Limits,
    /// `workers`: how many threads answer requests. Default: [`Config::workers_beside`] on this machine.
    pub workers: usize,
    /// `log.*`.
    pub log: Log,
    /// `drain_seconds`: how long requests under way may take once the server is told to stop. Default 10.
    pub drain: Duration,
    /// `expiry.*`: the watch over what runs out.
    pub expiry: Expiry,
    /// `fetch.roots`: a PEM file with the certificate authorities that HTTPS servers are believed by when something is fetched
    /// from them. Default: what the system trusts.
    pub fetch_roots: Option<PathBuf>,
    /// `audit.export.*`: where the audit log is sent as it grows. Default: nowhere.
    pub audit_export: AuditExport,
    /// `revocation.crl_bytes`: the longest certificate revocation list that is read. Default 64 MiB.
    pub crl_bytes: usize,
}

impl Config {
    /// What `require_synchronous` asks of the store.
    pub const fn standby(&self) -> Standby {
        if self.require_synchronous { Standby::Required } else { Standby::Optional }
    }

    /// How many threads answer requests where a machine has so many cores: one fewer, because the store's own threads, which write
    /// the audit log and its index, need one as well. One more than that cost a fifth to a quarter more CPU for a token on two cores
    /// (docs/performance.md).
    pub const fn workers_beside(cores: usize) -> usize {
        if cores > 2 { cores - 1 } else { 1 }
    }

    /// Under which URL partners reach `endpoint`, which begins with a slash, with their certificates.
    pub fn mtls_url_of(&self, endpoint: &str) -> String {
        self.public.as_ref().map_or(&self.issuer, |face| &face.mtls_url).url_of(endpoint)
    }
}

/// What a certificate meets that maps to no one enrolled (design §3, perimeter).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Perimeter {
    /// An answer in JSON, so that a partner learns where it stands.
    #[default]
    Json,
    /// A closed connection straight after the handshake.
    Strict,
}

/// The server's own certificate, leaf first, and its private key: PEM files, watched and loaded again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain.
    pub certificate: PathBuf,
    /// The key of its leaf.
    pub key: PathBuf,
}

/// A second listener without client certificates, as the public face (RFC 8705 §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicFace {
    /// `public.listen`.
    pub listen: SocketAddr,
    /// `public.mtls_url`: under which URL partners reach the listener with client certificates; becomes
    /// `mtls_endpoint_aliases`. The issuer then names the public face.
    pub mtls_url: Issuer,
}

/// What a stranger can use up (design §8). Durations are enforced per connection or request, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.connections`: open connections in all.
    pub connections: usize,
    /// `limits.connections_per_address`: from one IPv4 address or one IPv6 /64.
    pub connections_per_address: usize,
    /// `limits.handshakes`: that wait to be computed, in all.
    pub handshakes: usize,
    /// `limits.handshake_seconds`.
    pub handshake: Duration,
    /// `limits.first_byte_seconds`: from the end of the handshake to the first byte of a request.
    pub first_byte: Duration,
    /// `limits.request_head_seconds`: from a request head's first byte to its last.
    pub request_head: Duration,
    /// `limits.request_head_bytes`.
    pub request_head_bytes: usize,
    /// `limits.body_seconds`: from the end of the head to the end of the body.
    pub body: Duration,
    /// `limits.body_bytes`.
    pub body_bytes: usize,
    /// `limits.idle_seconds`: a connection without a request under way and without an answer being taken.
    pub idle: Duration,
    /// `limits.write_seconds`: how long a peer may take nothing of an answer.
    pub write: Duration,
    /// `limits.requests`: requests being decided at one time, in all; fewer while they cannot be decided in time.
    pub requests: usize,
    /// `limits.requests_per_address`: requests to `/token`, `/revoke` and `/introspect` from one IPv4 address or one IPv6
    /// /64, a second; counted before anything is read of them.
    pub requests_per_address: u32,
    /// `limits.requests_per_certificate`: the same with one certificate, whoever's it is.
    pub requests_per_certificate: u32,
    /// `limits.requests_per_client`: of one client, a second, where its record says nothing else; counted once it has
    /// authenticated.
    pub requests_per_client: u32,
    /// `limits.requests_per_resource_server`: questions of one resource server, a second.
    pub requests_per_resource_server: u32,
    /// `limits.http2_streams`: concurrent streams on one connection.
    pub http2_streams: u32,
    /// `limits.http2_local_resets`: streams this side may have to reset before it ends the connection.
    pub http2_local_resets: usize,
    /// `limits.http2_resets`: streams that the peer may reset in ten seconds, beside half of those it opened.
    pub http2_resets: u32,
    /// `limits.http2_frames`: frames that ask for nothing in ten seconds, beside four for each request.
    pub http2_frames: u32,
    /// `limits.http2_body_bytes`: of bodies that are not whole yet, on one connection.
    pub http2_body_bytes: usize,
    /// `limits.certificate_checks_per_address`: from one IPv4 address or one IPv6 /64, a minute.
    pub certificate_checks_per_address: u32,
    /// `limits.certificate_checks_per_certificate`: with one certificate, a minute.
    pub certificate_checks_per_certificate: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: 1024,
            handshakes: 1024,
            handshake: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            request_head_bytes: 16 * 1024,
            body: Duration::from_secs(10),
            body_bytes: 16 * 1024,
            idle: Duration::from_secs(60),
            write: Duration::from_secs(10),
            requests: 4096,
            // What a core can sign, about: it ends what runs wild and binds nobody else. A partner behind one address is
            // many clients.
            requests_per_address: 20_000,
            requests_per_certificate: 20_000,
            requests_per_client: 20_000,
            requests_per_resource_server: 20_000,
            http2_streams: 128,
            http2_local_resets: 1024,
            http2_resets: 256,
            http2_frames: 1024,
            http2_body_bytes: 128 * 1024,
            certificate_checks_per_address: 60,
            certificate_checks_per_certificate: 10,
        }
    }
}

/// When the server says that something runs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// `expiry.every_seconds`: how often it looks. Default 3600.
    pub every: Duration,
    /// `expiry.notice_days`: how many days before an end something is said; ascending, each once. Default 30, 14, 7, 3, 1.
    pub notice_days: Vec<u16>,
}

impl Default for Expiry {
    fn default() -> Self {
        Self { every: Duration::from_secs(3600), notice_days: vec![1, 3, 7, 14, 30] }
    }
}

/// Where the audit log is sent as it grows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditExport {
    /// `audit.export.file.path`: a file that grows by a line for each record.
    pub file: Option<PathBuf>,
    /// `audit.export.syslog.*`.
    pub syslog: Option<SyslogExport>,
    /// `audit.export.otlp.*`.
    pub otlp: Option<OtlpExport>,
}

/// A receiver of syslog over TLS (RFC 5425).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogExport {
    /// The host of `audit.export.syslog.address`, which its certificate has to name.
    pub host: String,
    /// And its port.
    pub port: u16,
    /// `audit.export.syslog.facility`: 0 to 23. Default 13, "log audit" (RFC 5424 §6.2.1).
    pub facility: u8,
    /// `audit.export.syslog.roots`, `.certificate` and `.key`.
    pub files: ClientFiles,
}

/// A collector of OpenTelemetry logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpExport {
    /// `audit.export.otlp.url`.
    pub url: String,
    /// `audit.export.otlp.roots`, `.certificate` and `.key`.
    pub files: ClientFiles,
}

/// How the server writes its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `log.format`: `text` or `json`. Default `text`.
    pub format: LogFormat,
    /// `log.filter`: directives of `tracing_subscriber::EnvFilter`. Default `info`.
    pub filter: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// An `https` URL without query and fragment, as RFC 8414 §2 wants an issuer; a path is allowed.
#[derive(Clone, PartialEq, Eq)]
pub struct Issuer {
    text: String,
    host: std::ops::Range<usize>,
    path_from: usize,
}

impl Issuer {
    /// Reads an issuer identifier.
    ///
    /// # Errors
    /// The sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        // RFC 8414 §2: "a URL that uses the "https" scheme and has no query or fragment components".
        let Some(rest) = text.strip_prefix("https://") else { return Err("must begin with https:// in lower case") };
        if text.len() > 512 {
            return Err("must not be longer than 512 characters");
        }
        if text.contains(['?', '#']) {
            return Err("must have no query and no fragment (RFC 8414 section 2)");
        }
        let authority_len = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority_len);
        if path.ends_with('/') {
            return Err("must not end with a slash: clients compare issuers as text");
        }
        if authority.contains('@') {
            return Err("must have no user name");
        }
        if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte))
            || path.split('/').skip(1).any(|segment| matches!(segment, "" | "." | ".."))
        {
            return Err("may have a path of letters, digits and - . _ ~ only, without empty and dot segments");
        }
        let host_len = if authority.starts_with('[') {
            authority.find(']').map_or(0, |end| end + 1)
        } else {
            authority.find(':').unwrap_or(authority.len())
        };
        let (host, port) = authority.split_at(host_len);
        let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                host.len() <= 253
                    && host.split('.').all(|label| {
                        !label.is_empty()
                            && label.len() <= 63
                            && label
                                .bytes()
                                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                            && !label.starts_with('-')
                            && !label.ends_with('-')
                    })
            }
        };
        if !host_is_good {
            return Err("must have a host: a name in lower case, an IPv4 address, or an IPv6 address in brackets");
        }
        let port_is_good = match port.strip_prefix(':') {
            None => port.is_empty(),
            Some(digits) => {
                digits.bytes().all(|byte| byte.is_ascii_digit())
                    && !digits.starts_with('0')
                    && digits.parse::<u16>().is_ok()
            }
        };
        if !port_is_good {
            return Err("must have a port from 1 to 65535, or none");
        }
        let scheme = "https://".len();
        Ok(Self { text: text.to_owned(), host: scheme..scheme + host_len, path_from: scheme + authority_len })
    }

    /// The identifier: what `iss` says.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.text[self.host.clone()].trim_matches(['[', ']'])
    }

    /// The path: empty, or beginning with a slash.
    pub fn path(&self) -> &str {
        &self.text[self.path_from..]
    }

    /// The URL of `endpoint`, which begins with a slash, below this issuer.
    pub fn url_of(&self, endpoint: &str) -> String {
        format!("{}{endpoint}", self.text)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({})", self.text)
    }
}

/// What a node calls itself: 1 to 64 letters, digits and `-` `_` `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    /// Reads a node's name.
    ///
    /// # Errors
    /// The sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if good { Ok(Self(text.to_owned())) } else { Err("must be 1 to 64 letters, digits and - _ .") }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Where the registry and the audit log are kept. Its `Debug` and `Display` leave a password out.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Reads a store's URL.
    ///
    /// # Errors
    /// The sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let sqlite = text.strip_prefix("sqlite:").is_some_and(|path| !path.trim_start_matches('/').is_empty());
        let postgres = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()));
        if sqlite || postgres { Ok(Self(text.to_owned())) } else { Err("must be sqlite:PATH or postgres://…") }
    }

    /// The embedded store in the file at `path`.
    pub fn sqlite(path: &Path) -> Self {
        Self(format!("sqlite:{}", path.display()))
    }

    /// The URL, password included: for opening the store, never for printing.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn password(&self) -> Option<std::ops::Range<usize>> {
        let from = self.0.find("://")? + 3;
        let authority = &self.0[from..from + self.0[from..].find('/').unwrap_or(self.0.len() - from)];
        let user_info = &authority[..authority.rfind('@')?];
        let colon = user_info.find(':')?;
        Some(from + colon + 1..from + user_info.len())
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.password() {
            None => f.write_str(&self.0),
            Some(password) => write!(f, "{}…{}", &self.0[..password.start], &self.0[password.end..]),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where: a key of the file, an environment variable, or the file itself.
    pub place: String,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

/// Everything that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMistakes(pub Vec<Mistake>);

impl fmt::Display for ConfigMistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} mistake{} in the configuration", if count == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {}: {}", mistake.place, mistake.problem))
    }
}

impl std::error::Error for ConfigMistakes {}

impl Config {
    /// Reads the configuration: `file` if there is one, else `./countersign.toml` if that exists, else the embedded
    /// default; then `environment` (name and value pairs; names that do not begin with `COUNTERSIGN_` are passed over).
    ///
    /// # Errors
    /// [`ConfigMistakes`]: all of them.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigMistakes> {
        let standard = Path::new("countersign.toml");
        let file = file.or_else(|| standard.exists().then_some(standard));
        let (text, base) = match file {
            None => (String::new(), PathBuf::new()),
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => (text, path.parent().map(Path::to_path_buf).unwrap_or_default()),
                Err(error) => {
                    let problem = format!("cannot be read: {error}");
                    return Err(ConfigMistakes(vec![Mistake { place: path.display().to_string(), problem }]));
                }
            },
        };
        Self::read(&text, &base, environment).map_err(|mut mistakes| {
            for mistake in mistakes.0.iter_mut().filter(|mistake| mistake.place == THE_FILE) {
                mistake.place = file.map_or_else(|| THE_FILE.to_owned(), |path| path.display().to_string());
            }
            mistakes
        })
    }

    /// Reads the text of a configuration file whose relative paths start at `base`, then `environment`.
    ///
    /// # Errors
    /// [`ConfigMistakes`]: all of them.
    pub fn read(
        text: &str,
        base: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigMistakes> {
        let table = match text.parse::<Table>() {
            Ok(table) => table,
            Err(error) => {
                // Nothing behind a syntax error can be told apart, so this one mistake comes alone.
                let problem = error.to_string().trim_end().replace('\n', "\n    ");
                return Err(ConfigMistakes(vec![Mistake { place: THE_FILE.to_owned(), problem }]));
            }
        };
        let mut reader = Reader::at(base);
        reader.take_file("", table);
        reader.take_environment(environment);
        let config = reader.config();
        reader.nothing_left();
        if reader.mistakes.is_empty() {
            Ok(config)
        } else {
            reader.mistakes.sort_by(|one, other| one.place.cmp(&other.place));
            Err(ConfigMistakes(reader.mistakes))
        }
    }

    /// The host names the server is reached under: what its certificate has to name.
    pub fn host_names(&self) -> Vec<String> {
        let mut names = vec![self.issuer.host().to_owned()];
        names.extend(self.public.iter().map(|face| face.mtls_url.host().to_owned()));
        names.dedup();
        names
    }

    /// The embedded default: a sandbox on localhost that keeps everything in `data_directory`.
    pub fn embedded(data_directory: &Path) -> Self {
        let mut reader = Reader::keeping_all_in(data_directory);
        reader.config()
    }
}

/// Where a mistake is that belongs to no key, as long as nobody knows the file's name.
const THE_FILE: &str = "the file";

#[cfg(test)]
mod tests;
