//! One change: its rows, its history, the next version, what it touches and what it revokes, or nothing at all.
//!
//! [`Writing`] begins by taking the version, which locks the counter row until the end; the methods below check and
//! write one kind of change each; `commit` writes down what was collected on the way. Dropped, it leaves nothing.

use std::collections::HashSet;
use std::time::Duration;

use countersign_resource_server::status::MarkKind;
use countersign_resource_server::time::UnixTime;
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

use self::batch::Value;
use super::super::{Engine, postgres};
use super::constraint::{
    self, CERTIFICATE, CLIENT, ENTITLEMENT, Lookup, PARTICIPANT, RESOURCE_SERVER, RESOURCE_SERVER_BY_RESOURCE,
    TRUST_ANCHOR,
};
use super::{CHANGES_KEPT, CLOCKS_APART, MARK_LEEWAY, document, no_token_lives_after, served_until};
use crate::registry::certificate::{Certificate, CertificateFacts, CertificateState, Replacement, RevocationReason};
use crate::registry::client::{Client, ClientAuthentication, ClientState};
use crate::registry::edit::{Applied, CertificateSelector, Edit, EditRefusal, Lost, RecordKind};
use crate::registry::entitlement::Entitlement;
use crate::registry::history::{Change, Explanation, Touched};
use crate::registry::import::{Contents, ImportId, ImportRefusal, Lease};
use crate::registry::participant::{Participant, ParticipantState};
use crate::registry::resource_server::{CERTIFICATES, ResourceServer, ResourceServerState};
use crate::registry::store::{Document, StoreUnavailable};
use crate::registry::trust_anchor::{AnchorGrant, AnchorMaterial, AnchorOwner, AnchorState, NameSpace, TrustAnchor};
use crate::registry::{
    AnchorId, ClientId, EntitlementId, KeyHash, ParticipantId, Record, RegistryVersion, ResourceServerId, Sighting,
    Thumbprint,
};

/// Many records at a time.
mod batch;

/// The entries of an import, one by one.
mod staging;

/// Single tokens, and the server's own keys.
mod token;

pub(super) use staging::Staging;

/// A change under way.
pub(super) struct Writing {
    transaction: Transaction<'static, Any>,
    explanation: Explanation,
    /// Whose entries these are; a change of its own, where it is none's.
    import: Option<ImportId>,
    version: RegistryVersion,
    steps: i64,
    touched: Vec<Touched>,
    marks: Vec<NewMark>,
}

/// A mark to be made.
struct NewMark {
    kind: MarkKind,
    id: String,
    /// When no token that it concerns can still live, where that is known: the longest life of any, otherwise.
    forget_after: Option<UnixTime>,
    /// Whose own request it counts for.
    client_id: Option<String>,
    /// For a single token: its list and its index in that.
    status: Option<(String, i64)>,
}

impl Writing {
    /// Takes the next version. Whoever else wants to change the registry waits from here on.
    pub(super) async fn begin(
        mut transaction: Transaction<'static, Any>,
        explanation: Explanation,
    ) -> Result<Self, EditRefusal> {
        let version = sqlx::query("UPDATE registry_state SET version = version + 1 RETURNING version")
            .fetch_one(&mut *transaction)
            .await?
            .try_get(0)?;
        Ok(Self {
            transaction,
            explanation,
            import: None,
            version: RegistryVersion(version),
            steps: 0,
            touched: Vec::new(),
            marks: Vec::new(),
        })
    }

    /// Makes `edit`.
    pub(super) async fn edit(&mut self, edit: Edit) -> Result<(), EditRefusal> {
        match edit {
            Edit::AddParticipant(participant) => self.add_participant(participant).await,
            Edit::ChangeParticipant(participant) => self.change_participant(participant).await,
            Edit::SetParticipantState { id, to } => self.set_participant_state(&id, to).await,
            Edit::AddAnchor { anchor, subject_der } => self.add_anchor(anchor, &subject_der).await,
            Edit::GrantAnchor { participant, anchor, name_space } => {
                self.grant_anchor(participant, anchor, name_space).await
            }
            Edit::WithdrawAnchor { participant, anchor } => self.withdraw_anchor(&participant, &anchor).await,
            Edit::ChangeAnchor(anchor) => self.change_anchor(anchor).await,
            Edit::RetireAnchor(id) => self.retire_anchor(&id).await,
            Edit::ReplaceBundle { anchor, held, bundle, lost } => {
                self.replace_bundle(&anchor, &held, bundle, lost).await
            }
            Edit::AddClient { client, certificates } => self.add_client(client, certificates).await,
            Edit::ChangeClient { client, certificates } => self.change_client(client, certificates).await,
            Edit::SetClientState { id, to } => self.set_client_state(&id, to).await,
            Edit::AddCertificate { client, certificate, replaces } => {
                self.add_certificate(&client, certificate, replaces).await
            }
            Edit::SupersedeCertificate { thumbprint, at } => self.supersede_certificate(&thumbprint, at).await,
            Edit::RevokeCertificate { certificate, reason } => self.revoke_certificate(&certificate, reason).await,
            Edit::RevokeByIssuer(certificates) => self.revoke_by_issuer(certificates).await,
            Edit::EndTokens(certificates) => self.end_tokens(certificates).await,
            Edit::RevokeKey(key) => self.revoke_key(&key).await,
            Edit::AddResourceServer(resource_server) => self.add_resource_server(resource_server).await,
            Edit::ChangeResourceServer(resource_server) => self.change_resource_server(resource_server).await,
            Edit::RetireResourceServer(id) => self.retire_resource_server(&id).await,
            Edit::AddEntitlement(entitlement) => self.add_entitlement(entitlement).await,
            Edit::ChangeEntitlement(entitlement) => self.change_entitlement(entitlement).await,
            Edit::EndEntitlement(id) => self.end_entitlement(&id).await,
            Edit::RevokeToken(revocation) => self.revoke_token(revocation).await,
            Edit::ChangeSigningKeys(changes) => self.change_signing_keys(changes).await,
        }
    }

    /// Makes everything visible that an import has entered. Under the lock of the counter row: what was checked when it was
    /// entered holds, for whoever changed the registry since has seen it; but for keys, which are revoked at once whatever is
    /// under way.
    pub(super) async fn publish(
        &mut self,
        lease: Lease,
        contents: &Contents,
        concerns: HashSet<Touched>,
    ) -> Result<(), ImportRefusal> {
        let import = lease.import;
        let begun: Option<i64> = sqlx::query_scalar(
            "SELECT version FROM registry_import WHERE id = $1 AND state = 'staging' AND leased_until = $2",
        )
        .bind(import.0)
        .bind(lease.until.as_millis())
        .fetch_optional(&mut *self.transaction)
        .await
        .map_err(StoreUnavailable::from)?;
        let Some(begun) = begun else { return Err(staging::ended(&mut self.transaction, import).await) };
        let revoked: Option<String> = sqlx::query_scalar(
            "SELECT certificate.thumbprint FROM revoked_key \
                 JOIN certificate ON certificate.key_hash = revoked_key.key_hash AND certificate.import_id = $1 \
                     AND certificate.state <> 'revoked' \
                 WHERE revoked_key.version > $2 LIMIT 1",
        )
        .bind(import.0)
        .bind(begun)
        .fetch_optional(&mut *self.transaction)
        .await
        .map_err(StoreUnavailable::from)?;
        if let Some(certificate) = revoked {
            return Err(ImportRefusal::KeyRevoked { certificate });
        }
        let published = sqlx::query(
            "UPDATE registry_import SET state = 'published', version = $2 \
             WHERE id = $1 AND state = 'staging' AND leased_until = $3",
        )
        .bind(import.0)
        .bind(self.version.0)
        .bind(lease.until.as_millis())
        .execute(&mut *self.transaction)
        .await
        .map_err(StoreUnavailable::from)?;
        if published.rows_affected() == 0 {
            return Err(ImportRefusal::GivenUp);
        }
        self.touched.extend(concerns);
        if self.touched.is_empty() {
            self.touch_nothing(&format!("import {import}"));
        }
        let id = import.to_string();
        let noted = self.note("registry.import", RecordKind::Import, &id, None::<&()>, Some(contents));
        noted.await.map_err(unavailable)
    }

    /// Makes what was written last, with the version, what it touches and what it revokes.
    pub(super) async fn commit(mut self, engine: &Engine) -> Result<Applied, EditRefusal> {
        let mut changes: Vec<Change> = Vec::new();
        let mut known = HashSet::new();
        for touched in std::mem::take(&mut self.touched) {
            if known.insert(touched.clone()) {
                changes.push(Change { version: self.version, touched });
            }
        }
        let row = |change: &Change| {
            let (kind, id) = columns(&change.touched);
            vec![Value::Integer(change.version.0), Value::Text(Some(kind.to_owned())), Value::Text(Some(id))]
        };
        let rows: Vec<_> = changes.iter().map(row).collect();
        batch::insert(&mut self.transaction, "INSERT INTO registry_change (version, kind, id)", &rows, "").await?;
        // One version's rows each time, unless more are kept now than once were.
        sqlx::query("DELETE FROM registry_change WHERE version <= $1")
            .bind(self.version.0 - CHANGES_KEPT)
            .execute(&mut *self.transaction)
            .await?;
        self.write_marks().await?;
        if let Engine::Postgres { .. } = engine {
            // Delivered when, and only if, this transaction commits.
            sqlx::query("SELECT pg_notify($1, $2)")
                .bind(postgres::CHANNEL)
                .bind(self.version.to_string())
                .execute(&mut *self.transaction)
                .await?;
        }
        self.transaction.commit().await?;
        Ok(Applied { version: Some(self.version), changes })
    }

    async fn write_marks(&mut self) -> Result<(), EditRefusal> {
        if self.marks.is_empty() {
            return Ok(());
        }
        let now = self.explanation.at;
        // Each command has a clock of its own, and one that is wrong must not bring dead tokens back: a mark lives from
        // where the nodes' own clocks have come to, and is taken away a day after the earliest of all clocks would. Where no
        // node has ever served, the last two changes are all there is.
        let last: Option<i64> =
            sqlx::query("SELECT at FROM history WHERE version < $1 ORDER BY version DESC, step DESC LIMIT 1")
                .bind(self.version.0)
                .fetch_optional(&mut *self.transaction)
                .await?
                .map(|row| row.try_get(0))
                .transpose()?;
        let last = last.map_or(now, UnixTime::from_millis);
        // Whoever notes a later end waits for this change: its token then meets the fence.
        sqlx::query("UPDATE audit_log SET served_until = served_until").execute(&mut *self.transaction).await?;
        let served = served_until(&mut self.transaction).await?;
        let earliest = served.map_or(now, |served| served.min(now)).min(last);
        sqlx::query("DELETE FROM revocation_mark WHERE forget_after <= $1")
            .bind(earliest.before(CLOCKS_APART).as_millis())
            .execute(&mut *self.transaction)
            .await?;
        for NewMark { kind, id, forget_after, client_id, status } in std::mem::take(&mut self.marks) {
            let (status_list, status_index) = status.unzip();
            // Never forgotten earlier than it would have been.
            sqlx::query(
                "INSERT INTO revocation_mark (kind, id, version, forget_after, client_id, status_list_id, status_index) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) \
                 ON CONFLICT (kind, id) DO UPDATE SET version = excluded.version, \
                     status_list_id = COALESCE(revocation_mark.status_list_id, excluded.status_list_id), \
                     status_index = COALESCE(revocation_mark.status_index, excluded.status_index), forget_after = CASE \
                     WHEN excluded.forget_after > revocation_mark.forget_after THEN excluded.forget_after \
                     ELSE revocation_mark.forget_after END",
            )
            .bind(kind.as_str())
            .bind(id)
            .bind(self.version.0)
            .bind(forget_after.unwrap_or_else(|| no_token_lives_after(now.max(last), served)).as_millis())
            .bind(client_id)
            .bind(status_list)
            .bind(status_index)
            .execute(&mut *self.transaction)
            .await?;
        }
        Ok(())
    }
}

/// Participants.
impl Writing {
    async fn add_participant(&mut self, participant: Participant) -> Result<(), EditRefusal> {
        use ParticipantState::{Active, Pending, Suspended, Withdrawn};
        match participant.state {
            Pending | Active => {}
            Suspended | Withdrawn => return Err(malformed("a new participant is pending or active")),
        }
        self.absent::<Participant>(RecordKind::Participant, PARTICIPANT, participant.id.as_str()).await?;
        self.put_participant(None, participant, "participant.add").await
    }

    async fn change_participant(&mut self, after: Participant) -> Result<(), EditRefusal> {
        let before: Participant = self.present(RecordKind::Participant, PARTICIPANT, after.id.as_str()).await?;
        if before.state != after.state {
            return Err(malformed("the state of a participant is not changed this way"));
        }
        if !before.roles.iter().all(|role| after.roles.contains(role)) {
            // Its tokens say what it takes part as.
            self.mark(MarkKind::Participant, &after.id);
        }
        self.put_participant(Some(before), after, "participant.change").await
    }

    async fn set_participant_state(&mut self, id: &ParticipantId, to: ParticipantState) -> Result<(), EditRefusal> {
        let before: Participant = self.present(RecordKind::Participant, PARTICIPANT, id.as_str()).await?;
        if !before.state.can_become(to) {
            return Err(forbidden(RecordKind::Participant, id.as_str(), before.state.as_str(), to.as_str()));
        }
        let action = match (before.state, to) {
            (ParticipantState::Suspended, ParticipantState::Active) => "participant.reinstate",
            (_, ParticipantState::Active | ParticipantState::Pending) => "participant.activate",
            (_, ParticipantState::Suspended) => "participant.suspend",
            (_, ParticipantState::Withdrawn) => "participant.withdraw",
        };
        if matches!(to, ParticipantState::Suspended | ParticipantState::Withdrawn) {
            self.mark(MarkKind::Participant, id);
        }
        let after = Participant { state: to, ..before.clone() };
        self.put_participant(Some(before), after, action).await
    }

    async fn put_participant(
        &mut self,
        before: Option<Participant>,
        after: Participant,
        action: &'static str,
    ) -> Result<(), EditRefusal> {
        sqlx::query(
            "INSERT INTO participant (id, state, record, import_id) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record",
        )
        .bind(after.id.as_str())
        .bind(after.state.as_str())
        .bind(json(&after)?)
        .bind(self.import_id())
        .execute(&mut *self.transaction)
        .await?;
        self.touched.push(Touched::Participant(after.id.clone()));
        self.note(action, RecordKind::Participant, after.id.as_str(), before.as_ref(), Some(&after)).await
    }
}

/// Trust anchors.
impl Writing {
    async fn add_anchor(&mut self, anchor: TrustAnchor, subject_der: &[u8]) -> Result<(), EditRefusal> {
        if anchor.state != AnchorState::Active {
            return Err(malformed("a new trust anchor is active"));
        }
        self.enter_anchor(anchor, subject_der).await
    }

    async fn enter_anchor(&mut self, anchor: TrustAnchor, subject_der: &[u8]) -> Result<(), EditRefusal> {
        // One key, one owner; and a key that was retired stays so. The same for the name of a trust domain.
        if let AnchorMaterial::TrustDomain { trust_domain, .. } = &anchor.material {
            if anchor.id != AnchorId::of_trust_domain(trust_domain) {
                return Err(malformed("a trust domain is named by its name"));
            }
            if constraint::find::<TrustAnchor>(&mut self.transaction, TRUST_ANCHOR.all, anchor.id.as_str())
                .await?
                .is_some()
            {
                return Err(EditRefusal::TrustDomainTaken { trust_domain: trust_domain.clone() });
            }
        }
        let id = anchor.id.as_str();
        match constraint::find::<TrustAnchor>(&mut self.transaction, TRUST_ANCHOR.all, id).await? {
            Some(held) if held.owner != anchor.owner => return Err(EditRefusal::AnchorKeyTaken),
            Some(_) => return Err(EditRefusal::AlreadyExists { kind: RecordKind::TrustAnchor, id: id.to_owned() }),
            None => {}
        }
        if let AnchorOwner::Participant(owner) = &anchor.owner {
            self.participant_taking_part(owner).await?;
        }
        let subject_hash = hex::encode(Sha256::digest(subject_der));
        self.put_anchor(None, anchor, Some(subject_hash), "anchor.add").await
    }

    async fn change_anchor(&mut self, after: TrustAnchor) -> Result<(), EditRefusal> {
        let before: TrustAnchor = self.present(RecordKind::TrustAnchor, TRUST_ANCHOR, after.id.as_str()).await?;
        if (&before.owner, before.state) != (&after.owner, after.state) {
            return Err(malformed("owner and state of a trust anchor are not changed this way"));
        }
        if before.state == AnchorState::Retired {
            return Err(forbidden(RecordKind::TrustAnchor, after.id.as_str(), before.state.as_str(), "changed"));
        }
        if before.material.trust_domain() != after.material.trust_domain() {
            return Err(malformed("a trust domain stays one, and keeps its name"));
        }
        if before.material.trust_domain().is_some() && before.material.octets() != after.material.octets() {
            return Err(malformed("the bundle of a trust domain is not changed this way"));
        }
        if before.is_narrowed_by(&after) {
            self.mark(MarkKind::Anchor, &after.id);
        }
        self.put_anchor(Some(before), after, None, "anchor.change").await
    }

    async fn replace_bundle(
        &mut self,
        id: &AnchorId,
        held: &str,
        bundle: String,
        lost: Lost,
    ) -> Result<(), EditRefusal> {
        let before: TrustAnchor = self.present(RecordKind::TrustAnchor, TRUST_ANCHOR, id.as_str()).await?;
        if before.state == AnchorState::Retired {
            return Err(forbidden(RecordKind::TrustAnchor, id.as_str(), before.state.as_str(), "changed"));
        }
        let mut after = before.clone();
        let AnchorMaterial::TrustDomain { bundle: current, .. } = &mut after.material else {
            return Err(malformed("this trust anchor is no trust domain and has no bundle"));
        };
        // What is lost was judged of that one.
        if current.as_str() != held {
            return Err(EditRefusal::BundleOvertaken);
        }
        *current = bundle;
        if lost.x509 {
            self.mark(MarkKind::Anchor, id);
        }
        if lost.jwt {
            self.mark_jwt_svids(&before, None).await?;
        }
        self.put_anchor(Some(before), after, None, "anchor.replace_bundle").await
    }

    /// The clients that prove themselves by a JWT-SVID of this trust domain, all or one participant's: their tokens name
    /// the anchor of the certificate, which may be another one or none.
    async fn mark_jwt_svids(
        &mut self,
        anchor: &TrustAnchor,
        participant: Option<&ParticipantId>,
    ) -> Result<(), EditRefusal> {
        let Some(trust_domain) = anchor.material.trust_domain() else { return Ok(()) };
        let rows = sqlx::query(
            "SELECT client.record FROM anchor_grant JOIN visible_client AS client \
             ON client.participant_id = anchor_grant.participant_id \
             WHERE anchor_grant.anchor_id = $1 AND client.state <> 'retired' \
                 AND substr(client.rule_canonical, 1, length($2)) = $2 AND ($3 = '' OR client.participant_id = $3)",
        )
        .bind(anchor.id.as_str())
        .bind(trust_domain.prefix())
        .bind(participant.map(ToString::to_string).unwrap_or_default())
        .fetch_all(&mut *self.transaction)
        .await?;
        for row in rows {
            let client = Client::read(&Document { record: row.try_get(0)?, last_seen: None })?;
            if matches!(client.authentication, ClientAuthentication::SpiffeJwt { .. }) {
                self.mark(MarkKind::Client, &client.id);
            }
        }
        Ok(())
    }

    async fn retire_anchor(&mut self, id: &AnchorId) -> Result<(), EditRefusal> {
        let before: TrustAnchor = self.present(RecordKind::TrustAnchor, TRUST_ANCHOR, id.as_str()).await?;
        if !before.state.can_become(AnchorState::Retired) {
            return Err(forbidden(
                RecordKind::TrustAnchor,
                id.as_str(),
                before.state.as_str(),
                AnchorState::Retired.as_str(),
            ));
        }
        self.mark(MarkKind::Anchor, id);
        self.mark_jwt_svids(&before, None).await?;
        let after = TrustAnchor { state: AnchorState::Retired, ..before.clone() };
        self.put_anchor(Some(before), after, None, "anchor.retire").await
    }

    async fn put_anchor(
        &mut self,
        before: Option<TrustAnchor>,
        after: TrustAnchor,
        subject_hash: Option<String>,
        action: &'static str,
    ) -> Result<(), EditRefusal> {
        let owner = match &after.owner {
            AnchorOwner::Operator => None,
            AnchorOwner::Participant(owner) => Some(owner.to_string()),
        };
        sqlx::query(
            "INSERT INTO trust_anchor (id, owner_participant_id, subject_hash, state, record, import_id) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (id) DO UPDATE SET state = excluded.state, record = excluded.record",
        )
        .bind(after.id.as_str())
        .bind(owner)
        .bind(subject_hash.unwrap_or_default())
        .bind(after.state.as_str())
        .bind(json(&after)?)
        .bind(self.import_id())
        .execute(&mut *self.transaction)
        .await?;
        self.touched.push(Touched::Anchor(after.id.clone()));
        self.note(action, RecordKind::TrustAnchor, after.id.as_str(), before.as_ref(), Some(&after)).await
    }

    async fn grant_anchor(
        &mut self,
        participant_id: ParticipantId,
        anchor_id: AnchorId,
        name_space: NameSpace,
    ) -> Result<(), EditRefusal> {
        self.participant_taking_part(&participant_id).await?;
        let anchor: TrustAnchor = self.present(RecordKind::TrustAnchor, TRUST_ANCHOR, anchor_id.as_str()).await?;
        if anchor.state != AnchorState::Active {
            return Err(forbidden(RecordKind::TrustAnchor, anchor_id.as_str(), anchor.state.as_str(), "granted"));
        }
        match &anchor.owner {
            AnchorOwner::Participant(owner) if *owner != participant_id => return Err(EditRefusal::AnchorOfAnother),
            AnchorOwner::Participant(_) | AnchorOwner::Operator => {}
        }
        let before = self.grant(&participant_id, &anchor_id).await?;
        let action = match &before {
            None => {
                self.grant_absent(&participant_id, &anchor_id).await?;
                constraint::anchor_limit(&mut self.transaction, &participant_id, &anchor_id).await?;
                constraint::identities_under(&mut self.transaction, &participant_id, &anchor_id).await?;
                "anchor.grant"
            }
            Some(before) => {
                if !name_space.covers(&before.name_space) {
                    self.mark_grant(&anchor, &participant_id);
                    self.mark_jwt_svids(&anchor, Some(&participant_id)).await?;
                }
                "anchor.change_name_space"
            }
        };
        self.put_grant(before, AnchorGrant { participant_id, anchor_id, name_space }, "granted", action).await
    }

    async fn withdraw_anchor(&mut self, participant: &ParticipantId, id: &AnchorId) -> Result<(), EditRefusal> {
        let Some(before) = self.grant(participant, id).await? else {
            return Err(EditRefusal::NotFound { kind: RecordKind::AnchorGrant, id: grant_id(participant, id) });
        };
        let anchor: TrustAnchor = self.present(RecordKind::TrustAnchor, TRUST_ANCHOR, id.as_str()).await?;
        self.mark_grant(&anchor, participant);
        self.mark_jwt_svids(&anchor, Some(participant)).await?;
        let after = AnchorGrant { name_space: NameSpace::default(), ..before.clone() };
        self.put_grant(Some(before), after, "withdrawn", "anchor.withdraw").await
    }

    /// What an anchor no longer vouches for, for one participant. A shared anchor stands in other participants' tokens
    /// too, which are as good as before: there the participant is marked, whose other tokens are had anew.
    fn mark_grant(&mut self, anchor: &TrustAnchor, participant: &ParticipantId) {
        match anchor.owner {
            AnchorOwner::Operator => self.mark(MarkKind::Participant, participant),
            AnchorOwner::Participant(_) => self.mark(MarkKind::Anchor, &anchor.id),
        }
    }

    async fn grant(
        &mut self,
        participant: &ParticipantId,
        anchor: &AnchorId,
    ) -> Result<Option<AnchorGrant>, EditRefusal> {
        let row = sqlx::query(
            "SELECT record, CAST(-1 AS BIGINT) AS last_seen FROM visible_anchor_grant \
             WHERE participant_id = $1 AND anchor_id = $2 AND state = 'granted'",
        )
        .bind(participant.as_str())
        .bind(anchor.as_str())
        .fetch_optional(&mut *self.transaction)
        .await?;
        Ok(row.map(|row| AnchorGrant::read(&document(&row, 0, 1)?)).transpose()?)
    }

    /// No import is about to grant it.
    async fn grant_absent(&mut self, participant: &ParticipantId, anchor: &AnchorId) -> Result<(), EditRefusal> {
        let staged = sqlx::query(
            "SELECT state FROM anchor_grant WHERE participant_id = $1 AND anchor_id = $2 \
                 AND import_id IN (SELECT id FROM registry_import WHERE state IN ('staging', 'abandoned'))",
        )
        .bind(participant.as_str())
        .bind(anchor.as_str())
        .fetch_optional(&mut *self.transaction)
        .await?;
        match staged {
            Some(_) => {
                let id = grant_id(participant, anchor);
                Err(EditRefusal::BeingImported { kind: RecordKind::AnchorGrant, id })
            }
            None => Ok(()),
        }
    }

    async fn put_grant(
        &mut self,
        before: Option<AnchorGrant>,
        after: AnchorGrant,
        state: &'static str,
        action: &'static str,
    ) -> Result<(), EditRefusal> {
        sqlx::query(
            "INSERT INTO anchor_grant (participant_id, anchor_id, state, record, import_id) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (participant_id, anchor_id) DO UPDATE SET state = excluded.state, record = excluded.record",
        )
        .bind(after.participant_id.as_str())
        .bind(after.anchor_id.as_str())
        .bind(state)
        .bind(json(&after)?)
        .bind(self.import_id())
        .execute(&mut *self.transaction)
        .await?;
        self.touched.push(Touched::Participant(after.participant_id.clone()));
        let id = grant_id(&after.participant_id, &after.anchor_id);
        let after = (state == "granted").then_some(&after);
        self.note(action, RecordKind::AnchorGrant, &id, before.as_ref(), after).await
    }
}

/// Clients.
impl Writing {
    async fn add_client(&mut self, client: Client, certificates: Vec<CertificateFacts>) -> Result<(), EditRefusal> {
        match client.state {
            ClientState::Pending | ClientState::Active => {}
            ClientState::Suspended | ClientState::Retired => {
                return Err(malformed("a new client is pending or active"));
            }
        }
        if matches!(client.authentication, ClientAuthentication::SelfSignedTlsClientAuth { .. })
            && certificates.is_empty()
        {
            // RFC 8705 §2.2.2: the client's certificates are known from its JWK Set.
            return Err(malformed("a client with self_signed_tls_client_auth comes with its certificates"));
        }
        let (id, at) = (client.id.clone(), self.explanation.at);
        let certificates = certificates.into_iter().map(|facts| facts.announced(id.clone(), at)).collect();
        self.enter_client(client, certificates).await
    }

    async fn enter_client(&mut self, client: Client, certificates: Vec<Certificate>) -> Result<(), EditRefusal> {
        self.absent::<Client>(RecordKind::Client, CLIENT, client.id.as_str()).await?;
        self.participant_taking_part(&client.participant_id).await?;
        // A name is free again once its client has retired.
        if let Some(rule) = client.authentication.subject().filter(|_| client.state != ClientState::Retired) {
            constraint::client_identity(&mut self.transaction, &client.participant_id, rule).await?;
        }
        self.put_client(None, client, "client.add").await?;
        for certificate in certificates {
            self.enrol(certificate).await?;
        }
        Ok(())
    }

    async fn change_client(&mut self, after: Client, certificates: Vec<CertificateFacts>) -> Result<(), EditRefusal> {
        let before: Client = self.present(RecordKind::Client, CLIENT, after.id.as_str()).await?;
        if (&before.participant_id, before.environment, before.state)
            != (&after.participant_id, after.environment, after.state)
        {
            return Err(malformed("participant, environment and state of a client are not changed this way"));
        }
        if before.state == ClientState::Retired {
            return Err(forbidden(RecordKind::Client, after.id.as_str(), before.state.as_str(), "changed"));
        }
        if before.authentication != after.authentication {
            // What proved this client until now need not prove it any more.
            self.mark(MarkKind::Client, &after.id);
            if let Some(rule) = after.authentication.subject() {
                constraint::client_identity(&mut self.transaction, &after.participant_id, rule).await?;
            }
        }
        let id = after.id.clone();
        self.put_client(Some(before), after, "client.change").await?;
        for facts in certificates {
            let known: Option<Certificate> =
                constraint::find(&mut self.transaction, CERTIFICATE.visible, &facts.thumbprint.to_string()).await?;
            if known.is_none_or(|known| known.client_id != id) {
                self.enrol(facts.announced(id.clone(), self.explanation.at)).await?;
            }
        }
        Ok(())
    }

    async fn set_client_state(&mut self, id: &ClientId, to: ClientState) -> Result<(), EditRefusal> {
        let before: Client = self.present(RecordKind::Client, CLIENT, id.as_str()).await?;
        if !before.state.can_become(to) {
            return Err(forbidden(RecordKind::Client, id.as_str(), before.state.as_str(), to.as_str()));
        }
        let action = match (before.state, to) {
            (ClientState::Suspended, ClientState::Active) => "client.reinstate",
            (_, ClientState::Active | ClientState::Pending) => "client.activate",
            (_, ClientState::Suspended) => "client.suspend",
            (_, ClientState::Retired) => "client.retire",
        };
        if matches!(to, ClientState::Suspended | ClientState::Retired) {
            self.mark(MarkKind::Client, id);
        }
        let after = Client { state: to, ..before.clone() };
        self.put_client(Some(before), after, action).await
    }

    async fn put_client(
        &mut self,
        before: Option<Client>,
        after: Client,
        action: &'static str,
    ) -> Result<(), EditRefusal> {
        let rule = after.authentication.subject();
        sqlx::query(
            "INSERT INTO client (id, participant_id, rule_attribute, rule_canonical, state, record, import_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (id) DO UPDATE SET rule_attribute = excluded.rule_attribute, \
                 rule_canonical = excluded.rule_canonical, state = excluded.state, record = excluded.record",
        )
        .bind(after.id.as_str())
        .bind(after.participant_id.as_str())
        .bind(rule.map(|rule| rule.attribute.as_str().to_owned()))
        .bind(rule.map(|rule| rule.canonical.clone()))
        .bind(after.state.as_str())
        .bind(json(&after)?)
        .bind(self.import_id())
        .execute(&mut *self.transaction)
        .await?;
        self.touched.push(Touched::Client(after.id.clone()));
        self.note(action, RecordKind::Client, after.id.as_str(), before.as_ref(), Some(&after)).await
    }
}

/// Certificates.
impl Writing {
    async fn add_certificate(
        &mut self,
        client: &ClientId,
        facts: CertificateFacts,
        replaces: Option<Replacement>,
    ) -> Result<(), EditRefusal> {
        let owner: Client = self.present(RecordKind::Client, CLIENT, client.as_str()).await?;
        if owner.state == ClientState::Retired {
            return Err(forbidden(RecordKind::Client, client.as_str(), owner.state.as_str(), "given a certificate"));
        }
        if let Some(replaces) = &replaces {
            constraint::replaceable(&mut self.transaction, client, &replaces.thumbprint).await?;
        }
        self.enrol(Certificate { replaces, ..facts.announced(client.clone(), self.explanation.at) }).await
    }

    async fn enrol(&mut self, certificate: Certificate) -> Result<(), EditRefusal> {
        constraint::enrolment(&mut self.transaction, &certificate, self.explanation.at).await?;
        self.put_certificate(None, certificate, "certificate.enrol").await
    }

    /// Puts a certificate that authenticated on record; says whether that changes anything.
    pub(super) async fn sighting(&mut self, client: &ClientId, sighting: &Sighting) -> Result<bool, EditRefusal> {
        let at = self.explanation.at;
        let before: Option<Certificate> =
            constraint::find(&mut self.transaction, CERTIFICATE.visible, &sighting.thumbprint.to_string()).await?;
        let Some(after) = constraint::sighting(&mut self.transaction, client, sighting, at).await? else {
            return Ok(false);
        };
        self.overtake(&after).await?;
        let action = if before.is_some() { "certificate.activate" } else { "certificate.enrol_on_first_use" };
        let renewed = before.is_none();
        self.put_certificate(before, after.clone(), action).await?;
        self.supersede_predecessors(&after, renewed, at).await?;
        Ok(true)
    }

    /// An import under way that could not be published beside this certificate is given up: whoever asks for a token is not made to
    /// wait for it, nor refused on its account. What of it stands in the way is removed at once, the rest is swept.
    async fn overtake(&mut self, seen: &Certificate) -> Result<(), EditRefusal> {
        let left = sqlx::query("SELECT id FROM registry_import WHERE state IN ('staging', 'abandoned')");
        if left.fetch_optional(&mut *self.transaction).await?.is_none() {
            return Ok(());
        }
        let is_full = constraint::room_with_imports(&mut self.transaction, seen, self.explanation.at).await.is_err();
        let hidden = "import_id IN (SELECT id FROM registry_import WHERE state IN ('staging', 'abandoned'))";
        let own = format!(
            "FROM certificate WHERE {hidden} AND (thumbprint = $1 OR ($6 = 'full' AND client_id = $2) \
                 OR (serial = $3 AND (issuer_key = $4 OR key_hash = $5)))"
        );
        let bound = |statement: String| {
            sqlx::query(AssertSqlSafe(statement))
                .bind(seen.thumbprint.to_string())
                .bind(seen.client_id.to_string())
                .bind(seen.serial.clone())
                .bind(seen.issuer_key.map(|key| key.to_string()))
                .bind(seen.key_hash.to_string())
                .bind(if is_full { "full" } else { "" })
        };
        let in_the_way = format!("SELECT thumbprint {own} LIMIT 1");
        let mut is_in_the_way = bound(in_the_way).fetch_optional(&mut *self.transaction).await?.is_some();
        if is_in_the_way {
            let issuers = format!("DELETE FROM path_issuer WHERE thumbprint IN (SELECT thumbprint {own})");
            bound(issuers).execute(&mut *self.transaction).await?;
            bound(format!("DELETE {own}")).execute(&mut *self.transaction).await?;
        }
        let held = format!(
            "DELETE FROM resource_server_certificate WHERE thumbprint = $1 \
                 AND resource_server_id IN (SELECT id FROM resource_server WHERE {hidden})"
        );
        let held = sqlx::query(AssertSqlSafe(held)).bind(seen.thumbprint.to_string());
        is_in_the_way |= held.execute(&mut *self.transaction).await?.rows_affected() > 0;
        let key = format!("SELECT key_hash FROM revoked_key WHERE key_hash = $1 AND {hidden}");
        let key = sqlx::query(AssertSqlSafe(key)).bind(seen.key_hash.to_string());
        is_in_the_way |= key.fetch_optional(&mut *self.transaction).await?.is_some();
        if is_in_the_way {
            sqlx::query("UPDATE registry_import SET state = 'abandoned' WHERE state = 'staging'")
                .execute(&mut *self.transaction)
                .await?;
        }
        Ok(())
    }

    /// What a certificate takes the place of when it is first seen at `at`, each after its overlap: the one it was announced
    /// for or, where it was not announced, those it is newer than, if the client's policy says so.
    async fn supersede_predecessors(
        &mut self,
        seen: &Certificate,
        renewed: bool,
        at: UnixTime,
    ) -> Result<(), EditRefusal> {
        let mut replaced = Vec::new();
        if let Some(replacement) = &seen.replaces {
            let id = replacement.thumbprint.to_string();
            let known: Option<Certificate> = constraint::find(&mut self.transaction, CERTIFICATE.visible, &id).await?;
            let own = known.filter(|known| known.client_id == seen.client_id);
            replaced.extend(own.map(|own| (own, replacement.ends_at(at))));
        }
        if renewed {
            let client: Client = self.present(RecordKind::Client, CLIENT, seen.client_id.as_str()).await?;
            if let Some(overlap_seconds) = client.renewal_overlap_seconds {
                let end = at.after(Duration::from_secs(overlap_seconds));
                let older = constraint::predecessors(&mut self.transaction, seen, at).await?;
                replaced.extend(older.into_iter().map(|older| (older, end)));
            }
        }
        for (before, end) in replaced {
            // Meanwhile somebody may have said more about it: that it is revoked, or when its time is over.
            if before.state.can_become(&CertificateState::Superseded { at: end }) {
                self.supersede(before, end).await?;
            }
        }
        Ok(())
    }

    async fn supersede_certificate(&mut self, thumbprint: &Thumbprint, at: UnixTime) -> Result<(), EditRefusal> {
        let id = thumbprint.to_string();
        let before: Certificate = self.present(RecordKind::Certificate, CERTIFICATE, &id).await?;
        self.supersede(before, at).await
    }

    async fn supersede(&mut self, before: Certificate, at: UnixTime) -> Result<(), EditRefusal> {
        // Without an overlap it is over for every clock: a request that came a moment ago is decided by its own, and what
        // it got now would carry this version, which no mark concerns.
        let over = at <= self.explanation.at;
        let state = CertificateState::Superseded { at: if over { at.min(before.not_before) } else { at } };
        if !before.state.can_become(&state) {
            let id = before.thumbprint.to_string();
            return Err(forbidden(RecordKind::Certificate, &id, before.state.as_str(), state.as_str()));
        }
        if over {
            // With an overlap, what is issued until its end lives out.
            self.mark(MarkKind::Certificate, before.thumbprint);
        }
        let after = Certificate { state, ..before.clone() };
        self.put_certificate(Some(before), after, "certificate.supersede").await
    }

    async fn revoke_certificate(
        &mut self,
        selector: &CertificateSelector,
        reason: RevocationReason,
    ) -> Result<(), EditRefusal> {
        let before: Certificate = match selector {
            CertificateSelector::Thumbprint(thumbprint) => {
                self.present(RecordKind::Certificate, CERTIFICATE, &thumbprint.to_string()).await?
            }
            CertificateSelector::IssuerAndSerial(issuer_key, serial) => {
                let row = sqlx::query(
                    "SELECT record, last_seen FROM visible_certificate WHERE issuer_key = $1 AND serial = $2",
                )
                .bind(issuer_key.to_string())
                .bind(serial.as_str())
                .fetch_optional(&mut *self.transaction)
                .await?;
                let Some(row) = row else {
                    let id = format!("with serial number {serial} of this issuer");
                    return Err(EditRefusal::NotFound { kind: RecordKind::Certificate, id });
                };
                Certificate::read(&document(&row, 0, 1)?)?
            }
        };
        let key = before.key_hash;
        // A milder reason left the key alone; a worse one may come to light later.
        let key_is_left = matches!(before.state, CertificateState::Revoked { .. })
            && reason.revokes_key()
            && !constraint::key_revoked(&mut self.transaction, &key).await?;
        if !key_is_left {
            self.revoke(before, reason).await?;
        }
        if reason.revokes_key() {
            self.revoke_everywhere(&key, reason).await?;
        }
        Ok(())
    }

    async fn revoke(&mut self, before: Certificate, reason: RevocationReason) -> Result<(), EditRefusal> {
        let state = CertificateState::Revoked { at: self.explanation.at, reason };
        if !before.state.can_become(&state) {
            let id = before.thumbprint.to_string();
            return Err(forbidden(RecordKind::Certificate, &id, before.state.as_str(), state.as_str()));
        }
        self.mark(MarkKind::Certificate, before.thumbprint);
        let after = Certificate { state, ..before.clone() };
        self.put_certificate(Some(before), after, "certificate.revoke").await
    }

    async fn revoke_by_issuer(&mut self, certificates: Vec<(Thumbprint, RevocationReason)>) -> Result<(), EditRefusal> {
        for (thumbprint, reason) in certificates {
            // Looked up one by one: a key that was revoked with one of them has taken others along.
            let known: Option<Certificate> =
                constraint::find(&mut self.transaction, CERTIFICATE.visible, &thumbprint.to_string()).await?;
            let Some(known) = known.filter(|known| !matches!(known.state, CertificateState::Revoked { .. })) else {
                continue;
            };
            // An issuer need not have seen the key: what authenticated here has shown that it is its holder's.
            let key =
                (reason == RevocationReason::KeyCompromise && known.first_seen.is_some()).then_some(known.key_hash);
            self.revoke(known, reason).await?;
            if let Some(key) = key {
                self.revoke_everywhere(&key, reason).await?;
            }
        }
        // A version in which nothing happened would look like one whose changes were lost.
        if self.touched.is_empty() { Err(malformed("none of these certificates is left to revoke")) } else { Ok(()) }
    }

    async fn end_tokens(&mut self, certificates: Vec<Thumbprint>) -> Result<(), EditRefusal> {
        for thumbprint in certificates {
            let id = thumbprint.to_string();
            let known: Option<Certificate> = constraint::find(&mut self.transaction, CERTIFICATE.visible, &id).await?;
            let Some(known) = known else { continue };
            self.mark(MarkKind::Certificate, thumbprint);
            self.touched.push(Touched::Client(known.client_id.clone()));
            self.note("certificate.end_tokens", RecordKind::Certificate, &id, Some(&known), Some(&known)).await?;
        }
        // A version in which nothing happened would look like one whose changes were lost.
        if self.touched.is_empty() { Err(malformed("none of these certificates is on record")) } else { Ok(()) }
    }

    async fn revoke_key(&mut self, key: &KeyHash) -> Result<(), EditRefusal> {
        if constraint::key_revoked(&mut self.transaction, key).await? {
            return Err(forbidden(RecordKind::Key, &key.to_string(), "revoked", "revoked"));
        }
        self.revoke_everywhere(key, RevocationReason::KeyCompromise).await
    }

    /// A key in other hands: nobody's certificate may have it, now or later.
    async fn revoke_everywhere(&mut self, key: &KeyHash, reason: RevocationReason) -> Result<(), EditRefusal> {
        sqlx::query(
            "INSERT INTO revoked_key (key_hash, version, revoked_at, reason) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (key_hash) DO UPDATE SET version = excluded.version, revoked_at = excluded.revoked_at, \
                 reason = excluded.reason, import_id = 0 \
             WHERE revoked_key.import_id IN (SELECT id FROM registry_import WHERE state IN ('staging', 'abandoned'))",
        )
        .bind(key.to_string())
        .bind(self.version.0)
        .bind(self.explanation.at.as_millis())
        .bind(reason.as_str())
        .execute(&mut *self.transaction)
        .await?;
        self.mark(MarkKind::Key, key);
        self.touched.push(Touched::Key(*key));
        self.note("key.revoke", RecordKind::Key, &key.to_string(), None::<&()>, Some(&reason)).await?;
        let rows =
            sqlx::query("SELECT record, last_seen FROM visible_certificate WHERE key_hash = $1 AND state <> 'revoked'")
                .bind(key.to_string())
                .fetch_all(&mut *self.transaction)
                .await?;
        for row in rows {
            self.revoke(Certificate::read(&document(&row, 0, 1)?)?, reason).await?;
        }
        Ok(())
    }

    async fn put_certificate(
        &mut self,
        before: Option<Certificate>,
        after: Certificate,
        action: &'static str,
    ) -> Result<(), EditRefusal> {
        let id = after.thumbprint.to_string();
        sqlx::query(
            "INSERT INTO certificate \
                 (thumbprint, client_id, key_hash, issuer_key, serial, state, expires_at, live_until, last_seen, record, \
                 anchor_id, import_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (thumbprint) DO UPDATE SET issuer_key = excluded.issuer_key, \
                 anchor_id = excluded.anchor_id, state = excluded.state, \
                 live_until = excluded.live_until, last_seen = excluded.last_seen, record = excluded.record",
        )
        .bind(id.as_str())
        .bind(after.client_id.as_str())
        .bind(after.key_hash.to_string())
        .bind(after.issuer_key.map(|key| key.to_string()))
        .bind(after.serial.as_str())
        .bind(after.state.as_str())
        .bind(after.expires_at().as_millis())
        .bind(after.live_until().as_millis())
        .bind(after.last_seen.map_or(-1, UnixTime::as_millis))
        .bind(json(&after)?)
        .bind(after.anchor.as_ref().map(|anchor| anchor.to_string()))
        .bind(self.import_id())
        .execute(&mut *self.transaction)
        .await?;
        if before.as_ref().is_none_or(|before| before.issuers != after.issuers) {
            for issuer in &after.issuers {
                sqlx::query(
                    "INSERT INTO path_issuer (thumbprint, issuer_key, serial, expires_at) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (thumbprint, issuer_key, serial) DO NOTHING",
                )
                .bind(id.as_str())
                .bind(issuer.issuer_key.to_string())
                .bind(issuer.serial.as_str())
                .bind(issuer.expires_at().as_millis())
                .execute(&mut *self.transaction)
                .await?;
            }
        }
        self.touched.push(Touched::Client(after.client_id.clone()));
        self.note(action, RecordKind::Certificate, &id, before.as_ref(), Some(&after)).await
    }
}

/// Resource servers.
impl Writing {
    async fn add_resource_server(&mut self, resource_server: ResourceServer) -> Result<(), EditRefusal> {
        if resource_server.state != ResourceServerState::Active {
            return Err(malformed("a new resource server is active"));
        }
        self.enter_resource_server(resource_server).await
    }

    async fn enter_resource_server(&mut self, resource_server: ResourceServer) -> Result<(), EditRefusal> {
        let (id, resource) = (resource_server.id.as_str(), resource_server.resource.as_str());
        self.absent::<ResourceServer>(RecordKind::ResourceServer, RESOURCE_SERVER, id).await?;
        self.absent::<ResourceServer>(RecordKind::ResourceServer, RESOURCE_SERVER_BY_RESOURCE, resource).await?;
        if let Some(owner) = &resource_server.owner {
            self.participant_taking_part(owner).await?;
        }
        // What identified one that has retired is free again.
        if resource_server.state == ResourceServerState::Active {
            if let Some(rule) = &resource_server.subject {
                constraint::resource_server_identity(&mut self.transaction, rule).await?;
            }
            self.certificates_of_its_own(&[], &resource_server.certificates).await?;
        }
        self.put_resource_server(None, resource_server, "resource_server.add").await
    }

    async fn change_resource_server(&mut self, after: ResourceServer) -> Result<(), EditRefusal> {
        let id = after.id.as_str();
        let before: ResourceServer = self.present(RecordKind::ResourceServer, RESOURCE_SERVER, id).await?;
        if (&before.resource, before.state) != (&after.resource, after.state) {
            return Err(malformed("resource indicator and state of a resource server are not changed this way"));
        }
        if before.state == ResourceServerState::Retired {
            return Err(forbidden(RecordKind::ResourceServer, id, before.state.as_str(), "changed"));
        }
        if !after.scopes.includes(&before.scopes) {
            // Entitlements name them: one at a time they end with a mark each.
            return Err(malformed("a scope is not taken away: change or end the entitlements that name it"));
        }
        if let Some(owner) = &after.owner {
            self.participant_taking_part(owner).await?;
        }
        match &after.subject {
            Some(rule) if before.subject.as_ref() != Some(rule) => {
                constraint::resource_server_identity(&mut self.transaction, rule).await?;
            }
            _ => {}
        }
        self.certificates_of_its_own(&before.certificates, &after.certificates).await?;
        self.put_resource_server(Some(before), after, "resource_server.change").await
    }

    /// Each new one is enrolled for nobody else, and none is named twice.
    async fn certificates_of_its_own(
        &mut self,
        before: &[Thumbprint],
        after: &[Thumbprint],
    ) -> Result<(), EditRefusal> {
        if after.len() > CERTIFICATES {
            return Err(malformed("a resource server has eight certificates at most: take one away first"));
        }
        for (at, certificate) in after.iter().enumerate() {
            if after[..at].contains(certificate) {
                return Err(malformed("this certificate is the resource server's already"));
            }
            if !before.contains(certificate) {
                constraint::certificate_free(&mut self.transaction, certificate).await?;
            }
        }
        Ok(())
    }

    async fn retire_resource_server(&mut self, id: &ResourceServerId) -> Result<(), EditRefusal> {
        let before: ResourceServer = self.present(RecordKind::ResourceServer, RESOURCE_SERVER, id.as_str()).await?;
        let to = ResourceServerState::Retired;
        if !before.state.can_become(to) {
            return Err(forbidden(RecordKind::ResourceServer, id.as_str(), before.state.as_str(), to.as_str()));
        }
        // Tokens name it by its audience.
        self.mark(MarkKind::ResourceServer, &before.resource);
        let after = ResourceServer { state: to, ..before.clone() };
        self.put_resource_server(Some(before), after, "resource_server.retire").await
    }

    async fn put_resource_server(
        &mut self,
        before: Option<ResourceServer>,
        after: ResourceServer,
        action: &'static str,
    ) -> Result<(), EditRefusal> {
        let rule = after.subject.as_ref();
        sqlx::query(
            "INSERT INTO resource_server (id, resource, owner_participant_id, rule_attribute, rule_canonical, \
                 certificate_thumbprint, state, record, import_id) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (id) DO UPDATE SET owner_participant_id = excluded.owner_participant_id, \
                 rule_attribute = excluded.rule_attribute, rule_canonical = excluded.rule_canonical, \
                 certificate_thumbprint = excluded.certificate_thumbprint, state = excluded.state, \
                 record = excluded.record",
        )
        .bind(after.id.as_str())
        .bind(after.resource.as_str())
        .bind(after.owner.as_ref().map(|owner| owner.as_str().to_owned()))
        .bind(rule.map(|rule| rule.attribute.as_str().to_owned()))
        .bind(rule.map(|rule| rule.canonical.clone()))
        .bind(after.certificates.first().map(ToString::to_string))
        .bind(after.state.as_str())
        .bind(json(&after)?)
        .bind(self.import_id())
        .execute(&mut *self.transaction)
        .await?;
        sqlx::query("DELETE FROM resource_server_certificate WHERE resource_server_id = $1")
            .bind(after.id.as_str())
            .execute(&mut *self.transaction)
            .await?;
        if after.state == ResourceServerState::Active {
            for certificate in &after.certificates {
                sqlx::query("INSERT INTO resource_server_certificate (thumbprint, resource_server_id) VALUES ($1, $2)")
                    .bind(certificate.to_string())
                    .bind(after.id.as_str())
                    .execute(&mut *self.transaction)
                    .await?;
            }
        }
        self.touched.push(Touched::ResourceServer(after.id.clone()));
        self.note(action, RecordKind::ResourceServer, after.id.as_str(), before.as_ref(), Some(&after)).await
    }
}

/// Entitlements.
impl Writing {
    async fn add_entitlement(&mut self, entitlement: Entitlement) -> Result<(), EditRefusal> {
        self.absent::<Entitlement>(RecordKind::Entitlement, ENTITLEMENT, entitlement.id.as_str()).await?;
        let client: Client = self.present(RecordKind::Client, CLIENT, entitlement.client_id.as_str()).await?;
        if client.state == ClientState::Retired {
            return Err(forbidden(RecordKind::Client, client.id.as_str(), client.state.as_str(), "entitled"));
        }
        if entitlement.ended_at.is_some() {
            return Err(malformed(NOT_AFTER_ITS_START));
        }
        self.entitlement_makes_sense(&entitlement).await?;
        self.put_entitlement(None, entitlement, "entitlement.add").await
    }

    async fn change_entitlement(&mut self, after: Entitlement) -> Result<(), EditRefusal> {
        let before: Entitlement = self.present(RecordKind::Entitlement, ENTITLEMENT, after.id.as_str()).await?;
        if before.ended_at.is_some() {
            return Err(forbidden(RecordKind::Entitlement, after.id.as_str(), "ended", "changed"));
        }
        if (&before.client_id, &before.resource_server_id) != (&after.client_id, &after.resource_server_id) {
            return Err(malformed(
                "client and resource server of an entitlement are not changed: end it and add another",
            ));
        }
        if after.ended_at.is_some() {
            return Err(malformed(NOT_AFTER_ITS_START));
        }
        let server = self.entitlement_makes_sense(&after).await?;
        if !after.covers(&before) {
            self.mark(MarkKind::Entitlement, format_args!("{} {}", after.client_id, server.resource));
        }
        self.put_entitlement(Some(before), after, "entitlement.change").await
    }

    /// The resource server it is for, if what it says fits that one and itself.
    async fn entitlement_makes_sense(&mut self, entitlement: &Entitlement) -> Result<ResourceServer, EditRefusal> {
        let id = entitlement.resource_server_id.as_str();
        fits_itself(entitlement)?;
        let server: ResourceServer = self.present(RecordKind::ResourceServer, RESOURCE_SERVER, id).await?;
        if server.state != ResourceServerState::Active && !self.came_along(RESOURCE_SERVER_IMPORT, id).await? {
            return Err(forbidden(RecordKind::ResourceServer, id, server.state.as_str(), "used"));
        }
        fits_its_server(entitlement, &server)?;
        Ok(server)
    }

    async fn end_entitlement(&mut self, id: &EntitlementId) -> Result<(), EditRefusal> {
        let before: Entitlement = self.present(RecordKind::Entitlement, ENTITLEMENT, id.as_str()).await?;
        if before.ended_at.is_some() {
            return Err(forbidden(RecordKind::Entitlement, id.as_str(), "ended", "ended"));
        }
        let server_id = before.resource_server_id.as_str();
        let server: ResourceServer = self.present(RecordKind::ResourceServer, RESOURCE_SERVER, server_id).await?;
        self.mark(MarkKind::Entitlement, format_args!("{} {}", before.client_id, server.resource));
        let after = Entitlement { ended_at: Some(self.explanation.at), ..before.clone() };
        self.put_entitlement(Some(before), after, "entitlement.end").await
    }

    async fn put_entitlement(
        &mut self,
        before: Option<Entitlement>,
        after: Entitlement,
        action: &'static str,
    ) -> Result<(), EditRefusal> {
        sqlx::query(
            "INSERT INTO entitlement (id, client_id, resource_server_id, record, import_id) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (id) DO UPDATE SET record = excluded.record",
        )
        .bind(after.id.as_str())
        .bind(after.client_id.as_str())
        .bind(after.resource_server_id.as_str())
        .bind(json(&after)?)
        .bind(self.import_id())
        .execute(&mut *self.transaction)
        .await?;
        self.touched.push(Touched::Client(after.client_id.clone()));
        self.note(action, RecordKind::Entitlement, after.id.as_str(), before.as_ref(), Some(&after)).await
    }
}

const NOT_AFTER_ITS_START: &str = "an entitlement ends after it starts";

/// What an entitlement says by itself.
fn fits_itself(entitlement: &Entitlement) -> Result<(), EditRefusal> {
    if entitlement.ends_at.is_some_and(|end| end <= entitlement.starts_at) {
        return Err(malformed(NOT_AFTER_ITS_START));
    }
    if entitlement.reason.trim().is_empty() {
        return Err(malformed("an entitlement says why it is given"));
    }
    if entitlement.scopes.is_empty() {
        return Err(malformed("an entitlement names at least one scope"));
    }
    Ok(())
}

fn fits_its_server(entitlement: &Entitlement, server: &ResourceServer) -> Result<(), EditRefusal> {
    if server.scopes.includes(&entitlement.scopes) {
        Ok(())
    } else {
        Err(malformed(&format!("resource server {} knows only these scopes: {}", server.id, server.scopes)))
    }
}

/// Which import entered a record: `0` for none.
const CLIENT_IMPORT: &str = "SELECT import_id FROM client WHERE id = $1";
const PARTICIPANT_IMPORT: &str = "SELECT import_id FROM participant WHERE id = $1";
const RESOURCE_SERVER_IMPORT: &str = "SELECT import_id FROM resource_server WHERE id = $1";
const TRUST_ANCHOR_IMPORT: &str = "SELECT import_id FROM trust_anchor WHERE id = $1";

/// What all changes have in common.
impl Writing {
    async fn present<R: Record>(&mut self, kind: RecordKind, lookup: Lookup, id: &str) -> Result<R, EditRefusal> {
        let statement = if self.import.is_some() { lookup.all } else { lookup.visible };
        let found = constraint::find(&mut self.transaction, statement, id).await?;
        found.ok_or_else(|| EditRefusal::NotFound { kind, id: id.to_owned() })
    }

    async fn absent<R: Record>(&mut self, kind: RecordKind, lookup: Lookup, id: &str) -> Result<(), EditRefusal> {
        if constraint::find::<R>(&mut self.transaction, lookup.all, id).await?.is_none() {
            return Ok(());
        }
        let id = id.to_owned();
        match constraint::find::<R>(&mut self.transaction, lookup.visible, &id).await? {
            None if self.import.is_none() => Err(EditRefusal::BeingImported { kind, id }),
            _ => Err(EditRefusal::AlreadyExists { kind, id }),
        }
    }

    /// Nothing is added for an organisation that has withdrawn.
    async fn participant_taking_part(&mut self, id: &ParticipantId) -> Result<(), EditRefusal> {
        let participant: Participant = self.present(RecordKind::Participant, PARTICIPANT, id.as_str()).await?;
        match participant.state {
            ParticipantState::Withdrawn if self.came_along(PARTICIPANT_IMPORT, id.as_str()).await? => Ok(()),
            ParticipantState::Withdrawn => {
                Err(forbidden(RecordKind::Participant, id.as_str(), participant.state.as_str(), "given anything"))
            }
            ParticipantState::Pending | ParticipantState::Active | ParticipantState::Suspended => Ok(()),
        }
    }

    /// Whether the record comes from the same import: where it has ended, what refers to it did so in the registry that both
    /// were exported from, and is refused by admission as it was there.
    async fn came_along(&mut self, statement: &'static str, id: &str) -> Result<bool, EditRefusal> {
        let Some(import) = self.import else { return Ok(false) };
        let of: Option<i64> = sqlx::query_scalar(statement).bind(id).fetch_optional(&mut *self.transaction).await?;
        Ok(of == Some(import.0))
    }

    fn import_id(&self) -> i64 {
        self.import.map_or(0, |import| import.0)
    }

    fn mark(&mut self, kind: MarkKind, id: impl ToString) {
        self.marks.push(NewMark { kind, id: id.to_string(), forget_after: None, client_id: None, status: None });
    }

    /// One row of the history.
    async fn note(
        &mut self,
        action: &'static str,
        kind: RecordKind,
        id: &str,
        before: Option<&impl Serialize>,
        after: Option<&impl Serialize>,
    ) -> Result<(), EditRefusal> {
        if self.import.is_some() {
            // One entry of the history stands for all that an import has entered.
            return Ok(());
        }
        sqlx::query(
            "INSERT INTO history (version, step, at, actor, action, subject, record_before, record_after, why) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(self.version.0)
        .bind(self.steps)
        .bind(self.explanation.at.as_millis())
        .bind(json(&self.explanation.actor)?)
        .bind(action)
        .bind(kind.subject(id))
        .bind(before.map(json).transpose()?)
        .bind(after.map(json).transpose()?)
        .bind(self.explanation.why.clone())
        .execute(&mut *self.transaction)
        .await?;
        self.steps += 1;
        Ok(())
    }
}

/// What a change that is under no rule can be refused for.
pub(super) fn unavailable(refusal: EditRefusal) -> ImportRefusal {
    match refusal {
        EditRefusal::Unavailable(error) => error.into(),
        other => StoreUnavailable::because(other).into(),
    }
}

fn columns(touched: &Touched) -> (&'static str, String) {
    match touched {
        Touched::Anchor(id) => ("anchor", id.to_string()),
        Touched::Client(id) => ("client", id.to_string()),
        Touched::Key(key) => ("key", key.to_string()),
        Touched::Participant(id) => ("participant", id.to_string()),
        Touched::ResourceServer(id) => ("resource_server", id.to_string()),
    }
}

fn grant_id(participant: &ParticipantId, anchor: &AnchorId) -> String {
    format!("{participant} {anchor}")
}

fn malformed(sentence: &str) -> EditRefusal {
    EditRefusal::Malformed(sentence.to_owned())
}

fn forbidden(kind: RecordKind, id: &str, from: &'static str, to: &'static str) -> EditRefusal {
    EditRefusal::StateForbids { kind, id: id.to_owned(), from, to }
}

fn json(value: &impl Serialize) -> Result<String, StoreUnavailable> {
    serde_json::to_string(value).map_err(StoreUnavailable::because)
}
