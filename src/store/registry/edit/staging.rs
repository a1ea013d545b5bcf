//! The entries of an import, under the rules of single changes.
//!
//! Takes entries in order of their lines, gives those that were refused and what they concern that is in the registry already.
//! What has ended may be entered too, with whatever referred to it where it was exported from. It takes no version and writes
//! no history: that is for the moment when all of it becomes visible.

use super::constraint::{self};
use super::{
    CLIENT, CLIENT_IMPORT, ENTITLEMENT, PARTICIPANT, PARTICIPANT_IMPORT, TRUST_ANCHOR, TRUST_ANCHOR_IMPORT, Writing,
    forbidden, grant_id,
};
use crate::registry::certificate::{Certificate, CertificateState};
use crate::registry::client::{Client, ClientAuthentication, ClientState};
use crate::registry::edit::{EditRefusal, RecordKind};
use crate::registry::entitlement::Entitlement;
use crate::registry::history::{Explanation, Touched};
use crate::registry::import::{Entry, ImportId, ImportRefusal, Lease, Numbered, Refused, RevokedKey, Staged};
use crate::registry::participant::Participant;
use crate::registry::trust_anchor::{AnchorGrant, AnchorOwner, AnchorState, TrustAnchor};
use crate::registry::{ParticipantId, RegistryVersion, StoreUnavailable};

use countersign_resource_server::time::UnixTime;
use sqlx::{Any, Transaction};

/// Some entries of an import, under way.
pub(in crate::store::registry) struct Staging {
    pub(super) writing: Writing,
    pub(super) staged: Staged,
}

impl Staging {
    /// Takes the place of whoever changes the registry, without a version, and says that the import is alive until `until`.
    pub(in crate::store::registry) async fn begin(
        mut transaction: Transaction<'static, Any>,
        lease: Lease,
        explanation: Explanation,
        until: UnixTime,
    ) -> Result<Self, ImportRefusal> {
        let version: i64 = sqlx::query_scalar("UPDATE registry_state SET version = version RETURNING version")
            .fetch_one(&mut *transaction)
            .await
            .map_err(StoreUnavailable::from)?;
        let alive = sqlx::query(
            "UPDATE registry_import SET leased_until = $2 WHERE id = $1 AND state = 'staging' AND leased_until = $3",
        )
        .bind(lease.import.0)
        .bind(until.as_millis())
        .bind(lease.until.as_millis())
        .execute(&mut *transaction)
        .await
        .map_err(StoreUnavailable::from)?;
        if alive.rows_affected() == 0 {
            return Err(ended(&mut transaction, lease.import).await);
        }
        let writing = Writing {
            transaction,
            explanation,
            import: Some(lease.import),
            version: RegistryVersion(version),
            steps: 0,
            touched: Vec::new(),
            marks: Vec::new(),
        };
        Ok(Self { writing, staged: Staged::default() })
    }

    /// Enters `entries`: each kind after those that it refers to.
    pub(in crate::store::registry) async fn enter_all(&mut self, entries: Vec<Numbered>) -> Result<(), EditRefusal> {
        let (mut clients, mut certificates, mut entitlements) = (Vec::new(), Vec::new(), Vec::new());
        let (mut others, mut keys) = (Vec::new(), Vec::new());
        for Numbered { line, entry } in entries {
            match entry {
                Entry::Client(client, own) => clients.push((line, *client, own)),
                Entry::Certificate(certificate) => certificates.push((line, *certificate)),
                Entry::Entitlement(entitlement) => entitlements.push((line, entitlement)),
                Entry::RevokedKey(_) => keys.push((line, entry)),
                other => others.push((rank(&other), line, other)),
            }
        }
        others.sort_by_key(|(rank, line, _)| (*rank, *line));
        for (_, line, entry) in others {
            self.enter(line, entry).await?;
        }
        self.clients(clients).await?;
        self.certificates(certificates).await?;
        self.entitlements(entitlements).await?;
        for (line, entry) in keys {
            self.enter(line, entry).await?;
        }
        Ok(())
    }

    /// Enters one, by the rules of a single change.
    pub(super) async fn enter(&mut self, line: u64, entry: Entry) -> Result<(), EditRefusal> {
        let subject = entry.subject();
        match self.entered(entry).await {
            Err(EditRefusal::Unavailable(error)) => Err(error.into()),
            Err(refusal) => {
                self.staged.refused.push(Refused { line, subject, refusal });
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn entered(&mut self, entry: Entry) -> Result<(), EditRefusal> {
        let writing = &mut self.writing;
        match entry {
            Entry::Participant(participant) => {
                writing.absent::<Participant>(RecordKind::Participant, PARTICIPANT, participant.id.as_str()).await?;
                writing.put_participant(None, participant, "").await
            }
            Entry::Anchor { anchor, subject_der } => {
                let touched = Touched::Anchor(anchor.id.clone());
                writing.enter_anchor(anchor, &subject_der).await?;
                self.staged.concerns.insert(touched);
                Ok(())
            }
            Entry::Grant(grant) => self.grant(grant).await,
            Entry::ResourceServer(resource_server) => writing.enter_resource_server(resource_server).await,
            Entry::Client(client, certificates) => {
                let participant = client.participant_id.clone();
                writing.enter_client(*client, certificates).await?;
                self.staged.newcomer.get_or_insert(participant);
                Ok(())
            }
            Entry::Certificate(certificate) => self.certificate(*certificate).await,
            Entry::Entitlement(entitlement) => self.entitlement(entitlement).await,
            Entry::RevokedKey(key) => self.revoked_key(key).await,
        }
    }

    async fn grant(&mut self, grant: AnchorGrant) -> Result<(), EditRefusal> {
        let writing = &mut self.writing;
        let (participant, anchor_id) = (grant.participant_id.clone(), grant.anchor_id.clone());
        writing.participant_taking_part(&participant).await?;
        let anchor: TrustAnchor = writing.present(RecordKind::TrustAnchor, TRUST_ANCHOR, anchor_id.as_str()).await?;
        if anchor.state != AnchorState::Active && !writing.came_along(TRUST_ANCHOR_IMPORT, anchor_id.as_str()).await? {
            return Err(forbidden(RecordKind::TrustAnchor, anchor_id.as_str(), anchor.state.as_str(), "granted"));
        }
        if matches!(&anchor.owner, AnchorOwner::Participant(owner) if *owner != participant) {
            return Err(EditRefusal::AnchorOfAnother);
        }
        let held: Option<String> =
            sqlx::query_scalar("SELECT state FROM anchor_grant WHERE participant_id = $1 AND anchor_id = $2")
                .bind(participant.as_str())
                .bind(anchor_id.as_str())
                .fetch_optional(&mut *writing.transaction)
                .await?;
        match held.as_deref() {
            None => {}
            Some("granted") => {
                let id = grant_id(&participant, &anchor_id);
                return Err(EditRefusal::AlreadyExists { kind: RecordKind::AnchorGrant, id });
            }
            // One that was withdrawn stands in the way of a row that nobody sees yet.
            Some(_) => {
                return Err(super::malformed(
                    "this grant was withdrawn once: give it again with `countersign anchor grant`, and take the line out of the file",
                ));
            }
        }
        if anchor.state == AnchorState::Active {
            constraint::anchor_limit(&mut writing.transaction, &participant, &anchor_id).await?;
            constraint::identities_under(&mut writing.transaction, &participant, &anchor_id).await?;
        }
        writing.put_grant(None, grant, "granted", "").await?;
        if !writing.came_along(PARTICIPANT_IMPORT, participant.as_str()).await? {
            self.staged.concerns.insert(Touched::Participant(participant));
        }
        Ok(())
    }

    async fn certificate(&mut self, certificate: Certificate) -> Result<(), EditRefusal> {
        let client = self.owner(certificate.client_id.as_str(), "given a certificate").await?;
        let at = self.writing.explanation.at;
        if !is_in_reach(&certificate, &client.authentication, at) {
            return Err(super::malformed(
                "a certificate that is active or superseded has its issuer_key, for what its issuer revokes to be found: give it, or say that the certificate is announced",
            ));
        }
        let owner = self.concerned(client).await?;
        if let Some(replaces) = &certificate.replaces {
            let id = replaces.thumbprint.to_string();
            let other: Option<Certificate> =
                constraint::find(&mut self.writing.transaction, super::CERTIFICATE.all, &id).await?;
            // It may come later in the file: whose it is, is looked at again before it is replaced.
            if other.is_some_and(|other| other.client_id != certificate.client_id) {
                let (client, thumbprint) = (certificate.client_id, replaces.thumbprint);
                return Err(EditRefusal::NothingToReplace { client, thumbprint });
            }
        }
        constraint::enrolment(&mut self.writing.transaction, &certificate, at).await?;
        self.writing.put_certificate(None, certificate, "").await?;
        self.staged.concerns.extend(owner.map(Touched::Participant));
        Ok(())
    }

    async fn entitlement(&mut self, entitlement: Entitlement) -> Result<(), EditRefusal> {
        let id = entitlement.id.as_str();
        self.writing.absent::<Entitlement>(RecordKind::Entitlement, ENTITLEMENT, id).await?;
        let client = self.owner(entitlement.client_id.as_str(), "entitled").await?;
        let owner = self.concerned(client).await?;
        self.writing.entitlement_makes_sense(&entitlement).await?;
        self.writing.put_entitlement(None, entitlement, "").await?;
        self.staged.concerns.extend(owner.map(Touched::Participant));
        Ok(())
    }

    /// The client, where anything may still be entered for it.
    async fn owner(&mut self, client: &str, what: &'static str) -> Result<Client, EditRefusal> {
        let owner: Client = self.writing.present(RecordKind::Client, CLIENT, client).await?;
        if owner.state == ClientState::Retired && !self.writing.came_along(CLIENT_IMPORT, client).await? {
            return Err(forbidden(RecordKind::Client, client, owner.state.as_str(), what));
        }
        Ok(owner)
    }

    /// Whose the client is, where it is in the registry already.
    async fn concerned(&mut self, client: Client) -> Result<Option<ParticipantId>, EditRefusal> {
        let came_along = self.writing.came_along(CLIENT_IMPORT, client.id.as_str()).await?;
        Ok(if came_along { None } else { Some(client.participant_id) })
    }

    async fn revoked_key(&mut self, key: RevokedKey) -> Result<(), EditRefusal> {
        let RevokedKey { key_hash, revoked_at, reason } = key;
        constraint::key_good(&mut self.writing.transaction, &key_hash).await.map_err(|refusal| match refusal {
            EditRefusal::KeyRevoked => forbidden(RecordKind::Key, &key_hash.to_string(), "revoked", "revoked"),
            other => other,
        })?;
        let holder: Option<String> =
            sqlx::query_scalar("SELECT thumbprint FROM certificate WHERE key_hash = $1 AND state <> 'revoked' LIMIT 1")
                .bind(key_hash.to_string())
                .fetch_optional(&mut *self.writing.transaction)
                .await?;
        if let Some(holder) = holder {
            return Err(super::malformed(&format!(
                "certificate {holder} has this key and is not revoked: revoke the key of what is registered with `countersign certificate revoke-key`, and say so of certificates in the file"
            )));
        }
        sqlx::query(
            "INSERT INTO revoked_key (key_hash, version, revoked_at, reason, import_id) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(key_hash.to_string())
        .bind(self.writing.version.0)
        .bind(revoked_at.as_millis())
        .bind(reason.as_str())
        .bind(self.writing.import_id())
        .execute(&mut *self.writing.transaction)
        .await?;
        Ok(())
    }

    /// Keeps what was entered, for nobody to see yet.
    pub(in crate::store::registry) async fn commit(self) -> Result<Staged, StoreUnavailable> {
        let Self { writing, staged } = self;
        writing.transaction.commit().await?;
        Ok(staged)
    }
}

/// Why an import does not go on that the store has no more, or under another lease.
pub(super) async fn ended(transaction: &mut Transaction<'static, Any>, import: ImportId) -> ImportRefusal {
    let state = "SELECT state FROM registry_import WHERE id = $1 AND state <> 'staging'";
    let given_up = sqlx::query(state).bind(import.0).fetch_optional(&mut **transaction).await;
    match given_up {
        Ok(Some(_)) => ImportRefusal::GivenUp,
        Ok(None) => ImportRefusal::Lost,
        Err(error) => StoreUnavailable::from(error).into(),
    }
}

/// Whether what its issuer revokes is found, or need not be: once it is seen, nothing more is learnt of a certificate. One that is
/// over is good for nothing, and where the registered one itself is the proof, nobody asks who issued it.
fn is_in_reach(certificate: &Certificate, method: &ClientAuthentication, now: UnixTime) -> bool {
    let has_an_issuer =
        matches!(method, ClientAuthentication::TlsClientAuth { .. } | ClientAuthentication::SpiffeX509 { .. });
    match certificate.state {
        CertificateState::Announced | CertificateState::Revoked { .. } => true,
        CertificateState::Active | CertificateState::Superseded { .. } => {
            certificate.issuer_key.is_some() || !has_an_issuer || certificate.live_until() <= now
        }
    }
}

/// The order in which kinds refer to each other.
const fn rank(entry: &Entry) -> u8 {
    match entry {
        Entry::Participant(_) => 0,
        Entry::Anchor { .. } => 1,
        Entry::Grant(_) => 2,
        Entry::ResourceServer(_) => 3,
        Entry::Client(..) | Entry::Certificate(_) | Entry::Entitlement(_) | Entry::RevokedKey(_) => 4,
    }
}
