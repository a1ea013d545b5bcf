//! Certificates mutated at random: none brings anything down, and none that is let through says anything new; some are
//! signed again, as an authority that writes nonsense would: of those, what is let through is what OpenSSL reads too.
//!
//! 10,000 by default; `COUNTERSIGN_TEST_MUTATIONS=100000` runs as many as that. The seed is fixed, the keys of some of the
//! certificates are not: a failure shows the octets it happened with.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use countersign_conformance::pki::{AltName, Authority, Name, Template};
use countersign_conformance::{KeyKind, der as made};
use countersign_resource_server::time::UnixTime;

use super::anchor::check_anchor;
use super::certificate::{certificates_from, key_material};
use super::scene::{NOW, Scene, presented_list};
use super::{ParsedCertificate, PeerRefusal, Verifier};
use crate::registry::KeyHash;
use crate::registry::client::ClientAuthentication;
use crate::registry::trust_anchor::NameSpace;

/// A list that is good at `now`, of which one certificate is mutated.
struct Original {
    chain: Vec<Vec<u8>>,
    /// Which certificate of the list is mutated.
    place: usize,
    now: UnixTime,
    /// A client whose participant's anchor vouches for the list.
    chained: Scene,
    /// A client with which the leaf itself is registered.
    registered: Scene,
    /// Who signed the leaf, where that is known.
    issuer: Option<Authority>,
}

impl Original {
    fn new(chain: &[Vec<u8>], place: usize, root: &[u8], now: UnixTime) -> Self {
        let any = NameSpace { any: true, ..NameSpace::default() };
        let jwks = r#"{"keys":[]}"#.to_owned();
        let original = Self {
            chain: chain.to_vec(),
            place,
            now,
            chained: Scene::new("mutated").granting(root, |_| {}, any),
            registered: Scene::new("mutated")
                .authenticating(ClientAuthentication::SelfSignedTlsClientAuth { jwks })
                .enrolled(&chain[0], |_| {}),
            issuer: None,
        };
        let verifier = Verifier::new();
        for scene in [&original.chained, &original.registered] {
            verifier.verify_at_once(&presented_list(chain), &scene.client(), now).unwrap();
        }
        original
    }
}

fn originals() -> Vec<Original> {
    let at = UnixTime::from_seconds(NOW);
    let mut originals = Vec::new();
    let names = [
        AltName::Dns("client.a.example".to_owned()),
        AltName::Uri("spiffe://a.example/client".to_owned()),
        AltName::Email("ops@a.example".to_owned()),
        AltName::Ip([192, 0, 2, 7].into()),
        AltName::Directory(Name::common("client")),
    ];
    let subject = Name::of(&[("C", "DE"), ("O", "Partner Ä"), ("DC", "example"), ("OU", "a, b"), ("CN", "client")]);
    let template = Template::client(subject, NOW).with_alt_names(names);
    for kind in [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519, KeyKind::Rsa2048] {
        let root = Authority::root_with(Template::authority(Name::common("Root"), NOW), kind, NOW);
        let intermediate = root.intermediate("Intermediate");
        let leaf = intermediate.issue(&template, kind);
        for place in [0, 1] {
            originals.push(Original::new(&leaf.chain, place, &root.certificate, at));
        }
        let signed_again = Original::new(&leaf.chain, 0, &root.certificate, at);
        originals.push(Original { issuer: Some(intermediate), ..signed_again });
    }
    // RFC 9440 Appendix A.
    let printed = certificates_from(include_bytes!("../../tests/vectors/rfc/rfc9440-a.pem")).unwrap();
    let printed: Vec<_> = printed.iter().map(|der| der.to_vec()).collect();
    let in_date = UnixTime::from_seconds(1_600_000_000);
    originals.push(Original::new(&printed[..2], 0, &printed[2], in_date));
    originals.push(Original::new(&printed[..2], 1, &printed[2], in_date));
    originals
}

/// SplitMix64: small, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }
}

/// DER as a tree, so that it can be changed and still be DER.
#[derive(Clone, Debug)]
enum Node {
    Constructed(u8, Vec<Node>),
    Primitive(u8, Vec<u8>),
}

impl Node {
    fn all(mut rest: &[u8]) -> Vec<Self> {
        let mut nodes = Vec::new();
        while let Some((tag, contents, after)) = made::split(rest) {
            nodes.push(if tag & 0x20 == 0 {
                Self::Primitive(tag, contents.to_vec())
            } else {
                Self::Constructed(tag, Self::all(contents))
            });
            rest = after;
        }
        nodes
    }

    fn write(&self) -> Vec<u8> {
        match self {
            Self::Constructed(tag, nodes) => made::tlv(*tag, made::concat(nodes.iter().map(Self::write))),
            Self::Primitive(tag, contents) => made::tlv(*tag, contents),
        }
    }

    /// The children of this node or of one below it, by chance.
    fn some_children(&mut self, random: &mut Random) -> Option<&mut Vec<Self>> {
        let Self::Constructed(_, nodes) = self else { return None };
        let place = random.below(nodes.len());
        let deeper = matches!(nodes.get(place), Some(Self::Constructed(_, below)) if !below.is_empty());
        if deeper && random.below(4) > 0 { nodes[place].some_children(random) } else { Some(nodes) }
    }
}

/// Where tags and lengths stand, in DER that is good.
fn heads(der: &[u8]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut from = vec![(0, der.len())];
    while let Some((mut at, end)) = from.pop() {
        while let Some((tag, contents, rest)) = made::split(&der[at..end]) {
            found.push(at);
            let next = end - rest.len();
            if tag & 0x20 != 0 {
                from.push((next - contents.len(), next));
            }
            at = next;
        }
    }
    found
}

/// Changes `der` in one to three ways.
fn mutate(der: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = der.to_vec();
    for _ in 0..=random.below(3) {
        if out.is_empty() {
            break;
        }
        let place = random.below(out.len());
        match random.below(12) {
            0 => out[place] ^= 1 << random.below(8),
            1 => out[place] = random.octet(),
            2 => out.truncate(place),
            3 => out.insert(place, random.octet()),
            4 => drop(out.remove(place)),
            5 => {
                let end = (place + random.below(40)).min(out.len());
                let piece = out[place..end].to_vec();
                let to = random.below(out.len());
                out.splice(to..to, piece);
            }
            6 => {
                let from = random.below(other.len());
                let end = (from + random.below(60)).min(other.len());
                let to = (place + end - from).min(out.len());
                out.splice(place..to, other[from..end].iter().copied());
            }
            // A tag or a length, by itself.
            7 | 8 => {
                let heads = heads(&out);
                let at = heads.get(random.below(heads.len())).map_or(place, |head| head + random.below(3));
                if let Some(octet) = out.get_mut(at) {
                    *octet = match random.below(4) {
                        0 => octet.wrapping_add(1),
                        1 => octet.wrapping_sub(1),
                        2 => [0, 0x7F, 0x80, 0x81, 0x82, 0x84, 0xFF][random.below(7)],
                        _ => random.octet(),
                    };
                }
            }
            // Elements, with every length put right.
            change => {
                let mut nodes = Node::all(&out);
                let foreign = Node::all(other);
                let Some(root) = nodes.first_mut() else { continue };
                let Some(children) = root.some_children(random) else { continue };
                let (one, two) = (random.below(children.len()), random.below(children.len()));
                match change {
                    _ if children.is_empty() => {}
                    9 => children.swap(one, two),
                    10 => children.insert(two, children[one].clone()),
                    _ => match random.below(4) {
                        0 => drop(children.remove(one)),
                        1 => {
                            let mut source = foreign;
                            let taken = source.first_mut().and_then(|node| node.some_children(random));
                            if let Some(node) = taken.and_then(|nodes| nodes.get(random.below(nodes.len())).cloned()) {
                                children[one] = node;
                            }
                        }
                        2 => children[one] = Node::Constructed(0x30, vec![children[one].clone()]),
                        _ => {
                            if let Node::Primitive(_, contents) = &mut children[one] {
                                let at = random.below(contents.len());
                                match contents.get_mut(at) {
                                    Some(octet) if random.below(2) == 0 => *octet = random.octet(),
                                    _ => contents.resize(random.below(80), b'a'),
                                }
                            }
                        }
                    },
                }
                out = nodes.iter().flat_map(Node::write).collect();
            }
        }
    }
    out
}

/// The part of a certificate that its signature is over.
fn to_be_signed(der: &[u8]) -> Option<&[u8]> {
    let (_, outer, _) = made::split(der)?;
    let (_, _, after) = made::split(outer)?;
    Some(&outer[..outer.len() - after.len()])
}

/// A mutation of the original's certificate; of its content alone, if somebody is there to sign it.
fn mutation(original: &Original, other: &[u8], random: &mut Random) -> Vec<u8> {
    let before = &original.chain[original.place];
    match &original.issuer {
        Some(issuer) => issuer.sign_content(&mutate(to_be_signed(before).unwrap(), other, random)),
        None => mutate(before, other, random),
    }
}

/// Another reader's word for it: OpenSSL finds the same subject, key and number of names.
fn agrees_with_openssl(mutated: &[u8]) {
    let ours = ParsedCertificate::read(mutated).unwrap();
    let Ok(theirs) = openssl::x509::X509::from_der(mutated) else { return }; // it reads fewer types of attribute values
    assert_eq!(ours.subject_der(), theirs.subject_name().to_der().unwrap(), "{}", hex::encode(mutated));
    // It looks whether a point is on its curve; here nobody could have proven possession of the key of one that is not.
    if let Ok(key) = theirs.public_key() {
        assert_eq!(*ours.key_hash(), KeyHash::of(&key.public_key_to_der().unwrap()), "{}", hex::encode(mutated));
    }
    let texts = ours.subject_alt_names_text();
    match theirs.subject_alt_names() {
        Some(names) => assert_eq!(texts.len(), names.len(), "{}", hex::encode(mutated)),
        // In the kinds that no rule can name it reads fewer types, and then nothing of the extension.
        None => assert!(
            texts.is_empty()
                || texts.iter().any(|text| matches!(&**text, "directoryName" | "ediPartyName" | "x400Address")),
            "{}",
            hex::encode(mutated)
        ),
    }
}

/// Everything that reads a foreign certificate, once. Gives whether it could be read, and whether it was let through.
fn confront(original: &Original, mutated: &[u8], verifier: &Verifier) -> (bool, bool) {
    let read = ParsedCertificate::read(mutated);
    if let Ok(read) = &read {
        for rule in read.proposed_rules() {
            let again = super::identity::subject_rule(rule.attribute, &rule.value);
            assert_eq!(again.map(|rule| rule.canonical), Ok(rule.canonical), "{}", hex::encode(mutated));
        }
    }
    let _ = ParsedCertificate::read_intermediate(mutated);
    let _ = check_anchor(mutated, original.now);
    let _ = key_material(mutated);
    let _ = certificates_from(mutated);

    let before = &original.chain[original.place];
    let mut chain = original.chain.clone();
    chain[original.place] = mutated.to_vec();
    let peer = presented_list(&chain);
    let verified = verifier.verify_at_once(&peer, &original.chained.client(), original.now);
    match (&verified, &original.issuer) {
        (Ok(_), None) => assert_eq!(to_be_signed(mutated), to_be_signed(before), "{}", hex::encode(mutated)),
        (Ok(_), Some(_)) => agrees_with_openssl(mutated),
        (Err(_), _) => {}
    }
    // A certificate that is registered itself is registered to the last octet.
    if original.place == 0 {
        let registered = verifier.verify_at_once(&peer, &original.registered.client(), original.now).err();
        let refused = matches!(registered, Some(PeerRefusal::NotRegistered | PeerRefusal::Malformed));
        assert!(refused, "{registered:?}: {}", hex::encode(mutated));
    }
    (read.is_ok(), verified.is_ok())
}

fn run(count: usize) -> String {
    let (originals, verifier) = (originals(), Verifier::new());
    let mut random = Random(0x00C0_FFEE);
    let (mut unchanged, mut read, mut let_through, mut signed_again) = (0, 0, 0, 0);
    for number in 0..count {
        let original = &originals[number % originals.len()];
        let other = &originals[random.below(originals.len())];
        let before = &original.chain[original.place];
        let mutated = mutation(original, &other.chain[other.place], &mut random);
        if mutated == *before || to_be_signed(&mutated) == to_be_signed(before) && original.issuer.is_some() {
            unchanged += 1;
            continue;
        }
        let (was_read, was_let_through) = confront(original, &mutated, &verifier);
        read += usize::from(was_read);
        match original.issuer {
            Some(_) => signed_again += usize::from(was_let_through),
            None => let_through += usize::from(was_let_through),
        }
    }
    format!(
        "{count} mutations, {unchanged} changed nothing, {read} could be read; let through: {let_through}, and \
         {signed_again} that were signed again"
    )
}

#[test]
fn mutated_certificates() {
    let count = std::env::var("COUNTERSIGN_TEST_MUTATIONS").map_or(10_000, |count| count.parse().unwrap());
    // Ten milliseconds each and a minute: two hundred times what they take. Whoever finds one that takes longer has found something.
    let patience = Duration::from_secs(60) + Duration::from_millis(10) * u32::try_from(count).unwrap();
    let (done, wait) = channel();
    let runner = std::thread::spawn(move || done.send(run(count)));
    match wait.recv_timeout(patience) {
        Ok(tally) => println!("{tally}"),
        Err(RecvTimeoutError::Timeout) => panic!("{count} mutated certificates took longer than {patience:?}"),
        Err(RecvTimeoutError::Disconnected) => std::panic::resume_unwind(runner.join().unwrap_err()),
    }
}

#[test]
fn the_mutations_reach_what_they_are_meant_for() {
    let originals = originals();
    let mut random = Random(7);
    let (mut readable, mut refusals) = (0, std::collections::BTreeSet::new());
    let verifier = Verifier::new();
    for number in 0..2_000 {
        let original = &originals[number % originals.len()];
        let mutated = mutation(original, &original.chain[original.place], &mut random);
        readable += usize::from(ParsedCertificate::read(&mutated).is_ok());
        let mut chain = original.chain.clone();
        chain[original.place] = mutated;
        let verified = verifier.verify_at_once(&presented_list(&chain), &original.chained.client(), original.now);
        refusals.extend(verified.err().map(|refusal| refusal.reason().to_owned()));
    }
    assert!(readable > 200, "{readable}");
    // Some of the keys are new in each run, and with them where the mutations land: out of date, not yet valid and without
    // the purpose are reached in most runs, these in every one.
    for reached in [
        "peer_critical_extension_unknown",
        "peer_expired",
        "peer_issuer_unknown",
        "peer_key_too_weak",
        "peer_malformed",
        "peer_name_malformed",
        "peer_signature_invalid",
        "peer_spiffe_id_malformed",
        "peer_version_unsupported",
    ] {
        assert!(refusals.contains(reached), "{reached}: {refusals:?}");
    }
}
