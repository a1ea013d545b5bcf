//! A network between nodes and their PostgreSQL, or between a standby and its primary, that can be cut: so that nothing comes
//! through and nobody is told.
//!
//! Takes where it leads to, gives an address that leads there. It knows nothing of what goes through it.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::Failure;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Every connection breaks, and none is made; what was under way is thrown away.
    Broken,
    /// Nothing arrives and nobody is told; nor later, on connections of before: as where a firewall has forgotten them.
    Forgetful,
    /// It arrives.
    Open,
    /// Nothing arrives and nobody is told; it does once the way is open again, as what is sent again does.
    Silent,
}

/// A relay in this process.
pub(crate) struct Network {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy)]
struct State {
    way: Way,
    to: SocketAddr,
}

impl State {
    fn carries(&self) -> bool {
        self.way == Way::Open
    }
}

/// How long ends that nobody carries anything between stay open after the way is.
const FOUND_OUT: Duration = Duration::from_secs(30);

/// Connections that wait to be accepted: as many as ask for one at a time, or they would have to ask again a second later.
const BACKLOG: u32 = 1_024;

/// How often somebody who waits for the way to open is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Network {
    /// A way to `to`, open.
    pub(crate) fn to(to: SocketAddr) -> Result<Self, Failure> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        let (state, told) = watch::channel(State { way: Way::Open, to });
        tokio::spawn(accept(listener, told));
        Ok(Self { address, state })
    }

    /// From now on.
    pub(crate) fn set(&self, way: Way) {
        self.state.send_modify(|state| state.way = way);
    }

    /// From now on new connections lead there.
    pub(crate) fn lead(&self, to: SocketAddr) {
        self.state.send_modify(|state| state.to = to);
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    while state.has_changed().is_ok() {
        let Ok((near, _)) = listener.accept().await else { continue };
        tokio::spawn(relay(near, state.clone()));
    }
}

/// Until the way is open; no longer than whoever asked waits: nothing is told of one that has gone by then.
async fn opens(near: &TcpStream, state: &mut watch::Receiver<State>) -> Option<SocketAddr> {
    loop {
        if let Ok(opened) = timeout(LOOK_EVERY, state.wait_for(State::carries)).await {
            return Some(opened.ok()?.to);
        }
        if near.ready(Interest::READABLE).now_or_never().is_some_and(|ready| ready.is_ok_and(|it| it.is_read_closed()))
        {
            return None;
        }
    }
}

async fn relay(mut near: TcpStream, mut state: watch::Receiver<State>) {
    // What was asked for while nothing came through has never been known to anybody.
    let is_of_before = state.borrow().carries();
    let broken = becomes(state.clone(), Way::Broken);
    let forgotten = async |state| if is_of_before { becomes(state, Way::Forgetful).await } else { pending().await };
    let forgotten = forgotten(state.clone());
    let opened = state.clone();
    let relaying = async {
        let Some(to) = opens(&near, &mut state).await else { return };
        let Ok(mut far) = TcpStream::connect(to).await else { return };
        let _delayed_where_that_fails = (near.set_nodelay(true), far.set_nodelay(true));
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        tokio::select! {
            () = pump(from_near, to_far, state.clone()) => {}
            () = pump(from_far, to_near, state.clone()) => {}
        }
    };
    tokio::pin!(relaying);
    tokio::select! {
        biased;
        () = broken => {}
        // Both ends stay open, until whoever serves there would have found out as well.
        () = forgotten => {
            becomes(opened, Way::Open).await;
            sleep(FOUND_OUT).await;
        }
        () = &mut relaying => {}
    }
}

async fn becomes(mut state: watch::Receiver<State>, way: Way) {
    // A network that is gone has told all.
    let _ = state.wait_for(|state| state.way == way).await.map(drop);
}

/// As long as nothing comes through, what was read waits here.
async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut state: watch::Receiver<State>) {
    let mut octets = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut octets).await {
        let Some(read) = octets.get(..count) else { return };
        if state.wait_for(State::carries).await.is_err() || to.write_all(read).await.is_err() {
            return;
        }
    }
    // What has ended is told when the rest would have been.
    let _ = state.wait_for(State::carries).await.map(drop);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Long enough for what comes, and for what does not.
    const MOMENT: Duration = Duration::from_millis(300);

    /// Answers each octet with `name`. How many have reached it.
    async fn far(name: u8) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, reached) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&reached);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(
                    async move { while stream.read_u8().await.is_ok() && stream.write_u8(name).await.is_ok() {} },
                );
            }
        });
        (address, reached)
    }

    async fn near(network: &Network) -> TcpStream {
        TcpStream::connect(network.address).await.unwrap()
    }

    /// What comes, where anything does: an octet, or the end.
    async fn heard(stream: &mut TcpStream) -> Option<Option<u8>> {
        timeout(MOMENT, stream.read_u8()).await.ok().map(Result::ok)
    }

    async fn asked(stream: &mut TcpStream) -> Option<Option<u8>> {
        stream.write_u8(b'?').await.unwrap();
        heard(stream).await
    }

    #[tokio::test]
    async fn what_is_sent_in_silence_arrives_once_the_way_is_open() {
        let (address, _) = far(b'a').await;
        let network = Network::to(address).unwrap();
        let mut old = near(&network).await;
        assert_eq!(asked(&mut old).await, Some(Some(b'a')));
        network.set(Way::Silent);
        let mut new = near(&network).await;
        assert_eq!((asked(&mut old).await, asked(&mut new).await), (None, None));
        network.set(Way::Open);
        assert_eq!((heard(&mut old).await, heard(&mut new).await), (Some(Some(b'a')), Some(Some(b'a'))));
    }

    #[tokio::test]
    async fn a_connection_that_was_forgotten_never_delivers() {
        let (address, _) = far(b'a').await;
        let network = Network::to(address).unwrap();
        let mut old = near(&network).await;
        assert_eq!(asked(&mut old).await, Some(Some(b'a')));
        network.set(Way::Forgetful);
        let mut meanwhile = near(&network).await;
        assert_eq!((asked(&mut old).await, asked(&mut meanwhile).await), (None, None));
        network.set(Way::Open);
        assert_eq!(heard(&mut meanwhile).await, Some(Some(b'a')));
        assert_eq!(asked(&mut near(&network).await).await, Some(Some(b'a')));
        assert_eq!(asked(&mut old).await, None);
    }

    #[tokio::test]
    async fn a_broken_way_ends_every_connection() {
        let (address, reached) = far(b'a').await;
        let network = Network::to(address).unwrap();
        let mut old = near(&network).await;
        assert_eq!(asked(&mut old).await, Some(Some(b'a')));
        network.set(Way::Broken);
        assert_eq!(heard(&mut old).await, Some(None));
        assert_eq!(heard(&mut near(&network).await).await, Some(None));
        assert_eq!(reached.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn new_connections_lead_elsewhere() {
        let ((one, _), (other, _)) = (far(b'a').await, far(b'b').await);
        let network = Network::to(one).unwrap();
        let mut old = near(&network).await;
        assert_eq!(asked(&mut old).await, Some(Some(b'a')));
        network.lead(other);
        assert_eq!(asked(&mut near(&network).await).await, Some(Some(b'b')));
        assert_eq!(asked(&mut old).await, Some(Some(b'a')));
    }

    #[tokio::test]
    async fn whoever_gave_up_meanwhile_never_arrives() {
        let (address, reached) = far(b'a').await;
        let network = Network::to(address).unwrap();
        network.set(Way::Silent);
        drop(near(&network).await);
        sleep(MOMENT).await;
        network.set(Way::Open);
        assert_eq!(asked(&mut near(&network).await).await, Some(Some(b'a')));
        assert_eq!(reached.load(Ordering::Relaxed), 1);
    }
}
