//! Whoever reads what is public, all the time: metadata, keys, the list of what is revoked.
//!
//! Takes both nodes' addresses, gives what each answered and when. It has no certificate.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use countersign_resource_server::time::{Clock, SystemClock};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Failure;
use crate::clients::{LONGEST, ask, claims, connect};
use crate::nodes::Site;

/// What is read.
const PATHS: [&str; 3] = ["/.well-known/oauth-authorization-server", "/jwks", REVOCATIONS];

const REVOCATIONS: &str = "/revocations";

/// How often.
const EVERY: Duration = Duration::from_millis(500);

/// One answer.
#[derive(Clone)]
pub(crate) struct Read {
    pub(crate) node: usize,
    pub(crate) path: &'static str,
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    /// None where there was no answer.
    pub(crate) status: Option<u16>,
    /// How many seconds ago the list was signed, where it is one.
    pub(crate) age: Option<i64>,
}

/// Whoever has no certificate.
#[derive(Debug)]
struct NoCertificate;

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _root_hint_subjects: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Readers at work.
pub(crate) struct Readers {
    read: Arc<Mutex<Vec<Read>>>,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Sets one to work on each node.
    pub(crate) fn begin(site: &Site) -> Result<Self, Failure> {
        let (read, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mut tls = site.population.caller(0, Resumption::disabled())?;
        tls.client_auth_cert_resolver = Arc::new(NoCertificate);
        let tls = Arc::new(tls);
        let tasks = site.addresses().into_iter().enumerate().map(|(node, address)| {
            let (read, over, tls) = (Arc::clone(&read), Arc::clone(&over), Arc::clone(&tls));
            tokio::spawn(async move {
                let mut ticks = interval(EVERY);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !over.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    for path in PATHS {
                        let at = Instant::now();
                        let answer = timeout(LONGEST, one(address, &tls, path)).await;
                        let (status, age) = match answer {
                            Ok(Ok((status, age))) => (Some(status), age),
                            Ok(Err(_)) | Err(_) => (None, None),
                        };
                        let one = Read { node, path, at, took: at.elapsed(), status, age };
                        read.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                    }
                }
            })
        });
        Ok(Self { tasks: tasks.collect(), read, over })
    }

    /// What was read between then and then.
    pub(crate) fn between(&self, from: Instant, to: Instant) -> Vec<Read> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.iter().filter(|one| one.at >= from && one.at < to).cloned().collect()
    }

    /// Nobody reads any more.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }
}

async fn one(address: SocketAddr, tls: &Arc<ClientConfig>, path: &str) -> Result<(u16, Option<i64>), Failure> {
    let mut connection = connect(address, tls).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let answer = ask(&mut connection, request.as_bytes()).await?;
    let age = if path == REVOCATIONS && answer.status == 200 {
        let signed = claims(std::str::from_utf8(&answer.body)?)?["iat"].as_i64().ok_or("a list without iat")?;
        Some(SystemClock::new().now().as_seconds() - signed)
    } else {
        None
    };
    Ok((answer.status, age))
}
