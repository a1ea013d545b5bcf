//! May this call be answered? The path of a resource request, as one function.
//!
//! Takes what came with the request (certificate, credentials) and what the route requires, gives an [`AuthorizedCall`]
//! or the one [`Refusal`]. Each stage consumes what only the stage before can make. It knows nothing of routes, handlers
//! or the network. Nothing waits in [`decide`]: where only the authorization server can say more, it gives the call back
//! [`Undecided`], and [`authorize`] says no.

use std::fmt;
use std::sync::Arc;

use crate::bearer::{self, Credentials};
use crate::confirmation::{self, CertificateThumbprint, ConfirmedToken};
use crate::error::{Refusal, ScopeRefusal, StatusRefusal};
use crate::peer::{self, PeerCertificate};
use crate::scope::Scope;
use crate::status::{HeldList, Introspection, LiveToken, Standing};
use crate::time::UnixTime;
use crate::token::access_token::{AccessTokens, VerifiedToken};
use crate::token::claims::AccessTokenClaims;

/// What calls are judged by, the same for every route.
#[derive(Debug)]
pub struct Judgement {
    /// Which tokens are good.
    pub tokens: AccessTokens,
    /// Which of them are not good any more.
    pub revocations: Arc<HeldList>,
    /// Whom to ask where the list is too old to say so, if anybody is to be asked.
    pub introspection: Option<Arc<Introspection>>,
}

/// What one route requires.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// Every scope token the access token has to carry.
    pub scope: Scope,
    /// Whether the token has to be the caller's own.
    pub binding: Binding,
    /// Whether the token may have been revoked.
    pub revocation: Revocation,
}

/// Whether the token has to be the caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// The connection must have the certificate that the token is bound to.
    Required,
    /// Danger: whoever holds the token may use it, from any connection.
    DangerUnbound,
}

/// Whether the token may have been revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// A fresh revocation list has to say nothing against it.
    Checked,
    /// Danger: a revoked token stays good until it expires.
    DangerIgnored,
}

/// Decides on one call as of `now`, without asking anybody: where the authorization server would have to be asked, the call is
/// refused.
///
/// Its arguments are those of [`decide`].
///
/// # Errors
/// The [`Refusal`] of the first stage that refuses; [`StatusRefusal::IntrospectionUnavailable`] where [`decide`] would ask.
pub fn authorize(
    judgement: &Judgement,
    required: &Requirement,
    certificate: Option<&PeerCertificate>,
    credentials: &Credentials<'_>,
    now: UnixTime,
    shown: &mut Option<Arc<VerifiedToken>>,
) -> Result<AuthorizedCall, Refusal> {
    match decide(judgement, required, certificate, credentials, now, shown)? {
        Decision::Permitted(call) => Ok(call),
        Decision::Undecided(_) => Err(StatusRefusal::IntrospectionUnavailable.into()),
    }
}

/// Decides on one call as of `now`, or says that it is to be asked about.
///
/// The token is taken from the request before the certificate is looked at, so that a request without one is told that
/// it needs one and nothing else (RFC 6750 §3).
///
/// `shown` becomes the token that came with the call, once its signature and claims have been verified, whatever is decided
/// then: by its `jti` the decision joins the authorization server's audit log.
///
/// # Errors
/// The [`Refusal`] of the first stage that refuses.
pub fn decide(
    judgement: &Judgement,
    required: &Requirement,
    certificate: Option<&PeerCertificate>,
    credentials: &Credentials<'_>,
    now: UnixTime,
    shown: &mut Option<Arc<VerifiedToken>>,
) -> Result<Decision, Refusal> {
    let bearer = bearer::extract(credentials)?; // RFC 6750 §2.1
    let token = match required.binding {
        Binding::Required => {
            let peer = peer::judge(certificate, now)?; // RFC 5280 §4.1.2.5
            let token = judgement.tokens.verify(bearer, now)?; // RFC 9068 §4
            *shown = Some(Arc::clone(&token));
            confirmation::confirm(token, peer)? // RFC 8705 §3
        }
        Binding::DangerUnbound => {
            let token = judgement.tokens.verify(bearer, now)?;
            *shown = Some(Arc::clone(&token));
            ConfirmedToken::danger_unbound(token)
        }
    };
    let token = match required.revocation {
        Revocation::Checked => match judgement.revocations.check(token)? {
            Standing::Live(token) => token,
            Standing::Unknown(token) => {
                let introspection = judgement.introspection.clone().ok_or_else(|| {
                    // Nobody was named to be asked.
                    if judgement.revocations.version().is_some() {
                        StatusRefusal::ListStale
                    } else {
                        StatusRefusal::ListNotHeld
                    }
                })?;
                let (text, required) = (bearer.as_str().into(), required.scope.clone());
                return Ok(Decision::Undecided(Box::new(Undecided { introspection, token, text, required })));
            }
        },
        Revocation::DangerIgnored => LiveToken::danger_unchecked(token),
    };
    Ok(Decision::Permitted(permit(token, &required.scope)?))
}

/// What is decided without waiting for anybody.
#[derive(Debug)]
#[must_use = "a call that is undecided is not permitted"]
pub enum Decision {
    /// The call may be answered.
    Permitted(AuthorizedCall),
    /// Nobody here can say whether its token is still good: the list held is too old, and the authorization server is to be
    /// asked instead.
    Undecided(Box<Undecided>),
}

/// A call that waits for the authorization server's word on its token.
#[must_use = "nothing is asked until it is settled"]
pub struct Undecided {
    introspection: Arc<Introspection>,
    token: ConfirmedToken,
    text: Arc<str>,
    required: Scope,
}

impl Undecided {
    /// Asks the authorization server, and goes the rest of the path. Certificate and token have to be in date still when the
    /// answer has come.
    ///
    /// # Errors
    /// The [`Refusal`] of the stage that refuses.
    pub async fn settle(self) -> Result<AuthorizedCall, Refusal> {
        let introspection = Arc::clone(&self.introspection);
        let token = self.introspection.ask(self.token, self.text).await?; // RFC 7662 §2.2
        let now = introspection.now();
        if let Some(peer) = token.confirmed().peer() {
            peer::judge(Some(peer.certificate()), now)?; // RFC 5280 §4.1.2.5
        }
        token.confirmed().token().judge_dates(now)?; // RFC 9068 §4
        Ok(permit(token, &self.required)?)
    }
}

/// The text of a token is never printed.
impl fmt::Debug for Undecided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undecided").field("token", &self.token).finish_non_exhaustive()
    }
}

// RFC 6750 §3.1: insufficient_scope
fn permit(token: LiveToken, required: &Scope) -> Result<AuthorizedCall, ScopeRefusal> {
    if token.confirmed().token().claims().scope.includes(required) {
        Ok(AuthorizedCall { token: Arc::clone(token.confirmed().token()) })
    } else {
        Err(ScopeRefusal::Insufficient)
    }
}

/// A call that may be answered, and who makes it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuthorizedCall {
    token: Arc<VerifiedToken>,
}

impl AuthorizedCall {
    /// Everything the token says.
    pub fn claims(&self) -> &AccessTokenClaims {
        self.token.claims()
    }

    /// The client that calls.
    pub fn client_id(&self) -> &str {
        &self.claims().client_id
    }

    /// The organisation it belongs to.
    pub fn participant_id(&self) -> &str {
        &self.claims().participant_id
    }

    /// What it may do here.
    pub fn scope(&self) -> &Scope {
        &self.claims().scope
    }

    /// The certificate that the token is bound to.
    pub fn certificate_thumbprint(&self) -> &CertificateThumbprint {
        &self.claims().cnf.x5t_s256
    }
}

#[cfg(test)]
mod tests {
    use countersign_conformance::Key;
    use countersign_conformance::KeyKind;
    use countersign_conformance::forge::Signature;
    use countersign_conformance::pki::{Authority, Name, Template};
    use serde_json::json;

    use super::*;
    use crate::double::{Double, ISSUER, KID, NOW, RESOURCE};
    use crate::time::Clock;

    #[test]
    fn a_good_token_on_its_own_connection() {
        let double = Double::new();
        let call = double.call(&double.token().compact()).unwrap();
        assert_eq!((call.client_id(), call.participant_id()), ("client-1", "participant-1"));
        assert_eq!(call.certificate_thumbprint(), double.peer.thumbprint());
        assert!(call.scope().contains("accounts:write"));
        assert_eq!(call.claims().registry_version, 41);
    }

    #[test]
    fn a_remembered_token_is_the_same_token() {
        let double = Double::new();
        let token = double.token().compact();
        let (first, again) = (double.call(&token).unwrap(), double.call(&token).unwrap());
        assert!(Arc::ptr_eq(&first.token, &again.token));
    }

    #[test]
    fn remembered_is_the_whole_token() {
        let double = Double::new();
        let token = double.token().compact();
        double.call(&token).unwrap();
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert_eq!(double.reason(&format!("{signed}.{}", "A".repeat(86))), "token_signature");
        let claims = double.token().claims(|claims| claims.with("scope", "accounts:admin")).compact();
        let [header, _, signature] = token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let payload = claims.split('.').nth(1).unwrap();
        assert_eq!(double.reason(&format!("{header}.{payload}.{signature}")), "token_signature");
    }

    #[test]
    fn no_certificate_on_the_connection() {
        let double = Double::new();
        let refusal = double.call_from(None, &double.token().compact(), &double.required("accounts:read")).unwrap_err();
        assert_eq!((refusal.reason(), refusal.code().status()), ("connection_no_certificate", 401));
    }

    #[test]
    fn the_token_of_another_certificate() {
        let double = Double::new();
        let token = double.token().compact();
        double.call(&token).unwrap(); // remembered, and still not the stranger's
        let refusal =
            double.call_from(Some(&Double::stranger()), &token, &double.required("accounts:read")).unwrap_err();
        assert_eq!((refusal.reason(), refusal.code().status()), ("confirmation_mismatch", 401));
    }

    #[test]
    fn the_token_is_known_by_its_jti_whatever_is_decided() {
        let double = Double::new();
        let (token, required) = (double.token().compact(), double.required("accounts:read"));
        let stranger = Double::stranger();
        for (peer, accepted) in [(&double.peer, true), (&stranger, false)] {
            let mut shown = None;
            let decided = double.call_showing(Some(peer), &token, &required, &mut shown);
            assert_eq!((decided.is_ok(), shown.unwrap().claims().jti.as_str()), (accepted, "jti-1"));
        }
        // What is not signed says nothing.
        let mut shown = None;
        let forged = format!("{token}A");
        double.call_showing(Some(&double.peer), &forged, &required, &mut shown).unwrap_err();
        assert!(shown.is_none());
    }

    #[test]
    fn the_same_key_in_another_certificate() {
        let double = Double::new();
        let twin = Authority::root("Other CA", NOW)
            .issue_for(&Template::client(Name::common("client"), NOW), Arc::clone(&double.credential.key));
        let twin = PeerCertificate::parse(twin.certificate()).unwrap();
        assert_eq!(twin.key_hash(), double.peer.key_hash());
        let refusal = double.call_from(Some(&twin), &double.token().compact(), &double.required("accounts:read"));
        assert_eq!(refusal.unwrap_err().reason(), "confirmation_mismatch");
    }

    #[test]
    fn the_same_certificate_with_its_signature_rewritten() {
        let double = Double::new();
        let twin = PeerCertificate::parse(double.credential.rewritten().unwrap().certificate()).unwrap();
        let refusal = double.call_from(Some(&twin), &double.token().compact(), &double.required("accounts:read"));
        assert_eq!(refusal.unwrap_err().reason(), "confirmation_mismatch");
    }

    #[test]
    fn the_certificate_is_judged_at_the_time_of_the_call() {
        let double = Double::new();
        let now = NOW;
        let credential = |from: i64, until: i64| {
            let template = Template { not_before: from, not_after: until, ..Template::client(Name::common("c"), now) };
            Authority::root("CA", now).issue(&template, KeyKind::P256)
        };
        for (from, until, reason) in [
            (now, now, None),
            (now - 10, now - 1, Some("connection_certificate_expired")),
            (now + 1, now + 10, Some("connection_certificate_not_yet_valid")),
        ] {
            let credential = credential(from, until);
            let peer = PeerCertificate::parse(credential.certificate()).unwrap();
            let token = double.claiming(|claims| claims.with("cnf", json!({ "x5t#S256": credential.thumbprint() })));
            let verdict = double.call_from(Some(&peer), &token, &double.required("accounts:read"));
            assert_eq!(verdict.err().map(Refusal::reason), reason);
        }
    }

    #[test]
    fn cnf_that_is_none() {
        let double = Double::new();
        let thumbprint = double.credential.thumbprint();
        let hexadecimal: String =
            double.peer.thumbprint().octets().iter().map(|octet| format!("{octet:02x}")).collect();
        for (cnf, reason) in [
            (json!({}), "token_cnf_malformed"),
            (json!(null), "token_cnf_malformed"),
            (json!(thumbprint), "token_cnf_malformed"),
            (json!([thumbprint]), "token_cnf_malformed"),
            (json!({ "x5t#S256": [thumbprint] }), "token_cnf_malformed"),
            (json!({ "x5t#S256": null }), "token_cnf_malformed"),
            (json!({ "x5t#S256": "" }), "token_cnf_malformed"),
            (json!({ "x5t#S256": hexadecimal }), "token_cnf_malformed"),
            (json!({ "x5t#S256": format!("{thumbprint}=") }), "token_cnf_malformed"),
            (json!({ "x5t#S256": thumbprint[..27] }), "token_cnf_malformed"),
            (json!({ "x5t": "2jmj7l5rSw0yVb_vlWAYkK_YBwk" }), "token_cnf_malformed"),
            (json!({ "x5t#s256": thumbprint }), "token_cnf_malformed"),
            (json!({ "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }), "token_cnf_malformed"),
            (
                json!({ "x5t#S256": thumbprint, "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" }),
                "token_cnf_malformed",
            ),
            (json!({ "x5t#S256": thumbprint, "kid": "k" }), "token_cnf_malformed"),
            (json!({ "x5t#S256": "A".repeat(43) }), "confirmation_mismatch"),
            (
                json!({ "x5t#S256": crate::confirmation::CertificateThumbprint::of(thumbprint.as_bytes()) }),
                "confirmation_mismatch",
            ),
        ] {
            assert_eq!(double.reason(&double.claiming(|claims| claims.with("cnf", cnf.clone()))), reason, "{cnf}");
        }
        assert_eq!(double.reason(&double.claiming(|claims| claims.without("cnf"))), "token_cnf_missing");
    }

    #[test]
    fn issuers_that_are_nearly_ours() {
        let double = Double::new();
        for issuer in [
            json!("https://as.example/"),
            json!("https://AS.example"),
            json!("http://as.example"),
            json!("https://as.example:443"),
            json!("https://as.example.evil"),
            json!(""),
            json!(null),
            json!([ISSUER]),
        ] {
            let token = double.claiming(|claims| claims.with("iss", issuer.clone()));
            assert_eq!(double.reason(&token), "token_issuer", "{issuer}");
        }
        assert_eq!(double.reason(&double.claiming(|claims| claims.without("iss"))), "token_issuer");
    }

    #[test]
    fn audiences_that_are_nearly_ours() {
        let double = Double::new();
        for audience in [
            json!("https://api.example/bank/"),
            json!("https://api.example"),
            json!("https://API.example/bank"),
            json!([RESOURCE]),
            json!([RESOURCE, "https://other.example"]),
            json!([]),
            json!(null),
            json!(""),
            json!({}),
        ] {
            let token = double.claiming(|claims| claims.with("aud", audience.clone()));
            assert_eq!(double.reason(&token), "token_audience", "{audience}");
        }
        assert_eq!(double.reason(&double.claiming(|claims| claims.without("aud"))), "token_audience");
    }

    #[test]
    fn dates_to_the_second() {
        let double = Double::new();
        let token = double.claiming(|claims| claims.with("nbf", NOW));
        // exp = NOW + 300, iat = nbf = NOW, leeway 10 s: good from NOW - 10 and before NOW + 310.
        for remembered in [false, true] {
            if remembered {
                double.at(NOW).call(&token).unwrap();
            }
            assert!(double.at(NOW - 10).call(&token).is_ok());
            assert!(double.at(NOW + 309).call(&token).is_ok());
            assert_eq!(double.at(NOW + 310).reason(&token), "token_expired");
            assert_eq!(double.at(NOW - 11).reason(&token), "token_not_yet_valid");
        }
        let token = double.token().compact();
        assert_eq!(double.at(NOW - 11).reason(&token), "token_issued_in_future");
        assert!(double.at(NOW - 10).call(&token).is_ok());
    }

    #[test]
    fn claims_of_the_wrong_type() {
        let double = Double::new();
        let mut tokens = Vec::new();
        for name in ["exp", "iat", "registry_version"] {
            for wrong in [
                "1800000300.0",
                "1.8e9",
                "\"1800000300\"",
                "9223372036854775808",
                "1e400",
                "null",
                "true",
                "[1]",
                "-1e-9",
            ] {
                tokens.push((name, wrong, double.claiming(|claims| claims.with_raw(name, wrong))));
            }
        }
        for wrong in ["1800000000.5", "\"1800000000\"", "9223372036854775808", "null"] {
            tokens.push(("nbf", wrong, double.claiming(|claims| claims.with_raw("nbf", wrong))));
        }
        for name in ["sub", "jti", "client_id", "participant_id", "environment", "scope", "roles"] {
            for wrong in ["1", "null", "{}", "[1]"] {
                tokens.push((name, wrong, double.claiming(|claims| claims.with_raw(name, wrong))));
            }
        }
        for (name, wrong) in [("anchor", "1"), ("scope", "\"\""), ("scope", "\"a  b\""), ("scope", "\"a\\\"b\"")] {
            tokens.push((name, wrong, double.claiming(|claims| claims.with_raw(name, wrong))));
        }
        for (name, wrong, token) in tokens {
            assert_eq!(double.reason(&token), "token_claims", "{name}: {wrong}");
        }
    }

    #[test]
    fn claims_that_are_missing() {
        let double = Double::new();
        for name in [
            "sub",
            "exp",
            "iat",
            "jti",
            "client_id",
            "scope",
            "participant_id",
            "roles",
            "environment",
            "registry_version",
        ] {
            assert_eq!(double.reason(&double.claiming(|claims| claims.without(name))), "token_claims", "{name}");
        }
        assert!(double.call(&double.claiming(|claims| claims.without("anchor"))).is_ok());
    }

    #[test]
    fn claims_named_twice() {
        let double = Double::new();
        for name in ["iss", "aud", "exp", "cnf", "scope", "jti", "x"] {
            let token = double.claiming(|claims| claims.and("x", 1).and(name, 1));
            assert_eq!(double.reason(&token), "token_claims", "{name}");
            let token = double.claiming(|claims| claims.and("x", 1).preceded_by(name, 1));
            assert_eq!(double.reason(&token), "token_claims", "{name}");
        }
    }

    #[test]
    fn dates_at_the_ends_of_the_range() {
        let double = Double::new();
        assert!(double.call(&double.claiming(|claims| claims.with("exp", i64::MAX))).is_ok());
        assert_eq!(double.reason(&double.claiming(|claims| claims.with("exp", i64::MIN))), "token_expired");
        assert_eq!(double.reason(&double.claiming(|claims| claims.with("iat", i64::MAX))), "token_issued_in_future");
        assert_eq!(double.reason(&double.claiming(|claims| claims.with("nbf", i64::MAX))), "token_not_yet_valid");
    }

    #[test]
    fn headers_that_are_not_an_access_tokens() {
        let double = Double::new();
        for (name, value, reason) in [
            ("alg", json!("none"), "token_algorithm"),
            ("alg", json!("RS256"), "token_algorithm"),
            ("alg", json!("HS256"), "token_algorithm"),
            ("alg", json!("EdDSA"), "token_key_mismatch"),
            ("typ", json!("JWT"), "token_type"),
            ("typ", json!("client-authentication+jwt"), "token_type"),
            ("typ", json!(crate::status::REVOCATION_LIST_TYPE), "token_type"),
            ("typ", json!("token-introspection+jwt"), "token_type"),
            ("kid", json!("k2"), "token_kid_unknown"),
            ("kid", json!(1), "token_header"),
            ("crit", json!([]), "token_critical"),
            ("crit", json!(["exp"]), "token_critical"),
            ("b64", json!(false), "token_critical"),
        ] {
            let token = double.token().header(|header| header.with(name, value.clone())).compact();
            assert_eq!(double.reason(&token), reason, "{name}: {value}");
        }
        for (name, reason) in [("alg", "token_header"), ("typ", "token_type"), ("kid", "token_kid_missing")] {
            assert_eq!(double.reason(&double.token().header(|header| header.without(name)).compact()), reason);
        }
        let token = double.token().header(|header| header.preceded_by("alg", "none")).compact();
        assert_eq!(double.reason(&token), "token_header");
    }

    #[test]
    fn signatures_of_others() {
        let double = Double::new();
        let thief = Key::generate(KeyKind::P256);
        let token = countersign_conformance::forge::Token { key: &thief, ..double.token() };
        assert_eq!(double.reason(&token.compact()), "token_signature");
        assert_eq!(double.reason(&double.token().signed(Signature::None)), "token_signature");
        let confused = double.token().header(|header| header.with("alg", "HS256"));
        assert_eq!(double.reason(&confused.signed(Signature::Hs256(&double.key.spki()))), "token_algorithm");
        assert_eq!(double.reason("a.b"), "token_malformed");
    }

    #[test]
    fn a_key_that_was_withdrawn_takes_its_remembered_tokens_along() {
        let double = Double::new();
        let token = double.token().compact();
        double.call(&token).unwrap();
        double.guard.keys().take(double.jwks("k2").as_bytes()).unwrap();
        assert_eq!(double.reason(&token), "token_kid_unknown");
        double.guard.keys().take(double.jwks(KID).as_bytes()).unwrap();
        assert!(double.call(&token).is_ok());
    }

    #[test]
    fn another_key_under_the_same_name() {
        let double = Double::new();
        let token = double.token().compact();
        double.call(&token).unwrap();
        let other = Double::new();
        double.guard.keys().take(other.jwks(KID).as_bytes()).unwrap();
        assert_eq!(double.reason(&token), "token_signature");
    }

    #[test]
    fn keys_that_cannot_be_used_leave_those_held() {
        let double = Double::new();
        let twice = format!(r#"{{"keys":[{0},{0}]}}"#, r#"{"kty":"oct","kid":"a"}"#);
        for garbage in ["", "garbage", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct"}]}"#, &twice] {
            assert!(double.guard.keys().take(garbage.as_bytes()).is_err(), "{garbage}");
        }
        assert!(double.call(&double.token().compact()).is_ok());
    }

    #[test]
    fn no_keys_yet() {
        let double = Double::new();
        let judgement = &crate::Guard::builder(ISSUER, RESOURCE).idle().unwrap().judgement;
        let mut headers = http::HeaderMap::new();
        let field = format!("Bearer {}", double.token().compact());
        headers.insert("authorization", field.parse().unwrap());
        let target = http::Uri::from_static("/");
        let credentials = Credentials::of(&headers, &target);
        let now = UnixTime::from_seconds(NOW);
        let required = double.required("a");
        let refusal = authorize(judgement, &required, Some(&double.peer), &credentials, now, &mut None).unwrap_err();
        assert_eq!((refusal.reason(), refusal.code().status()), ("token_keys_not_held", 503));
    }

    #[test]
    fn nobody_to_ask_says_whether_a_list_was_held() {
        let double = Double::new();
        for held in [false, true] {
            let keys = Arc::clone(double.guard.keys());
            let clock = Arc::clone(&double.clock) as Arc<dyn Clock>;
            let limit = std::time::Duration::from_secs(30);
            let list = HeldList::new(ISSUER.to_owned(), limit, Arc::clone(&keys), clock);
            let revocations = Arc::new(list.when_stale(crate::status::WhenStale::Introspect));
            if held {
                revocations.take(&double.list().compact()).unwrap();
                double.wait(limit + std::time::Duration::from_millis(1));
            }
            let tokens = AccessTokens::new(ISSUER.to_owned(), RESOURCE.to_owned(), keys, 1_000_000);
            let judgement = Judgement { tokens, revocations, introspection: None };
            let token = double.token().compact();
            let mut headers = http::HeaderMap::new();
            headers.insert(http::header::AUTHORIZATION, format!("Bearer {token}").try_into().unwrap());
            let target = http::Uri::from_static("/accounts");
            let (credentials, now) = (Credentials::of(&headers, &target), double.clock.now());
            let required = double.required("accounts:read");
            let refusal = decide(&judgement, &required, Some(&double.peer), &credentials, now, &mut None).unwrap_err();
            let expected = if held { "revocation_list_stale" } else { "revocation_list_not_held" };
            assert_eq!(refusal.reason(), expected);
        }
    }

    #[test]
    fn scope() {
        let double = Double::new();
        let token = double.token().compact();
        for enough in ["accounts:read", "accounts:write accounts:read"] {
            assert!(double.call_from(Some(&double.peer), &token, &double.required(enough)).is_ok(), "{enough}");
        }
        for more in ["accounts:admin", "accounts:read accounts:admin", "accounts", "ACCOUNTS:READ"] {
            let refusal = double.call_from(Some(&double.peer), &token, &double.required(more)).unwrap_err();
            assert_eq!((refusal.reason(), refusal.code().status()), ("insufficient_scope", 403), "{more}");
        }
    }

    #[test]
    fn opting_out_of_the_binding_opts_out_of_nothing_else() {
        let double = Double::new();
        let token = double.token().compact();
        let required = Requirement { binding: Binding::DangerUnbound, ..double.required("accounts:read") };
        for peer in [None, Some(&Double::stranger()), Some(&double.peer)] {
            assert!(double.call_from(peer, &token, &required).is_ok());
        }
        let marked = double.marking(&[(crate::status::MarkKind::Jti, "jti-1", 42)]);
        double.take(&marked);
        assert_eq!(double.call_from(None, &token, &required).unwrap_err().reason(), "revoked_jti");
        let unbound = double.claiming(|claims| claims.without("cnf"));
        assert_eq!(double.call_from(None, &unbound, &required).unwrap_err().reason(), "token_cnf_missing");
    }

    #[test]
    fn opting_out_of_revocation_opts_out_of_nothing_else() {
        let double = Double::new();
        let token = double.token().compact();
        let required = Requirement { revocation: Revocation::DangerIgnored, ..double.required("accounts:read") };
        double.take(&double.marking(&[(crate::status::MarkKind::Jti, "jti-1", 42)]));
        double.wait(std::time::Duration::from_secs(100));
        assert!(double.call_from(Some(&double.peer), &token, &required).is_ok());
        assert!(double.call_from(None, &token, &required).is_err());
    }
}
