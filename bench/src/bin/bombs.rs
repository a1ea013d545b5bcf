//! What the hardest certificates cost: CPU time of the thread that reads and judges a list, case by case, beside what one
//! signature of each kind costs on this machine in the same minute. A hostile list may cost a millisecond.
//!
//! The server's verifier is driven directly, without TLS, by certificates of the conformance crate. Each round starts with
//! a verifier that knows the participant's anchors and has never seen the list.

#![expect(clippy::print_stdout, reason = "the figures are this program's output")]

#[path = "../machine.rs"]
#[expect(dead_code, reason = "the programme uses the rest of it")]
mod machine;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature as algorithms;
use countersign::pki::identity;
use countersign::pki::{Handshake, PeerRefusal, PresentedChain, Verifier};
use countersign::registry::client::{
    Client, ClientAuthentication, ClientState, Enrolment, Environment, SubjectAttribute,
};
use countersign::registry::participant::{Contacts, Participant, ParticipantState};
use countersign::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, EkuPolicy, NameSpace, RevocationSources, TrustAnchor, Unknown,
};
use countersign::registry::{
    AnchorId, AnchorSetId, ClientId, ClientRecord, FoundClient, GrantedAnchor, KeyHash, ParticipantId, RegistryVersion,
};
use countersign_conformance::pki::{AltName, Attribute, Authority, Credential, Extension, Name, Template};
use countersign_conformance::{Key, KeyKind, der};
use countersign_resource_server::time::UnixTime;
use countersign_resource_server::token::jws::SigningAlgorithm;
use futures_util::FutureExt;
use machine::thread_time;
use rustls_pki_types::CertificateDer;

type Failure = Box<dyn Error + Send + Sync>;

/// The present of every certificate here.
const NOW: i64 = 1_800_000_000;

/// What a hostile list may cost.
const LIMIT: Duration = Duration::from_millis(1);

/// How often each case is measured.
const ROUNDS: usize = 21;

fn main() -> Result<(), Failure> {
    prices()?;
    println!(
        "\n{:<66} {:>8} {:>8} {:>8}  verdict",
        "list (CPU µs of reading and judging it)", "least", "median", "max"
    );
    let mut dearest = Duration::ZERO;
    for case in cases()? {
        let (times, verdict) = case.measure()?;
        dearest = dearest.max(times.median);
        let mark = if times.median > LIMIT { "  OVER THE LIMIT" } else { "" };
        println!("{:<66} {times}  {verdict}{mark}", case.name);
    }
    println!("\ndearest {:.1} µs of {:.0} µs", micros(dearest), micros(LIMIT));
    if dearest > LIMIT { Err("a list costs more than it may".into()) } else { Ok(()) }
}

/// What the same work took again and again. The median is judged.
#[derive(Clone, Copy, Debug)]
struct Times {
    least: Duration,
    median: Duration,
    max: Duration,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |place: usize| times.get(place).copied().unwrap_or_default();
        Self { least: at(0), median: at(times.len() / 2), max: at(times.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>8.1} {:>8.1} {:>8.1}", micros(self.least), micros(self.median), micros(self.max))
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What `src/pki/chain/effort.rs` takes its prices from.
fn prices() -> Result<(), Failure> {
    println!("{:<66} {:>8} {:>8} {:>8}", "one signature check (CPU µs)", "least", "median", "max");
    let kinds: [(KeyKind, &'static dyn algorithms::VerificationAlgorithm); 7] = [
        (KeyKind::Ed25519, &algorithms::ED25519),
        (KeyKind::P256, &algorithms::ECDSA_P256_SHA256_ASN1),
        (KeyKind::P384, &algorithms::ECDSA_P384_SHA384_ASN1),
        (KeyKind::P521, &algorithms::ECDSA_P521_SHA512_ASN1),
        (KeyKind::Rsa2048, &algorithms::RSA_PKCS1_2048_8192_SHA256),
        (KeyKind::Rsa3072, &algorithms::RSA_PKCS1_2048_8192_SHA256),
        (KeyKind::Rsa4096, &algorithms::RSA_PKCS1_2048_8192_SHA256),
    ];
    for (kind, algorithm) in kinds {
        let root = root("Root", kind);
        let certificate = root.client("client").certificate().to_vec();
        let (content, signature) = signed(&certificate).ok_or("not a certificate")?;
        let times = price(algorithm, public_key(&root.key.spki()).ok_or("not a key")?, &content, &signature);
        println!("{:<66} {times}", format!("{kind:?}"));
        if matches!(kind, KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096) {
            let heavy = heavy_spki(&root.key).ok_or("not a key")?;
            let times = price(algorithm, public_key(&heavy).ok_or("not a key")?, &content, &signature);
            println!("{:<66} {times}", format!("{kind:?}, an exponent of 33 bits"));
        }
    }
    Ok(())
}

fn price(
    algorithm: &'static dyn algorithms::VerificationAlgorithm,
    public_key: &[u8],
    content: &[u8],
    signature: &[u8],
) -> Times {
    let once = || {
        let start = thread_time();
        let outcome = algorithm.verify_sig(public_key, content, signature);
        std::hint::black_box(outcome.is_ok());
        thread_time().saturating_sub(start)
    };
    once();
    Times::of((0..ROUNDS).map(|_| once()).collect())
}

/// The content and the signature of a certificate.
fn signed(certificate: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, outer, _) = der::split(certificate)?;
    let (tag, content, rest) = der::split(outer)?;
    let (_, _, rest) = der::split(rest)?;
    let (_, bits, _) = der::split(rest)?;
    Some((der::tlv(tag, content), bits.get(1..)?.to_vec()))
}

/// The key within a SubjectPublicKeyInfo.
fn public_key(spki: &[u8]) -> Option<&[u8]> {
    let (_, info, _) = der::split(spki)?;
    let (_, _, rest) = der::split(info)?;
    let (_, bits, _) = der::split(rest)?;
    bits.get(1..)
}

/// The same modulus under the longest exponent there is an algorithm for, all its bits set.
fn heavy_spki(key: &Key) -> Option<Vec<u8>> {
    let spki = key.spki();
    let (_, numbers, _) = der::split(public_key(&spki)?)?;
    let (tag, modulus, _) = der::split(numbers)?;
    let (_, info, _) = der::split(&spki)?;
    let (algorithm_tag, algorithm, _) = der::split(info)?;
    let exponent = der::unsigned(&[0x01, 0xFF, 0xFF, 0xFF, 0xFF]);
    let heavy = der::sequence([der::tlv(tag, modulus), exponent]);
    Some(der::sequence([der::tlv(algorithm_tag, algorithm), der::bit_string(&heavy)]))
}

/// A participant's anchors, and a list that somebody presents.
struct Case {
    name: String,
    client: FoundClient,
    list: Vec<CertificateDer<'static>>,
}

impl Case {
    fn of(name: &str, anchors: &[&Authority], chain: &[Vec<u8>]) -> Result<Self, Failure> {
        let list = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        Ok(Self { name: name.to_owned(), client: client(anchors)?, list })
    }

    fn measure(&self) -> Result<(Times, &'static str), Failure> {
        let mut times = Vec::new();
        let mut verdict = "";
        let stranger = vec![CertificateDer::from(Authority::root("Nobody", NOW).client("x").certificate().to_vec())];
        for _ in 0..ROUNDS {
            let verifier = Verifier::new();
            // The anchors are compiled once for all lists.
            drop(self.judge(&verifier, stranger.clone())?);
            let list = self.list.clone();
            let start = thread_time();
            let judged = self.judge(&verifier, list);
            times.push(thread_time().saturating_sub(start));
            verdict = match judged? {
                Ok(()) => "good",
                Err(refusal) => refusal.reason(),
            };
        }
        Ok((Times::of(times), verdict))
    }

    /// What a server does with a list after its handshake.
    fn judge(
        &self,
        verifier: &Verifier,
        list: Vec<CertificateDer<'static>>,
    ) -> Result<Result<(), PeerRefusal>, Failure> {
        let handshake = Handshake { remote: ([192, 0, 2, 1], 50_000).into(), protocol: "TLSv1.3", resumed: false };
        let presented = Arc::new(PresentedChain::new(handshake, list));
        let verified = verifier.verify(&presented, &self.client, UnixTime::from_seconds(NOW)).now_or_never();
        Ok(verified.ok_or("somebody else was asked")?.map(|_| ()))
    }
}

fn client(anchors: &[&Authority]) -> Result<FoundClient, Failure> {
    let participant = ParticipantId::parse("partner")?;
    let mut granted = anchors
        .iter()
        .map(|authority| {
            let anchor = TrustAnchor {
                id: AnchorId::parse(&KeyHash::of(&authority.key.spki()).to_string())?,
                material: AnchorMaterial::X509 { certificate_der: authority.certificate.clone() },
                subject: String::new(),
                owner: AnchorOwner::Participant(participant.clone()),
                eku_policy: EkuPolicy::Required,
                unknown_revocation: Unknown::Accept,
                revocation: RevocationSources::default(),
                state: AnchorState::Active,
            };
            let name_space = NameSpace { any: true, ..NameSpace::default() };
            Ok::<_, Failure>(GrantedAnchor { anchor: Arc::new(anchor), name_space })
        })
        .collect::<Result<Vec<_>, _>>()?;
    granted.sort_by(|one, other| one.anchor.id.cmp(&other.anchor.id));
    let subject = identity::subject_rule(SubjectAttribute::TlsClientAuthSubjectDn, "CN=client")?;
    let record = ClientRecord {
        as_of: RegistryVersion(1),
        client: Client {
            id: ClientId::parse("client")?,
            participant_id: participant.clone(),
            environment: Environment::Sandbox,
            contact: None,
            authentication: ClientAuthentication::TlsClientAuth { subject },
            access_token_signing_alg: SigningAlgorithm::ES256,
            access_token_lifetime_seconds: None,
            enrolment: Enrolment::OnFirstUse,
            renewal_overlap_seconds: None,
            requests_per_second: None,
            software_id: None,
            state: ClientState::Active,
        },
        participant: Arc::new(Participant {
            id: participant,
            legal_name: String::new(),
            registration_number: None,
            country: None,
            roles: Vec::new(),
            contacts: Contacts::default(),
            state: ParticipantState::Active,
        }),
        anchor_set: AnchorSetId::of(&granted),
        anchors: granted,
        certificates: Vec::new(),
        entitlements: Vec::new(),
    };
    Ok(FoundClient { record: Arc::new(record), version: RegistryVersion(1) })
}

fn root(name: &str, kind: KeyKind) -> Authority {
    Authority::root_with(Template::authority(Name::common(name), NOW), kind, NOW)
}

/// A root whose certificates and whose own say nothing of keys: only signatures tell it from others of its name.
fn silent_root(name: &str, kind: KeyKind) -> Authority {
    let template = Template { key_identifiers: false, ..Template::authority(Name::common(name), NOW) };
    Authority::root_with(template, kind, NOW)
}

fn leaf() -> Template {
    Template::client(Name::common("client"), NOW)
}

fn silent(template: Template) -> Template {
    Template { key_identifiers: false, ..template }
}

/// A leaf under `depth` intermediates with keys of one kind, all signed as they should be.
fn deep(root: &Authority, depth: usize, kind: KeyKind, bend: impl Fn(Template) -> Template) -> Credential {
    let mut issuer = root.clone();
    let mut above = Vec::new();
    for level in 0..depth {
        let template = bend(Template::authority(Name::common(&format!("Level {level}")), NOW));
        let made = issuer.issue(&template, kind);
        above.insert(0, made.certificate().to_vec());
        issuer = Authority::pretended(template.subject, &Credential { key: made.key, chain: above.clone() }, NOW);
    }
    let mut credential = issuer.issue(&bend(leaf()), KeyKind::P256);
    credential.chain.truncate(1);
    credential.chain.extend(above);
    credential
}

fn cases() -> Result<Vec<Case>, Failure> {
    let mut cases = honest()?;
    cases.extend(roll_overs()?);
    cases.extend(meshes()?);
    cases.extend(lists()?);
    cases.extend(constraints()?);
    cases.extend(contents()?);
    Ok(cases)
}

/// What partners do have.
fn honest() -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for (kind, depths) in [
        (KeyKind::P256, &[0, 1, 4][..]),
        (KeyKind::Ed25519, &[4]),
        (KeyKind::Rsa2048, &[1, 4]),
        (KeyKind::Rsa4096, &[1, 4]),
        (KeyKind::P384, &[1, 3, 4]),
        (KeyKind::P521, &[1, 2]),
    ] {
        let root = root("Root", kind);
        for depth in depths {
            let credential = deep(&root, *depth, kind, |template| template);
            cases.push(Case::of(&format!("{kind:?}, {depth} intermediates"), &[&root], &credential.chain)?);
        }
    }
    for kind in [KeyKind::P256, KeyKind::Rsa4096] {
        let silent_roots: Vec<_> = (0..8).map(|_| silent_root("Root", kind)).collect();
        let anchors: Vec<_> = silent_roots.iter().collect();
        // The right one is the last that is tried: anchors stand in the order of their hashes.
        let last = silent_roots.iter().max_by_key(|root| KeyHash::of(&root.key.spki()).to_string()).ok_or("no root")?;
        let credential = deep(last, 4, kind, silent);
        let name = format!("{kind:?}, 4 intermediates, 8 anchors, no key identifiers");
        cases.push(Case::of(&name, &anchors, &credential.chain)?);
        let roots: Vec<_> = (0..8).map(|_| root("Root", kind)).collect();
        let anchors: Vec<_> = roots.iter().collect();
        let last = roots.iter().max_by_key(|root| KeyHash::of(&root.key.spki()).to_string()).ok_or("no root")?;
        let credential = deep(last, 4, kind, |template| template);
        cases.push(Case::of(&format!("{kind:?}, 4 intermediates, 8 anchors"), &anchors, &credential.chain)?);
    }
    Ok(cases)
}

/// Eight anchors of one name, and a leaf of none of them.
fn roll_overs() -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Ed25519, KeyKind::Rsa2048, KeyKind::Rsa4096] {
        let roots: Vec<_> = (0..8).map(|_| root("Same", kind)).collect();
        let anchors: Vec<_> = roots.iter().collect();
        let stranger = root("Same", kind);
        let mut credential = stranger.issue(&silent(leaf()), kind);
        credential.chain.extend((0..4).map(|_| root("Same", kind).certificate));
        let name = format!("hostile: {kind:?}, 8 anchors and 4 intermediates of one name");
        cases.push(Case::of(&name, &anchors, &credential.chain)?);
    }
    Ok(cases)
}

/// Intermediates that certify each other, so that every order of them looks like a path.
fn meshes() -> Result<Vec<Case>, Failure> {
    let mut cases = Vec::new();
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa4096] {
        for anchored in [false, true] {
            let roots: Vec<_> = (0..8).map(|_| silent_root("B", kind)).collect();
            let anchors: Vec<_> = roots.iter().collect();
            let pair = |name: &str| [silent_root(name, kind), silent_root(name, kind)];
            let ([a1, a2], [b1, b2]) = (pair("A"), pair("B"));
            let certified = |of: &Authority, by: &Authority| {
                by.sign(&silent(Template::authority(of.name.clone(), NOW)), &of.key.spki())
            };
            let mut credential = a1.issue(&silent(leaf()), kind);
            let top = if anchored { &roots[7] } else { &b1 };
            credential.chain.extend([
                certified(&a2, top),
                certified(&a1, &b2),
                certified(&b1, &a1),
                certified(&b2, &a2),
            ]);
            let how = if anchored { "one of them by an anchor" } else { "none by an anchor" };
            let name = format!("hostile: {kind:?}, 4 that certify each other, {how}");
            cases.push(Case::of(&name, &anchors, &credential.chain)?);
        }
    }
    // A subordinate authority of the partner's own, with the dearest key there is.
    let anchor = root("Root", KeyKind::P256);
    let dear = Arc::new(Key::generate(KeyKind::Rsa4096));
    let subject = Name::common("Dear");
    let spki = heavy_spki(&dear).ok_or("not a key")?;
    let above = anchor.sign(&silent(Template::authority(subject.clone(), NOW)), &spki);
    let issuer = Authority::pretended(subject, &Credential { key: dear, chain: vec![above] }, NOW);
    cases.push(Case::of(
        "hostile: an intermediate with RSA 4096 and an exponent of 33 bits",
        &[&anchor],
        &issuer.issue(&leaf(), KeyKind::P256).chain,
    )?);
    let weak = anchor.issue(&Template::authority(Name::common("Weak"), NOW), KeyKind::Rsa4224);
    let issuer = Authority::pretended(Name::common("Weak"), &weak, NOW);
    let issued = issuer.issue(&leaf(), KeyKind::P256);
    cases.push(Case::of("hostile: an intermediate with RSA 4224", &[&anchor], &issued.chain)?);
    let dear = root("Root", KeyKind::P521);
    let everywhere = deep(&dear, 4, KeyKind::P521, |template| template);
    cases.push(Case::of("hostile: P-521 everywhere, 4 intermediates", &[&dear], &everywhere.chain)?);
    Ok(cases)
}

/// Lists that no handshake lets through: whoever reads them all the same pays for five certificates.
fn lists() -> Result<Vec<Case>, Failure> {
    let anchor = root("Same", KeyKind::P256);
    let stranger = root("Same", KeyKind::P256);
    let mut hundred = stranger.client("client");
    hundred.chain.extend((0..100).map(|_| stranger.twin().certificate));
    let mut large = stranger.client("client");
    let filler = Extension { oid: vec![1, 3, 6, 1, 4, 1, 55_555, 2], critical: false, value: vec![4; 14_000] };
    for level in 0..4 {
        let template = Template::authority(Name::common(&format!("Large {level}")), NOW);
        let template = Template { extensions: vec![filler.clone()], ..template };
        large.chain.push(stranger.issue(&template, KeyKind::P256).certificate().to_vec());
    }
    Ok(vec![
        Case::of("hostile: 100 intermediates of one name", &[&anchor], &hundred.chain)?,
        Case::of("hostile: a list of 60 KB", &[&anchor], &large.chain)?,
    ])
}

/// Name constraints in numbers, times names in numbers: signed by the participant's own authority.
fn constraints() -> Result<Vec<Case>, Failure> {
    let anchor = root("Root", KeyKind::P256);
    let names = |count: usize, text: &dyn Fn(usize) -> String| -> Vec<AltName> {
        (0..count).map(|number| AltName::Dns(text(number))).collect()
    };
    let constrained = |subtrees: usize, leaf_names: usize, width: usize| {
        let mut template = Template::authority(Name::common("Issuing"), NOW);
        template.excluded = names(subtrees, &|number| format!("{number}.x"));
        let filler = "a".repeat(width);
        let client = leaf().with_alt_names(names(leaf_names, &|number| format!("{filler}.{number}.example")));
        anchor.intermediate_with(&template).issue(&client, KeyKind::P256)
    };
    let mut crowded = Template::authority(Name::common("Crowded"), NOW);
    crowded.alt_names = names(1_000, &|number| format!("{number}.y"));
    let mut narrow = Template::authority(Name::common("Narrow"), NOW);
    narrow.excluded = names(400, &|number| format!("{number}.x"));
    let crowded = anchor.intermediate_with(&narrow).intermediate_with(&crowded).issue(&leaf(), KeyKind::P256);
    let mut anchored = Template::authority(Name::common("Root"), NOW);
    anchored.excluded = names(500, &|number| format!("{number}.x"));
    let anchored = Authority::root_with(anchored, KeyKind::P256, NOW);
    let client = leaf().with_alt_names(names(100, &|number| format!("{number}.example")));
    Ok(vec![
        Case::of("hostile: 20 constraints, 100 names", &[&anchor], &constrained(20, 100, 8).chain)?,
        Case::of("hostile: 20 constraints, 100 names of 80 octets", &[&anchor], &constrained(20, 100, 60).chain)?,
        Case::of("hostile: 40 constraints, 100 names", &[&anchor], &constrained(40, 100, 8).chain)?,
        Case::of("hostile: 40 constraints, 100 names of 80 octets", &[&anchor], &constrained(40, 100, 60).chain)?,
        Case::of("hostile: 700 constraints, 100 names", &[&anchor], &constrained(700, 100, 8).chain)?,
        Case::of("hostile: 400 constraints, 1,000 names of an intermediate", &[&anchor], &crowded.chain)?,
        Case::of(
            "hostile: an anchor with 500 constraints, 100 names",
            &[&anchored],
            &anchored.issue(&client, KeyKind::P256).chain,
        )?,
    ])
}

/// What one leaf may hold.
fn contents() -> Result<Vec<Case>, Failure> {
    let anchor = root("Root", KeyKind::P256);
    let case = |name: &str, template: &Template| {
        Case::of(&format!("hostile: {name}"), &[&anchor], &anchor.issue(template, KeyKind::P256).chain)
    };
    let many = |count: usize, name: &dyn Fn(usize) -> AltName| leaf().with_alt_names((0..count).map(name));
    let label = "a".repeat(60);
    let extensions = |count: usize, critical| -> Vec<Extension> {
        (0..count)
            .map(|number| Extension { oid: vec![1, 3, 6, 1, 4, 1, 55_555, number as u64], critical, value: vec![5, 0] })
            .collect()
    };
    let ligatures = Template::client(Name::of(&[("CN", &"\u{FDFA}".repeat(1_300))]), NOW);
    let narrow = Template::client(Name::of(&vec![("CN", "x"); 300]), NOW);
    let mut wide = Name::default();
    wide.0.push((0..200).map(|number| Attribute::new("OU", &number.to_string())).collect());
    let stuffed = Extension { oid: vec![1, 3, 6, 1, 4, 1, 55_555, 2], critical: false, value: vec![4; 15_000] };
    let mut padded = anchor.issue(&leaf(), KeyKind::P256);
    for level in 0..4 {
        let template = Template::authority(Name::common(&format!("Level {level}")), NOW);
        let template = Template { extensions: extensions(58, false), ..template };
        padded.chain.push(anchor.issue(&template, KeyKind::P256).certificate().to_vec());
    }
    // All at once: a long subject, many names, constraints, and issuers certified twice on the dearest curve.
    let shared: Vec<Authority> = (0..8).map(|_| silent_root("B", KeyKind::P521)).collect();
    let anchors: Vec<&Authority> = shared.iter().collect();
    let issuing = silent_root("A", KeyKind::P521);
    let mut everything = Template::client(Name::of(&vec![("CN", "x"); 150]), NOW);
    everything.alt_names = (0..30).map(|number| AltName::Dns(format!("{number}.{label}"))).collect();
    let mut all = issuing.issue(&silent(everything), KeyKind::P521);
    for number in 0..2 {
        let mut template = silent(Template::authority(Name::common("A"), NOW));
        template.serial = Some(vec![1, number]);
        template.excluded = vec![AltName::Dns("x".to_owned())];
        all.chain.push(shared[0].sign(&template, &issuing.key.spki()));
    }
    Ok(vec![
        Case::of("hostile: all of these at once", &anchors, &all.chain)?,
        case("100 DNS names of 125 octets", &many(100, &|number| AltName::Dns(format!("{label}.{label}.{number}"))))?,
        case(
            "100 URIs of 120 octets",
            &many(100, &|number| AltName::Uri(format!("https://{label}.x/{label}{number}"))),
        )?,
        case("100 e-mail addresses", &many(100, &|number| AltName::Email(format!("{label}{number}@{label}.x"))))?,
        case("100 IPv6 addresses", &many(100, &|number| AltName::Ip(std::net::Ipv6Addr::from(number as u128).into())))?,
        case("100 directory names", &many(100, &|number| AltName::Directory(Name::common(&number.to_string()))))?,
        case("3,000 alternative names", &many(3_000, &|_| AltName::Dns("x.y".to_owned())))?,
        case("a subject of 1,300 ligatures", &ligatures)?,
        case("a subject of 300 relative names", &narrow)?,
        case("a subject of 200 attributes in one", &Template::client(wide, NOW))?,
        case("64 extensions", &Template { extensions: extensions(58, false), ..leaf() })?,
        case("300 extensions", &Template { extensions: extensions(300, false), ..leaf() })?,
        case("an extension of 15 KB", &Template { extensions: vec![stuffed], ..leaf() })?,
        Case::of("hostile: 4 intermediates with 64 extensions each", &[&anchor], &padded.chain)?,
    ])
}
