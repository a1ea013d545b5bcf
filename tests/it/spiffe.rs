//! SPIFFE, end to end: trust domains in the registry, SVIDs over real TLS, tokens into the guarded API, bundles that change.

use std::time::Duration;

use countersign::pki::identity;
use countersign::pki::spiffe::TrustDomain;
use countersign::registry::client::{ClientAuthentication, SubjectAttribute};
use countersign::registry::trust_anchor::{
    AnchorMaterial, AnchorOwner, AnchorState, BundleEndpoint, CrlSource, EkuPolicy, NameSpace, RevocationSources,
    TrustAnchor, Unknown,
};
use countersign::registry::{AnchorId, ClientId, ParticipantId};
use countersign_conformance::crl::{RevocationList, Revoked};
use countersign_conformance::pki::Credential;
use countersign_conformance::spiffe::{Domain, bundle};
use countersign_resource_server::time::UnixTime;
use serde_json::Value;

use crate::rig::{Engine, Rig, Time, client_of, entitlement, rule};
use crate::token;
use crate::wire::{Answer, Request};
use crate::world::{ACCOUNTS, form_request};

/// RFC 7521 §4.2, by the SPIFFE client authentication draft.
const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// How soon a change has to be in force at a connected resource server (design §6).
const A_SECOND: Duration = Duration::from_secs(1);

/// Enters a trust domain of partner A that vouches for all of its ids.
pub(crate) async fn trust_domain(rig: &Rig, domain: &Domain, endpoint: BundleEndpoint) -> AnchorId {
    trust_bundle(rig, &domain.name, &domain.bundle(1), endpoint).await
}

async fn trust_bundle(rig: &Rig, name: &str, bundle: &str, endpoint: BundleEndpoint) -> AnchorId {
    let owner = ParticipantId::parse("partner-a").unwrap();
    let id = trust_as(rig, name, bundle, endpoint, Some(owner.clone())).await;
    let prefix = TrustDomain::parse(name).unwrap().prefix();
    let space = identity::name_space(&NameSpace { uri_prefixes: vec![prefix], ..NameSpace::default() }).unwrap();
    rig.app.registry.grant_anchor(owner, id.clone(), space, rig.explanation()).await.unwrap();
    id
}

/// Enters a trust domain of this participant, or of the operator. It vouches for nobody yet.
pub(crate) async fn trust_as(
    rig: &Rig,
    name: &str,
    bundle: &str,
    endpoint: BundleEndpoint,
    owner: Option<ParticipantId>,
) -> AnchorId {
    let trust_domain = TrustDomain::parse(name).unwrap();
    let id = AnchorId::of_trust_domain(&trust_domain);
    let anchor = TrustAnchor {
        id: id.clone(),
        subject: format!("spiffe://{name}"),
        owner: owner.map_or(AnchorOwner::Operator, AnchorOwner::Participant),
        eku_policy: EkuPolicy::IfPresent,
        unknown_revocation: Unknown::Accept,
        revocation: RevocationSources::default(),
        state: AnchorState::Active,
        material: AnchorMaterial::TrustDomain {
            trust_domain: trust_domain.clone(),
            endpoint,
            bundle: bundle.to_owned(),
        },
    };
    let subject = anchor.subject.clone().into_bytes();
    rig.app.registry.add_anchor(anchor, subject, rig.explanation()).await.unwrap();
    id
}

/// Registers a client of partner A under this SPIFFE ID, entitled to [`ACCOUNTS`].
pub(crate) async fn register(rig: &Rig, id: &str, authentication: ClientAuthentication) {
    let client = client_of(id, "partner-a", authentication);
    rig.app.registry.add_client(client, Vec::new(), rig.explanation()).await.unwrap();
    let since = UnixTime::from_seconds(rig.world.now - 60);
    let entitlement = entitlement(id, "accounts", "accounts:read", since, None);
    rig.app.registry.add_entitlement(entitlement, rig.explanation()).await.unwrap();
}

pub(crate) fn by_x509(spiffe_id: &str) -> ClientAuthentication {
    ClientAuthentication::SpiffeX509 { subject: rule(SubjectAttribute::TlsClientAuthSanUri, spiffe_id) }
}

pub(crate) fn by_jwt(spiffe_id: &str) -> ClientAuthentication {
    ClientAuthentication::SpiffeJwt { subject: rule(SubjectAttribute::TlsClientAuthSanUri, spiffe_id) }
}

fn form(client_id: Option<&str>, assertion: Option<String>) -> Request {
    let mut form = vec![
        ("grant_type", "client_credentials".to_owned()),
        ("scope", "accounts:read".to_owned()),
        ("resource", ACCOUNTS.to_owned()),
    ];
    if let Some(client_id) = client_id {
        form.push(("client_id", client_id.to_owned()));
    }
    if let Some(assertion) = assertion {
        form.push(("client_assertion_type", JWT_SPIFFE.to_owned()));
        form.push(("client_assertion", assertion));
    }
    form_request(&form)
}

async fn ask(rig: &Rig, credential: &Credential, request: &Request) -> Answer {
    rig.peer(credential).ask(rig.address, request).await.unwrap()
}

/// Refused with the one text there is, for this reason, and nothing was issued.
async fn refused(rig: &Rig, answer: &Answer, reason: &str) {
    assert_eq!((answer.status, &answer.json()["error"]), (400, &Value::from("invalid_client")), "{answer}");
    let record = rig.last_record().await;
    let first = &record["first"];
    assert_eq!((&first["outcome"], &first["reason"]), (&"refused".into(), &reason.into()), "{record}");
    assert!(first["token"]["jti"].is_null(), "{record}");
}

#[tokio::test]
async fn an_x509_svid_gets_a_token_under_every_method_that_names_it() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let domain = Domain::new("partner-a.test", rig.world.now);
        let anchor = trust_domain(&rig, &domain, BundleEndpoint::File).await;
        // The draft's way: the client_id is the SPIFFE ID. And a client_id of one's own choosing.
        let own = domain.id("/own");
        register(&rig, &own, by_x509(&own)).await;
        register(&rig, "a-chosen", by_x509(&domain.id("/chosen"))).await;
        let by_uri = rule(SubjectAttribute::TlsClientAuthSanUri, &domain.id("/uri"));
        register(&rig, "a-uri-svid", ClientAuthentication::TlsClientAuth { subject: by_uri }).await;
        for (client_id, path) in [(own.as_str(), "/own"), ("a-chosen", "/chosen"), ("a-uri-svid", "/uri")] {
            let credential = domain.svid(path);
            let answer = ask(&rig, &credential, &form(Some(client_id), None)).await;
            assert_eq!(answer.status, 200, "{client_id}: {answer}");
            let token = token::read(&rig, &answer.token()).await;
            assert_eq!(token.claims["client_id"], client_id);
            assert_eq!(token.claims["anchor"], anchor.as_str());
            assert_eq!(token.claims["cnf"]["x5t#S256"], credential.thumbprint());
            // Another workload of the trust domain is not this one.
            let answer = ask(&rig, &domain.svid("/another"), &form(Some(client_id), None)).await;
            refused(&rig, &answer, "certificate_name_mismatch").await;
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_jwt_svid_gets_a_token_that_is_bound_to_the_certificate() {
    for engine in Engine::every() {
        let rig = Rig::on(&engine, Time::Standing).await;
        let domain = Domain::new("partner-a.test", rig.world.now);
        trust_domain(&rig, &domain, BundleEndpoint::File).await;
        let own = domain.id("/own");
        register(&rig, &own, by_jwt(&own)).await;
        register(&rig, "a-chosen", by_jwt(&domain.id("/chosen"))).await;
        let svid = |path: &str| domain.jwt_svid(path, &rig.world.issuer).compact();
        let (own_certificate, chosen_certificate) = (domain.svid("/own"), domain.svid("/chosen"));
        for (client_id, path, credential) in [
            (Some(own.as_str()), "/own", &own_certificate),
            (None, "/own", &own_certificate), // found by its `sub`
            (Some("a-chosen"), "/chosen", &chosen_certificate),
        ] {
            let request = form(client_id, Some(svid(path)));
            // It may be shown again (JWT-SVID §7.1).
            for _ in 0..2 {
                let answer = ask(&rig, credential, &request).await;
                assert_eq!(answer.status, 200, "{client_id:?}: {answer}");
                let token = token::read(&rig, &answer.token()).await;
                assert_eq!(token.claims["cnf"]["x5t#S256"], credential.thumbprint());
            }
        }
        // Copied by another workload of the same trust domain, and by a client of the same partner.
        let copied = form(Some("a-chosen"), Some(svid("/chosen")));
        refused(&rig, &ask(&rig, &domain.svid("/another"), &copied).await, "certificate_name_mismatch").await;
        refused(&rig, &ask(&rig, &rig.world.a_dn.credential, &copied).await, "peer_spiffe_id_missing").await;
        // Without a client_id nobody is found who does not go by the SPIFFE ID.
        refused(&rig, &ask(&rig, &chosen_certificate, &form(None, Some(svid("/chosen")))).await, "client_unknown")
            .await;
        // Another's client_id with one's own JWT-SVID.
        let foreign = form(Some("a-chosen"), Some(svid("/own")));
        refused(&rig, &ask(&rig, &chosen_certificate, &foreign).await, "assertion_subject_wrong").await;
        rig.stop().await;
    }
}

fn call(token: &str) -> Request {
    Request::get("/accounts").with_header("Authorization", &format!("Bearer {token}"))
}

/// A rotation as a trust domain makes it: the new keys are published, the old ones are taken away, and what rested on the
/// old ones is dead at the guarded API a second later.
#[tokio::test]
async fn the_full_circle_through_a_rotation() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let api = rig.guarded_api().await;
    let (old, new) = {
        let old = Domain::new("partner-a.test", rig.world.now);
        let new = old.rotated();
        (old, new)
    };
    let anchor = trust_domain(&rig, &old, BundleEndpoint::File).await;
    register(&rig, "by-x509", by_x509(&old.id("/x509"))).await;
    register(&rig, "by-jwt", by_jwt(&old.id("/jwt"))).await;
    // Of the client that signs in by JWT-SVID the certificate is enrolled by itself: its tokens name no anchor.
    let certificate = rig.world.stranger_root.client("by-jwt");
    let by_jwt_id = ClientId::parse("by-jwt").unwrap();
    rig.app.registry.add_certificate(by_jwt_id, crate::rig::facts(&certificate), rig.explanation()).await.unwrap();
    let x509 = old.svid("/x509");
    // A connection that outlives the authority of its certificate, and a session that is resumed after it.
    let peer = rig.peer(&x509);
    let mut kept = peer.connect(rig.address).await.unwrap();
    assert_eq!(kept.ask(&form(Some("by-x509"), None)).await.unwrap().status, 200);
    let token_by_x509 = ask(&rig, &x509, &form(Some("by-x509"), None)).await.token();
    let jwt = old.jwt_svid("/jwt", &rig.world.issuer).compact();
    let token_by_jwt = ask(&rig, &certificate, &form(Some("by-jwt"), Some(jwt.clone()))).await.token();
    let works =
        async |credential: &Credential, token: &str| ask_api(&rig, api.address, credential, token).await.status == 200;
    assert!(works(&x509, &token_by_x509).await && works(&certificate, &token_by_jwt).await);

    let replace = async |held: String, next: String| {
        rig.app.registry.replace_bundle(anchor.clone(), held, next, rig.explanation()).await.unwrap();
    };
    // Added: nothing ends.
    let both = bundle(2, &[old.x509_key(), old.jwt_authority(), new.x509_key(), new.jwt_authority()]);
    replace(old.bundle(1), both.clone()).await;
    assert_eq!(ask(&rig, &new.svid("/x509"), &form(Some("by-x509"), None)).await.status, 200);
    assert!(works(&x509, &token_by_x509).await && works(&certificate, &token_by_jwt).await);
    // The JWT authority is taken away: tokens by JWT-SVID end, those by certificate do not.
    let no_jwt = bundle(3, &[old.x509_key(), new.x509_key(), new.jwt_authority()]);
    replace(both, no_jwt.clone()).await;
    let dead = tokio::time::timeout(A_SECOND, async {
        while works(&certificate, &token_by_jwt).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(dead.await.is_ok(), "the token by JWT-SVID is alive a second later");
    assert!(works(&x509, &token_by_x509).await);
    refused(&rig, &ask(&rig, &certificate, &form(Some("by-jwt"), Some(jwt))).await, "assertion_key_unknown").await;
    // The X.509 authority is taken away.
    replace(no_jwt, bundle(4, &[new.x509_key(), new.jwt_authority()])).await;
    let dead = tokio::time::timeout(A_SECOND, async {
        while works(&x509, &token_by_x509).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(dead.await.is_ok(), "the token by X509-SVID is alive a second later");
    refused(&rig, &ask(&rig, &x509, &form(Some("by-x509"), None)).await, "peer_signature_invalid").await;
    assert_eq!(kept.ask(&form(Some("by-x509"), None)).await.unwrap().status, 400, "on the kept connection");
    let answer = peer.ask(rig.address, &form(Some("by-x509"), None)).await.unwrap();
    assert_eq!(answer.status, 400, "on a resumed session");
    let after = new.svid("/x509");
    let token = ask(&rig, &after, &form(Some("by-x509"), None)).await.token();
    assert!(works(&after, &token).await);
    rig.stop().await;
}

async fn ask_api(rig: &Rig, api: std::net::SocketAddr, credential: &Credential, token: &str) -> Answer {
    rig.peer(credential).ask(api, &call(token)).await.unwrap()
}

/// Design §3, perimeter: an SVID maps to the client that is registered under its id, however it is registered.
#[tokio::test]
async fn a_strict_perimeter_knows_who_is_registered_by_a_spiffe_id() {
    let strict = |config: &mut countersign::config::Config| config.perimeter = countersign::config::Perimeter::Strict;
    let rig = Rig::configured(&Engine::Sqlite, Time::Standing, strict).await;
    let domain = Domain::new("partner-a.test", rig.world.now);
    trust_domain(&rig, &domain, BundleEndpoint::File).await;
    register(&rig, "by-x509", by_x509(&domain.id("/x509"))).await;
    register(&rig, "by-jwt", by_jwt(&domain.id("/jwt"))).await;
    assert_eq!(ask(&rig, &domain.svid("/x509"), &form(Some("by-x509"), None)).await.status, 200);
    let jwt = domain.jwt_svid("/jwt", &rig.world.issuer).compact();
    assert_eq!(ask(&rig, &domain.svid("/jwt"), &form(Some("by-jwt"), Some(jwt))).await.status, 200);
    let closed = rig.peer(&domain.svid("/nobody")).ask(rig.address, &form(Some("by-x509"), None)).await;
    assert!(closed.is_err(), "{closed:?}");
    rig.stop().await;
}

/// Two participants under one trust domain of the operator's, each with the ids below a path of its own.
#[tokio::test]
async fn two_participants_under_one_shared_trust_domain() {
    let rig = Rig::start().await;
    let domain = Domain::new("shared.test", rig.world.now);
    let id = trust_as(&rig, &domain.name, &domain.bundle(1), BundleEndpoint::File, None).await;
    for participant in ["partner-a", "partner-c"] {
        let space = NameSpace { uri_prefixes: vec![domain.id(&format!("/{participant}/"))], ..NameSpace::default() };
        let space = identity::name_space(&space).unwrap();
        let participant = ParticipantId::parse(participant).unwrap();
        rig.app.registry.grant_anchor(participant, id.clone(), space, rig.explanation()).await.unwrap();
    }
    register(&rig, "of-a", by_x509(&domain.id("/partner-a/x"))).await;
    // A client of A's by mistake registered under an id of C's.
    register(&rig, "astray", by_x509(&domain.id("/partner-c/x"))).await;
    assert_eq!(ask(&rig, &domain.svid("/partner-a/x"), &form(Some("of-a"), None)).await.status, 200);
    let of_c = domain.svid("/partner-c/x");
    for client in ["of-a", "astray"] {
        refused(&rig, &ask(&rig, &of_c, &form(Some(client), None)).await, "peer_outside_name_space").await;
    }
    rig.stop().await;
}

/// Revocation lists under a trust domain: signed by either of its authorities, which have one name, as SPIRE's have.
#[tokio::test]
async fn a_trust_domain_takes_an_svid_back() {
    let rig = Rig::on(&Engine::Sqlite, Time::Machine).await;
    let old = Domain::new("partner-a.test", rig.world.now);
    let new = old.rotated();
    let keys = [old.x509_key(), new.x509_key()];
    let id = trust_bundle(&rig, &old.name, &bundle(1, &keys), BundleEndpoint::File).await;
    register(&rig, "by-x509", by_x509(&old.id("/x509"))).await;
    let (taken_back, good) = (new.svid("/x509"), new.svid("/x509"));
    let lists = rig.directory().join("svid-lists");
    std::fs::create_dir(&lists).unwrap();
    let revoked = Revoked::certificate(taken_back.certificate(), rig.world.now - 60);
    for (name, domain, list) in [
        ("old.crl", &old, RevocationList::new(1, rig.world.now)),
        ("new.crl", &new, RevocationList::new(1, rig.world.now).revoking(revoked)),
    ] {
        std::fs::write(lists.join(name), list.signed_by(&domain.authority)).unwrap();
    }
    let changed = TrustAnchor {
        unknown_revocation: Unknown::Refuse,
        revocation: RevocationSources {
            crls: vec![CrlSource { location: lists.display().to_string(), issuer_der: None }],
            ..RevocationSources::default()
        },
        ..rig.app.registry.anchor(&id).await.unwrap().unwrap()
    };
    rig.app.registry.change_anchor(changed, rig.explanation()).await.unwrap();
    let request = form(Some("by-x509"), None);
    let held = tokio::time::timeout(Duration::from_secs(5), async {
        while ask(&rig, &good, &request).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert!(held.await.is_ok(), "the lists are not held five seconds later");
    assert_eq!(ask(&rig, &old.svid("/x509"), &request).await.status, 200);
    refused(&rig, &ask(&rig, &taken_back, &request).await, "peer_revoked").await;
    rig.stop().await;
}
