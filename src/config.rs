//! What the operator wants: the one file that reads configuration.
//!
//! Takes a TOML file and `COUNTERSIGN_…` environment variables, gives a [`Config`] whose types cannot be wrong
//! afterwards, or every mistake at once. It opens nothing but the file itself and knows nothing of what the values are for.
//!
//! Every key of the file can be said as an environment variable instead, which then wins: `issuer` is
//! `COUNTERSIGN_ISSUER`, `tls.certificate` is `COUNTERSIGN_TLS__CERTIFICATE`. A relative path in the file starts at the
//! file's directory, one in the environment at the working directory.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use crate::fetch;
use crate::registry::client::Environment;
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
    /// `keys_directory`: the signing keys. Default: `keys` in the data directory.
    pub keys_directory: PathBuf,
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
    /// `limits.requests`: token requests being decided at one time, in all.
    pub requests: usize,
    /// `limits.http2_streams`: concurrent streams on one connection.
    pub http2_streams: u32,
    /// `limits.http2_local_resets`: streams this side may have to reset before it ends the connection.
    pub http2_local_resets: usize,
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
            handshake: Duration::from_secs(5),
            first_byte: Duration::from_secs(10),
            request_head: Duration::from_secs(10),
            request_head_bytes: 16 * 1024,
            body: Duration::from_secs(10),
            body_bytes: 16 * 1024,
            idle: Duration::from_secs(60),
            write: Duration::from_secs(10),
            requests: 4096,
            http2_streams: 128,
            http2_local_resets: 1024,
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
        let mut reader = Reader { base: base.to_owned(), ..Reader::default() };
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
        let mut reader = Reader { data_directory: Some(data_directory.to_owned()), ..Reader::default() };
        reader.config()
    }
}

/// Settings by dotted key, taken out one by one; what is left at the end is unknown.
#[derive(Default)]
struct Reader {
    base: PathBuf,
    data_directory: Option<PathBuf>,
    settings: BTreeMap<String, Setting>,
    mistakes: Vec<Mistake>,
}

struct Setting {
    /// As the operator wrote it: `tls.key` or `COUNTERSIGN_TLS__KEY`.
    place: String,
    from_environment: bool,
    value: Value,
}

/// Where a mistake is that belongs to no key, as long as nobody knows the file's name.
const THE_FILE: &str = "the file";

/// Variables with our prefix that are not keys of the file: command-line options, and what tests are steered by.
const OTHER_VARIABLES: [&str; 2] = ["COUNTERSIGN_CONFIG", "COUNTERSIGN_OPERATOR"];
const TEST_VARIABLES: &str = "COUNTERSIGN_TEST_";

impl Reader {
    fn take_file(&mut self, prefix: &str, table: Table) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(inner) => self.take_file(&key, inner),
                value => {
                    self.settings.insert(key.clone(), Setting { place: key, from_environment: false, value });
                }
            }
        }
    }

    fn take_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
        for (name, value) in environment {
            let Some(key) = name.strip_prefix("COUNTERSIGN_") else { continue };
            if OTHER_VARIABLES.contains(&name.as_str()) || name.starts_with(TEST_VARIABLES) {
                continue;
            }
            let key = key.to_ascii_lowercase().replace("__", ".");
            let setting = Setting { place: name, from_environment: true, value: Value::String(value) };
            self.settings.insert(key, setting);
        }
    }

    fn config(&mut self) -> Config {
        let environment = self
            .choice("environment", &[("sandbox", Environment::Sandbox), ("production", Environment::Production)])
            .unwrap_or(Environment::Sandbox);
        let data_directory = match self.data_directory.take() {
            Some(directory) => directory,
            None => self.path("data_directory").unwrap_or_else(|| PathBuf::from("countersign-data")),
        };
        if environment == Environment::Production {
            // The defaults are those of a sandbox on localhost: none of the three is ever right in production.
            for key in ["issuer", "tls.certificate", "tls.key"] {
                if !self.settings.contains_key(key) {
                    self.mistake(key, "is missing: it has to be said where environment is \"production\"");
                }
            }
        }
        let issuer = self.parsed("issuer", Issuer::parse).unwrap_or_else(Self::localhost);
        let store = self.store().unwrap_or_else(|| StoreUrl::sqlite(&data_directory.join("countersign.db")));
        let defaults = Limits::default();
        let fetch_roots = self.path("fetch.roots");
        Config {
            environment,
            node: self.parsed("node", NodeName::parse).unwrap_or_else(|| NodeName("node-1".to_owned())),
            store,
            keys_directory: self.path("keys_directory").unwrap_or_else(|| data_directory.join("keys")),
            tls: TlsFiles {
                certificate: self.path("tls.certificate").unwrap_or_else(|| data_directory.join("tls/server.pem")),
                key: self.path("tls.key").unwrap_or_else(|| data_directory.join("tls/server-key.pem")),
            },
            listen: self.address("listen").unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 8443).into()),
            public: self.public_face(),
            operations: self.operations(),
            access_token_lifetime: self
                .seconds("access_token_lifetime_seconds", 1..=3600)
                .unwrap_or(Duration::from_secs(300)),
            perimeter: self.perimeter(),
            limits: Limits {
                connections: self.number("limits.connections", 1..=1_000_000).unwrap_or(defaults.connections),
                connections_per_address: self
                    .number("limits.connections_per_address", 1..=1_000_000)
                    .unwrap_or(defaults.connections_per_address),
                handshake: self.seconds("limits.handshake_seconds", 1..=60).unwrap_or(defaults.handshake),
                first_byte: self.seconds("limits.first_byte_seconds", 1..=300).unwrap_or(defaults.first_byte),
                request_head: self.seconds("limits.request_head_seconds", 1..=300).unwrap_or(defaults.request_head),
                request_head_bytes: self
                    .number("limits.request_head_bytes", 8192..=262_144)
                    .unwrap_or(defaults.request_head_bytes),
                body: self.seconds("limits.body_seconds", 1..=300).unwrap_or(defaults.body),
                body_bytes: self.number("limits.body_bytes", 1024..=1_048_576).unwrap_or(defaults.body_bytes),
                idle: self.seconds("limits.idle_seconds", 1..=3600).unwrap_or(defaults.idle),
                write: self.seconds("limits.write_seconds", 1..=300).unwrap_or(defaults.write),
                requests: self.number("limits.requests", 1..=1_000_000).unwrap_or(defaults.requests),
                http2_streams: self
                    .number("limits.http2_streams", 1..=10_000)
                    .and_then(|streams| u32::try_from(streams).ok())
                    .unwrap_or(defaults.http2_streams),
                http2_local_resets: self
                    .number("limits.http2_local_resets", 1..=1_000_000)
                    .unwrap_or(defaults.http2_local_resets),
                certificate_checks_per_address: self
                    .number("limits.certificate_checks_per_address", 1..=1_000_000)
                    .and_then(|checks| u32::try_from(checks).ok())
                    .unwrap_or(defaults.certificate_checks_per_address),
                certificate_checks_per_certificate: self
                    .number("limits.certificate_checks_per_certificate", 1..=1_000_000)
                    .and_then(|checks| u32::try_from(checks).ok())
                    .unwrap_or(defaults.certificate_checks_per_certificate),
            },
            log: Log {
                format: self
                    .choice("log.format", &[("text", LogFormat::Text), ("json", LogFormat::Json)])
                    .unwrap_or_default(),
                filter: self.log_filter().unwrap_or_else(|| "info".to_owned()),
            },
            drain: self.seconds("drain_seconds", 0..=600).unwrap_or(Duration::from_secs(10)),
            expiry: self.expiry(),
            audit_export: self.audit_export(fetch_roots.as_ref()),
            fetch_roots,
            crl_bytes: self.number("revocation.crl_bytes", 1024..=1 << 30).unwrap_or(64 << 20),
            data_directory,
            issuer,
        }
    }

    fn localhost() -> Issuer {
        Issuer { text: "https://localhost:8443".to_owned(), host: 8..17, path_from: 22 }
    }

    fn store(&mut self) -> Option<StoreUrl> {
        let setting = self.settings.remove("store")?;
        let (place, from_environment) = (setting.place.clone(), setting.from_environment);
        let text = self.text_of(setting)?;
        match StoreUrl::parse(&text) {
            Ok(url) if url.password().is_some() && !from_environment => {
                let problem =
                    "has a password in it: give the whole URL as COUNTERSIGN_STORE, or the password as PGPASSWORD";
                self.mistakes.push(Mistake { place, problem: problem.to_owned() });
                None
            }
            Ok(url) => match url.as_str().strip_prefix("sqlite:") {
                Some(path) if !from_environment => {
                    Some(StoreUrl::sqlite(&self.base.join(path.strip_prefix("//").unwrap_or(path))))
                }
                _ => Some(url),
            },
            Err(problem) => {
                self.mistakes.push(Mistake { place, problem: problem.to_owned() });
                None
            }
        }
    }

    fn public_face(&mut self) -> Option<PublicFace> {
        let said = ["public.listen", "public.mtls_url"].map(|key| self.settings.contains_key(key));
        let listen = self.address("public.listen");
        let mtls_url = self.parsed("public.mtls_url", Issuer::parse);
        match said {
            [true, false] => self.mistake("public.mtls_url", "is missing: public.listen needs it beside it"),
            [false, true] => self.mistake("public.listen", "is missing: public.mtls_url needs it beside it"),
            _ => {}
        }
        Some(PublicFace { listen: listen?, mtls_url: mtls_url? })
    }

    fn operations(&mut self) -> SocketAddr {
        self.address("operations.listen").unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 9443).into())
    }

    fn perimeter(&mut self) -> Perimeter {
        self.choice("perimeter", &[("json", Perimeter::Json), ("strict", Perimeter::Strict)]).unwrap_or_default()
    }

    fn expiry(&mut self) -> Expiry {
        let defaults = Expiry::default();
        Expiry {
            every: self.seconds("expiry.every_seconds", 60..=86_400).unwrap_or(defaults.every),
            notice_days: self.notice_days().unwrap_or(defaults.notice_days),
        }
    }

    fn audit_export(&mut self, fetch_roots: Option<&PathBuf>) -> AuditExport {
        AuditExport {
            file: self.path("audit.export.file.path"),
            syslog: self.syslog_export(fetch_roots),
            otlp: self.otlp_export(fetch_roots),
        }
    }

    fn syslog_export(&mut self, fetch_roots: Option<&PathBuf>) -> Option<SyslogExport> {
        let is_said = self.says_of("audit.export.syslog", "address");
        let address = self.parsed("audit.export.syslog.address", host_and_port);
        let facility =
            self.number("audit.export.syslog.facility", 0..=23).and_then(|facility| facility.try_into().ok());
        let files = self.client_files("audit.export.syslog", fetch_roots);
        let (host, port) = address.filter(|_| is_said)?;
        Some(SyslogExport { host, port, facility: facility.unwrap_or(LOG_AUDIT), files })
    }

    fn otlp_export(&mut self, fetch_roots: Option<&PathBuf>) -> Option<OtlpExport> {
        let is_said = self.says_of("audit.export.otlp", "url");
        let url = self.parsed("audit.export.otlp.url", |text| {
            let problem = "must be an https URL, such as \"https://collector.example:4318/v1/logs\", or an http one of this machine";
            if fetch::is_webhook(text) { Ok(text.to_owned()) } else { Err(problem) }
        });
        let files = self.client_files("audit.export.otlp", fetch_roots);
        Some(OtlpExport { url: url.filter(|_| is_said)?, files })
    }

    /// Whether a table has its main key; having others without it is a mistake.
    fn says_of(&mut self, table: &str, main: &str) -> bool {
        let key = format!("{table}.{main}");
        let is_said = self.settings.contains_key(&key);
        if !is_said && self.settings.keys().any(|other| other.starts_with(&format!("{table}."))) {
            self.mistake(&key, "is missing: without it nothing is sent there");
        }
        is_said
    }

    fn client_files(&mut self, table: &str, fetch_roots: Option<&PathBuf>) -> ClientFiles {
        let names = ["certificate", "key"].map(|name| format!("{table}.{name}"));
        let said = names.each_ref().map(|name| self.settings.contains_key(name));
        for (at, other) in [(0, 1), (1, 0)] {
            if said[other] && !said[at] {
                self.mistake(&names[at], &format!("is missing: {} needs it beside it", names[other]));
            }
        }
        let roots = self.path(&format!("{table}.roots")).or_else(|| fetch_roots.cloned());
        let [certificate, key] = names.map(|name| self.path(&name));
        ClientFiles { roots, identity: certificate.zip(key) }
    }

    fn notice_days(&mut self) -> Option<Vec<u16>> {
        let setting = self.settings.remove("expiry.notice_days")?;
        let days: Option<Vec<u16>> = match &setting.value {
            Value::Array(days) => {
                days.iter().map(|days| days.as_integer().and_then(|days| days.try_into().ok())).collect()
            }
            // Environment variables are text.
            Value::String(text) if setting.from_environment => {
                text.split(',').map(|days| days.trim().parse().ok()).collect()
            }
            _ => None,
        };
        let days = days.filter(|days| !days.is_empty() && days.iter().all(|days| (1..=365).contains(days)));
        if days.is_none() {
            self.mistake(&setting.place, "must be a list of whole numbers from 1 to 365, such as [30, 7, 1]");
        }
        days.map(|mut days| {
            days.sort_unstable();
            days.dedup();
            days
        })
    }

    fn log_filter(&mut self) -> Option<String> {
        self.parsed("log.filter", |text| match tracing_subscriber::EnvFilter::try_new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => Err("must be directives such as \"info\" or \"countersign=debug,warn\""),
        })
    }

    fn mistake(&mut self, place: &str, problem: &str) {
        self.mistakes.push(Mistake { place: place.to_owned(), problem: problem.to_owned() });
    }

    fn text_of(&mut self, setting: Setting) -> Option<String> {
        match setting.value {
            Value::String(text) => Some(text),
            _ => {
                self.mistake(&setting.place, "must be a string");
                None
            }
        }
    }

    fn parsed<T>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, &'static str>) -> Option<T> {
        let setting = self.settings.remove(key)?;
        let place = setting.place.clone();
        let text = self.text_of(setting)?;
        parse(&text).map_err(|problem| self.mistake(&place, problem)).ok()
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let setting = self.settings.remove(key)?;
        let place = setting.place.clone();
        let text = self.text_of(setting)?;
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if chosen.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
            self.mistake(&place, &format!("must be one of {}", names.join(", ")));
        }
        chosen
    }

    fn address(&mut self, key: &str) -> Option<SocketAddr> {
        self.parsed(key, |text| text.parse().map_err(|_| "must be an address with a port, such as \"0.0.0.0:8443\""))
    }

    fn path(&mut self, key: &str) -> Option<PathBuf> {
        let setting = self.settings.remove(key)?;
        let (place, from_environment) = (setting.place.clone(), setting.from_environment);
        let text = self.text_of(setting)?;
        if text.is_empty() {
            self.mistake(&place, "must be a path");
            return None;
        }
        Some(if from_environment { PathBuf::from(text) } else { self.base.join(text) })
    }

    fn number(&mut self, key: &str, range: std::ops::RangeInclusive<usize>) -> Option<usize> {
        let setting = self.settings.remove(key)?;
        let number = match &setting.value {
            Value::Integer(number) => usize::try_from(*number).ok(),
            // Environment variables are text; in the file a number is a number.
            Value::String(text) if setting.from_environment => text.parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let problem = format!("must be a whole number from {} to {}", range.start(), range.end());
            self.mistakes.push(Mistake { place: setting.place, problem });
        }
        number
    }

    fn seconds(&mut self, key: &str, range: std::ops::RangeInclusive<usize>) -> Option<Duration> {
        self.number(key, range).map(|seconds| Duration::from_secs(seconds as u64))
    }

    fn nothing_left(&mut self) {
        for (_, setting) in std::mem::take(&mut self.settings) {
            self.mistakes.push(Mistake { place: setting.place, problem: "is not a known key".to_owned() });
        }
    }
}

/// RFC 5424 §6.2.1, table 1: "log audit".
const LOG_AUDIT: u8 = 13;

/// A host as an issuer may have one, and a port.
fn host_and_port(text: &str) -> Result<(String, u16), &'static str> {
    let problem = "must be a host in lower case with a port, such as \"siem.example:6514\"";
    let read = Issuer::parse(&format!("https://{text}")).map_err(|_| problem)?;
    let port = text.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    match port {
        Some(port) if read.path().is_empty() => Ok((read.host().to_owned(), port)),
        _ => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, ConfigMistakes> {
        Config::read(text, Path::new("/etc/countersign"), [])
    }

    fn mistakes(result: Result<Config, ConfigMistakes>) -> Vec<String> {
        result.unwrap_err().0.into_iter().map(|mistake| mistake.place).collect()
    }

    #[test]
    fn nothing_said_is_a_sandbox_on_localhost() {
        let config = read("").unwrap();
        assert_eq!(config.issuer, Issuer::parse("https://localhost:8443").unwrap());
        assert_eq!((config.issuer.host(), config.issuer.path()), ("localhost", ""));
        assert_eq!(config.environment, Environment::Sandbox);
        assert!(config.listen.ip().is_loopback() && config.operations.ip().is_loopback());
        assert_eq!(config.access_token_lifetime, Duration::from_secs(300));
        assert_eq!(config.store.as_str(), "sqlite:countersign-data/countersign.db");
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn the_embedded_default_keeps_everything_in_its_directory() {
        let config = Config::embedded(Path::new("/var/lib/countersign"));
        assert_eq!(config.store.as_str(), "sqlite:/var/lib/countersign/countersign.db");
        assert!(config.tls.key.starts_with("/var/lib/countersign"));
        assert!(config.keys_directory.starts_with("/var/lib/countersign"));
    }

    #[test]
    fn all_mistakes_are_reported_together() {
        let text = r#"
            issuer = "http://as.example"
            enviroment = "sandbox"
            listen = "localhost"
            access_token_lifetime_seconds = 3601
            perimeter = "loose"
            store = "mysql://db"
            [limits]
            handshake_seconds = "5"
            [public]
            listen = "0.0.0.0:443"
            [tls]
            pem = "x"
        "#;
        assert_eq!(
            mistakes(Config::read(text, Path::new(""), [("COUNTERSIGN_NODE".to_owned(), "a b".to_owned())])),
            [
                "COUNTERSIGN_NODE",
                "access_token_lifetime_seconds",
                "enviroment",
                "issuer",
                "limits.handshake_seconds",
                "listen",
                "perimeter",
                "public.mtls_url",
                "store",
                "tls.pem"
            ]
        );
    }

    #[test]
    fn production_has_to_name_its_issuer_and_certificate() {
        assert_eq!(mistakes(read("environment = \"production\"")), ["issuer", "tls.certificate", "tls.key"]);
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let environment = [
            ("COUNTERSIGN_ISSUER", "https://as.example/tenant"),
            ("COUNTERSIGN_TLS__CERTIFICATE", "chain.pem"),
            ("COUNTERSIGN_LIMITS__BODY_BYTES", "2048"),
            ("COUNTERSIGN_CONFIG", "elsewhere.toml"),
            ("COUNTERSIGN_TEST_POSTGRES", "postgres://x"),
            ("PATH", "/bin"),
        ];
        let config = Config::read(
            "issuer = \"https://other.example\"\n[tls]\ncertificate = \"a.pem\"\nkey = \"b.pem\"",
            Path::new("/etc/countersign"),
            environment.map(|(name, value)| (name.to_owned(), value.to_owned())),
        )
        .unwrap();
        assert_eq!((config.issuer.as_str(), config.issuer.path()), ("https://as.example/tenant", "/tenant"));
        assert_eq!(config.tls.certificate, Path::new("chain.pem"));
        assert_eq!(config.tls.key, Path::new("/etc/countersign/b.pem"));
        assert_eq!(config.limits.body_bytes, 2048);
    }

    #[test]
    fn an_unknown_variable_is_a_mistake() {
        let variable = ("COUNTERSIGN_ISUER".to_owned(), "https://as.example".to_owned());
        assert_eq!(mistakes(Config::read("", Path::new(""), [variable])), ["COUNTERSIGN_ISUER"]);
    }

    #[test]
    fn a_password_is_refused_in_the_file_and_never_printed() {
        let url = "postgres://countersign:s3cret@db.example/registry";
        assert_eq!(mistakes(read(&format!("store = \"{url}\""))), ["store"]);
        let config = Config::read("", Path::new(""), [("COUNTERSIGN_STORE".to_owned(), url.to_owned())]).unwrap();
        assert_eq!(config.store.as_str(), url);
        assert_eq!(config.store.to_string(), "postgres://countersign:…@db.example/registry");
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn the_perimeter_is_json_unless_told() {
        assert_eq!(read("").unwrap().perimeter, Perimeter::Json);
        assert_eq!(read("perimeter = \"strict\"").unwrap().perimeter, Perimeter::Strict);
    }

    #[test]
    fn notices_come_on_the_days_that_are_configured() {
        assert_eq!(read("").unwrap().expiry, Expiry::default());
        let config = read("[expiry]\nevery_seconds = 60\nnotice_days = [7, 90, 7, 1]").unwrap();
        assert_eq!(config.expiry, Expiry { every: Duration::from_secs(60), notice_days: vec![1, 7, 90] });
        let variable = ("COUNTERSIGN_EXPIRY__NOTICE_DAYS".to_owned(), "30, 2".to_owned());
        assert_eq!(Config::read("", Path::new(""), [variable]).unwrap().expiry.notice_days, [2, 30]);
        for bad in ["[]", "[0]", "[366]", "[-1]", "[\"7\"]", "7", "\"7\"", "[70000]"] {
            assert_eq!(mistakes(read(&format!("expiry.notice_days = {bad}"))), ["expiry.notice_days"], "{bad}");
        }
        assert_eq!(mistakes(read("expiry.every_seconds = 59")), ["expiry.every_seconds"]);
        assert!(read("expiry.every_seconds = 86400").is_ok());
    }

    #[test]
    fn the_audit_log_is_sent_nowhere_unless_told() {
        assert_eq!(read("").unwrap().audit_export, AuditExport::default());
        let text = r#"
            [fetch]
            roots = "roots.pem"
            [audit.export.file]
            path = "audit.jsonl"
            [audit.export.syslog]
            address = "[::1]:6514"
            certificate = "siem.pem"
            key = "siem-key.pem"
            [audit.export.otlp]
            url = "https://collector.example:4318/v1/logs"
            roots = "/collector.pem"
        "#;
        let at = |name: &str| Path::new("/etc/countersign").join(name);
        let export = read(text).unwrap().audit_export;
        assert_eq!(export.file, Some(at("audit.jsonl")));
        let files = ClientFiles { roots: Some(at("roots.pem")), identity: Some((at("siem.pem"), at("siem-key.pem"))) };
        let syslog = SyslogExport { host: "::1".to_owned(), port: 6514, facility: 13, files };
        assert_eq!(export.syslog, Some(syslog));
        let files = ClientFiles { roots: Some(at("/collector.pem")), identity: None };
        assert_eq!(export.otlp, Some(OtlpExport { url: "https://collector.example:4318/v1/logs".to_owned(), files }));
        let facility =
            |facility: &str| read(&format!("audit.export.syslog = {{ address = \"a:1\", facility = {facility} }}"));
        assert_eq!(facility("23").unwrap().audit_export.syslog.unwrap().facility, 23);
        assert_eq!(mistakes(facility("24")), ["audit.export.syslog.facility"]);
    }

    #[test]
    fn every_mistake_in_where_the_audit_log_is_sent_has_a_sentence() {
        for (text, place) in [
            ("file.path = \"\"", "file.path"),
            ("file.paht = \"a\"", "file.paht"),
            ("syslog.address = \"siem.example\"", "syslog.address"),
            ("syslog.address = \"siem.example:0\"", "syslog.address"),
            ("syslog.address = \"siem.example:6514/\"", "syslog.address"),
            ("syslog.address = \"siem.example:6514/a\"", "syslog.address"),
            ("syslog.address = \"Siem.example:6514\"", "syslog.address"),
            ("syslog.address = \"::1\"", "syslog.address"),
            ("syslog.facility = 13", "syslog.address"),
            ("syslog = { address = \"a:1\", key = \"k\" }", "syslog.certificate"),
            ("syslog = { address = \"a:1\", certificate = \"c\" }", "syslog.key"),
            ("otlp.url = \"http://collector.example/v1/logs\"", "otlp.url"),
            ("otlp.url = \"https://user@collector.example/\"", "otlp.url"),
            ("otlp.roots = \"r\"", "otlp.url"),
        ] {
            let found = mistakes(read(&format!("audit.export.{text}")));
            assert_eq!(found, [format!("audit.export.{place}")], "{text}");
        }
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        let mistakes = read("issuer = \n").unwrap_err();
        assert_eq!(mistakes.0.len(), 1);
        assert!(mistakes.to_string().contains("line 1"), "{mistakes}");
    }

    #[test]
    fn issuers_that_clients_could_read_in_two_ways_are_refused() {
        for good in [
            "https://as.example",
            "https://as.example:8443/a/b",
            "https://127.0.0.1",
            "https://[::1]:8443",
            "https://localhost",
        ] {
            assert_eq!(Issuer::parse(good).map(|issuer| issuer.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "http://as.example",
            "HTTPS://as.example",
            "https://",
            "https://as.example/",
            "https://as.example?x",
            "https://as.example#x",
            "https://As.example",
            "https://user@as.example",
            "https://as.example:0",
            "https://as.example:65536",
            "https://as.example:",
            "https://as.example:08443",
            "https://as..example",
            "https://-as.example",
            "https://[::1",
            "https://[not-an-address]",
            "https://as.example/a//b",
            "https://as.example/../b",
            "https://as.example/%61",
            "https://as.example ",
        ] {
            assert!(Issuer::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Issuer::parse("https://[::1]:8443").unwrap().host(), "::1");
    }
}
