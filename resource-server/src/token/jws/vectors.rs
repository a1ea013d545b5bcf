//! What others have printed or published, through the verifier: the examples of RFC 7515, and Wycheproof's signatures, keys
//! and signed objects (`tests/vectors/`). Every vector is counted and the number asserted; where this project decides
//! otherwise, the vector is named with the reason, and a changed verdict fails either way.

use std::collections::BTreeMap;

use serde_json::json;

use super::super::jwks::{Curve, KeyMaterial, MalformedKeySet, UnusableKey};
use super::*;

/// As these vectors are written: without `typ`, and without `kid` where there is one key.
const UNTYPED: Expectation<'static> = Expectation {
    algorithms: SigningAlgorithm::ALL,
    types: &[],
    untyped: Untyped::Accept,
    key: KeyChoice::ByKidOrOnly,
    max_bytes: MAX_TOKEN_BYTES,
};

fn read(file: &str) -> Value {
    let path = format!("{}/../tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

mod rfc_7515 {
    use super::*;

    const PAYLOAD: &[u8] = b"{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}";

    fn example(section: &str) -> Value {
        read("rfc/rfc7515.json")[section].take()
    }

    /// The public half of a printed key.
    fn public(jwk: &Value) -> Value {
        let mut jwk = jwk.clone();
        for member in ["d", "p", "q", "dp", "dq", "qi"] {
            jwk.as_object_mut().unwrap().remove(member);
        }
        jwk
    }

    fn keys(jwks: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap()
    }

    /// What the verifier says of a compact example under the key that is printed with it, and what can be read in it.
    fn verdict(section: &str) -> (Result<Verified, JwsError>, Unverified) {
        let example = example(section);
        let keys = if example["jwk"].is_object() { keys(&[public(&example["jwk"])]) } else { KeySet::default() };
        let compact = example["compact"].as_str().unwrap();
        (verify(compact, &keys, &UNTYPED), peek(compact).unwrap())
    }

    #[test]
    fn a_1_hmac_is_read_and_refused() {
        let (verdict, seen) = verdict("A.1");
        assert_eq!(verdict.unwrap_err(), JwsError::Algorithm);
        assert_eq!((seen.header.algorithm.as_str(), seen.header.typ.as_deref()), ("HS256", Some("JWT")));
        assert_eq!(seen.payload, PAYLOAD);
        assert_eq!(seen.claims().unwrap()["exp"], 1_300_819_380);
        let keys = keys(&[example("A.1")["jwk"].take()]);
        assert!(keys.keys().is_empty() && keys.set_aside()[0].reason == UnusableKey::Kind);
    }

    #[test]
    fn a_2_rsassa_pkcs1_is_read_and_refused() {
        let (verdict, seen) = verdict("A.2");
        assert_eq!(verdict.unwrap_err(), JwsError::Algorithm);
        assert_eq!((seen.header.algorithm.as_str(), &*seen.payload), ("RS256", PAYLOAD));
    }

    #[test]
    fn a_3_ecdsa_on_p_256_holds() {
        let (verdict, _) = verdict("A.3");
        let verified = verdict.unwrap();
        assert_eq!((verified.algorithm(), verified.payload()), (SigningAlgorithm::ES256, PAYLOAD));
    }

    #[test]
    fn a_4_ecdsa_on_p_521_is_read_and_refused() {
        let (verdict, seen) = verdict("A.4");
        assert_eq!(verdict.unwrap_err(), JwsError::Algorithm);
        assert_eq!((seen.header.algorithm.as_str(), &*seen.payload), ("ES512", &b"Payload"[..]));
    }

    #[test]
    fn a_5_unsecured_is_read_and_refused() {
        let (verdict, seen) = verdict("A.5");
        assert_eq!(verdict.unwrap_err(), JwsError::Algorithm);
        assert_eq!((seen.header.algorithm.as_str(), &*seen.payload), ("none", PAYLOAD));
    }

    /// A signature of a JSON serialization as if it had been compact.
    fn compacted(payload: &Value, signature: &Value) -> String {
        [&signature["protected"], payload, &signature["signature"]].map(|part| part.as_str().unwrap()).join(".")
    }

    #[test]
    fn a_6_and_a_7_are_no_compact_serializations() {
        // RFC 7519 §3: "JWTs are always represented using the JWS Compact Serialization".
        let key = || public(&example("A.3")["jwk"]);
        for section in ["A.6", "A.7"] {
            let serialized = example(section)["json"].to_string();
            assert_eq!(verify(&serialized, &keys(&[key()]), &UNTYPED).unwrap_err(), JwsError::Framing, "{section}");
        }
        // What is signed in them is the same as in A.2 and A.3.
        let (general, flattened) = (example("A.6")["json"].take(), example("A.7")["json"].take());
        let [rsa, ecdsa] = <[Value; 2]>::try_from(general["signatures"].as_array().unwrap().clone()).unwrap();
        assert_eq!(compacted(&general["payload"], &rsa), example("A.2")["compact"].as_str().unwrap());
        for compact in [compacted(&general["payload"], &ecdsa), compacted(&flattened["payload"], &flattened)] {
            assert_eq!(compact, example("A.3")["compact"].as_str().unwrap());
            assert_eq!(verify(&compact, &keys(&[key()]), &UNTYPED).unwrap().payload(), PAYLOAD);
        }
    }

    #[test]
    fn appendix_e_is_refused_for_its_critical_extension() {
        let compact = example("E")["compact"].take();
        assert_eq!(verify(compact.as_str().unwrap(), &KeySet::default(), &UNTYPED).unwrap_err(), JwsError::Critical);
    }

    #[test]
    fn a_key_as_it_is_printed_has_lost_its_private_part() {
        for section in ["A.2", "A.3", "A.4"] {
            let set = json!({ "keys": [example(section)["jwk"]] }).to_string();
            let refused = MalformedKeySet::PrivateKey { kid: None };
            assert_eq!(KeySet::parse(set.as_bytes()).unwrap_err(), refused, "{section}");
        }
    }

    #[test]
    fn a_signature_of_one_example_is_none_of_another() {
        let ecdsa = keys(&[public(&example("A.3")["jwk"])]);
        let compact = |section: &str| example(section)["compact"].as_str().unwrap().to_owned();
        let (signed, other) = (compact("A.3"), compact("A.4"));
        let (input, _) = signed.rsplit_once('.').unwrap();
        let (_, signature) = other.rsplit_once('.').unwrap();
        assert_eq!(verify(&format!("{input}.{signature}"), &ecdsa, &UNTYPED).unwrap_err(), JwsError::Signature);
        // RFC 7518 §3.4: a signature of another length is none.
        assert_eq!(verify(&format!("{input}."), &ecdsa, &UNTYPED).unwrap_err(), JwsError::Signature);
    }
}

mod wycheproof {
    use super::*;

    fn groups(file: &str) -> Vec<Value> {
        match read(&format!("wycheproof/{file}_test.json"))["testGroups"].take() {
            Value::Array(groups) => groups,
            _ => panic!("no groups"),
        }
    }

    fn cases(group: &Value) -> impl Iterator<Item = (u64, bool, &Value)> {
        group["tests"].as_array().unwrap().iter().map(|test| {
            let valid = match test["result"].as_str().unwrap() {
                "valid" => true,
                "invalid" => false,
                other => panic!("{other}"),
            };
            (test["tcId"].as_u64().unwrap(), valid, test)
        })
    }

    fn unhex(text: &Value) -> Vec<u8> {
        let digits = text.as_str().unwrap();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    /// The key of a group: its JWK, or the point, where a group (nine of them) has no JWK.
    fn key(group: &Value) -> PublicKey {
        match group["publicKeyJwk"].as_object() {
            Some(jwk) => PublicKey::from_jwk(jwk).unwrap(),
            None => {
                let point = unhex(&group["publicKey"]["uncompressed"]);
                let (x, y) = (point[1..33].to_vec(), point[33..65].to_vec());
                let material = KeyMaterial::Ec { curve: Curve::P256, x, y };
                PublicKey::new(material, None).unwrap()
            }
        }
    }

    /// Vectors of bare signatures: how many there are, and how many of them hold.
    fn bare(file: &str, algorithm: SigningAlgorithm) -> (usize, usize) {
        let (mut all, mut hold) = (0, 0);
        for group in groups(file) {
            let key = key(&group);
            let verifier = Verifier { algorithm, key: Arc::clone(key.verification().unwrap()) };
            for (id, valid, test) in cases(&group) {
                let holds = verifier.verify(&unhex(&test["msg"]), &unhex(&test["sig"])).is_ok();
                assert_eq!(holds, valid, "{file} {id}: {}", test["comment"]);
                all += 1;
                hold += usize::from(holds);
            }
        }
        println!("{file}: {all} vectors, {hold} hold");
        (all, hold)
    }

    #[test]
    fn es256_signatures() {
        assert_eq!(bare("ecdsa_secp256r1_sha256_p1363", SigningAlgorithm::ES256), (262, 173));
    }

    #[test]
    fn ed25519_signatures() {
        // The same arithmetic under both of its names (RFC 8037 §3.1, RFC 9864 §2.2).
        for algorithm in [SigningAlgorithm::EdDSA, SigningAlgorithm::Ed25519] {
            assert_eq!(bare("ed25519", algorithm), (151, 88));
        }
    }

    #[test]
    fn ps256_signatures() {
        assert_eq!(bare("rsa_pss_2048_sha256_mgf1_32", SigningAlgorithm::PS256), (108, 63));
    }

    /// How a file of signed objects went.
    #[derive(Debug, Default, PartialEq)]
    struct Tally {
        /// Signed objects: each has the verdict it is said to have, but those below.
        signed: usize,
        /// Encrypted ones (JWE). Nothing here decrypts.
        encrypted: usize,
        /// Called valid, and taken here.
        taken: usize,
        /// Called valid, and refused here because the algorithm is none of ours: how many by `alg`.
        not_used_here: BTreeMap<String, usize>,
    }

    /// JWS vectors under the public key or key set of their group. `stricter_here` are called valid and refused for a
    /// reason of ours: one that is taken after all, or refused for another reason, needs its entry no more.
    fn signed(file: &str, stricter_here: &[(u64, JwsError)]) -> Tally {
        let mut tally = Tally::default();
        let mut needed = 0;
        for group in groups(file) {
            let public = if group["public"].is_object() { &group["public"] } else { &group["private"] };
            let set = if public["keys"].is_array() { public.clone() } else { json!({ "keys": [public] }) };
            // What is wrong with the set as a whole, like a `kid` twice or private members, is wrong for every token.
            let keys = KeySet::parse(set.to_string().as_bytes()).unwrap_or_default();
            for (id, valid, test) in cases(&group) {
                let compact = match (&test["jws"], &test["jwe"]) {
                    (Value::String(compact), Value::Null) => compact.clone(),
                    (serialized @ Value::Object(_), Value::Null) => serialized.to_string(), // RFC 7515 §7.2
                    (Value::Null, Value::String(_) | Value::Object(_)) => {
                        tally.encrypted += 1;
                        continue;
                    }
                    _ => panic!("{file} {id} is neither signed nor encrypted"),
                };
                tally.signed += 1;
                let verdict = verify(&compact, &keys, &UNTYPED);
                tally.taken += usize::from(verdict.is_ok());
                if let Some((_, refusal)) = stricter_here.iter().find(|(stricter, _)| *stricter == id) {
                    assert!(valid, "{file} {id} needs no exception");
                    assert_eq!(verdict.unwrap_err(), *refusal, "{file} {id}");
                    needed += 1;
                } else if valid && matches!(verdict, Err(JwsError::Algorithm)) {
                    *tally.not_used_here.entry(peek(&compact).unwrap().header.algorithm).or_default() += 1;
                } else {
                    assert_eq!(verdict.is_ok(), valid, "{file} {id}: {} {verdict:?}", test["comment"]);
                }
            }
        }
        assert_eq!(needed, stricter_here.len(), "{file}: an exception for a vector that is not there");
        println!("{file}: {tally:?}");
        tally
    }

    fn tally(signed: usize, encrypted: usize, taken: usize, not_used_here: &[(&str, usize)]) -> Tally {
        let not_used_here = not_used_here.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Tally { signed, encrypted, taken, not_used_here }
    }

    #[test]
    fn json_web_signatures() {
        // 373 has a character in its payload that is not base64url, and is "valid" for readers that skip it. RFC 7515
        // §2 lets nobody skip anything: two texts would carry one token.
        let not_used_here =
            [("ES512", 1), ("HS256", 2), ("PS384", 4), ("PS512", 4), ("RS256", 5), ("RS384", 4), ("RS512", 2)];
        assert_eq!(signed("json_web_signature", &[(373, JwsError::Framing)]), tally(248, 0, 5, &not_used_here));
    }

    #[test]
    fn json_web_keys() {
        assert_eq!(
            signed("json_web_key", &[]),
            tally(26, 0, 0, &[("HS256", 2), ("HS384", 1), ("HS512", 1), ("RS256", 1)])
        );
    }

    #[test]
    fn json_web_crypto() {
        assert_eq!(signed("json_web_crypto", &[]), tally(49, 34, 1, &[("HS256", 2), ("RS256", 1)]));
    }
}
