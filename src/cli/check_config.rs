//! `countersign check-config`: would the server start with this?

use countersign_resource_server::time::{Clock, SystemClock};
use serde_json::json;

use super::output::Output;
use super::session::Failure;
use crate::app;
use crate::config::{Config, ConfigMistakes, Mistake};
use crate::mint::key_encryption::EncryptionKeySource;
use crate::tls::{ClientFiles, ServerCertificate, ServerCertificateError};

/// Says what the configuration amounts to, or fails with every mistake in it. The server's certificate is looked at too,
/// wherever the rest leaves its place readable.
pub(super) fn run(config: Result<Config, ConfigMistakes>, output: Output) -> Result<(), Failure> {
    match check(config) {
        Ok(config) => output.done(
            &format!(
                "The configuration is good: {} ({}) on {}, store {}.",
                config.issuer,
                config.environment.as_str(),
                config.listen,
                config.store
            ),
            &json!({
                "issuer": config.issuer.as_str(),
                "environment": config.environment.as_str(),
                "listen": config.listen.to_string(),
                "store": config.store.to_string(),
                "mistakes": [],
            }),
        ),
        Err(mistakes) => {
            if output == Output::Json {
                let mistakes: Vec<_> = mistakes
                    .0
                    .iter()
                    .map(|mistake| json!({ "place": mistake.place, "problem": mistake.problem }))
                    .collect();
                output.done("", &json!({ "mistakes": mistakes }))?;
            }
            Err(mistakes.into())
        }
    }
}

fn check(config: Result<Config, ConfigMistakes>) -> Result<Config, ConfigMistakes> {
    let config = config?;
    let mut mistakes = Vec::new();
    let mut mistake = |place: &str, problem: String| mistakes.push(Mistake { place: place.to_owned(), problem });
    if let Err(error) = ServerCertificate::load(config.tls.clone(), config.host_names(), SystemClock::new().now()) {
        let place = match error {
            ServerCertificateError::Missing { key, .. } => key,
            ServerCertificateError::MalformedKey(_) => "tls.key",
            _ => "tls.certificate",
        };
        mistake(place, error.to_string());
    }
    if let Err(error) = app::fetcher(&config) {
        mistake("fetch.roots", error.to_string());
    }
    if let Some(Err(error)) = config.key_encryption_key.as_ref().map(EncryptionKeySource::read) {
        mistake("key_encryption_key", error.to_string());
    }
    let export = &config.audit_export;
    let places = [
        ("audit.export.syslog", export.syslog.as_ref().map(|syslog| &syslog.files)),
        ("audit.export.otlp", export.otlp.as_ref().map(|otlp| &otlp.files)),
    ];
    for (place, files) in places {
        if let Some(Err(error)) = files.map(ClientFiles::read) {
            mistake(place, error.to_string());
        }
    }
    if let Some(file) = &export.file
        && !file.parent().is_some_and(|directory| directory.as_os_str().is_empty() || directory.is_dir())
    {
        mistake("audit.export.file.path", format!("{} cannot be made: its directory is not there", file.display()));
    }
    if mistakes.is_empty() { Ok(config) } else { Err(ConfigMistakes(mistakes)) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{AuditExport, OtlpExport, SyslogExport};
    use crate::mint::key_encryption::{Existing, make_encryption_key};

    #[test]
    fn files_of_places_where_the_audit_log_is_sent_are_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let roots = directory.path().join("roots.pem");
        std::fs::write(&roots, "no certificate").unwrap();
        let files = ClientFiles { roots: Some(roots), identity: None };
        let missing = ClientFiles { roots: Some(directory.path().join("nowhere.pem")), identity: None };
        let audit_export = AuditExport {
            file: Some(directory.path().join("nowhere/audit.jsonl")),
            syslog: Some(SyslogExport { host: "siem.example".to_owned(), port: 6514, facility: 13, files }),
            otlp: Some(OtlpExport { url: "https://collector.example/".to_owned(), files: missing }),
        };
        let config = Config { audit_export, ..Config::embedded(directory.path()) };
        let places: Vec<String> = check(Ok(config)).unwrap_err().0.into_iter().map(|mistake| mistake.place).collect();
        assert_eq!(places, ["tls.certificate", "audit.export.syslog", "audit.export.otlp", "audit.export.file.path"]);
    }

    #[test]
    fn a_key_encryption_key_that_others_may_read_is_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kek");
        make_encryption_key(&path, Existing::Refuse).unwrap();
        let places = || {
            let key_encryption_key = Some(EncryptionKeySource::File(path.clone()));
            let config = Config { key_encryption_key, ..Config::embedded(directory.path()) };
            let mistakes = check(Ok(config)).unwrap_err();
            mistakes.0.into_iter().map(|mistake| mistake.place).collect::<Vec<_>>()
        };
        assert_eq!(places(), ["tls.certificate"]);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(places(), ["tls.certificate", "key_encryption_key"]);
    }

    #[test]
    fn authorities_that_cannot_be_read_are_a_mistake() {
        let directory = tempfile::tempdir().unwrap();
        let places = || {
            let roots = directory.path().join("roots.pem");
            let config = Config { fetch_roots: Some(roots), ..Config::embedded(directory.path()) };
            let mistakes = check(Ok(config)).unwrap_err();
            mistakes.0.into_iter().map(|mistake| mistake.place).collect::<Vec<_>>()
        };
        assert_eq!(places(), ["tls.certificate", "fetch.roots"], "no such file");
        std::fs::write(directory.path().join("roots.pem"), "no certificate").unwrap();
        assert_eq!(places(), ["tls.certificate", "fetch.roots"]);
    }
}
