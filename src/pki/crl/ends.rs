//! When lists are out of date, for the watch over what runs out.

use countersign_resource_server::time::UnixTime;

use super::cache::short_name;
use super::index::HeldLists;
use crate::expiry::{Dated, Kind};

impl Dated for HeldLists {
    fn kind(&self) -> Kind {
        Kind::Crl
    }

    fn ends(&self) -> Vec<(String, UnixTime)> {
        // RFC 5280 §5.1.2.5: at nextUpdate the next list has been issued.
        let end =
            |list: &super::index::RevocationList| (short_name(&list.issuer_key, &list.scope, 8), list.next_update);
        self.now().all().map(|list| end(list)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pki::crl::Serial;
    use crate::pki::crl::index::{RevocationList, Scope};
    use crate::registry::KeyHash;

    #[test]
    fn each_list_that_is_held_ends_with_its_next_update() {
        let lists = HeldLists::default();
        assert!(lists.ends().is_empty());
        let list = |issuer: &[u8], end| RevocationList {
            issuer_key: KeyHash::of(issuer),
            scope: Scope::default(),
            number: Serial::of_hex("01").unwrap(),
            this_update: UnixTime::from_seconds(0),
            next_update: UnixTime::from_seconds(end),
            entries: Vec::new(),
            digest: [0; 32],
            octets: 0,
        };
        lists.put(&Arc::new(list(b"one", 10)));
        lists.put(&Arc::new(list(b"other", 20)));
        // The next one in the place of the first.
        lists.put(&Arc::new(list(b"one", 30)));
        let mut ends: Vec<_> = lists.ends().into_iter().map(|(_, end)| end.as_seconds()).collect();
        ends.sort_unstable();
        assert_eq!(ends, [20, 30]);
    }
}
