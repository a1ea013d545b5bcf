//! The tickets of one client, to resume a session with again and again.
//!
//! Each is used once (RFC 8446 §C.4). A server may give no new one with a session that is resumed (Node does not), so tickets
//! can be gathered beforehand, as many as will be used.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls_pki_types::ServerName;

/// A client's tickets.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    held: Mutex<Vec<Tls13ClientSessionValue>>,
    group: Mutex<Option<NamedGroup>>,
    are_used: AtomicBool,
}

impl Tickets {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.held().len()
    }

    /// From now on handshakes resume sessions.
    pub(crate) fn use_them(&self) {
        self.are_used.store(true, Ordering::Relaxed);
    }

    fn held(&self) -> MutexGuard<'_, Vec<Tls13ClientSessionValue>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server: ServerName<'static>, group: NamedGroup) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = Some(group);
    }

    fn kx_hint(&self, _server: &ServerName<'_>) -> Option<NamedGroup> {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // TLS 1.2 is not measured.
    fn set_tls12_session(&self, _server: ServerName<'static>, _session: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.held().push(ticket);
    }

    fn take_tls13_ticket(&self, _server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        if self.are_used.load(Ordering::Relaxed) { self.held().pop() } else { None }
    }
}
