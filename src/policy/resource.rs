//! Which resource server is the token for? (RFC 8707 §2, design §4)

use std::sync::Arc;

use countersign_resource_server::scope::Scope;
use countersign_resource_server::time::UnixTime;

use super::PolicyRefusal;
use crate::registry::GrantedEntitlement;
use crate::registry::entitlement::Entitlement;
use crate::registry::resource_server::{ResourceServer, ResourceServerState};

/// What a client may do at one resource server: every entitlement there that holds now.
#[derive(Clone, Debug)]
pub(super) struct Entitled {
    pub(super) resource_server: Arc<ResourceServer>,
    pub(super) entitlements: Vec<Entitlement>,
}

impl Entitled {
    /// Whether one of the entitlements gives `token`, and the resource server still knows it.
    pub(super) fn gives(&self, token: &str) -> bool {
        self.resource_server.scopes.contains(token)
            && self.entitlements.iter().any(|entitlement| entitlement.scopes.contains(token))
    }
}

/// Singles out one resource server: the one asked for; else the only one; else the one that all asked scopes belong to.
pub(super) fn single_out(
    granted: &[GrantedEntitlement],
    resources: &[String],
    scope: Option<&Scope>,
    now: UnixTime,
) -> Result<Entitled, PolicyRefusal> {
    if granted.is_empty() {
        return Err(PolicyRefusal::NoEntitlement);
    }
    match resources {
        [] => by_scope(every(granted, now)?, scope),
        [resource] => usable(granted, now)
            .into_iter()
            .find(|entitled| entitled.resource_server.resource.as_str() == resource)
            .ok_or_else(|| why_not_usable(granted, resource, now)),
        // RFC 8707 §2 lets a server refuse what it will not combine: one token, one audience.
        _ => Err(PolicyRefusal::ResourceSeveral),
    }
}

/// Every resource server the client could get a token for now: one at least.
pub(super) fn every(granted: &[GrantedEntitlement], now: UnixTime) -> Result<Vec<Entitled>, PolicyRefusal> {
    if granted.is_empty() {
        return Err(PolicyRefusal::NoEntitlement);
    }
    let usable = usable(granted, now);
    if usable.is_empty() { Err(why_none_is_usable(granted, now)) } else { Ok(usable) }
}

/// The active resource servers with an entitlement that holds now.
fn usable(granted: &[GrantedEntitlement], now: UnixTime) -> Vec<Entitled> {
    let mut usable: Vec<Entitled> = Vec::new();
    for GrantedEntitlement { entitlement, resource_server } in granted {
        if resource_server.state != ResourceServerState::Active || !entitlement.holds_at(now) {
            continue;
        }
        match usable.iter_mut().find(|entitled| entitled.resource_server.id == resource_server.id) {
            Some(entitled) => entitled.entitlements.push(entitlement.clone()),
            None => usable.push(Entitled {
                resource_server: Arc::clone(resource_server),
                entitlements: vec![entitlement.clone()],
            }),
        }
    }
    usable
}

fn by_scope(mut usable: Vec<Entitled>, scope: Option<&Scope>) -> Result<Entitled, PolicyRefusal> {
    if usable.len() == 1 {
        return usable.pop().ok_or(PolicyRefusal::ResourceAmbiguous);
    }
    let Some(scope) = scope else { return Err(PolicyRefusal::ResourceAmbiguous) };
    if !scope.tokens().all(|token| usable.iter().any(|entitled| entitled.gives(token.as_str()))) {
        return Err(PolicyRefusal::ScopeNotEntitled);
    }
    usable.retain(|entitled| scope.tokens().all(|token| entitled.gives(token.as_str())));
    match usable.len() {
        0 => Err(PolicyRefusal::ScopeMixed),
        1 => usable.pop().ok_or(PolicyRefusal::ResourceAmbiguous),
        _ => Err(PolicyRefusal::ResourceAmbiguous),
    }
}

/// The most telling reason why the resource asked for is not to be had.
fn why_not_usable(granted: &[GrantedEntitlement], resource: &str, now: UnixTime) -> PolicyRefusal {
    let mut there = granted.iter().filter(|granted| granted.resource_server.resource.as_str() == resource).peekable();
    let Some(first) = there.peek() else { return PolicyRefusal::ResourceNotEntitled };
    if first.resource_server.state == ResourceServerState::Retired {
        return PolicyRefusal::ResourceRetired;
    }
    if there.any(|granted| granted.entitlement.starts_at > now && granted.entitlement.ended_at.is_none()) {
        return PolicyRefusal::ResourceEntitlementNotStarted;
    }
    PolicyRefusal::ResourceEntitlementEnded
}

/// The most telling reason why the client can have nothing at all: what may still come before what is over.
fn why_none_is_usable(granted: &[GrantedEntitlement], now: UnixTime) -> PolicyRefusal {
    let open = |granted: &&GrantedEntitlement| granted.resource_server.state == ResourceServerState::Active;
    if granted.iter().filter(open).count() == 0 {
        return PolicyRefusal::EveryResourceRetired;
    }
    if granted.iter().filter(open).any(|granted| granted.entitlement.starts_at > now) {
        return PolicyRefusal::EntitlementNotStarted;
    }
    PolicyRefusal::EntitlementEnded
}

#[cfg(test)]
mod tests {
    use countersign_resource_server::token::jws::SigningAlgorithm;

    use super::*;
    use crate::registry::resource_server::StatusClaim;
    use crate::registry::{ClientId, EntitlementId, ResourceIndicator, ResourceServerId};

    const NOW: UnixTime = UnixTime::from_seconds(1_000_000);

    fn granted(resource: &str, known: &str, given: &str) -> GrantedEntitlement {
        GrantedEntitlement {
            entitlement: Entitlement {
                id: EntitlementId::parse("e").unwrap(),
                client_id: ClientId::parse("c").unwrap(),
                resource_server_id: ResourceServerId::parse(resource).unwrap(),
                scopes: Scope::parse(given).unwrap(),
                starts_at: NOW,
                ends_at: None,
                reason: "contract".to_owned(),
                ended_at: None,
            },
            resource_server: Arc::new(ResourceServer {
                id: ResourceServerId::parse(resource).unwrap(),
                resource: ResourceIndicator::parse(&format!("https://{resource}.example")).unwrap(),
                scopes: Scope::parse(known).unwrap(),
                owner: None,
                access_token_lifetime_seconds: None,
                subject: None,
                status: StatusClaim::Absent,
                certificates: Vec::new(),
                introspection_signed_response_alg: SigningAlgorithm::ES256,
                state: ResourceServerState::Active,
            }),
        }
    }

    fn retired(mut granted: GrantedEntitlement) -> GrantedEntitlement {
        Arc::make_mut(&mut granted.resource_server).state = ResourceServerState::Retired;
        granted
    }

    fn singled_out(
        granted: &[GrantedEntitlement],
        resources: &[&str],
        scope: Option<&str>,
    ) -> Result<String, PolicyRefusal> {
        let resources: Vec<String> = resources.iter().map(|resource| (*resource).to_owned()).collect();
        let scope = scope.map(|scope| Scope::parse(scope).unwrap());
        single_out(granted, &resources, scope.as_ref(), NOW).map(|entitled| entitled.resource_server.id.to_string())
    }

    #[test]
    fn the_only_one_needs_no_naming() {
        let one = [granted("a", "read", "read")];
        assert_eq!(singled_out(&one, &[], None).unwrap(), "a");
        assert_eq!(singled_out(&one, &["https://a.example"], None).unwrap(), "a");
    }

    #[test]
    fn scopes_single_out_one_of_several() {
        let two = [granted("a", "read both", "read both"), granted("b", "write both", "write both")];
        assert_eq!(singled_out(&two, &[], Some("write")).unwrap(), "b");
        assert_eq!(singled_out(&two, &[], Some("read write")), Err(PolicyRefusal::ScopeMixed));
        assert_eq!(singled_out(&two, &[], Some("both")), Err(PolicyRefusal::ResourceAmbiguous));
        assert_eq!(singled_out(&two, &[], Some("other")), Err(PolicyRefusal::ScopeNotEntitled));
        assert_eq!(singled_out(&two, &[], None), Err(PolicyRefusal::ResourceAmbiguous));
    }

    #[test]
    fn resource_not_entitled() {
        let one = [granted("a", "read", "read")];
        for resource in ["https://b.example", "https://a.example/", "HTTPS://a.example", "https://a.example#x", ""] {
            assert_eq!(singled_out(&one, &[resource], None), Err(PolicyRefusal::ResourceNotEntitled), "{resource}");
        }
        assert_eq!(
            singled_out(&one, &["https://a.example", "https://a.example"], None),
            Err(PolicyRefusal::ResourceSeveral)
        );
    }

    #[test]
    fn resource_server_retired() {
        let gone = [retired(granted("a", "read", "read"))];
        assert_eq!(singled_out(&gone, &["https://a.example"], None), Err(PolicyRefusal::ResourceRetired));
        assert_eq!(singled_out(&gone, &[], None), Err(PolicyRefusal::EveryResourceRetired));
    }

    #[test]
    fn entitlement_not_started_and_ended_at_the_edges() {
        let mut early = granted("a", "read", "read");
        early.entitlement.starts_at = NOW.after(std::time::Duration::from_millis(1));
        assert_eq!(singled_out(&[early.clone()], &[], None), Err(PolicyRefusal::EntitlementNotStarted));
        assert_eq!(
            singled_out(&[early], &["https://a.example"], None),
            Err(PolicyRefusal::ResourceEntitlementNotStarted)
        );

        let mut last = granted("a", "read", "read");
        last.entitlement.starts_at = UnixTime::from_seconds(0);
        last.entitlement.ends_at = Some(NOW.after(std::time::Duration::from_millis(1)));
        assert_eq!(singled_out(&[last.clone()], &[], None).unwrap(), "a");
        last.entitlement.ends_at = Some(NOW);
        assert_eq!(singled_out(&[last.clone()], &[], None), Err(PolicyRefusal::EntitlementEnded));
        assert_eq!(
            singled_out(&[last.clone()], &["https://a.example"], None),
            Err(PolicyRefusal::ResourceEntitlementEnded)
        );
        last.entitlement.ends_at = None;
        last.entitlement.ended_at = Some(NOW);
        assert_eq!(singled_out(&[last], &[], None), Err(PolicyRefusal::EntitlementEnded));
    }

    #[test]
    fn no_entitlement() {
        assert_eq!(singled_out(&[], &[], None), Err(PolicyRefusal::NoEntitlement));
        assert_eq!(singled_out(&[], &["https://a.example"], None), Err(PolicyRefusal::NoEntitlement));
    }
}
