//! Settings by dotted key, from the file and the environment, turned into a [`Config`].
//!
//! Takes what was written, gives values of the right types and every mistake with its place. It knows which keys there are.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

use super::{
    AuditExport, Config, Expiry, Issuer, Limits, Log, LogFormat, Mistake, NodeName, OtlpExport, Perimeter, PublicFace,
    StoreUrl, SyslogExport, TlsFiles,
};
use crate::fetch;
use crate::mint::key_encryption::{EncryptionKeySource, EncryptionKeys};
use crate::registry::client::Environment;
use crate::tls::ClientFiles;

/// Settings by dotted key, taken out one by one; what is left at the end is unknown.
#[derive(Default)]
pub(super) struct Reader {
    base: PathBuf,
    data_directory: Option<PathBuf>,
    settings: BTreeMap<String, Setting>,
    pub(super) mistakes: Vec<Mistake>,
}

struct Setting {
    /// As the operator wrote it: `tls.key` or `COUNTERSIGN_TLS__KEY`.
    place: String,
    from_environment: bool,
    value: Value,
}

/// Variables with our prefix that are not keys of the file: command-line options, and what tests are steered by.
const OTHER_VARIABLES: [&str; 2] = ["COUNTERSIGN_CONFIG", "COUNTERSIGN_OPERATOR"];
const TEST_VARIABLES: &str = "COUNTERSIGN_TEST_";

impl Reader {
    /// Of a file whose relative paths start at `base`.
    pub(super) fn at(base: &Path) -> Self {
        Self { base: base.to_owned(), ..Self::default() }
    }

    /// Of nothing but defaults, in this directory.
    pub(super) fn keeping_all_in(data_directory: &Path) -> Self {
        Self { data_directory: Some(data_directory.to_owned()), ..Self::default() }
    }

    pub(super) fn take_file(&mut self, prefix: &str, table: Table) {
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

    pub(super) fn take_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) {
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

    pub(super) fn config(&mut self) -> Config {
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
        let require_synchronous = self.require_synchronous(&store);
        let defaults = Limits::default();
        let fetch_roots = self.path("fetch.roots");
        Config {
            environment,
            node: self.parsed("node", NodeName::parse).unwrap_or_else(|| NodeName("node-1".to_owned())),
            store,
            require_synchronous,
            keys_directory: self.path("keys_directory").unwrap_or_else(|| data_directory.join("keys")),
            key_encryption_key: self.key_encryption_key(),
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
                handshakes: self.number("limits.handshakes", 1..=1_000_000).unwrap_or(defaults.handshakes),
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
                requests_per_address: self.rate("limits.requests_per_address").unwrap_or(defaults.requests_per_address),
                requests_per_certificate: self
                    .rate("limits.requests_per_certificate")
                    .unwrap_or(defaults.requests_per_certificate),
                requests_per_client: self.rate("limits.requests_per_client").unwrap_or(defaults.requests_per_client),
                requests_per_resource_server: self
                    .rate("limits.requests_per_resource_server")
                    .unwrap_or(defaults.requests_per_resource_server),
                http2_streams: self
                    .number("limits.http2_streams", 1..=10_000)
                    .and_then(|streams| u32::try_from(streams).ok())
                    .unwrap_or(defaults.http2_streams),
                http2_local_resets: self
                    .number("limits.http2_local_resets", 1..=1_000_000)
                    .unwrap_or(defaults.http2_local_resets),
                http2_resets: self.rate("limits.http2_resets").unwrap_or(defaults.http2_resets),
                http2_frames: self.rate("limits.http2_frames").unwrap_or(defaults.http2_frames),
                http2_body_bytes: self
                    .number("limits.http2_body_bytes", 16_384..=16_777_216)
                    .unwrap_or(defaults.http2_body_bytes),
                certificate_checks_per_address: self
                    .number("limits.certificate_checks_per_address", 1..=1_000_000)
                    .and_then(|checks| u32::try_from(checks).ok())
                    .unwrap_or(defaults.certificate_checks_per_address),
                certificate_checks_per_certificate: self
                    .number("limits.certificate_checks_per_certificate", 1..=1_000_000)
                    .and_then(|checks| u32::try_from(checks).ok())
                    .unwrap_or(defaults.certificate_checks_per_certificate),
            },
            workers: self.number("workers", 1..=1024).unwrap_or_else(|| {
                Config::workers_beside(std::thread::available_parallelism().map_or(1, NonZero::get))
            }),
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

    fn key_encryption_key(&mut self) -> Option<EncryptionKeySource> {
        const VALUE: &str = "key_encryption_key_value";
        if let Some(setting) = self.settings.get(VALUE).filter(|setting| !setting.from_environment) {
            let place = setting.place.clone();
            self.settings.remove(VALUE);
            self.mistake(
                &place,
                "is a secret: give the path of a file as key_encryption_key, or COUNTERSIGN_KEY_ENCRYPTION_KEY_VALUE",
            );
            return None;
        }
        if self.settings.contains_key("key_encryption_key") && self.settings.contains_key(VALUE) {
            self.mistake("key_encryption_key", "is said twice: COUNTERSIGN_KEY_ENCRYPTION_KEY_VALUE is there as well");
        }
        let value = self.parsed(VALUE, EncryptionKeys::parse).map(EncryptionKeySource::Value);
        self.path("key_encryption_key").map(EncryptionKeySource::File).or(value)
    }

    fn require_synchronous(&mut self, store: &StoreUrl) -> bool {
        let required = self.flag("require_synchronous").unwrap_or_default();
        if required && store.as_str().starts_with("sqlite:") {
            self.mistake(
                "require_synchronous",
                "cannot be true with SQLite, which has no standby: see docs/postgresql.md",
            );
        }
        required
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

    fn flag(&mut self, key: &str) -> Option<bool> {
        let setting = self.settings.remove(key)?;
        let flag = match &setting.value {
            Value::Boolean(flag) => Some(*flag),
            Value::String(text) if setting.from_environment => text.parse().ok(),
            _ => None,
        };
        if flag.is_none() {
            self.mistakes.push(Mistake { place: setting.place, problem: "must be true or false".to_owned() });
        }
        flag
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

    /// So many a second.
    fn rate(&mut self, key: &str) -> Option<u32> {
        self.number(key, 1..=1_000_000).and_then(|rate| u32::try_from(rate).ok())
    }

    fn seconds(&mut self, key: &str, range: std::ops::RangeInclusive<usize>) -> Option<Duration> {
        self.number(key, range).map(|seconds| Duration::from_secs(seconds as u64))
    }

    pub(super) fn nothing_left(&mut self) {
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
