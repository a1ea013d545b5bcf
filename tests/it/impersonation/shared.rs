//! Two participants under one authority of the operator's, whose names differ by a letter: each may have its own names
//! certified there, and neither the other's.

use std::sync::Arc;

use countersign::pki::identity;
use countersign::registry::client::SubjectAttribute;
use countersign::registry::participant::ParticipantState;
use countersign::registry::trust_anchor::NameSpace;
use countersign_conformance::KeyKind;
use countersign_conformance::pki::{AltName, Authority, Credential, Name, Template};
use countersign_resource_server::time::UnixTime;

use super::{Family, Method, Outcome, Victim, run};
use crate::rig::{Enrolling, Rig, rule, tls_client};
use crate::world::{Party, World};

/// A participant under the shared authority: its organisation, its domain, and its clients' ids.
struct Bank {
    participant: &'static str,
    organisation: &'static str,
    domain: &'static str,
    /// By subject, DNS name, URI and e-mail address.
    clients: [&'static str; 4],
}

/// The victim, and three that look like it.
const BANKS: [Bank; 4] = [
    Bank {
        participant: "bank",
        organisation: "Bank",
        domain: "bank.example",
        clients: ["bank-dn", "bank-dns", "bank-uri", "bank-email"],
    },
    Bank {
        participant: "evilbank",
        organisation: "Evil Bank",
        domain: "evilbank.example",
        clients: ["evilbank-dn", "evilbank-dns", "evilbank-uri", "evilbank-email"],
    },
    Bank {
        participant: "xbank",
        organisation: "Bank X",
        domain: "bank.example.x.example",
        clients: ["xbank-dn", "xbank-dns", "xbank-uri", "xbank-email"],
    },
    Bank {
        participant: "subbank",
        organisation: "Bank,OU=Bank",
        domain: "xbank.example",
        clients: ["subbank-dn", "subbank-dns", "subbank-uri", "subbank-email"],
    },
];

impl Bank {
    fn subject(&self) -> Name {
        Name::of(&[("C", "DE"), ("O", self.organisation), ("CN", "client")])
    }

    /// What the certificates of its four clients say.
    fn templates(&self, now: i64) -> [Template; 4] {
        let named = |name| Template::client(Name::default(), now).with_alt_names([name]);
        [
            Template::client(self.subject(), now),
            named(AltName::Dns(format!("client.{}", self.domain))),
            named(AltName::Uri(format!("https://{}/clients/one", self.domain))),
            named(AltName::Email(format!("client@{}", self.domain))),
        ]
    }

    fn rules(&self) -> [(SubjectAttribute, String); 4] {
        let organisation = self.organisation.replace(',', "\\,").replace('=', "\\=");
        [
            (SubjectAttribute::TlsClientAuthSubjectDn, format!("CN=client,O={organisation},C=DE")),
            (SubjectAttribute::TlsClientAuthSanDns, format!("client.{}", self.domain)),
            (SubjectAttribute::TlsClientAuthSanUri, format!("https://{}/clients/one", self.domain)),
            (SubjectAttribute::TlsClientAuthSanEmail, format!("client@{}", self.domain)),
        ]
    }

    fn name_space(&self) -> NameSpace {
        let organisation = self.organisation.replace(',', "\\,").replace('=', "\\=");
        NameSpace {
            any: false,
            dn_suffixes: vec![format!("O={organisation},C=DE")],
            dns_suffixes: vec![self.domain.to_owned()],
            uri_prefixes: vec![format!("https://{}/", self.domain)],
        }
    }
}

/// The authority that all of them share, the same for every world of one instant.
fn shared_authority(now: i64) -> Authority {
    use std::sync::LazyLock;
    static KEY: LazyLock<Authority> = LazyLock::new(|| Authority::root("Operator CA", 1_800_000_000));
    let credential = Credential { key: Arc::clone(&KEY.key), chain: Vec::new() };
    let mut authority = Authority::pretended(KEY.name.clone(), &credential, now);
    authority.certificate = authority.sign(&Template::authority(authority.name.clone(), now), &authority.key.spki());
    authority
}

fn victims(world: &World, shared: &Authority) -> Vec<(usize, usize, Victim)> {
    let mut all = Vec::new();
    for (bank_at, bank) in BANKS.iter().enumerate() {
        for (client_at, template) in bank.templates(world.now).into_iter().enumerate() {
            let credential = shared.issue(&template, KeyKind::P256);
            let party = Party { id: bank.clients[client_at], credential, signs: None };
            all.push((
                bank_at,
                client_at,
                Victim { party, template, authority: shared.clone(), method: Method::OnFirstUse },
            ));
        }
    }
    all
}

pub(super) fn names(world: &World) -> Family<'_> {
    let mut family = Family::of(world);
    let shared = shared_authority(world.now);
    let all = victims(world, &shared);
    for (bank_at, client_at, victim) in &all {
        family.honest("its own certificate", victim, &victim.party.credential);
        for (other_at, other_client_at, other) in &all {
            if (other_at, other_client_at) == (bank_at, client_at) {
                continue;
            }
            // Whoever has another bank's certificate is outside; another client of the same bank has another name.
            let reason = if other_at == bank_at { "certificate_name_mismatch" } else { "peer_outside_name_space" };
            let what = format!("the certificate of {}", other.party.id);
            family.push(&what, victim, &other.party.credential, Outcome::Refused(reason));
        }
        // The authority is deceived: both banks' names in one certificate. It is neither's.
        for other in BANKS.iter().filter(|other| other.participant != BANKS[*bank_at].participant) {
            let mut template = victim.template.clone();
            template.alt_names.push(AltName::Dns(format!("client.{}", other.domain)));
            let both = shared.issue(&template, KeyKind::P256);
            let what = format!("its name and that of {} in one certificate", other.participant);
            family.push(&what, victim, &both, Outcome::Refused("peer_outside_name_space"));
        }
    }
    family
}

#[tokio::test]
async fn neither_has_the_others_name() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let shared = shared_authority(world.now);
    let family = names(world);
    let enrolling = Enrolling { registry: &rig.app.registry, world };
    for bank in &BANKS {
        enrolling.participant(bank.participant, ParticipantState::Active).await;
    }
    let grants: Vec<(&str, NameSpace)> = BANKS.iter().map(|bank| (bank.participant, bank.name_space())).collect();
    enrolling.anchor(&shared, None, &grants).await;
    let day = std::time::Duration::from_secs(86_400);
    for (bank_at, client_at, victim) in victims(world, &shared) {
        let bank = &BANKS[bank_at];
        let (attribute, value) = &bank.rules()[client_at];
        let client = tls_client(&victim.party, bank.participant, rule(*attribute, value));
        enrolling.client(client, Vec::new()).await;
        let from = UnixTime::from_seconds(world.now).before(day);
        enrolling.entitle(&victim.party, "accounts", "accounts:read", from, None).await;
    }
    run(&rig, &family).await;
}

/// A hundred roots of the victim's anchor's name, granted to others: neither the verdict nor what is searched changes.
#[tokio::test]
async fn a_hundred_roots_of_one_name_elsewhere_change_nothing() {
    let rig = Rig::start().await;
    let world = &rig.world;
    let client = countersign::registry::ClientId::parse("a-dn").unwrap();
    let before = rig.app.registry.client(&client).await.unwrap().record;
    let enrolling = Enrolling { registry: &rig.app.registry, world };
    let anything = NameSpace { any: true, ..NameSpace::default() };
    let mut theirs = Vec::new();
    for number in 0..13 {
        let participant = format!("crowd-{number}");
        enrolling.participant(&participant, ParticipantState::Active).await;
        for _ in 0..8 {
            let root = world.a_root.twin();
            enrolling.anchor(&root, Some(&participant), &[(&participant, anything.clone())]).await;
            theirs.push(root);
        }
    }
    assert!(theirs.len() >= 100);
    let after = rig.app.registry.client(&client).await.unwrap().record;
    // The search rests on these alone, so it costs what it did.
    assert_eq!((before.anchor_set, before.anchors.len()), (after.anchor_set, after.anchors.len()));
    let mut family = Family::of(world);
    let all = super::victims(world);
    let victim = all.iter().find(|victim| victim.party.id == "a-dn").unwrap();
    family.honest("its own certificate", victim, &victim.party.credential);
    for (number, root) in theirs.iter().enumerate() {
        let credential = root.issue(&victim.template, KeyKind::P256);
        let outcome = Outcome::Refused("peer_signature_invalid");
        family.push(&format!("under root {number} of the same name"), victim, &credential, outcome);
    }
    family.honest("its own certificate again", victim, &victim.party.credential);
    run(&rig, &family).await;
}

/// A name space ends where a name does, and nowhere within it.
#[test]
fn look_alikes_are_outside() {
    let space = identity::name_space(&BANKS[0].name_space()).unwrap();
    let shared = shared_authority(1_800_000_000);
    for (at, bank) in BANKS.iter().enumerate() {
        for template in bank.templates(1_800_000_000) {
            let der = shared.issue(&template, KeyKind::P256);
            let parsed = countersign::pki::ParsedCertificate::read(der.certificate()).unwrap();
            let outside = parsed.names().unwrap().first_outside(&space).is_some();
            assert_eq!(outside, at != 0, "{} {:?}", bank.organisation, template.alt_names);
        }
    }
}
