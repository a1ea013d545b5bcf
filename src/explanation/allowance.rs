//! How often anybody may ask.
//!
//! Takes an address, a certificate and the monotonic time, gives leave or says when to come again. Each has an allowance
//! for a minute that fills up again evenly; what is remembered is bounded. It knows nothing of what is asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::registry::Thumbprint;
use crate::tls::neighbourhood;

/// More addresses and certificates than this are not told apart: whoever comes then waits until some are forgotten, which
/// takes a minute at most.
const MOST_REMEMBERED: usize = 64 * 1024;

/// The time an allowance is for.
const MINUTE: Duration = Duration::from_secs(60);

/// How often those that have their whole allowance again are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// Allowances for a minute, by address and by certificate.
#[derive(Debug)]
pub struct Allowance {
    per_address: u32,
    per_certificate: u32,
    spent: Mutex<Spent>,
}

/// The allowance is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Until then.
    pub retry_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Whose {
    Address(IpAddr),
    Certificate(Thumbprint),
}

#[derive(Debug, Default)]
struct Spent {
    /// When each has its whole allowance again.
    whole_again: HashMap<Whose, Duration>,
    forgotten_at: Duration,
}

impl Allowance {
    /// So many a minute; at least one.
    pub fn new(per_address: u32, per_certificate: u32) -> Self {
        Self { per_address: per_address.max(1), per_certificate: per_certificate.max(1), spent: Mutex::default() }
    }

    /// Takes one from the allowance of an address (of IPv6: its /64) and one from that of a certificate; from neither,
    /// where one of them has none left.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn take(&self, address: IpAddr, certificate: Option<&Thumbprint>, now: Duration) -> Result<(), Exhausted> {
        // A panic leaves counts that are at worst too low.
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let address = (Whose::Address(neighbourhood(address)), MINUTE / self.per_address);
        let certificate =
            certificate.map(|thumbprint| (Whose::Certificate(*thumbprint), MINUTE / self.per_certificate));
        let mut next = Vec::with_capacity(2);
        for (whose, each) in [Some(address), certificate].into_iter().flatten() {
            next.push((whose, spent.after_one_more(whose, each, now)?));
        }
        let new = next.iter().filter(|(whose, _)| !spent.whole_again.contains_key(whose)).count();
        spent.make_room_for(new, now)?;
        spent.whole_again.extend(next);
        Ok(())
    }
}

impl Spent {
    /// Each one taken is given back after `each`; as many as fit a minute may be taken at once.
    fn after_one_more(&self, whose: Whose, each: Duration, now: Duration) -> Result<Duration, Exhausted> {
        let after = self.whole_again.get(&whose).copied().unwrap_or(now).max(now) + each;
        match after.saturating_sub(now).checked_sub(MINUTE) {
            Some(too_much) if !too_much.is_zero() => Err(Exhausted { retry_after: too_much }),
            _ => Ok(after),
        }
    }

    fn make_room_for(&mut self, new: usize, now: Duration) -> Result<(), Exhausted> {
        if new > 0
            && self.whole_again.len() + new > MOST_REMEMBERED
            && now.saturating_sub(self.forgotten_at) >= FORGET_EVERY
        {
            self.forgotten_at = now;
            self.whole_again.retain(|_, whole_again| *whole_again > now);
        }
        if new == 0 || self.whole_again.len() + new <= MOST_REMEMBERED {
            Ok(())
        } else {
            Err(Exhausted { retry_after: FORGET_EVERY })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_000);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn certificate(number: u32) -> Thumbprint {
        Thumbprint::of(&number.to_be_bytes())
    }

    #[test]
    fn a_certificate_has_so_many_at_once_and_one_more_each_part_of_a_minute() {
        let allowance = Allowance::new(1_000, 10);
        let take = |host: u8, now| allowance.take(IpAddr::from([192, 0, 2, host]), Some(&certificate(1)), now);
        for host in 0..10 {
            assert_eq!(take(host, START), Ok(()));
        }
        let six = Duration::from_secs(6);
        assert_eq!(take(10, START), Err(Exhausted { retry_after: six }), "from whatever address");
        let almost = START + six - Duration::from_nanos(1);
        assert_eq!(take(10, almost), Err(Exhausted { retry_after: Duration::from_nanos(1) }));
        assert_eq!(take(10, START + six), Ok(()));
        assert_eq!(take(10, START + six), Err(Exhausted { retry_after: six }));
        let later = START + six + MINUTE;
        for host in 0..10 {
            assert_eq!(take(host, later), Ok(()), "a minute later all of it is there again");
        }
        assert!(take(10, later).is_err(), "and no more than that");
    }

    #[test]
    fn an_address_has_so_many_whatever_it_shows() {
        let allowance = Allowance::new(60, 10);
        for number in 0..60 {
            assert_eq!(allowance.take(address("192.0.2.1"), Some(&certificate(number)), START), Ok(()));
        }
        let exhausted = Err(Exhausted { retry_after: Duration::from_secs(1) });
        assert_eq!(allowance.take(address("192.0.2.1"), Some(&certificate(60)), START), exhausted);
        assert_eq!(allowance.take(address("::ffff:192.0.2.1"), None, START), exhausted);
        assert_eq!(allowance.take(address("192.0.2.2"), Some(&certificate(60)), START), Ok(()));
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let allowance = Allowance::new(2, 10);
        assert_eq!(allowance.take(address("2001:db8:1:2::1"), None, START), Ok(()));
        assert_eq!(allowance.take(address("2001:db8:1:2:ffff::1"), None, START), Ok(()));
        assert!(allowance.take(address("2001:db8:1:2::3"), None, START).is_err());
        assert_eq!(allowance.take(address("2001:db8:1:3::1"), None, START), Ok(()));
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let allowance = Allowance::new(2, 1);
        assert_eq!(allowance.take(address("192.0.2.1"), Some(&certificate(1)), START), Ok(()));
        for _ in 0..10 {
            assert!(allowance.take(address("192.0.2.1"), Some(&certificate(1)), START).is_err());
        }
        assert_eq!(allowance.take(address("192.0.2.1"), Some(&certificate(2)), START), Ok(()), "of its neighbour's");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgotten() {
        let allowance = Allowance::new(60, 10);
        let many = |from: u32, now| {
            let take = |number: &u32| {
                let host = IpAddr::from((from + number).to_be_bytes());
                allowance.take(host, Some(&certificate(from + number)), now).is_ok()
            };
            (0..40_000).filter(take).count()
        };
        let taken = many(1 << 24, START);
        assert_eq!(taken, MOST_REMEMBERED / 2);
        assert_eq!(allowance.spent.lock().unwrap().whole_again.len(), MOST_REMEMBERED);
        let known = (IpAddr::from((1u32 << 24).to_be_bytes()), certificate(1 << 24));
        assert_eq!(allowance.take(known.0, Some(&known.1), START), Ok(()), "who was there before needs no room");
        // After six seconds each has its whole allowance again, and makes room.
        assert!(many(2 << 24, START + Duration::from_secs(6)) > 0);
        assert!(allowance.spent.lock().unwrap().whole_again.len() <= MOST_REMEMBERED);
    }
}
