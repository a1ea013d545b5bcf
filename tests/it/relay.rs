//! A network between a server and its PostgreSQL that a test can cut: so that connections break, or so that nothing comes through.

use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use countersign::config::StoreUrl;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Every connection breaks, and none is made.
    Broken,
    /// Nothing arrives, and nobody is told; nor later, on connections of before: as where a firewall forgets them, or what was lost is
    /// not sent again for a long while.
    Forgetful,
    /// It arrives.
    Open,
    /// Nothing arrives, and nobody is told.
    Silent,
}

impl Network {
    fn carries(self) -> bool {
        matches!(self, Self::Broken | Self::Open)
    }
}

/// A relay in this process.
#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    network: watch::Sender<Network>,
}

impl Relay {
    /// To the PostgreSQL of `store`, which is reached over TCP.
    pub(crate) async fn to(store: &StoreUrl) -> Self {
        let options = PgConnectOptions::from_str(store.as_str()).unwrap();
        let target: Arc<str> = format!("{}:{}", options.get_host(), options.get_port()).into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, told) = watch::channel(Network::Open);
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(relayed(near, Arc::clone(&target), told.clone()));
            }
        });
        Self { address, network }
    }

    /// The same store, through it.
    pub(crate) fn url(&self, store: &StoreUrl) -> StoreUrl {
        let (scheme, rest) = store.as_str().split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let user = authority.rsplit_once('@').map_or_else(String::new, |(user, _)| format!("{user}@"));
        StoreUrl::parse(&format!("{scheme}://{user}{}/{path}", self.address)).unwrap()
    }

    /// From now on.
    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn relayed(mut near: TcpStream, target: Arc<str>, mut network: watch::Receiver<Network>) {
    let (broken, forgotten) = (becomes(network.clone(), Network::Broken), becomes(network.clone(), Network::Forgetful));
    let relaying = async {
        let Ok(_) = network.wait_for(|network| network.carries()).await else { return };
        let Ok(mut far) = TcpStream::connect(&*target).await else { return };
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        tokio::select! {
            () = pumped(from_near, to_far, network.clone()) => {}
            () = pumped(from_far, to_near, network.clone()) => {}
        }
    };
    tokio::pin!(relaying);
    tokio::select! {
        () = &mut relaying => {}
        () = broken => {}
        // Both ends stay open.
        () = forgotten => pending().await,
    }
}

async fn becomes(mut network: watch::Receiver<Network>, expected: Network) {
    // A relay that is gone has told all.
    let _ = network.wait_for(|network| *network == expected).await.map(drop);
}

/// As long as it is silent, what was read waits here.
async fn pumped(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut network: watch::Receiver<Network>,
) {
    let mut octets = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut octets).await {
        if network.wait_for(|network| network.carries()).await.is_err() {
            return;
        }
        if to.write_all(&octets[..count]).await.is_err() {
            return;
        }
    }
}
