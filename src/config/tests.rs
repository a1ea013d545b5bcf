//! What is read, and what is a mistake.

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
fn the_published_limits_are_these() {
    const PUBLISHED: &str = include_str!("../../docs/limits.md");
    let Limits {
        connections,
        connections_per_address,
        handshakes,
        handshake,
        first_byte,
        request_head,
        request_head_bytes,
        body,
        body_bytes,
        idle,
        write,
        requests,
        requests_per_address,
        requests_per_certificate,
        requests_per_client,
        requests_per_resource_server,
        http2_streams,
        http2_local_resets,
        http2_resets,
        http2_frames,
        http2_body_bytes,
        certificate_checks_per_address,
        certificate_checks_per_certificate,
    } = Limits::default();
    let rows = [
        ("connections", connections.to_string()),
        ("connections_per_address", connections_per_address.to_string()),
        ("handshakes", handshakes.to_string()),
        ("handshake_seconds", handshake.as_secs().to_string()),
        ("first_byte_seconds", first_byte.as_secs().to_string()),
        ("request_head_seconds", request_head.as_secs().to_string()),
        ("request_head_bytes", request_head_bytes.to_string()),
        ("body_seconds", body.as_secs().to_string()),
        ("body_bytes", body_bytes.to_string()),
        ("idle_seconds", idle.as_secs().to_string()),
        ("write_seconds", write.as_secs().to_string()),
        ("requests", requests.to_string()),
        ("requests_per_address", requests_per_address.to_string()),
        ("requests_per_certificate", requests_per_certificate.to_string()),
        ("requests_per_client", requests_per_client.to_string()),
        ("requests_per_resource_server", requests_per_resource_server.to_string()),
        ("http2_streams", http2_streams.to_string()),
        ("http2_local_resets", http2_local_resets.to_string()),
        ("http2_resets", http2_resets.to_string()),
        ("http2_frames", http2_frames.to_string()),
        ("http2_body_bytes", http2_body_bytes.to_string()),
        ("certificate_checks_per_address", certificate_checks_per_address.to_string()),
        ("certificate_checks_per_certificate", certificate_checks_per_certificate.to_string()),
    ];
    let published: Vec<&str> = PUBLISHED.lines().filter(|line| line.starts_with("| `limits.")).collect();
    assert_eq!(published.len(), rows.len());
    for ((key, default), row) in rows.iter().zip(published) {
        assert!(row.starts_with(&format!("| `limits.{key}` | {default} | ")), "{key} is {default}: {row}");
    }
}

#[test]
fn a_core_is_left_to_the_store_and_at_least_one_thread_answers() {
    assert_eq!([0, 1, 2, 3, 4, 64].map(Config::workers_beside), [1, 1, 1, 2, 3, 63]);
    assert_eq!(read("workers = 7").unwrap().workers, 7);
    assert_eq!(mistakes(read("workers = 0")), ["workers"]);
}

#[test]
fn a_rate_is_a_number_of_requests_a_second() {
    let keys = ["address", "certificate", "client", "resource_server"].map(|of| format!("requests_per_{of}"));
    let limits =
        |value: &str| read(&format!("[limits]\n{}", keys.each_ref().map(|key| format!("{key} = {value}\n")).concat()));
    for (value, rate) in [("1", 1), ("1000000", 1_000_000)] {
        let limits = limits(value).unwrap().limits;
        let rates = [
            limits.requests_per_address,
            limits.requests_per_certificate,
            limits.requests_per_client,
            limits.requests_per_resource_server,
        ];
        assert_eq!(rates, [rate; 4]);
    }
    for wrong in ["0", "1000001", "-1", "2.5", "\"100\""] {
        assert_eq!(mistakes(limits(wrong)), keys.each_ref().map(|key| format!("limits.{key}")), "{wrong}");
    }
    let said = [("COUNTERSIGN_LIMITS__REQUESTS_PER_CLIENT".to_owned(), "100".to_owned())];
    assert_eq!(Config::read("", Path::new(""), said).unwrap().limits.requests_per_client, 100);
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
fn a_key_encryption_key_is_a_path_or_comes_from_the_environment() {
    const SECRET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let variable = |value: &str| [("COUNTERSIGN_KEY_ENCRYPTION_KEY_VALUE".to_owned(), value.to_owned())];
    assert!(read("").unwrap().key_encryption_key.is_none());
    let config = read("key_encryption_key = \"kek\"").unwrap();
    let Some(EncryptionKeySource::File(path)) = config.key_encryption_key else { panic!("{config:?}") };
    assert_eq!(path, Path::new("/etc/countersign/kek"));
    let config = Config::read("", Path::new(""), variable(SECRET)).unwrap();
    assert!(matches!(config.key_encryption_key, Some(EncryptionKeySource::Value(_))));
    assert!(!format!("{config:?}").contains(&SECRET[..8]));

    let in_the_file = read(&format!("key_encryption_key_value = \"{SECRET}\"")).unwrap_err();
    assert_eq!(in_the_file.0[0].place, "key_encryption_key_value");
    assert!(!in_the_file.to_string().contains(SECRET), "{in_the_file}");
    let short = Config::read("", Path::new(""), variable(&SECRET[4..])).unwrap_err();
    assert!(short.to_string().contains("32 octets") && !short.to_string().contains(&SECRET[4..]), "{short}");
    let twice = Config::read("key_encryption_key = \"kek\"", Path::new(""), variable(SECRET));
    assert_eq!(mistakes(twice), ["key_encryption_key"]);
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
