//! Tokens forged as a case says.
//!
//! Takes what is to be bent, gives a compact JWS. The octets themselves are `forge`'s.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::certificate::Identity;
use super::jws;
use super::template::{self, Names, Unfilled};
use crate::forge::{Members, Signature, compact};
use crate::key::{JwsAlgorithm, Key, pem};

/// A token, or how it differs from the one it is made from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Forge {
    pub(crate) from: Option<String>,
    #[serde(default)]
    pub(crate) header: Change,
    #[serde(default)]
    pub(crate) claims: Change,
    pub(crate) payload: Option<String>,
    pub(crate) sign: Option<String>,
    pub(crate) alg: Option<String>,
}

/// Members changed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    #[serde(default)]
    set: Map<String, Value>,
    #[serde(default)]
    raw: BTreeMap<String, String>,
    #[serde(default)]
    drop: Vec<String>,
    #[serde(default)]
    twice: Map<String, Value>,
    #[serde(default)]
    first: Map<String, Value>,
}

impl Forge {
    /// With these claims besides.
    pub(crate) fn also_claiming(&mut self, claims: &Map<String, Value>) {
        self.claims.set.extend(claims.clone());
    }

    /// How it differs, in one line.
    pub(crate) fn told(&self) -> String {
        let mut parts = vec![format!("from {}", self.from.as_deref().unwrap_or("nothing"))];
        for (what, change) in [("header", &self.header), ("claims", &self.claims)] {
            let told = change.told();
            if !told.is_empty() {
                parts.push(format!("{what} {told}"));
            }
        }
        parts.extend(self.payload.as_ref().map(|payload| format!("payload {payload}")));
        parts.extend(self.alg.as_ref().map(|alg| format!("really signed by {alg}")));
        parts.extend(self.sign.as_ref().map(|sign| format!("signed: {sign}")));
        parts.join(", ")
    }
}

impl Change {
    fn told(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.set.iter().map(|(name, value)| format!("{name} := {value}")));
        parts.extend(self.raw.iter().map(|(name, text)| format!("{name} := {text}")));
        parts.extend(self.drop.iter().map(|name| format!("without {name}")));
        parts.extend(self.twice.iter().map(|(name, value)| format!("again at the end {name} := {value}")));
        parts.extend(self.first.iter().map(|(name, value)| format!("also in front {name} := {value}")));
        parts.join("; ")
    }

    fn applied(&self, mut members: Members, names: &dyn Names) -> Result<Members, String> {
        for name in &self.drop {
            members = members.without(name);
        }
        let filled = |value: &Value| match template::fill_value(value, names) {
            Ok(value) => Ok(Some(value)),
            Err(Unfilled::LeftOut) => Ok(None),
            Err(why) => Err(why.to_string()),
        };
        for (name, value) in &self.set {
            if let Some(value) = filled(value)? {
                members = members.with(name, value);
            }
        }
        for (name, text) in &self.raw {
            let text = template::fill_text(text, names).map_err(|why| why.to_string())?;
            members = members.with_raw(name, &text);
        }
        for (name, value) in &self.twice {
            members = members.and(name, filled(value)?.unwrap_or_default());
        }
        for (name, value) in &self.first {
            members = members.preceded_by(name, filled(value)?.unwrap_or_default());
        }
        Ok(members)
    }
}

/// Who signs, and whose public keys are used as secrets.
pub(crate) trait Signers {
    /// The key of this name: `client_jwt`, `forged`, `forged_rsa`, `stranger`.
    fn identity(&self, name: &str) -> Option<Identity>;
    /// The public key of this `kid` in the target's JWK set, else its first.
    fn published(&self, kid: Option<&str>) -> Option<Value>;
}

/// A token, and how to show it: its header and claims without the signature.
#[derive(Debug)]
pub(crate) struct Forged {
    pub(crate) compact: String,
    pub(crate) shown: String,
}

/// Forges it.
pub(crate) fn forge(
    wanted: &Forge,
    templates: &BTreeMap<String, Forge>,
    names: &dyn Names,
    signers: &dyn Signers,
) -> Result<Forged, String> {
    let mut header = Members::new();
    let mut claims = Members::new();
    let mut sign = wanted.sign.clone();
    let mut alg = wanted.alg.clone();
    match wanted.from.as_deref() {
        None => {}
        Some(from) if from.contains("${") => {
            let token = template::fill_text(from, names).map_err(|why| why.to_string())?;
            let (their_header, their_claims) = jws::decode(&token).ok_or("what it is made from is not a JWT")?;
            header = members(&their_header);
            claims = members(&their_claims);
        }
        Some(from) => {
            let base = templates.get(from).ok_or_else(|| format!("no token {from:?} in words.toml"))?;
            header = base.header.applied(header, names)?;
            claims = base.claims.applied(claims, names)?;
            sign = sign.or_else(|| base.sign.clone());
            alg = alg.or_else(|| base.alg.clone());
        }
    }
    let header = wanted.header.applied(header, names)?.to_json();
    let claims = match &wanted.payload {
        Some(payload) => template::fill_text(payload, names).map_err(|why| why.to_string())?,
        None => wanted.claims.applied(claims, names)?.to_json(),
    };
    let sign = sign.ok_or("nothing says who signs")?;
    let kid = serde_json::from_str::<Value>(&header).ok().and_then(|header| Some(header["kid"].as_str()?.to_owned()));
    let token = match sign.split(':').collect::<Vec<_>>()[..] {
        ["none"] => compact(&header, &claims, Signature::None),
        ["zeros", count] => {
            let count =
                count.parse::<usize>().ok().filter(|count| *count <= 1_024).ok_or("zeros: a number up to 1024")?;
            compact(&header, &claims, Signature::Octets(&vec![0; count]))
        }
        ["octets", text] => compact(&header, &claims, Signature::Octets(text.as_bytes())),
        ["hs256", form, whose] => {
            let secret = secret(form, whose, kid.as_deref(), signers)?;
            compact(&header, &claims, Signature::Hs256(&secret))
        }
        [name] | [name, _] => {
            let alg = sign.split_once(':').map(|(_, alg)| alg.to_owned()).or(alg);
            let identity = signers.identity(name).ok_or_else(|| format!("no key of {name:?}"))?;
            let algorithm = match alg.as_deref() {
                None => identity.algorithm,
                Some(alg) => JwsAlgorithm::of(alg).ok_or_else(|| format!("no algorithm {alg:?}"))?,
            };
            if !fits(algorithm, &identity.key) {
                return Err(format!("{} does not fit the key of {name:?}", algorithm.as_str()));
            }
            compact(&header, &claims, Signature::By(algorithm, &identity.key))
        }
        _ => return Err(format!("nobody signs as {sign:?}")),
    };
    Ok(Forged { compact: token, shown: format!("{header}.{claims} signed: {sign}") })
}

fn members(object: &Value) -> Members {
    object.as_object().into_iter().flatten().fold(Members::new(), |all, (name, value)| all.with(name, value.clone()))
}

const fn fits(algorithm: JwsAlgorithm, key: &Key) -> bool {
    matches!(
        (key.jws_algorithm(), algorithm),
        (Some(JwsAlgorithm::Ps256), JwsAlgorithm::Ps256 | JwsAlgorithm::Rs256)
            | (Some(JwsAlgorithm::Es256), JwsAlgorithm::Es256)
            | (Some(JwsAlgorithm::Es384), JwsAlgorithm::Es384)
            | (Some(JwsAlgorithm::EdDsa), JwsAlgorithm::EdDsa)
    )
}

/// RFC 8725 §2.1: a public key, in the forms a careless verifier might hand to HMAC.
fn secret(form: &str, whose: &str, kid: Option<&str>, signers: &dyn Signers) -> Result<Vec<u8>, String> {
    if form == "empty" {
        return Ok(Vec::new());
    }
    let jwk = match whose {
        "jwks" => signers.published(kid).ok_or("the target publishes no keys")?,
        other => signers.identity(other).ok_or_else(|| format!("no key of {other:?}"))?.key.jwk(),
    };
    let spki = || jws::spki(&jwk).ok_or("a public key of a kind the judge does not know");
    Ok(match form {
        "spki" => spki()?,
        "pem" => pem("PUBLIC KEY", &spki()?).into_bytes(),
        "pem_trimmed" => pem("PUBLIC KEY", &spki()?).trim_end().as_bytes().to_vec(),
        "jwk" => jwk.to_string().into_bytes(),
        "x" => {
            let text = jwk["x"].as_str().or_else(|| jwk["n"].as_str()).unwrap_or_default();
            URL_SAFE_NO_PAD.decode(text).unwrap_or_default()
        }
        other => return Err(format!("no form {other:?} of a public key")),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::key::KeyKind;

    struct Bench(Identity);

    impl Names for Bench {
        fn value(&self, name: &str) -> Option<Value> {
            (name == "now").then(|| 1_000.into())
        }
    }

    impl Signers for Bench {
        fn identity(&self, name: &str) -> Option<Identity> {
            (name == "forged").then(|| self.0.clone())
        }

        fn published(&self, _: Option<&str>) -> Option<Value> {
            Some(self.0.key.jwk())
        }
    }

    fn bench() -> Bench {
        let key = std::sync::Arc::new(Key::generate(KeyKind::P256));
        Bench(Identity { kid: "k".to_owned(), alg: "ES256".to_owned(), algorithm: JwsAlgorithm::Es256, key })
    }

    fn forged(wanted: Value) -> Result<Forged, String> {
        let base: Forge = serde_json::from_value(json!({
            "header": { "set": { "alg": "ES256" } },
            "claims": { "set": { "exp": "${now}", "iss": "a" } },
            "sign": "forged",
        }))
        .unwrap();
        let templates = BTreeMap::from([("access".to_owned(), base)]);
        forge(&serde_json::from_value(wanted).unwrap(), &templates, &bench(), &bench())
    }

    #[test]
    fn members_are_set_dropped_doubled_and_written_raw() {
        let shown = forged(json!({
            "from": "access",
            "claims": { "raw": { "exp": "1e3" }, "drop": ["iss"], "twice": { "exp": 5 }, "first": { "sub": "x" } },
        }));
        assert!(shown.unwrap().shown.starts_with(r#"{"alg":"ES256"}.{"sub":"x","exp":1e3,"exp":5}"#));
    }

    #[test]
    fn a_token_by_nobody_is_an_error() {
        assert!(forged(json!({ "from": "access", "sign": "nobody" })).is_err());
        assert!(forged(json!({ "from": "nothing" })).is_err());
        assert!(forged(json!({ "from": "access", "alg": "PS256" })).is_err());
        assert!(forged(json!({ "from": "access", "sign": "none" })).unwrap().compact.ends_with('.'));
        assert!(forged(json!({ "from": "access", "sign": "hs256:pem:jwks" })).is_ok());
    }
}
