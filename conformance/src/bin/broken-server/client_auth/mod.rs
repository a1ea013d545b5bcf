//! Which client is it? RFC 8705 §2, RFC 7523 §2.2.
//!
//! The client is looked up by `client_id`, or by the subject of its assertion; what it then has to show follows from its
//! registration.

mod private_key_jwt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;

use crate::certificate::{self, Peer, Subject};
use crate::defect::Defect;
use crate::http::{Asked, Form, Refusal, percent_decoded};
use crate::world::{Client, Method, World};

/// A client that has proven who it is, and the certificate it came with.
#[derive(Debug)]
pub(crate) struct Authenticated<'a> {
    pub(crate) client: &'a Client,
    pub(crate) peer: Option<Peer>,
}

/// Who sent this request.
///
/// # Errors
/// `invalid_client` where it is not known, `invalid_request` where it says so twice.
pub(crate) async fn authenticate<'a>(
    world: &'a World,
    asked: &Asked,
    form: &Form,
    now: i64,
) -> Result<Authenticated<'a>, Refusal> {
    let broken = &world.broken;
    let assertion = form.get("client_assertion");
    if asked.headers.contains_key("authorization") && !broken.is(Defect::TwoMethodsAccepted) {
        // RFC 6749 §2.3: not more than one method in a request.
        if assertion.is_some() {
            return Err(Refusal::INVALID_REQUEST);
        }
        // RFC 6749 §5.2: where the Authorization header was used, 401 and a challenge of that scheme, in any
        // case (RFC 9110 §11.1).
        let challenge = match broken.is(Defect::BasicChallengedByBearer) {
            true => "Bearer realm=\"Basic\"",
            false => "basic realm=\"token\"",
        };
        let challenge = (!broken.is(Defect::BasicWithoutChallenge)).then_some(challenge);
        return Err(Refusal { challenge, ..Refusal::INVALID_CLIENT });
    }
    let peer = peer_of(world, asked);
    if let Some(assertion) = assertion {
        let client = private_key_jwt::authenticate(world, form, assertion, now).await?;
        return Ok(Authenticated { client, peer });
    }
    // RFC 8705 §2: by client_id, which MUST be there.
    let id = form.get("client_id");
    if let Some(peer) = &peer
        && broken.is(Defect::ClientByCertificate)
    {
        let found = world.clients.iter().find(|client| has_proven(world, client, peer, now));
        return found.map(|client| Authenticated { client, peer: Some(peer.clone()) }).ok_or(Refusal::INVALID_CLIENT);
    }
    let id = match id {
        Some(id) if broken.is(Defect::ClientIdNormalized) => &normalized(id),
        Some(id) => id,
        None => return Err(Refusal::INVALID_REQUEST),
    };
    let client = world.client(id).ok_or(match broken.is(Defect::UnknownClientAsInvalidRequest) {
        true => Refusal::INVALID_REQUEST,
        false => Refusal::CLIENT_UNKNOWN,
    })?;
    match &peer {
        None if broken.is(Defect::CertificateOptional) => Ok(Authenticated { client, peer }),
        Some(one) if has_proven(world, client, one, now) => Ok(Authenticated { client, peer }),
        _ => Err(Refusal::INVALID_CLIENT),
    }
}

/// What a client may have meant.
fn normalized(id: &str) -> String {
    let decoded = percent_decoded(id).unwrap_or_else(|| id.to_owned());
    let id = decoded.rsplit('/').next().unwrap_or_default().split('\'').next().unwrap_or_default();
    let id = id.trim_matches(|character: char| character.is_whitespace() || character.is_control());
    id.to_ascii_lowercase().trim_end_matches('0').to_owned()
}

/// Where proxies write a certificate.
pub(crate) const HEADERS: [&str; 7] = [
    "client-cert",
    "x-client-cert",
    "x-ssl-client-cert",
    "ssl-client-cert",
    "x-arr-clientcert",
    "x-forwarded-tls-client-cert",
    "x-forwarded-client-cert",
];

/// The peer of the connection; no header says who that is.
pub(crate) fn peer_of(world: &World, asked: &Asked) -> Option<Peer> {
    let header = HEADERS
        .into_iter()
        .filter(|_| world.broken.is(Defect::CertificateHeaderBelieved))
        .find_map(|name| certificate_in(asked.header(name)?));
    match header {
        Some(certificate) => Peer::of(&[certificate]),
        None => asked.peer.clone(),
    }
}

/// A certificate as a header may hold it: between colons (RFC 9440 §2.1), percent-encoded PEM, or among other things.
pub(crate) fn certificate_in(header: &str) -> Option<CertificateDer<'static>> {
    let text = percent_decoded(&header.replace('+', "%2B"))?;
    let text = text.replace("-----BEGIN CERTIFICATE-----", "").replace("-----END CERTIFICATE-----", "");
    let longest = text.split([':', ';', '"', ',']).max_by_key(|part| part.len())?;
    Some(CertificateDer::from(STANDARD.decode(longest.replace(char::is_whitespace, "")).ok()?))
}

fn has_proven(world: &World, client: &Client, peer: &Peer, now: i64) -> bool {
    let broken = &world.broken;
    match &client.method {
        Method::TlsClientAuth(registered) => {
            // RFC 8705 §2.1: a valid chain, and the subject registered for the client.
            certificate::is_vouched_for(peer, world, now)
                && (broken.is(Defect::ClientIdNotCompared)
                    || certificate::subject(peer.certificate()).is_some_and(|own| is_same(world, registered, &own)))
        }
        Method::SelfSignedTlsClientAuth(registered) => {
            // RFC 8705 §2.2: it matches one of the certificates registered for that client.
            registered == peer.certificate()
                || broken.is(Defect::SelfSignedNotCompared)
                || broken.is(Defect::SelfSignedByName)
                    && certificate::subject(registered) == certificate::subject(peer.certificate())
        }
        Method::PrivateKeyJwt(_) => false,
    }
}

/// RFC 8705 §2.1.2: the expected subject distinguished name, all of it and in order.
fn is_same(world: &World, registered: &Subject, own: &Subject) -> bool {
    let common_name = |subject: &Subject| subject.iter().find(|(kind, _)| kind == "2.5.4.3").cloned();
    registered == own
        || world.broken.is(Defect::SubjectComparedByPrefix) && own.starts_with(registered)
        || world.broken.is(Defect::CommonNameAlone) && common_name(registered) == common_name(own)
}
