//! A network between nodes and their PostgreSQL, or between a standby and its primary, that can be cut: so that nothing comes
//! through and nobody is told.
//!
//! Takes where it leads to, gives an address that leads there. It knows nothing of what goes through it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

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

/// Connections that wait to be accepted: beyond these the kernel drops what asks for one, as a network does.
const BACKLOG: u32 = 1;

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

async fn accept(listener: TcpListener, mut state: watch::Receiver<State>) {
    // Whoever is cut off gets no connection: nobody takes it. Where connections break, those that come do as well.
    while state.wait_for(|state| matches!(state.way, Way::Broken | Way::Open)).await.is_ok() {
        let Ok((near, _)) = listener.accept().await else { continue };
        tokio::spawn(relay(near, state.clone()));
    }
}

async fn relay(mut near: TcpStream, mut state: watch::Receiver<State>) {
    let (broken, forgotten) = (becomes(state.clone(), Way::Broken), becomes(state.clone(), Way::Forgetful));
    let opened = state.clone();
    let relaying = async {
        let Ok(to) = state.wait_for(State::carries).await.map(|state| state.to) else { return };
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
