//! How many requests a second somebody may make, and how many questions a minute about a certificate.
//!
//! Takes an address before anything is read of its request, and whoever has proven to be a client or a resource server after
//! that, gives leave or a refusal that says when to come again. Each node counts for itself. It knows nothing of what is
//! asked.

/// So many a second or a minute for each of very many.
mod bucket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use countersign_resource_server::time::Clock;

use self::bucket::{Buckets, Rate};
use crate::config::Limits;
use crate::error::{ErrorCode, refusals};
use crate::registry::Thumbprint;
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

/// And so many certificates.
const CERTIFICATES: usize = 32 * 1024;

/// And so many clients and resource servers.
const CALLERS: usize = 64 * 1024;

/// And so many addresses and certificates that have asked about a certificate.
const ASKING: usize = 32 * 1024;

/// The rates of one node, and what of them is used up.
#[derive(Debug)]
pub struct Rates {
    clock: Arc<dyn Clock>,
    per_address: Rate,
    per_certificate: Rate,
    per_client: u32,
    per_resource_server: Rate,
    checks_per_address: Rate,
    checks_per_certificate: Rate,
    addresses: Buckets,
    certificates: Buckets,
    callers: Buckets,
    addresses_asking: Buckets,
    certificates_asking: Buckets,
}

impl Rates {
    /// By these limits, where no record says otherwise.
    pub fn new(limits: &Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            per_address: Rate::a_second(limits.requests_per_address),
            per_certificate: Rate::a_second(limits.requests_per_certificate),
            per_client: limits.requests_per_client,
            per_resource_server: Rate::a_second(limits.requests_per_resource_server),
            checks_per_address: Rate::a_minute(limits.certificate_checks_per_address),
            checks_per_certificate: Rate::a_minute(limits.certificate_checks_per_certificate),
            addresses: Buckets::new(ADDRESSES),
            certificates: Buckets::new(CERTIFICATES),
            callers: Buckets::new(CALLERS),
            addresses_asking: Buckets::new(ASKING),
            certificates_asking: Buckets::new(ASKING),
        }
    }

    /// Counts a request from this address (of IPv6, from its /64) with this certificate, whoever's it is. What is refused takes
    /// nothing from either.
    ///
    /// # Errors
    /// [`RequestRefusal::TooManyRequests`].
    pub fn count_request(&self, address: IpAddr, certificate: Option<&Thumbprint>) -> Result<(), RequestRefusal> {
        let addresses = (&self.addresses, self.per_address);
        let certificates = (&self.certificates, self.per_certificate);
        self.count_both(addresses, address, certificates, certificate)
    }

    /// Counts a question about a certificate, asked with it from this address; of IPv6, from its /64. What is refused takes
    /// nothing from either.
    ///
    /// # Errors
    /// [`RequestRefusal::TooManyRequests`].
    pub fn count_check(&self, address: IpAddr, certificate: Option<&Thumbprint>) -> Result<(), RequestRefusal> {
        let addresses = (&self.addresses_asking, self.checks_per_address);
        let certificates = (&self.certificates_asking, self.checks_per_certificate);
        self.count_both(addresses, address, certificates, certificate)
    }

    fn count_both(
        &self,
        (addresses, per_address): (&Buckets, Rate),
        address: IpAddr,
        (certificates, per_certificate): (&Buckets, Rate),
        certificate: Option<&Thumbprint>,
    ) -> Result<(), RequestRefusal> {
        let now = self.clock.monotonic();
        let too_many = |retry_after| RequestRefusal::TooManyRequests { retry_after };
        if let Some(thumbprint) = certificate {
            certificates.take(thumbprint, per_certificate, now).map_err(too_many)?;
        }
        addresses.take(neighbourhood(address), per_address, now).map_err(|retry_after| {
            if let Some(thumbprint) = certificate {
                certificates.give_back(thumbprint, per_certificate);
            }
            too_many(retry_after)
        })
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
        let count = |address: &str| rates.count_request(address.parse().unwrap(), None);
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

    #[test]
    fn a_certificate_has_its_requests_from_whatever_address_and_an_address_with_whatever_certificate() {
        let limits = Limits { requests_per_address: 3, requests_per_certificate: 1, ..Limits::default() };
        let clock = Arc::new(ManualClock::at(UnixTime::from_seconds(0)));
        let rates = Rates::new(&limits, Arc::clone(&clock) as Arc<dyn Clock>);
        let count =
            |host: u8, number: u32| rates.count_request(IpAddr::from([192, 0, 2, host]), Some(&certificate(number)));
        assert_eq!((count(1, 1), count(2, 1)), (Ok(()), Ok(())), "two seconds' worth");
        let second = Duration::from_secs(1);
        for host in 1..=100 {
            assert_eq!(count(host, 1), exhausted(second));
        }
        assert_eq!((count(1, 2), count(1, 3), count(1, 4)), (Ok(()), Ok(()), Ok(())), "what was refused took nothing");
        assert_eq!((count(1, 2), count(1, 5)), (Ok(()), Ok(())));
        let third = Duration::from_nanos(333_333_333);
        assert_eq!(count(1, 6), exhausted(third));
        assert_eq!((count(3, 6), count(4, 6)), (Ok(()), Ok(())), "nor from the certificate");
        assert_eq!(
            rates.count_request([192, 0, 2, 1].into(), None),
            exhausted(third),
            "nor is one without let through"
        );
        assert_eq!(count(5, 6), exhausted(second));
        let millisecond = Duration::from_millis(1);
        clock.advance(second - millisecond);
        assert_eq!(count(5, 6), exhausted(millisecond));
        clock.advance(millisecond);
        assert_eq!(count(5, 6), Ok(()));
    }

    const MINUTE: Duration = Duration::from_secs(60);

    /// So many questions a minute for each address and each certificate, and the clock they are counted by.
    struct Checks {
        rates: Rates,
        clock: Arc<ManualClock>,
    }

    impl Checks {
        fn a_minute(per_address: u32, per_certificate: u32) -> Self {
            let limits = Limits {
                certificate_checks_per_address: per_address,
                certificate_checks_per_certificate: per_certificate,
                ..Limits::default()
            };
            let clock = Arc::new(ManualClock::at(UnixTime::from_seconds(0)));
            Self { rates: Rates::new(&limits, Arc::clone(&clock) as Arc<dyn Clock>), clock }
        }

        fn count(&self, address: &str, number: impl Into<Option<u32>>) -> Result<(), RequestRefusal> {
            let certificate = number.into().map(certificate);
            self.rates.count_check(address.parse().unwrap(), certificate.as_ref())
        }
    }

    fn certificate(number: u32) -> Thumbprint {
        Thumbprint::of(&number.to_be_bytes())
    }

    fn exhausted(retry_after: Duration) -> Result<(), RequestRefusal> {
        Err(RequestRefusal::TooManyRequests { retry_after })
    }

    #[test]
    fn a_certificate_has_so_many_questions_at_once_and_one_more_each_part_of_a_minute() {
        let checks = Checks::a_minute(1_000, 10);
        let count = |host: u8| checks.count(&format!("192.0.2.{host}"), 1);
        for host in 0..10 {
            assert_eq!(count(host), Ok(()));
        }
        let six = Duration::from_secs(6);
        assert_eq!(count(10), exhausted(six), "from whatever address");
        let millisecond = Duration::from_millis(1); // what this clock can tell apart; of nanoseconds the buckets' own tests tell
        checks.clock.advance(six - millisecond);
        assert_eq!(count(10), exhausted(millisecond));
        checks.clock.advance(millisecond);
        assert_eq!(count(10), Ok(()));
        assert_eq!(count(10), exhausted(six));
        checks.clock.advance(MINUTE);
        for host in 0..10 {
            assert_eq!(count(host), Ok(()), "a minute later all of it is there again");
        }
        assert_eq!(count(10), exhausted(six), "and no more than that");
    }

    #[test]
    fn an_address_has_so_many_questions_whatever_it_shows() {
        let checks = Checks::a_minute(60, 10);
        for number in 0..60 {
            assert_eq!(checks.count("192.0.2.1", number), Ok(()));
        }
        let one = Duration::from_secs(1);
        assert_eq!(checks.count("192.0.2.1", 60), exhausted(one));
        assert_eq!(checks.count("::ffff:192.0.2.1", None), exhausted(one));
        assert_eq!(checks.count("192.0.2.2", 60), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_that_asks() {
        let checks = Checks::a_minute(2, 10);
        assert_eq!(checks.count("2001:db8:1:2::1", None), Ok(()));
        assert_eq!(checks.count("2001:db8:1:2:ffff::1", None), Ok(()));
        assert_eq!(checks.count("2001:db8:1:2::3", None), exhausted(MINUTE / 2));
        assert_eq!(checks.count("2001:db8:1:3::1", None), Ok(()));
    }

    #[test]
    fn a_question_that_is_refused_takes_nothing_from_the_address() {
        let checks = Checks::a_minute(2, 1);
        assert_eq!(checks.count("192.0.2.1", 1), Ok(()));
        for _ in 0..10 {
            assert_eq!(checks.count("192.0.2.1", 1), exhausted(MINUTE));
        }
        assert_eq!(checks.count("192.0.2.1", 2), Ok(()), "of its neighbour's");
    }

    #[test]
    fn a_question_that_is_refused_takes_nothing_from_the_certificate() {
        let checks = Checks::a_minute(1, 2);
        assert_eq!(checks.count("192.0.2.1", None), Ok(()));
        for _ in 0..10 {
            assert_eq!(checks.count("192.0.2.1", 1), exhausted(MINUTE));
        }
        assert_eq!(checks.count("192.0.2.2", 1), Ok(()));
        assert_eq!(checks.count("192.0.2.3", 1), Ok(()), "all that it has");
        assert_eq!(checks.count("192.0.2.4", 1), exhausted(MINUTE / 2));
    }

    /// More of them than can be told apart: each is answered, and whoever has used up his own gets out of it by none of them.
    #[test]
    fn a_flood_of_addresses_and_certificates_locks_nobody_out() {
        let checks = Checks::a_minute(60, 10);
        for _ in 0..10 {
            assert_eq!(checks.count("192.0.2.1", 1), Ok(()));
        }
        let from = 1 << 24;
        let refused = (from..from + 200_000_u32)
            .filter(|number| {
                let host = IpAddr::from(number.to_be_bytes());
                checks.rates.count_check(host, Some(&certificate(*number))).is_err()
            })
            .count();
        assert_eq!(refused, 0, "for want of room");
        assert_eq!(checks.count("192.0.2.1", 1), exhausted(Duration::from_secs(6)), "it owes more than any of them");
        assert_eq!(checks.count("192.0.2.2", 2), Ok(()));
    }
}
