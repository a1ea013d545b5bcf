//! Forges tokens: header and claims as any text, signed or not by any key.
//!
//! Takes JSON members in any order and number (a [`Members`] may name one twice) or raw octets, gives a compact JWS
//! (RFC 7515 §3.1). A JOSE library refuses to write most of what a server has to be shown. It knows nothing of what is right.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::key::{JwsAlgorithm, Key};

/// The members of a JSON object, in order, each value as JSON text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members(Vec<(String, String)>);

impl Members {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// With this member: in the place of the one of that name, or at the end.
    #[must_use]
    pub fn with(self, name: &str, value: impl Into<Value>) -> Self {
        self.with_raw(name, &value.into().to_string())
    }

    /// With this member, its value as JSON text that need not be JSON.
    #[must_use]
    pub fn with_raw(mut self, name: &str, value: &str) -> Self {
        match self.0.iter_mut().find(|(own, _)| own == name) {
            Some((_, own)) => value.clone_into(own),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// With this member at the end, also where one of that name is there already.
    #[must_use]
    pub fn and(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.push((name.to_owned(), value.into().to_string()));
        self
    }

    /// With this member at the front, also where one of that name is there already.
    #[must_use]
    pub fn preceded_by(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(0, (name.to_owned(), value.into().to_string()));
        self
    }

    /// Without the members of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(own, _)| own != name);
        self
    }

    /// The object as JSON text.
    pub fn to_json(&self) -> String {
        let members: Vec<String> =
            self.0.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))).collect();
        format!("{{{}}}", members.join(","))
    }
}

/// What stands in the third part of a compact JWS.
#[derive(Clone, Copy, Debug)]
pub enum Signature<'a> {
    /// What this key makes.
    By(JwsAlgorithm, &'a Key),
    /// HMAC with SHA-256 under these octets.
    Hs256(&'a [u8]),
    /// Nothing (RFC 7515 §6 `none`).
    None,
    /// These octets.
    Octets(&'a [u8]),
}

/// A compact JWS of these octets.
pub fn compact(header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, signature: Signature<'_>) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let octets = match signature {
        Signature::By(algorithm, key) => key.sign_jws(algorithm, input.as_bytes()),
        Signature::Hs256(secret) => {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes()).as_ref().to_vec()
        }
        Signature::None => Vec::new(),
        Signature::Octets(octets) => octets.to_vec(),
    };
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(octets))
}

/// A compact JWS whose parts are already encoded, signed as they stand: for encodings that are none.
pub fn compact_of_encoded(header: &str, payload: &str, signature: (JwsAlgorithm, &Key)) -> String {
    let input = format!("{header}.{payload}");
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.1.sign_jws(signature.0, input.as_bytes())))
}

/// A token to bend: header, claims and key.
#[derive(Clone, Debug)]
pub struct Token<'a> {
    /// The header's members.
    pub header: Members,
    /// The claims.
    pub claims: Members,
    /// Which algorithm to sign with, whatever the header says.
    pub algorithm: JwsAlgorithm,
    /// Whose key.
    pub key: &'a Key,
}

impl<'a> Token<'a> {
    /// A client assertion that is right in every respect (RFC 7523 §3, with the audience of rfc7523bis): for this client, to
    /// this issuer, at this second, named by this `jti`.
    pub fn assertion(
        client_id: &str,
        issuer: &str,
        now: i64,
        jti: &str,
        algorithm: JwsAlgorithm,
        key: &'a Key,
    ) -> Self {
        Self {
            header: Members::new().with("alg", algorithm.as_str()).with("kid", key.jwk_thumbprint()),
            claims: Members::new()
                .with("iss", client_id)
                .with("sub", client_id)
                .with("aud", issuer)
                .with("iat", now)
                .with("exp", now + 60)
                .with("jti", jti),
            algorithm,
            key,
        }
    }

    /// With the header changed.
    #[must_use]
    pub fn header(mut self, change: impl FnOnce(Members) -> Members) -> Self {
        self.header = change(self.header);
        self
    }

    /// With the claims changed.
    #[must_use]
    pub fn claims(mut self, change: impl FnOnce(Members) -> Members) -> Self {
        self.claims = change(self.claims);
        self
    }

    /// The compact JWS.
    pub fn compact(&self) -> String {
        self.signed(Signature::By(self.algorithm, self.key))
    }

    /// The compact JWS with another signature.
    pub fn signed(&self, signature: Signature<'_>) -> String {
        compact(self.header.to_json(), self.claims.to_json(), signature)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyKind;

    #[test]
    fn members_keep_order_and_copies() {
        let members = Members::new().with("a", 1).with("b", "x").with("a", 2).and("a", 3).with_raw("c", "1e3");
        assert_eq!(members.to_json(), r#"{"a":2,"b":"x","a":3,"c":1e3}"#);
        assert_eq!(members.without("a").to_json(), r#"{"b":"x","c":1e3}"#);
    }

    #[test]
    fn an_assertion_verifies_under_its_key() {
        let key = Key::generate(KeyKind::P256);
        let token = Token::assertion("c", "https://as.example", 1_000, "j", JwsAlgorithm::Es256, &key).compact();
        let (input, signature) = token.rsplit_once('.').unwrap();
        let spki = key.spki();
        aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
            &spki[spki.len() - 65..],
        )
        .verify(input.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
        .unwrap();
        let claims: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(input.split_once('.').unwrap().1).unwrap()).unwrap();
        assert_eq!(claims["aud"], "https://as.example");
        assert_eq!(claims["exp"], 1_060);
    }

    #[test]
    fn hs256_of_rfc_7515_a_1() {
        let secret = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let token = compact(
            "{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}",
            "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}",
            Signature::Hs256(&secret),
        );
        assert!(token.ends_with(".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"));
    }
}
