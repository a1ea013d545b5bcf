//! How many requests a second somebody may make.
//!
//! Takes an address before anything is read of its request, and whoever has proven to be a client or a resource server after
//! that, gives leave or a refusal that says when to come again. Each node counts for itself. It knows nothing of what is
//! asked.

/// So many a second for each of very many.
mod bucket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;

use self::bucket::{Buckets, Rate};
use crate::config::Limits;
use crate::error::{ErrorCode, refusals};
use crate::registry::client::Client;
use crate::registry::resource_server::ResourceServer;
use crate::request::RequestRefusal;
use crate::tls::neighbourhood;

refusals! {
    /// Why somebody who has proven who he is has to wait. (An address that has to is refused as a request:
    /// [`RequestRefusal::TooManyRequests`].)
    pub enum RateRefusal at "rate" {
        /// More requests of this client than it may make.
        ClientExceeded { /** Until there is one again. */ retry_after: Duration } => "client_rate_exceeded",
        /// More questions of this resource server than it may ask.
        ResourceServerExceeded { /** Until there is one again. */ retry_after: Duration } => "resource_server_rate_exceeded",
    }
}

impl RateRefusal {
    /// The protocol's code for it.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::ClientExceeded { .. } | Self::ResourceServerExceeded { .. } => ErrorCode::InvalidRequest,
        }
    }

    /// How long to wait.
    pub const fn retry_after(&self) -> Duration {
        match self {
            Self::ClientExceeded { retry_after } | Self::ResourceServerExceeded { retry_after } => *retry_after,
        }
    }
}

/// Half a megabyte: so many addresses that owe something at one time are told apart.
const ADDRESSES: usize = 32 * 1024;

/// And so many clients and resource servers.
const CALLERS: usize = 64 * 1024;

/// The rates of one node, and what of them is used up.
#[derive(Debug)]
pub struct Rates {
    clock: Arc<dyn Clock>,
    per_address: Rate,
    per_client: u32,
    per_resource_server: Rate,
    addresses: Buckets,
    callers: Buckets,
}

impl Rates {
    /// By these limits, where no record says otherwise.
    pub fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            per_address: Rate::a_second(limits.requests_per_address),
            per_client: limits.requests_per_client,
            per_resource_server: Rate::a_second(limits.requests_per_resource_server),
            addresses: Buckets::new(ADDRESSES),
            callers: Buckets::new(CALLERS),
        }
    }

    /// Counts a request from this address; of IPv6, from its /64.
    ///
    /// # Errors
    /// [`RequestRefusal::TooManyRequests`].
    pub fn count_address(&self, address: IpAddr) -> Result<(), RequestRefusal> {
        self.addresses
            .take(neighbourhood(address), self.per_address, self.clock.monotonic())
            .map_err(|retry_after| RequestRefusal::TooManyRequests { retry_after })
    }

    /// Counts a request of a client. Called by [`authenticate`](crate::client_auth::authenticate) alone, of one that has just
    /// proven to be it, so that nobody else uses up what is its own. What is refused is counted on record with the refusals
    /// before authentication: one by one, they would let a client fill the log.
    ///
    /// # Errors
    /// [`RateRefusal::ClientExceeded`].
    pub fn count_client(&self, client: &Client) -> Result<(), RateRefusal> {
        let rate = Rate::a_second(client.requests_per_second.map_or(self.per_client, u32::from));
        self.callers
            .take(("client", client.id.as_str()), rate, self.clock.monotonic())
            .map_err(|retry_after| RateRefusal::ClientExceeded { retry_after })
    }

    /// Counts a question of a resource server that has proven to be it.
    ///
    /// # Errors
    /// [`RateRefusal::ResourceServerExceeded`].
    pub fn count_resource_server(&self, resource_server: &ResourceServer) -> Result<(), RateRefusal> {
        self.callers
            .take(("resource server", resource_server.id.as_str()), self.per_resource_server, self.clock.monotonic())
            .map_err(|retry_after| RateRefusal::ResourceServerExceeded { retry_after })
    }
}

#[cfg(test)]
mod tests {
    use countersign_resource_server::time::{ManualClock, UnixTime};

    use super::*;

    fn two_a_second_per_address() -> Rates {
        let limits = Limits { requests_per_address: 2, ..Limits::default() };
        Rates::new(&limits, Arc::new(ManualClock::at(UnixTime::from_seconds(0))))
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_a_mapped_one_is_ipv4() {
        let rates = two_a_second_per_address();
        let count = |address: &str| rates.count_address(address.parse().unwrap());
        let exhausted = Err(RequestRefusal::TooManyRequests { retry_after: Duration::from_millis(500) });
        for address in ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:ffff::", "2001:db8:1:2:ffff:ffff:ffff:ffff"]
        {
            assert_eq!(count(address), Ok(()), "{address}");
        }
        assert_eq!(count("2001:db8:1:2::5"), exhausted);
        assert_eq!(count("2001:db8:1:3::1"), Ok(()), "the next network");
        for address in ["192.0.2.1", "::ffff:192.0.2.1", "192.0.2.1", "::ffff:c000:201"] {
            assert_eq!(count(address), Ok(()), "{address}");
        }
        assert_eq!(count("192.0.2.1"), exhausted);
        assert_eq!(count("::ffff:192.0.2.1"), exhausted);
        assert_eq!(count("192.0.2.2"), Ok(()), "IPv4 addresses are one each");
    }
}
