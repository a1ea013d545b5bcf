//! Pushing a notice to whom it concerns: a Security Event Token (RFC 8417) by RFC 8935.
//!
//! Takes a URL that the operator entered and a signed token, gives whether the receiver took it. Redirects are not
//! followed, and what the receiver says beyond its status is not read into anything.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::fetch::{Bounds, FetchError, Fetcher, is_webhook};

/// How long a receiver may take: from the first attempt to connect to the end of its answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// RFC 8935 §2.2: the answer to a token that was taken has no body, and one that was not a small one.
const BOUNDS: Bounds = Bounds { bytes: 16 * 1024, time: PATIENCE };

/// Pushes tokens.
pub trait Deliver: fmt::Debug + Send + Sync + 'static {
    /// Pushes one; returns when the receiver has taken it.
    ///
    /// # Errors
    /// [`DeliveryFailure`] where it has not, or nobody knows.
    fn push<'a>(&'a self, url: &'a str, token: String) -> BoxFuture<'a, Result<(), DeliveryFailure>>;
}

/// Why a token was not taken, for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DeliveryFailure(pub String);

impl Deliver for Fetcher {
    fn push<'a>(&'a self, url: &'a str, token: String) -> BoxFuture<'a, Result<(), DeliveryFailure>> {
        Box::pin(async move {
            // Checked when it was entered; a record may have come from elsewhere.
            if !is_webhook(url) {
                return Err(DeliveryFailure("the webhook is no https URL".to_owned()));
            }
            // RFC 8935 §2.1: the media types of what is sent and of what is taken.
            match self.post(url, "application/json", "application/secevent+jwt", Bytes::from(token), BOUNDS).await {
                // RFC 8935 §2.2 says 202; any other success is one too. Its body says nothing to us, whole or not.
                Ok(_) | Err(FetchError::Body) => Ok(()),
                Err(error) => Err(DeliveryFailure(error.to_string())),
            }
        })
    }
}
