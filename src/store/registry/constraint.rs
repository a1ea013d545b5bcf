//! The rules that only a transaction can keep.
//!
//! Each function takes a connection, looks, and gives leave or the refusal that says whom to ask. Under the lock of the
//! counter row what it saw holds until the commit; without, it is a hint that saves taking the lock.

use countersign_resource_server::time::UnixTime;
use sqlx::{AnyConnection, Row};

use super::super::registry::document;
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::{Client, ClientState, SubjectRule};
use crate::registry::edit::{ANCHORS_OF_ONE_NAME, EditRefusal, LIVE_CERTIFICATES, RecordKind};
use crate::registry::participant::{Participant, ParticipantState};
use crate::registry::{AnchorId, ClientId, KeyHash, ParticipantId, Record, Sighting, Thumbprint};

/// A record by id; `statement` selects `record, last_seen`.
pub(super) async fn find<R: Record>(
    connection: &mut AnyConnection,
    statement: &'static str,
    id: &str,
) -> Result<Option<R>, EditRefusal> {
    let row = sqlx::query(statement).bind(id).fetch_optional(connection).await?;
    Ok(row.map(|row| R::read(&document(&row, 0, 1)?)).transpose()?)
}

/// How a record of one kind is looked up: among those that are visible, or among all, with those of an import under way. A rule
/// looks at all, whoever changes something at visible ones only.
#[derive(Clone, Copy)]
pub(super) struct Lookup {
    pub(super) visible: &'static str,
    pub(super) all: &'static str,
}

macro_rules! lookup {
    ($table:literal, $key:literal, $last_seen:literal) => {
        Lookup {
            visible: concat!("SELECT record, ", $last_seen, " FROM visible_", $table, " WHERE ", $key, " = $1"),
            all: concat!("SELECT record, ", $last_seen, " FROM ", $table, " WHERE ", $key, " = $1"),
        }
    };
}

pub(super) const PARTICIPANT: Lookup = lookup!("participant", "id", "CAST(-1 AS BIGINT)");
pub(super) const TRUST_ANCHOR: Lookup = lookup!("trust_anchor", "id", "CAST(-1 AS BIGINT)");
pub(super) const CLIENT: Lookup = lookup!("client", "id", "CAST(-1 AS BIGINT)");
pub(super) const CERTIFICATE: Lookup = lookup!("certificate", "thumbprint", "last_seen");
pub(super) const RESOURCE_SERVER: Lookup = lookup!("resource_server", "id", "CAST(-1 AS BIGINT)");
pub(super) const RESOURCE_SERVER_BY_RESOURCE: Lookup = lookup!("resource_server", "resource", "CAST(-1 AS BIGINT)");
pub(super) const ENTITLEMENT: Lookup = lookup!("entitlement", "id", "CAST(-1 AS BIGINT)");

/// One (anchor key, attribute, canonical value) belongs to clients of one participant only: a rule counts under every
/// anchor granted to its client's participant. And an identity is a client's or a resource server's, never both.
pub(super) async fn client_identity(
    connection: &mut AnyConnection,
    participant: &ParticipantId,
    rule: &SubjectRule,
) -> Result<(), EditRefusal> {
    let taken = sqlx::query(
        "SELECT other.id FROM client AS other \
             JOIN anchor_grant AS theirs ON theirs.participant_id = other.participant_id AND theirs.state = 'granted' \
             JOIN anchor_grant AS ours ON ours.anchor_id = theirs.anchor_id AND ours.state = 'granted' \
             JOIN trust_anchor ON trust_anchor.id = ours.anchor_id AND trust_anchor.state = 'active' \
             WHERE other.rule_canonical = $1 AND other.rule_attribute = $2 AND other.state <> 'retired' \
                 AND other.participant_id <> $3 AND ours.participant_id = $3 \
         UNION ALL \
         SELECT id FROM resource_server \
             WHERE rule_canonical = $1 AND rule_attribute = $2 AND state <> 'retired' \
         LIMIT 1",
    )
    .bind(rule.canonical.as_str())
    .bind(rule.attribute.as_str())
    .bind(participant.as_str())
    .fetch_optional(connection)
    .await?;
    free(taken.is_some(), rule.attribute.as_str())
}

/// The same, when an anchor is granted: no client of `participant` may have a name that a client of another participant
/// with this anchor has.
pub(super) async fn identities_under(
    connection: &mut AnyConnection,
    participant: &ParticipantId,
    anchor: &AnchorId,
) -> Result<(), EditRefusal> {
    let taken = sqlx::query(
        "SELECT own.rule_attribute FROM client AS own \
             JOIN client AS other ON other.rule_canonical = own.rule_canonical \
                 AND other.rule_attribute = own.rule_attribute AND other.participant_id <> own.participant_id \
             JOIN anchor_grant AS theirs ON theirs.participant_id = other.participant_id AND theirs.state = 'granted' \
             WHERE own.participant_id = $1 AND own.state <> 'retired' AND other.state <> 'retired' \
                 AND theirs.anchor_id = $2 \
         LIMIT 1",
    )
    .bind(participant.as_str())
    .bind(anchor.as_str())
    .fetch_optional(connection)
    .await?;
    free(taken.is_some(), "of one of its clients")
}

/// A resource server's name is no client's and no other resource server's, whichever anchor vouches for it.
pub(super) async fn resource_server_identity(
    connection: &mut AnyConnection,
    rule: &SubjectRule,
) -> Result<(), EditRefusal> {
    let taken = sqlx::query(
        "SELECT id FROM client WHERE rule_canonical = $1 AND rule_attribute = $2 AND state <> 'retired' \
         UNION ALL \
         SELECT id FROM resource_server WHERE rule_canonical = $1 AND rule_attribute = $2 AND state <> 'retired' \
         LIMIT 1",
    )
    .bind(rule.canonical.as_str())
    .bind(rule.attribute.as_str())
    .fetch_optional(connection)
    .await?;
    free(taken.is_some(), rule.attribute.as_str())
}

const fn free(taken: bool, attribute: &'static str) -> Result<(), EditRefusal> {
    if taken { Err(EditRefusal::IdentityTaken { attribute }) } else { Ok(()) }
}

/// A certificate of one's own: enrolled for nobody else, and nobody's in an import.
pub(super) async fn certificate_free(
    connection: &mut AnyConnection,
    thumbprint: &Thumbprint,
) -> Result<(), EditRefusal> {
    let taken = "SELECT thumbprint FROM certificate WHERE thumbprint = $1 \
                 UNION ALL \
                 SELECT thumbprint FROM resource_server_certificate WHERE thumbprint = $1 LIMIT 1";
    nothing(connection, taken, thumbprint, EditRefusal::CertificateTaken).await
}

async fn nothing(
    connection: &mut AnyConnection,
    statement: &'static str,
    key: &impl ToString,
    refusal: EditRefusal,
) -> Result<(), EditRefusal> {
    let found = sqlx::query(statement).bind(key.to_string()).fetch_optional(connection).await?;
    if found.is_some() { Err(refusal) } else { Ok(()) }
}

/// Whether this key may be used at all. One that an import is about to revoke may not.
pub(super) async fn key_good(connection: &mut AnyConnection, key: &KeyHash) -> Result<(), EditRefusal> {
    let revoked = "SELECT key_hash FROM revoked_key WHERE key_hash = $1";
    nothing(connection, revoked, key, EditRefusal::KeyRevoked).await
}

/// Whether this key was revoked.
pub(super) async fn key_revoked(connection: &mut AnyConnection, key: &KeyHash) -> Result<bool, EditRefusal> {
    let revoked = sqlx::query("SELECT version FROM visible_revoked_key WHERE key_hash = $1")
        .bind(key.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(revoked.is_some())
}

/// Never a second DER under a known issuer key and serial (RFC 5280 §4.1.2.2: serials are unique per issuer). Where
/// either issuer key is not known yet, the same subject key under the same serial counts as the same certificate.
async fn serial_free(
    connection: &mut AnyConnection,
    statement: &'static str,
    thumbprint: &Thumbprint,
    issuer_key: Option<&KeyHash>,
    serial: &str,
    key: &KeyHash,
) -> Result<(), EditRefusal> {
    let taken = sqlx::query(statement)
        .bind(serial)
        .bind(thumbprint.to_string())
        .bind(issuer_key.map(ToString::to_string).unwrap_or_default())
        .bind(key.to_string())
        .fetch_optional(connection)
        .await?;
    if taken.is_some() { Err(EditRefusal::SerialTaken) } else { Ok(()) }
}

macro_rules! serial {
    ($table:literal) => {
        concat!(
            "SELECT thumbprint FROM ",
            $table,
            " WHERE serial = $1 AND thumbprint <> $2 \
                 AND (issuer_key = $3 OR ((issuer_key IS NULL OR $3 = '') AND key_hash = $4)) LIMIT 1"
        )
    };
}

const SERIAL: &str = serial!("certificate");
const VISIBLE_SERIAL: &str = serial!("visible_certificate");

macro_rules! live {
    ($table:literal) => {
        concat!("SELECT COUNT(*) FROM ", $table, " WHERE client_id = $1 AND expires_at > $2 AND live_until > $2")
    };
}

const LIVE: &str = live!("certificate");
const VISIBLE_LIVE: &str = live!("visible_certificate");

/// Everything that must hold before `certificate` is put on record.
pub(super) async fn enrolment(
    connection: &mut AnyConnection,
    certificate: &Certificate,
    now: UnixTime,
) -> Result<(), EditRefusal> {
    certificate_free(connection, &certificate.thumbprint).await?;
    // One that was revoked takes its key along, and may come back with it (docs/registry-import.md).
    if !matches!(certificate.state, CertificateState::Revoked { .. }) {
        key_good(connection, &certificate.key_hash).await?;
    }
    serial_free(
        connection,
        SERIAL,
        &certificate.thumbprint,
        certificate.issuer_key.as_ref(),
        &certificate.serial,
        &certificate.key_hash,
    )
    .await?;
    room(connection, LIVE, certificate, now).await
}

/// The same for one that has just authenticated, which no import stands in the way of: it is for the import to give way
/// (`Writing::overtake`).
async fn enrolment_on_first_use(
    connection: &mut AnyConnection,
    certificate: &Certificate,
    now: UnixTime,
) -> Result<(), EditRefusal> {
    let taken = "SELECT thumbprint FROM visible_certificate WHERE thumbprint = $1 \
                 UNION ALL \
                 SELECT held.thumbprint FROM resource_server_certificate AS held \
                     JOIN visible_resource_server AS holder ON holder.id = held.resource_server_id \
                     WHERE held.thumbprint = $1 LIMIT 1";
    nothing(connection, taken, &certificate.thumbprint, EditRefusal::CertificateTaken).await?;
    if key_revoked(connection, &certificate.key_hash).await? {
        return Err(EditRefusal::KeyRevoked);
    }
    serial_free(
        connection,
        VISIBLE_SERIAL,
        &certificate.thumbprint,
        certificate.issuer_key.as_ref(),
        &certificate.serial,
        &certificate.key_hash,
    )
    .await?;
    room(connection, VISIBLE_LIVE, certificate, now).await
}

/// Whether there is room for it beside those of an import as well.
pub(super) async fn room_with_imports(
    connection: &mut AnyConnection,
    certificate: &Certificate,
    now: UnixTime,
) -> Result<(), EditRefusal> {
    room(connection, LIVE, certificate, now).await
}

async fn room(
    connection: &mut AnyConnection,
    statement: &'static str,
    certificate: &Certificate,
    now: UnixTime,
) -> Result<(), EditRefusal> {
    if certificate.live_until() <= now {
        return Ok(());
    }
    let live: i64 = sqlx::query(statement)
        .bind(certificate.client_id.as_str())
        .bind(now.as_millis())
        .fetch_one(connection)
        .await?
        .try_get(0)?;
    if usize::try_from(live).unwrap_or(usize::MAX) >= LIVE_CERTIFICATES {
        return Err(EditRefusal::CertificateLimit { client: certificate.client_id.clone(), limit: LIVE_CERTIFICATES });
    }
    Ok(())
}

/// The certificate that another one of `client` is to replace: its own, and not at the end of its life already.
pub(super) async fn replaceable(
    connection: &mut AnyConnection,
    client: &ClientId,
    thumbprint: &Thumbprint,
) -> Result<(), EditRefusal> {
    let known: Option<Certificate> = find(connection, CERTIFICATE.visible, &thumbprint.to_string()).await?;
    let Some(known) = known.filter(|known| known.client_id == *client) else {
        return Err(EditRefusal::NothingToReplace { client: client.clone(), thumbprint: *thumbprint });
    };
    match known.state {
        CertificateState::Announced | CertificateState::Active => Ok(()),
        CertificateState::Superseded { .. } | CertificateState::Revoked { .. } => Err(EditRefusal::StateForbids {
            kind: RecordKind::Certificate,
            id: thumbprint.to_string(),
            from: known.state.as_str(),
            to: "superseded",
        }),
    }
}

/// The active certificates of `renewed`'s client that it is newer than: those it takes the place of where the client's
/// policy says so. One that begins later is no predecessor, even where it was seen before.
pub(super) async fn predecessors(
    connection: &mut AnyConnection,
    renewed: &Certificate,
    now: UnixTime,
) -> Result<Vec<Certificate>, EditRefusal> {
    let rows = sqlx::query(
        "SELECT record, last_seen FROM visible_certificate WHERE client_id = $1 AND expires_at > $2 AND state = 'active' \
             AND thumbprint <> $3 ORDER BY thumbprint",
    )
    .bind(renewed.client_id.as_str())
    .bind(now.as_millis())
    .bind(renewed.thumbprint.to_string())
    .fetch_all(connection)
    .await?;
    let mut older = Vec::new();
    for row in &rows {
        let certificate = Certificate::read(&document(row, 0, 1)?)?;
        if certificate.not_before <= renewed.not_before {
            older.push(certificate);
        }
    }
    Ok(older)
}

/// The anchors of one subject name that `participant` has, `anchor` not counted, leave room for one more.
pub(super) async fn anchor_limit(
    connection: &mut AnyConnection,
    participant: &ParticipantId,
    anchor: &AnchorId,
) -> Result<(), EditRefusal> {
    let same_name: i64 = sqlx::query(
        "SELECT COUNT(*) FROM trust_anchor AS new \
             JOIN trust_anchor AS old ON old.subject_hash = new.subject_hash AND old.state = 'active' AND old.id <> new.id \
             JOIN anchor_grant ON anchor_grant.anchor_id = old.id AND anchor_grant.state = 'granted' \
             WHERE new.id = $1 AND anchor_grant.participant_id = $2",
    )
    .bind(anchor.as_str())
    .bind(participant.as_str())
    .fetch_one(connection)
    .await?
    .try_get(0)?;
    if usize::try_from(same_name).unwrap_or(usize::MAX) >= ANCHORS_OF_ONE_NAME {
        return Err(EditRefusal::AnchorLimit { participant: participant.clone(), limit: ANCHORS_OF_ONE_NAME });
    }
    Ok(())
}

/// What a sighting changes: the certificate as it is to be, or nothing.
pub(super) async fn sighting(
    connection: &mut AnyConnection,
    client_id: &ClientId,
    sighting: &Sighting,
    now: UnixTime,
) -> Result<Option<Certificate>, EditRefusal> {
    let not_found = || EditRefusal::NotFound { kind: RecordKind::Client, id: client_id.to_string() };
    let client: Client = find(connection, CLIENT.visible, client_id.as_str()).await?.ok_or_else(not_found)?;
    let participant: Participant =
        find(connection, PARTICIPANT.visible, client.participant_id.as_str()).await?.ok_or_else(not_found)?;
    if client.state != ClientState::Active || participant.state != ParticipantState::Active {
        // Admission refuses, and says why; nobody enrols anything meanwhile.
        return Ok(None);
    }
    let known: Option<Certificate> = find(connection, CERTIFICATE.visible, &sighting.thumbprint.to_string()).await?;
    match known {
        Some(known) if known.client_id != *client_id => Err(EditRefusal::CertificateTaken),
        Some(known) if known.state != CertificateState::Announced => Ok(None),
        Some(known) => {
            if key_revoked(connection, &known.key_hash).await? {
                return Err(EditRefusal::KeyRevoked);
            }
            let issuer_key = sighting.issuer_key.or(known.issuer_key);
            serial_free(
                connection,
                VISIBLE_SERIAL,
                &known.thumbprint,
                issuer_key.as_ref(),
                &known.serial,
                &known.key_hash,
            )
            .await?;
            Ok(Some(Certificate {
                issuer_key,
                anchor: sighting.anchor.clone().or_else(|| known.anchor.clone()),
                issuers: sighting.issuers.clone(),
                state: CertificateState::Active,
                first_seen: Some(now),
                last_seen: Some(now),
                ..known
            }))
        }
        None if !client.enrols_on_first_use() => Err(EditRefusal::EnrolmentRequired { client: client_id.clone() }),
        None => {
            let certificate = sighting.enrolled(client_id.clone(), now);
            enrolment_on_first_use(connection, &certificate, now).await?;
            Ok(Some(certificate))
        }
    }
}
