//! Which scope does the client get? (RFC 6749 §3.3)

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;

use super::PolicyRefusal;
use super::resource::Entitled;

/// A scope and the instant at which the first of its entitlements ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GrantedScope {
    pub(super) scope: Scope,
    pub(super) ends_at: Option<UnixTime>,
}

/// The scope asked for, if one is.
pub(super) fn parse(text: Option<&str>) -> Result<Option<Scope>, PolicyRefusal> {
    text.map(Scope::parse).transpose().map_err(|_| PolicyRefusal::ScopeMalformed)
}

/// All that was asked, or all there is if nothing was: never a part, because who asks for more than it has is to learn so.
pub(super) fn grant(entitled: &Entitled, asked: Option<Scope>) -> Result<GrantedScope, PolicyRefusal> {
    let scope = asked.unwrap_or_else(|| everything(entitled));
    if scope.is_empty() || !scope.tokens().all(|token| entitled.gives(token.as_str())) {
        return Err(PolicyRefusal::ScopeNotEntitled);
    }
    let ends_at = scope.tokens().filter_map(|token| end_of(entitled, token.as_str())).min();
    Ok(GrantedScope { scope, ends_at })
}

fn everything(entitled: &Entitled) -> Scope {
    entitled.resource_server.scopes.tokens().filter(|token| entitled.gives(token.as_str())).cloned().collect()
}

/// When the last entitlement that gives `token` ends; `None` where one of them never does.
fn end_of(entitled: &Entitled, token: &str) -> Option<UnixTime> {
    let mut last = None;
    for entitlement in entitled.entitlements.iter().filter(|entitlement| entitlement.scopes.contains(token)) {
        last = last.max(Some(entitlement.end()?));
    }
    last
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use countersign_resource_server::token::jws::SigningAlgorithm;

    use super::*;
    use crate::registry::entitlement::Entitlement;
    use crate::registry::resource_server::{ResourceServer, ResourceServerState, StatusClaim};
    use crate::registry::{ClientId, EntitlementId, ResourceIndicator, ResourceServerId};

    fn entitlement(scopes: &str, ends_at: Option<i64>) -> Entitlement {
        Entitlement {
            id: EntitlementId::parse("e").unwrap(),
            client_id: ClientId::parse("c").unwrap(),
            resource_server_id: ResourceServerId::parse("a").unwrap(),
            scopes: Scope::parse(scopes).unwrap(),
            starts_at: UnixTime::from_seconds(0),
            ends_at: ends_at.map(UnixTime::from_seconds),
            reason: "contract".to_owned(),
            ended_at: None,
        }
    }

    fn entitled(known: &str, entitlements: Vec<Entitlement>) -> Entitled {
        Entitled {
            resource_server: Arc::new(ResourceServer {
                id: ResourceServerId::parse("a").unwrap(),
                resource: ResourceIndicator::parse("https://a.example").unwrap(),
                scopes: Scope::parse(known).unwrap(),
                owner: None,
                access_token_lifetime_seconds: None,
                subject: None,
                status: StatusClaim::Absent,
                certificates: Vec::new(),
                introspection_signed_response_alg: SigningAlgorithm::ES256,
                state: ResourceServerState::Active,
            }),
            entitlements,
        }
    }

    #[test]
    fn nothing_asked_gives_all_that_both_sides_know() {
        let both = entitled("read write", vec![entitlement("read old", None), entitlement("write", None)]);
        assert_eq!(grant(&both, None).unwrap().scope, Scope::parse("read write").unwrap());
    }

    #[test]
    fn more_than_entitled_gives_nothing() {
        let one = entitled("read write", vec![entitlement("read", None)]);
        for asked in ["write", "read write", "READ"] {
            assert_eq!(
                grant(&one, Some(Scope::parse(asked).unwrap())),
                Err(PolicyRefusal::ScopeNotEntitled),
                "{asked}"
            );
        }
    }

    #[test]
    fn a_resource_server_that_forgot_every_scope_gives_nothing() {
        let none = entitled("write", vec![entitlement("read", None)]);
        assert_eq!(grant(&none, None), Err(PolicyRefusal::ScopeNotEntitled));
    }

    #[test]
    fn the_scope_lives_as_long_as_its_shortest_token() {
        let both = entitled(
            "read write",
            vec![entitlement("read", Some(10)), entitlement("read", Some(30)), entitlement("write", Some(20))],
        );
        assert_eq!(grant(&both, None).unwrap().ends_at, Some(UnixTime::from_seconds(20)));
        assert_eq!(
            grant(&both, Some(Scope::parse("read").unwrap())).unwrap().ends_at,
            Some(UnixTime::from_seconds(30))
        );
        let endless = entitled("read", vec![entitlement("read", Some(10)), entitlement("read", None)]);
        assert_eq!(grant(&endless, None).unwrap().ends_at, None);
    }

    #[test]
    fn a_malformed_scope() {
        assert_eq!(parse(Some("a  b")), Err(PolicyRefusal::ScopeMalformed));
        assert_eq!(parse(None), Ok(None));
    }
}
