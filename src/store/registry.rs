//! The registry's storage, in SQL that both engines accept.
//!
//! Reads a client's whole record with one statement, so that it is one snapshot and one round trip; makes each change in
//! one transaction that begins by taking the next version from the one counter row. That row's lock puts changes in
//! order: whoever holds it sees everything before it, so a rule checked under it holds at commit.

mod constraint;

mod edit;

mod import;

mod export;

use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::status::MarkKind;
use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};

use self::edit::Writing;
use super::backup::served_from;
use super::{Engine, Store, Turn, in_time, postgres, sqlite};
use crate::registry::certificate::Certificate;
use crate::registry::client::{Client, Enrolment, SubjectAttribute};
use crate::registry::edit::{Applied, Edit, EditRefusal};
use crate::registry::history::{Change, Explanation, HistoryEntry, Touched};
use crate::registry::resource_server::Asker;
use crate::registry::store::{Answer, Document, Head, Origin, Past, RegistryStore, Since, StoreUnavailable, Watch};
use crate::registry::trust_anchor::{AnchorGrant, TrustAnchor};
use crate::registry::{
    AnchorId, AnchorSetId, ClientId, ClientRecord, GrantedAnchor, GrantedEntitlement, KeyHash, Mark, Page, Record,
    RegistryVersion, RevocationState, Selection, Sighting, Thumbprint,
};

/// How often an operator's change that finds another process writing to SQLite tries, each time for a second.
const CHANGE_TRIES: usize = 10;

/// How often what a request waits for tries.
const REQUEST_TRIES: usize = 1;

/// How long an answer is waited for: shorter than the 2 s after which a request is refused. The engines' own time-outs
/// are shorter still, but do not hold where the network has gone.
const PATIENCE: Duration = Duration::from_millis(1_900);

/// For how many versions it is kept what each touched: several times as far back as a node can check what it remembers.
/// Whoever asks for more is not told that nothing happened; the history has everything.
pub(super) const CHANGES_KEPT: i64 = 65_536;

/// A mark outlives every token it can concern: the longest life of a token, and the leeway of those who read it.
pub(super) const MARK_LIFETIME: Duration = Duration::from_secs(3_600 + MARK_LEEWAY.as_secs());

/// How much longer than a token lives somebody may take it for, by a clock and a leeway of their own.
pub(super) const MARK_LEEWAY: Duration = Duration::from_secs(60);

/// How far clocks may be apart without being taken for broken: a calendar may be wrong, by hours rather than days.
pub(super) const CLOCKS_APART: Duration = Duration::from_secs(86_400);

impl RegistryStore for Store {
    fn head(&self) -> Answer<'_, Head> {
        in_time(PATIENCE, async move {
            let row = sqlx::query("SELECT epoch, server, version FROM registry_head").fetch_one(&self.readers).await?;
            let past = Past { epoch: row.try_get(0)?, server: row.try_get(1)? };
            Ok(Head { past, version: RegistryVersion(row.try_get(2)?) })
        })
    }

    fn client_record<'a>(&'a self, client: &'a ClientId) -> Answer<'a, (Head, Option<ClientRecord>)> {
        in_time(PATIENCE, async move {
            let rows = sqlx::query(CLIENT_RECORD).bind(client.as_str()).fetch_all(&self.readers).await?;
            assemble(&rows)
        })
    }

    fn changes_since(&self, version: RegistryVersion, reach: u32) -> Answer<'_, Since> {
        in_time(PATIENCE, async move {
            let rows = sqlx::query(
                "SELECT CAST(0 AS BIGINT) AS part, version, CAST(epoch AS TEXT) AS kind, CAST(server AS TEXT) AS id \
                 FROM registry_head \
                 UNION ALL \
                 SELECT CAST(1 AS BIGINT), version, \
                     COALESCE((SELECT CAST(at AS TEXT) || ' ' || action || ' ' || subject FROM history \
                               WHERE history.version = $1 ORDER BY step LIMIT 1), ''), \
                     COALESCE((SELECT CAST(at AS TEXT) || ' ' || action || ' ' || subject FROM history \
                               WHERE history.version = registry_state.version ORDER BY step LIMIT 1), '') \
                 FROM registry_state \
                 UNION ALL \
                 SELECT CAST(2 AS BIGINT), version, kind, id FROM registry_change WHERE version > $1 AND version <= $2 \
                 ORDER BY 1, 2, 3, 4",
            )
            .bind(version.0)
            .bind(version.0.saturating_add(reach.into()))
            .fetch_all(&self.readers)
            .await?;
            let mut rows = rows.iter();
            let head = match rows.next() {
                Some(row) => head_of(row)?,
                None => return Err(no_counter()),
            };
            let (since, newest) = match rows.next() {
                Some(row) => (Origin(row.try_get(2)?), Origin(row.try_get(3)?)),
                None => return Err(no_counter()),
            };
            let changes = rows.map(change).collect::<Result<_, _>>()?;
            Ok(Since { head, since, newest, changes })
        })
    }

    fn apply(&self, edit: Edit, explanation: Explanation) -> BoxFuture<'_, Result<Applied, EditRefusal>> {
        async move {
            let (turn, transaction) = self.begin_registry_write(CHANGE_TRIES).await?;
            let mut writing = Writing::begin(transaction, explanation).await?;
            writing.edit(edit).await?;
            let applied = writing.commit(&self.engine).await?;
            drop(turn);
            Ok(applied)
        }
        .boxed()
    }

    fn sighted<'a>(
        &'a self,
        client: &'a ClientId,
        sighting: &'a Sighting,
        explanation: Explanation,
    ) -> BoxFuture<'a, Result<Applied, EditRefusal>> {
        // A request waits for it, perhaps behind many others on SQLite. Given up midway it leaves nothing.
        in_time(PATIENCE, async move {
            // Read first: a certificate that will be refused again and again takes no lock.
            if self.judge_sighting(client, sighting, explanation.at).await?.is_none() {
                return Ok(Applied::default());
            }
            let (turn, transaction) = self.begin_registry_write(REQUEST_TRIES).await?;
            let mut writing = Writing::begin(transaction, explanation).await?;
            let applied = if writing.sighting(client, sighting).await? {
                writing.commit(&self.engine).await?
            } else {
                Applied::default()
            };
            drop(turn);
            Ok(applied)
        })
    }

    fn would_be_sighted<'a>(
        &'a self,
        client: &'a ClientId,
        sighting: &'a Sighting,
        now: UnixTime,
    ) -> BoxFuture<'a, Result<Option<Certificate>, EditRefusal>> {
        in_time(PATIENCE, self.judge_sighting(client, sighting, now))
    }

    fn touch_last_seen(&self, seen: Vec<(Thumbprint, UnixTime)>) -> Answer<'_, ()> {
        in_time(PATIENCE, async move {
            let (turn, mut transaction) = self.begin_registry_write(REQUEST_TRIES).await?;
            // No new version, but its lock: whoever holds certificates of several clients has come by this row, so that
            // no two wait for each other.
            sqlx::query("UPDATE registry_state SET version = version").execute(&mut *transaction).await?;
            for (thumbprint, at) in seen {
                sqlx::query("UPDATE certificate SET last_seen = $2 WHERE thumbprint = $1 AND last_seen < $2")
                    .bind(thumbprint.to_string())
                    .bind(at.as_millis())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await?;
            drop(turn);
            Ok(())
        })
    }

    fn knows<'a>(&'a self, thumbprint: &'a Thumbprint, names: &'a [(SubjectAttribute, String)]) -> Answer<'a, bool> {
        in_time(PATIENCE, async move {
            let enrolled = sqlx::query(
                "SELECT thumbprint FROM visible_certificate WHERE thumbprint = $1 AND state <> 'revoked' \
                 UNION ALL \
                 SELECT thumbprint FROM resource_server_certificate AS own JOIN visible_resource_server AS server \
                     ON server.id = own.resource_server_id WHERE thumbprint = $1",
            )
            .bind(thumbprint.to_string())
            .fetch_optional(&self.readers)
            .await?;
            if enrolled.is_some() {
                return Ok(true);
            }
            for (attribute, canonical) in names {
                let ruled = sqlx::query(
                    "SELECT CAST(1 AS BIGINT), record FROM visible_client \
                     WHERE rule_canonical = $1 AND rule_attribute = $2 AND state = 'active' \
                     UNION ALL \
                     SELECT CAST(0 AS BIGINT), record FROM visible_resource_server \
                     WHERE rule_canonical = $1 AND rule_attribute = $2 AND state = 'active'",
                )
                .bind(canonical.as_str())
                .bind(attribute.as_str())
                .fetch_all(&self.readers)
                .await?;
                for row in &ruled {
                    let is_client: i64 = row.try_get(0)?;
                    if is_client == 0 || Client::read(&document(row, 1, 0)?)?.enrolment == Enrolment::OnFirstUse {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        })
    }

    fn list(&self, selection: Selection, page: Page) -> Answer<'_, Vec<Document>> {
        async move {
            let (statement, which) = listing(&selection);
            let rows = sqlx::query(statement)
                .bind(page.after.unwrap_or_default())
                .bind(i64::from(page.limit))
                .bind(which)
                .fetch_all(&self.readers)
                .await?;
            rows.iter().map(|row| document(row, 0, 1)).collect()
        }
        .boxed()
    }

    fn live_serials<'a>(
        &'a self,
        issuer_key: &'a KeyHash,
        after: String,
        limit: u32,
    ) -> Answer<'a, Vec<(Thumbprint, String)>> {
        async move {
            let rows = sqlx::query(
                "SELECT thumbprint, serial FROM visible_certificate \
                 WHERE issuer_key = $1 AND serial > $2 AND state <> 'revoked' ORDER BY serial LIMIT $3",
            )
            .bind(issuer_key.to_string())
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
            rows.iter()
                .map(|row| {
                    let thumbprint: String = row.try_get(0)?;
                    let thumbprint = Thumbprint::parse(&thumbprint).map_err(StoreUnavailable::because)?;
                    Ok((thumbprint, row.try_get(1)?))
                })
                .collect()
        }
        .boxed()
    }

    fn certificate_of<'a>(&'a self, issuer_key: &'a KeyHash, serial: &'a str) -> Answer<'a, Option<Thumbprint>> {
        async move {
            let row = sqlx::query("SELECT thumbprint FROM visible_certificate WHERE issuer_key = $1 AND serial = $2")
                .bind(issuer_key.to_string())
                .bind(serial)
                .fetch_optional(&self.readers)
                .await?;
            let Some(row) = row else { return Ok(None) };
            let thumbprint: String = row.try_get(0)?;
            Ok(Some(Thumbprint::parse(&thumbprint).map_err(StoreUnavailable::because)?))
        }
        .boxed()
    }

    fn history(&self, since: RegistryVersion, subject: Option<String>, limit: u32) -> Answer<'_, Vec<HistoryEntry>> {
        async move {
            let query = sqlx::query(if subject.is_some() { HISTORY_OF_SUBJECT } else { HISTORY });
            let query = query.bind(since.0).bind(i64::from(limit));
            let query = match subject {
                Some(subject) => {
                    let import = self.import_of(&subject).await?;
                    query.bind(subject).bind(import)
                }
                None => query,
            };
            let rows = query.fetch_all(&self.readers).await?;
            rows.iter().map(history_entry).collect()
        }
        .boxed()
    }

    fn served_from(&self, epoch: i64) -> Answer<'_, Option<UnixTime>> {
        in_time(PATIENCE, served_from(self, epoch))
    }

    fn marks(&self, now: UnixTime) -> Answer<'_, RevocationState> {
        in_time(PATIENCE, async move {
            let rows = sqlx::query(
                "SELECT CAST(0 AS BIGINT) AS part, version, CAST(epoch AS TEXT) AS kind, '' AS id FROM registry_state \
                 UNION ALL \
                 SELECT CAST(1 AS BIGINT), version, kind, id FROM revocation_mark WHERE forget_after > $1 \
                 ORDER BY 1, 3, 4",
            )
            .bind(now.as_millis())
            .fetch_all(&self.readers)
            .await?;
            let mut rows = rows.iter();
            let Some(head) = rows.next() else { return Err(no_counter()) };
            let (epoch, version) = (number(head, 2)?, RegistryVersion(head.try_get(1)?));
            let marks = rows
                .map(|row| {
                    let kind: String = row.try_get(2)?;
                    let kind = mark_kind(&kind)?;
                    Ok(Mark { kind, id: row.try_get(3)?, version: RegistryVersion(row.try_get(1)?) })
                })
                .collect::<Result<_, StoreUnavailable>>()?;
            Ok(RevocationState { epoch, version, marks })
        })
    }

    fn asker<'a>(&'a self, thumbprint: &'a Thumbprint, key: &'a KeyHash) -> Answer<'a, Asker> {
        in_time(PATIENCE, async move {
            let rows =
                sqlx::query(ASKER).bind(thumbprint.to_string()).bind(key.to_string()).fetch_all(&self.readers).await?;
            let mut asker = Asker::default();
            for row in &rows {
                match row.try_get::<i64, _>(0)? {
                    0 => asker.resource_server = Some(Arc::new(Record::read(&document(row, 1, 0)?)?)),
                    1 => asker.is_a_client = true,
                    _ => asker.key_is_revoked = true,
                }
            }
            Ok(asker)
        })
    }

    fn revoked_tokens<'a>(&'a self, client: &'a ClientId, now: UnixTime) -> Answer<'a, usize> {
        in_time(PATIENCE, async move {
            let count: i64 =
                sqlx::query("SELECT COUNT(*) FROM revocation_mark WHERE client_id = $1 AND forget_after > $2")
                    .bind(client.as_str())
                    .bind(now.as_millis())
                    .fetch_one(&self.readers)
                    .await?
                    .try_get(0)?;
            Ok(usize::try_from(count).unwrap_or(usize::MAX))
        })
    }

    fn watch(&self) -> Box<dyn Watch> {
        match &self.engine {
            Engine::Postgres { pool, .. } => Box::new(postgres::NotificationWatch::new(pool)),
            Engine::Sqlite { path, .. } => Box::new(sqlite::DataVersionWatch::new(path)),
        }
    }
}

/// How far the nodes that serve have come by their own clocks; `None` where none ever has.
pub(super) async fn served_until(transaction: &mut Transaction<'static, Any>) -> Result<Option<UnixTime>, sqlx::Error> {
    let until: i64 = sqlx::query_scalar("SELECT served_until FROM audit_log").fetch_one(&mut **transaction).await?;
    Ok((until > 0).then(|| UnixTime::from_millis(until)))
}

/// When no token that was issued so far can live any more, where a change is made at `now` by a clock that may be any
/// command's. Every token was issued under a lease, so that it is for the nodes' own clocks to say; the command's counts where
/// it is ahead of them, for one of them may have been set forward a moment ago, but for a day at most.
pub(super) fn no_token_lives_after(now: UnixTime, served: Option<UnixTime>) -> UnixTime {
    let latest = served.map_or(now, |served| now.min(served.after(CLOCKS_APART)).max(served));
    latest.after(MARK_LIFETIME)
}

impl Store {
    /// How far the nodes that serve have come by their own clocks, a lease ahead; `None` where none ever has.
    ///
    /// # Errors
    /// [`StoreUnavailable`].
    pub async fn served_until(&self) -> Result<Option<UnixTime>, StoreUnavailable> {
        let mut transaction = self.readers.begin().await?;
        Ok(served_until(&mut transaction).await?)
    }

    /// What a sighting would change, read under no lock.
    async fn judge_sighting(
        &self,
        client: &ClientId,
        sighting: &Sighting,
        now: UnixTime,
    ) -> Result<Option<Certificate>, EditRefusal> {
        let mut reader = self.readers.acquire().await?;
        match constraint::sighting(&mut reader, client, sighting, now).await {
            // Another connection of the same client may have enrolled it between two of these queries: a second look
            // knows it.
            Err(EditRefusal::CertificateTaken) => constraint::sighting(&mut reader, client, sighting, now).await,
            judged => judged,
        }
    }

    /// Begins to write when it is this writer's turn. Between two tries others in this process have theirs: what they
    /// wait for may be shorter than another process's work.
    async fn begin_registry_write(&self, tries: usize) -> Result<(Turn, Transaction<'static, Any>), sqlx::Error> {
        let mut tried = 1;
        loop {
            let turn = self.turn_to_write().await;
            match self.begin_write().await {
                Err(error) if tried < tries && sqlite::is_busy(&error) => tried += 1,
                begun => return begun.map(|transaction| (turn, transaction)),
            }
        }
    }
}

/// The history after version `$1` under one condition, in whole versions, so that the next call begins after the last
/// one: all of each version that the first `$2` rows reach into.
macro_rules! history {
    ($condition:literal) => {
        concat!(
            "SELECT version, at, actor, action, subject, record_before, record_after, why FROM history WHERE version > $1 AND ",
            $condition,
            " AND version <= (SELECT COALESCE(MAX(version), 0) FROM (SELECT version FROM history WHERE version > $1 AND ",
            $condition,
            " ORDER BY version, step LIMIT $2) AS first_rows) ORDER BY version, step"
        )
    };
}

const HISTORY: &str = history!("1 = 1");

/// A statement of its own, so that either engine uses the index there is for it. `$4` is the import that the record came with.
pub(super) const HISTORY_OF_SUBJECT: &str = history!("subject IN ($3, $4)");

/// What `asker` tells, in one statement. A key counts as a client's once the client has shown that it holds it: anybody can
/// put somebody else's key into a certificate that is only announced.
const ASKER: &str = "\
    SELECT CAST(0 AS BIGINT) AS part, resource_server.record AS record FROM resource_server_certificate \
        JOIN visible_resource_server AS resource_server \
            ON resource_server.id = resource_server_certificate.resource_server_id \
        WHERE resource_server_certificate.thumbprint = $1 AND resource_server.state = 'active' \
    UNION ALL \
    SELECT CAST(1 AS BIGINT), '' FROM visible_certificate WHERE thumbprint = $1 \
    UNION ALL \
    SELECT CAST(1 AS BIGINT), '' FROM visible_certificate WHERE key_hash = $2 AND last_seen > 0 \
    UNION ALL \
    SELECT CAST(2 AS BIGINT), '' FROM visible_revoked_key WHERE key_hash = $2";

/// Everything one admission decision rests on, in one statement: one snapshot on both engines. Part 0 is always there.
/// What a visible record refers to is visible. Of the certificates, the 256 that expire last: a client has no more than a few live ones, and one that is out of
/// date is refused whether or not it is known.
const CLIENT_RECORD: &str = "\
    SELECT CAST(0 AS BIGINT) AS part, version AS number, CAST(epoch AS TEXT) AS record, CAST(server AS TEXT) AS more \
    FROM registry_head \
    UNION ALL \
    SELECT CAST(1 AS BIGINT), CAST(0 AS BIGINT), record, '' FROM visible_client WHERE id = $1 \
    UNION ALL \
    SELECT CAST(2 AS BIGINT), CAST(0 AS BIGINT), participant.record, '' FROM visible_client AS client \
        JOIN participant ON participant.id = client.participant_id WHERE client.id = $1 \
    UNION ALL \
    SELECT CAST(3 AS BIGINT), CAST(0 AS BIGINT), trust_anchor.record, anchor_grant.record FROM visible_client AS client \
        JOIN visible_anchor_grant AS anchor_grant ON anchor_grant.participant_id = client.participant_id \
            AND anchor_grant.state = 'granted' \
        JOIN trust_anchor ON trust_anchor.id = anchor_grant.anchor_id WHERE client.id = $1 \
    UNION ALL \
    SELECT CAST(4 AS BIGINT), last_seen, record, '' FROM ( \
        SELECT last_seen, record FROM visible_certificate WHERE client_id = $1 \
        ORDER BY expires_at DESC, thumbprint LIMIT 256) AS latest \
    UNION ALL \
    SELECT CAST(5 AS BIGINT), CAST(0 AS BIGINT), entitlement.record, resource_server.record \
        FROM visible_entitlement AS entitlement JOIN resource_server \
        ON resource_server.id = entitlement.resource_server_id WHERE entitlement.client_id = $1";

/// Version, epoch and server, from the second column on.
fn head_of(row: &AnyRow) -> Result<Head, StoreUnavailable> {
    let past = Past { epoch: number(row, 2)?, server: number(row, 3)? };
    Ok(Head { past, version: RegistryVersion(row.try_get(1)?) })
}

fn assemble(rows: &[AnyRow]) -> Result<(Head, Option<ClientRecord>), StoreUnavailable> {
    let mut head = None;
    let mut client = None;
    let mut participant = None;
    let mut anchors = Vec::new();
    let mut certificates: Vec<Certificate> = Vec::new();
    let mut entitlements = Vec::new();
    for row in rows {
        match row.try_get::<i64, _>(0)? {
            0 => head = Some(head_of(row)?),
            1 => client = Some(Record::read(&document(row, 2, 1)?)?),
            2 => participant = Some(Arc::new(Record::read(&document(row, 2, 1)?)?)),
            3 => {
                let grant: AnchorGrant = Record::read(&document(row, 3, 1)?)?;
                let anchor: TrustAnchor = Record::read(&document(row, 2, 1)?)?;
                anchors.push(GrantedAnchor { anchor: Arc::new(anchor), name_space: grant.name_space });
            }
            4 => certificates.push(Record::read(&document(row, 2, 1)?)?),
            _ => entitlements.push(GrantedEntitlement {
                entitlement: Record::read(&document(row, 2, 1)?)?,
                resource_server: Arc::new(Record::read(&document(row, 3, 1)?)?),
            }),
        }
    }
    let head = head.ok_or_else(no_counter)?;
    let (Some(client), Some(participant)) = (client, participant) else { return Ok((head, None)) };
    anchors.sort_by(|one, other| one.anchor.id.cmp(&other.anchor.id));
    entitlements.sort_by(|one, other| one.entitlement.id.cmp(&other.entitlement.id));
    // It is kept, and most have one of each, which grew to have room for four.
    anchors.shrink_to_fit();
    certificates.shrink_to_fit();
    entitlements.shrink_to_fit();
    let anchor_set = AnchorSetId::of(&anchors);
    let as_of = head.version;
    Ok((head, Some(ClientRecord { as_of, client, participant, anchors, anchor_set, certificates, entitlements })))
}

/// The statement for a list, and what it is limited to. `$1` is the id to begin after, `$2` how many, `$3` which.
fn listing(selection: &Selection) -> (&'static str, String) {
    macro_rules! of {
        ($table:literal, $id:literal, $last_seen:literal, $condition:literal) => {
            concat!(
                "SELECT record, CAST(",
                $last_seen,
                " AS BIGINT) AS last_seen FROM visible_",
                $table,
                " WHERE ",
                $id,
                " > $1 AND ",
                $condition,
                " ORDER BY ",
                $id,
                " LIMIT $2"
            )
        };
    }
    match selection {
        Selection::Anchor(id) => (of!("trust_anchor", "id", "-1", "id = $3"), id.to_string()),
        Selection::Anchors => (of!("trust_anchor", "id", "-1", "$3 = ''"), String::new()),
        Selection::Certificate(thumbprint) => {
            (of!("certificate", "thumbprint", "last_seen", "thumbprint = $3"), thumbprint.to_string())
        }
        Selection::Certificates(Some(client)) => {
            (of!("certificate", "thumbprint", "last_seen", "client_id = $3"), client.to_string())
        }
        Selection::Certificates(None) => (of!("certificate", "thumbprint", "last_seen", "$3 = ''"), String::new()),
        Selection::CertificatesBySerial(serial) => {
            (of!("certificate", "thumbprint", "last_seen", "serial = $3"), serial.clone())
        }
        Selection::CertificatesUnder(anchor) => {
            (of!("certificate", "thumbprint", "last_seen", "anchor_id = $3"), anchor.to_string())
        }
        Selection::Clients(Some(participant)) => {
            (of!("client", "id", "-1", "participant_id = $3"), participant.to_string())
        }
        Selection::Clients(None) => (of!("client", "id", "-1", "$3 = ''"), String::new()),
        Selection::Entitlement(id) => (of!("entitlement", "id", "-1", "id = $3"), id.to_string()),
        Selection::Entitlements(Some(client)) => (of!("entitlement", "id", "-1", "client_id = $3"), client.to_string()),
        Selection::Entitlements(None) => (of!("entitlement", "id", "-1", "$3 = ''"), String::new()),
        Selection::Grants(participant) => (
            of!("anchor_grant", "anchor_id", "-1", "state = 'granted' AND participant_id = $3"),
            participant.to_string(),
        ),
        Selection::Participant(id) => (of!("participant", "id", "-1", "id = $3"), id.to_string()),
        Selection::Participants => (of!("participant", "id", "-1", "$3 = ''"), String::new()),
        Selection::ResourceServer(id) => (of!("resource_server", "id", "-1", "id = $3"), id.to_string()),
        Selection::ResourceServers => (of!("resource_server", "id", "-1", "$3 = ''"), String::new()),
        Selection::TrustDomains => {
            (of!("trust_anchor", "id", "-1", "substr(id, 1, 3) = $3"), AnchorId::TRUST_DOMAIN.to_owned())
        }
    }
}

/// The document in column `record`, with the instant in column `last_seen`.
pub(super) fn document(row: &AnyRow, record: usize, last_seen: usize) -> Result<Document, StoreUnavailable> {
    let last_seen: i64 = row.try_get(last_seen)?;
    Ok(Document {
        record: row.try_get(record)?,
        last_seen: (last_seen > 0).then_some(UnixTime::from_millis(last_seen)),
    })
}

fn change(row: &AnyRow) -> Result<Change, StoreUnavailable> {
    let (kind, id): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let touched: Touched = serde_json::from_value(serde_json::json!({ "kind": kind, "id": id }))
        .map_err(|error| StoreUnavailable::because(format_args!("a change cannot be read: {error}")))?;
    Ok(Change { version: RegistryVersion(row.try_get(1)?), touched })
}

fn history_entry(row: &AnyRow) -> Result<HistoryEntry, StoreUnavailable> {
    let unreadable = |error: serde_json::Error| {
        StoreUnavailable::because(format_args!("an entry of the history cannot be read: {error}"))
    };
    let value = |text: Option<String>| text.map(|text| serde_json::from_str(&text)).transpose().map_err(unreadable);
    Ok(HistoryEntry {
        version: RegistryVersion(row.try_get(0)?),
        at: UnixTime::from_millis(row.try_get(1)?),
        actor: serde_json::from_str(&row.try_get::<String, _>(2)?).map_err(unreadable)?,
        action: row.try_get(3)?,
        subject: row.try_get(4)?,
        before: value(row.try_get(5)?)?,
        after: value(row.try_get(6)?)?,
        why: row.try_get(7)?,
    })
}

/// A number that shares its column with texts.
fn number(row: &AnyRow, column: usize) -> Result<i64, StoreUnavailable> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(StoreUnavailable::because)
}

fn no_counter() -> StoreUnavailable {
    StoreUnavailable::because("the registry's counter row is missing")
}

fn mark_kind(name: &str) -> Result<MarkKind, StoreUnavailable> {
    serde_json::from_value(serde_json::Value::String(name.to_owned())).map_err(StoreUnavailable::because)
}
