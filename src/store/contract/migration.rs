//! What becomes of a database that an earlier release has filled.

use super::*;
use crate::registry::certificate::Certificate;
use crate::registry::participant::Participant;
use crate::registry::trust_anchor::TrustAnchor;
use crate::store::schema::{Migrations, migrator};

contract!(what_an_earlier_release_wrote_is_read_after_the_migration, a_migration_that_fails_can_be_done_again,);

/// As they were released first.
const SQLITE: Migrations = &[
    (1, "registry", include_str!("../../../migrations/sqlite/0001_registry.sql")),
    (2, "audit", include_str!("../../../migrations/sqlite/0002_audit.sql")),
];
const POSTGRES: Migrations = &[
    (1, "registry", include_str!("../../../migrations/postgres/0001_registry.sql")),
    (2, "audit", include_str!("../../../migrations/postgres/0002_audit.sql")),
];

/// Everything in the schema of the test, and nothing else.
const START_AFRESH: &str = "\
    DO $$ DECLARE own text := quote_ident(current_schema()); \
    BEGIN EXECUTE 'DROP SCHEMA ' || own || ' CASCADE'; EXECUTE 'CREATE SCHEMA ' || own; END $$";

/// Records as they were written then: participant, anchor, grant, client, API, entitlement.
const RECORDS: &[&str] = &[
    r#"INSERT INTO participant (id, state, record) VALUES ('acme', 'active', '{"id":"acme","legal_name":"Acme AG",
        "registration_number":"HRB 1","country":"DE","roles":["supplier"],
        "contacts":{"technical":"ops@acme.example","business":null,"security":null},"state":"active"}')"#,
    r#"INSERT INTO trust_anchor (id, owner_participant_id, subject_hash, state, record) VALUES ('ca', NULL, 'hash', 'active',
        '{"id":"ca","certificate_der":"Y2E=","subject":"CN=ca","owner":"operator","eku_policy":"required",
        "unknown_revocation":"accept","state":"active"}')"#,
    r#"INSERT INTO anchor_grant (participant_id, anchor_id, state, record) VALUES ('acme', 'ca', 'granted',
        '{"participant_id":"acme","anchor_id":"ca",
        "name_space":{"any":true,"dn_suffixes":[],"dns_suffixes":[],"uri_prefixes":[]}}')"#,
    r#"INSERT INTO client (id, participant_id, rule_attribute, rule_canonical, state, record) VALUES ('acme-1', 'acme',
        'tls_client_auth_san_dns', 'acme-1.example', 'active', '{"id":"acme-1","participant_id":"acme",
        "environment":"production","contact":null,"authentication":{"token_endpoint_auth_method":"tls_client_auth",
        "subject":{"attribute":"tls_client_auth_san_dns","value":"acme-1.example","canonical":"acme-1.example"}},
        "access_token_signing_alg":"ES256","access_token_lifetime_seconds":null,"enrolment":"on_first_use",
        "software_id":null,"state":"active"}')"#,
    r#"INSERT INTO resource_server (id, resource, state, record) VALUES ('api', 'https://api.example/', 'active',
        '{"id":"api","resource":"https://api.example/","scopes":"read write","owner":null,
        "access_token_lifetime_seconds":null,"subject":null,"certificate":null,"state":"active"}')"#,
    r#"INSERT INTO entitlement (id, client_id, resource_server_id, record) VALUES ('e1', 'acme-1', 'api',
        '{"id":"e1","client_id":"acme-1","resource_server_id":"api","scopes":"read","starts_at":1799996400000,
        "ends_at":null,"reason":"contract 17","ended_at":null}')"#,
    "INSERT INTO audit_record (writer, sequence, at, body) VALUES ('node-1#1', 1, 1800000000000, '{}')",
];

/// A database of its own in the first schema, with records in it: two certificates, one seen and one announced.
struct Before {
    url: String,
    connection: Connected,
}

enum Connected {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Before {
    async fn filled(bench: &Bench) -> Self {
        let mut before = match &bench.store.engine {
            Engine::Sqlite { path, .. } => {
                let url = format!("sqlite:{}", path.with_file_name("before.db").display());
                let mut connection = SqliteConnection::connect(&format!("{url}?mode=rwc")).await.unwrap();
                migrator(SQLITE).run_direct(None, &mut connection, false).await.unwrap();
                Self { url, connection: Connected::Sqlite(connection) }
            }
            Engine::Postgres { .. } => {
                bench.run(START_AFRESH).await;
                let mut connection = PgConnection::connect(&bench.url).await.unwrap();
                migrator(POSTGRES).run_direct(None, &mut connection, false).await.unwrap();
                Self { url: bench.url.clone(), connection: Connected::Postgres(connection) }
            }
        };
        for statement in RECORDS {
            before.run((*statement).to_owned()).await;
        }
        before.certificate(1, "active", Some("ca"), Some(NOW)).await;
        before.certificate(2, "announced", None, None).await;
        before
    }

    async fn run(&mut self, statement: String) {
        let statement = sqlx::AssertSqlSafe(statement);
        match &mut self.connection {
            Connected::Sqlite(connection) => drop(connection.execute(statement).await.unwrap()),
            Connected::Postgres(connection) => drop(connection.execute(statement).await.unwrap()),
        }
    }

    async fn certificate(&mut self, number: u32, state: &str, anchor: Option<&str>, seen: Option<UnixTime>) {
        let facts = facts(number);
        let seen = seen.map(UnixTime::as_millis);
        let record = serde_json::json!({
            "thumbprint": facts.thumbprint, "client_id": "acme-1", "key_hash": facts.key_hash,
            "issuer_key": facts.issuer_key, "serial": facts.serial, "subject": facts.subject,
            "subject_alt_names": facts.subject_alt_names, "not_before": facts.not_before, "not_after": facts.not_after,
            "anchor": anchor, "state": { "state": state }, "first_seen": seen, "last_seen": seen,
        });
        let expires_at = facts.not_after.as_millis() + 1_000;
        self.run(format!(
            "INSERT INTO certificate \
                 (thumbprint, client_id, key_hash, issuer_key, serial, state, expires_at, live_until, last_seen, record) \
             VALUES ('{}', 'acme-1', '{}', '{}', '{}', '{state}', {expires_at}, {expires_at}, {}, '{record}')",
            facts.thumbprint,
            facts.key_hash,
            facts.issuer_key.unwrap(),
            facts.serial,
            seen.unwrap_or(-1),
        ))
        .await;
    }

    async fn opened(&self, migrate: Migrate) -> Result<Store, OpenError> {
        open(&self.url, migrate).await
    }
}

async fn what_an_earlier_release_wrote_is_read_after_the_migration(bench: &Bench) {
    let before = Before::filled(bench).await;
    let refused = before.opened(Migrate::Check).await.map(drop);
    assert!(matches!(refused, Err(OpenError::SchemaOlder { found: 2, .. })), "{refused:?}");
    let store = before.opened(Migrate::Apply).await.unwrap();
    let registry = Registry::new(Arc::new(store), MemorySize::default(), "node-1").await.unwrap();

    let found = registry.client(&client_id("acme-1")).await.unwrap();
    let record = &found.record;
    assert_eq!(record.client, client("acme-1", "acme"));
    let known: Participant = registry.participant(&participant_id("acme")).await.unwrap().unwrap();
    assert_eq!((known.contacts.technical.as_deref(), known.contacts.webhook), (Some("ops@acme.example"), None));
    let known: TrustAnchor = registry.anchor(&anchor_id("ca")).await.unwrap().unwrap();
    assert_eq!(known, anchor("ca"));
    assert_eq!((record.anchors.len(), record.entitlements.len()), (1, 1));

    let announced = Certificate { announced_at: None, ..facts(2).announced(client_id("acme-1"), NOW) };
    let seen = sighting(1, "ca").enrolled(client_id("acme-1"), NOW);
    for certificate in [&seen, &announced] {
        assert_eq!(registry.certificate(&certificate.thumbprint).await.unwrap().as_ref(), Some(certificate));
    }
    let under = registry.certificates_under(&anchor_id("ca"), Page::first(3)).await.unwrap();
    assert_eq!(under, [seen], "migration 3 knows the anchor of what was seen");

    // What is announced is seen in the end, as if the record were new.
    registry.sighted(&found, &sighting(2, "ca"), NOW).await.unwrap();
    let under = registry.certificates_under(&anchor_id("ca"), Page::first(3)).await.unwrap();
    assert_eq!(under.len(), 2);
    before.opened(Migrate::Check).await.unwrap();
}

async fn a_migration_that_fails_can_be_done_again(bench: &Bench) {
    let mut before = Before::filled(bench).await;
    // Something in the way of the last one.
    before.run("CREATE TABLE notice (id TEXT)".to_owned()).await;
    let refused = before.opened(Migrate::Apply).await.map(drop);
    assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{refused:?}");
    let refused = before.opened(Migrate::Check).await.map(drop);
    assert!(matches!(refused, Err(OpenError::SchemaOlder { .. })), "{refused:?}");
    before.run("DROP TABLE notice".to_owned()).await;
    let store = before.opened(Migrate::Apply).await.unwrap();
    let registry = Registry::new(Arc::new(store), MemorySize::default(), "node-1").await.unwrap();
    assert_eq!(registry.certificates_under(&anchor_id("ca"), Page::first(3)).await.unwrap().len(), 1);
}
