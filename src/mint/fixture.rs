//! Keys and grants for tests.

use std::future::ready;
use std::sync::{Arc, LazyLock, Mutex};

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use futures_util::FutureExt;
use zeroize::Zeroizing;

use super::key_ring::{KeyAnswer, KeyRecord, KeyStore, KeyWrite, StoredKey, StoredKeys, complete};
use super::{Grant, KeyRing, Mint};
use crate::registry::client::{Client, ClientAuthentication, ClientState, Enrolment, Environment};
use crate::registry::participant::{Contacts, Participant, ParticipantState};
use crate::registry::resource_server::StatusClaim;
use crate::registry::{
    AnchorId, AnchorSetId, ClientId, ClientRecord, FoundClient, KeyHash, ParticipantId, RegistryVersion,
    ResourceIndicator, Thumbprint,
};

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const NOW: UnixTime = UnixTime::from_millis(1_800_000_000_123);

/// Keys in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryKeys {
    keys: Mutex<Vec<(KeyRecord, Zeroizing<String>)>>,
    changes: Mutex<u64>,
}

impl KeyStore for MemoryKeys {
    fn read(&self) -> KeyAnswer<'_, StoredKeys> {
        let fingerprint = *self.changes.lock().unwrap();
        let keys = self.keys.lock().unwrap();
        let keys = keys.iter().map(|(record, pem)| StoredKey { record: record.clone(), pem: pem.clone() }).collect();
        ready(Ok(StoredKeys { keys, set_aside: Vec::new(), fingerprint })).boxed()
    }

    fn write(&self, seen: u64, writes: Vec<KeyWrite>) -> KeyAnswer<'_, bool> {
        let is_current = *self.changes.lock().unwrap() == seen;
        for write in writes.into_iter().filter(|_| is_current) {
            match write {
                KeyWrite::Add(StoredKey { record, pem }) => {
                    self.keys.lock().unwrap().push((record, pem));
                    *self.changes.lock().unwrap() += 1;
                }
                KeyWrite::Update(record) => self.set(record),
            }
        }
        ready(Ok(is_current)).boxed()
    }

    fn fingerprint(&self) -> KeyAnswer<'_, u64> {
        ready(Ok(*self.changes.lock().unwrap())).boxed()
    }

    fn is_shared(&self) -> bool {
        false
    }
}

static BEGUN: LazyLock<Vec<(KeyRecord, Zeroizing<String>)>> = LazyLock::new(|| {
    let keys = MemoryKeys::default();
    complete(&keys, NOW).now_or_never().unwrap().unwrap();
    keys.keys.into_inner().unwrap()
});

impl MemoryKeys {
    /// The keys of a server that began at [`NOW`]: made once for all tests, for RSA keys take long.
    pub(crate) fn begun() -> Arc<Self> {
        Arc::new(Self { keys: Mutex::new(BEGUN.clone()), changes: Mutex::new(0) })
    }

    /// Replaces what is known of a key.
    pub(crate) fn set(&self, record: KeyRecord) {
        let mut keys = self.keys.lock().unwrap();
        let held = keys.iter_mut().find(|(held, _)| held.kid == record.kid).unwrap();
        held.0 = record;
        *self.changes.lock().unwrap() += 1;
    }

    /// Those of one algorithm.
    pub(crate) fn begun_with(algorithm: SigningAlgorithm) -> Arc<Self> {
        let keys = BEGUN.iter().filter(|(record, _)| record.alg == algorithm).cloned().collect();
        Arc::new(Self { keys: Mutex::new(keys), changes: Mutex::new(0) })
    }
}

/// The ring of that server; nobody rotates it.
pub(crate) fn ring() -> Arc<KeyRing> {
    static RING: LazyLock<Arc<KeyRing>> = LazyLock::new(|| {
        let opened = KeyRing::open(MemoryKeys::begun(), NOW).now_or_never();
        Arc::new(opened.unwrap().unwrap())
    });
    Arc::clone(&RING)
}

pub(crate) fn mint() -> Mint {
    Mint::new(ISSUER, ring())
}

/// A client record without certificates or entitlements, read at `version`.
pub(crate) fn client(id: &str, participant: &str, version: i64) -> FoundClient {
    let version = RegistryVersion(version);
    let participant_id = ParticipantId::parse(participant).unwrap();
    let record = ClientRecord {
        as_of: version,
        client: Client {
            id: ClientId::parse(id).unwrap(),
            participant_id: participant_id.clone(),
            environment: Environment::Production,
            contact: None,
            authentication: ClientAuthentication::SelfSignedTlsClientAuth { jwks: r#"{"keys":[]}"#.to_owned() },
            access_token_signing_alg: SigningAlgorithm::ES256,
            access_token_lifetime_seconds: None,
            enrolment: Enrolment::Required,
            renewal_overlap_seconds: None,
            requests_per_second: None,
            software_id: None,
            state: ClientState::Active,
        },
        participant: Arc::new(Participant {
            id: participant_id,
            legal_name: "Partner".to_owned(),
            registration_number: None,
            country: None,
            roles: vec!["payments".to_owned()],
            contacts: Contacts::default(),
            state: ParticipantState::Active,
        }),
        anchors: Vec::new(),
        anchor_set: AnchorSetId([0; 32]),
        certificates: Vec::new(),
        entitlements: Vec::new(),
    };
    FoundClient { record: Arc::new(record), version }
}

pub(crate) fn grant(client: FoundClient) -> Grant {
    Grant {
        client,
        thumbprint: Thumbprint::of(b"certificate"),
        key_hash: KeyHash::of(b"key"),
        anchor: Some(AnchorId::parse("anchor").unwrap()),
        resource: ResourceIndicator::parse("https://api.example").unwrap(),
        scope: Scope::parse("read write").unwrap(),
        expires_no_later_than: NOW.after(std::time::Duration::from_secs(300)),
        signing_alg: SigningAlgorithm::ES256,
        status: StatusClaim::Absent,
        assertion: None,
    }
}
