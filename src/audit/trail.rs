//! What each stage learned about one request, gathered for its record.
//!
//! Begun at the endpoint with what the connection is, added to by the path as it goes, handed to the log at the end. It
//! decides one thing only: whether the client was authenticated, and with it how the decision is recorded.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use countersign_resource_server::time::UnixTime;

use crate::mint::random_octets;
use crate::pki::PresentedChain;
use crate::registry::{AnchorId, ClientId, FoundClient};
use crate::request::{RevocationRequest, TokenRequest};

/// Names one request in logs, records and the answer's header: 48 bits of Unix milliseconds and 80 random bits, in
/// hexadecimal. New ones are the largest, so that an index of them grows at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// A new one, made at `now`.
    pub fn random(now: UnixTime) -> Self {
        let mut octets = [0; 16];
        // The lower 48 bits, the most significant octet first.
        octets[..6].copy_from_slice(&now.as_millis().to_be_bytes()[2..]);
        octets[6..].copy_from_slice(&random_octets::<10>());
        Self(hex::encode(octets).into())
    }

    /// The id as text: `[0-9a-f]{32}`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is known about one request so far.
#[derive(Clone, Debug)]
pub struct Trail {
    request_id: RequestId,
    now: UnixTime,
    peer: Arc<PresentedChain>,
    asked: Option<Asked>,
    found: Option<FoundClient>,
    anchor: Option<AnchorId>,
    authenticated: bool,
}

/// What was asked, as far as the record keeps it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// None where no token was asked for.
    pub(super) grant_type: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) with_assertion: bool,
    pub(super) scope: Option<String>,
    pub(super) resources: Vec<String>,
}

impl Trail {
    /// Begins with the connection a request came on and the instant it is judged at.
    pub fn begin(peer: &Arc<PresentedChain>, request_id: RequestId, now: UnixTime) -> Self {
        Self { request_id, now, peer: Arc::clone(peer), asked: None, found: None, anchor: None, authenticated: false }
    }

    /// Notes what was asked.
    pub fn asked(&mut self, request: &TokenRequest) {
        self.asked = Some(Asked {
            grant_type: Some(shortened(&request.grant_type).into_owned()),
            client_id: Some(request.client_id.as_str().to_owned()),
            with_assertion: request.client_assertion.is_some(),
            scope: request.scope.as_deref().map(|scope| shortened(scope).into_owned()),
            resources: request
                .resources
                .iter()
                .take(RESOURCES)
                .map(|resource| shortened(resource).into_owned())
                .collect(),
        });
    }

    /// Notes who wants a token dead. The token itself is never part of a record.
    pub fn asked_to_revoke(&mut self, request: &RevocationRequest) {
        self.asked_about(&request.client_id);
        if let Some(asked) = &mut self.asked {
            asked.with_assertion = request.client_assertion.is_some();
        }
    }

    /// Notes whom a check is about.
    pub fn asked_about(&mut self, client_id: &ClientId) {
        self.asked = Some(Asked {
            grant_type: None,
            client_id: Some(client_id.as_str().to_owned()),
            with_assertion: false,
            scope: None,
            resources: Vec::new(),
        });
    }

    /// Notes the client that was found: not yet believed.
    pub fn found(&mut self, client: &FoundClient) {
        self.found = Some(client.clone());
    }

    /// Notes the anchor the certificate led to; none where the certificate itself is registered.
    pub fn verified(&mut self, anchor: Option<&AnchorId>) {
        self.anchor = anchor.cloned();
    }

    /// Notes that the client proved itself, and what it is resting on now: from here on no answer leaves without a
    /// durable record.
    pub fn authenticated(&mut self, client: &FoundClient) {
        self.found = Some(client.clone());
        self.authenticated = true;
    }

    /// Names the request.
    pub const fn request_id(&self) -> &RequestId {
        &self.request_id
    }

    /// The instant it is judged at.
    pub const fn now(&self) -> UnixTime {
        self.now
    }

    /// Whether the client proved itself.
    pub const fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    pub(super) const fn peer(&self) -> &Arc<PresentedChain> {
        &self.peer
    }

    pub(super) const fn what_was_asked(&self) -> Option<&Asked> {
        self.asked.as_ref()
    }

    pub(super) const fn client(&self) -> Option<&FoundClient> {
        self.found.as_ref()
    }

    pub(super) const fn anchor(&self) -> Option<&AnchorId> {
        self.anchor.as_ref()
    }
}

/// What a stranger wrote is kept up to this many bytes: the body limit bounds the request, this the record.
const TEXT_BYTES: usize = 512;

/// And so many `resource` parameters.
const RESOURCES: usize = 8;

/// `text`, cut at a character boundary and marked as cut.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= TEXT_BYTES {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(TEXT_BYTES);
    Cow::Owned(format!("{}…", &text[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_begins_with_its_time_and_is_like_no_other() {
        let now = UnixTime::from_millis(1_800_000_000_123);
        let (one, other) = (RequestId::random(now), RequestId::random(now));
        assert_ne!(one, other);
        assert!(one.as_str().starts_with("01a3185c507b"), "{one}");
        assert!(one.as_str().len() == 32 && one.as_str().bytes().all(|byte| b"0123456789abcdef".contains(&byte)));
        assert!(one.as_str() < RequestId::random(UnixTime::from_millis(now.as_millis() + 1)).as_str());
        assert_eq!(RequestId::random(UnixTime::from_millis(-1)).as_str().len(), 32);
    }
}
