//! A responder on the loopback interface, over plain HTTP (RFC 6960 appendix A).
//!
//! Takes what it is to reply ([`Reply`]), gives a URL; remembers what it was asked. It does as it is told, right or wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Asked;

/// What is sent back.
#[derive(Clone, Debug)]
pub enum Reply {
    /// This status without a body.
    Http(u16),
    /// These octets, as `application/ocsp-response`.
    Octets(Vec<u8>),
    /// Nothing, on a connection that stays open.
    Silence,
}

/// A responder, listening until it is dropped.
pub struct Responder {
    address: SocketAddr,
    shared: Arc<Shared>,
}

type Rule = dyn Fn(&Asked) -> Reply + Send + Sync;

struct Shared {
    asked: Mutex<Vec<Asked>>,
    reply: Mutex<Arc<Rule>>,
    kept: Mutex<Vec<TcpStream>>,
    stops: AtomicBool,
}

/// A longer request is not read.
const LONGEST_REQUEST: usize = 64 * 1024;

impl Responder {
    /// Listens on a port of the system's choice, and replies so.
    ///
    /// # Errors
    /// Where the system has no port.
    pub fn start(reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            reply: Mutex::new(Arc::new(reply)),
            kept: Mutex::default(),
            stops: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if own.stops.load(Ordering::SeqCst) {
                    return;
                }
                let own = Arc::clone(&own);
                // A connection that breaks is the other side's loss.
                std::thread::spawn(move || drop(own.serve(stream)));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Replies so from now on.
    pub fn reply(&self, reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.reply) = Arc::new(reply);
    }

    /// What it was asked, in that order.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::SeqCst);
        lock(&self.shared.kept).clear();
        drop(TcpStream::connect(self.address)); // wakes the listener
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length.min(LONGEST_REQUEST)];
        reader.read_exact(&mut body)?;
        let reply = match Asked::read(&body) {
            Some(asked) => {
                lock(&self.asked).push(asked.clone());
                let reply = Arc::clone(&lock(&self.reply));
                reply(&asked)
            }
            None => Reply::Octets(super::unsuccessful(1)),
        };
        let mut stream = stream;
        match reply {
            Reply::Http(status) => {
                write!(stream, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            }
            Reply::Octets(octets) => {
                let (kind, length) = ("application/ocsp-response", octets.len());
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
                )?;
                stream.write_all(&octets)
            }
            Reply::Silence => {
                lock(&self.kept).push(stream);
                Ok(())
            }
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Responder({})", self.address)
    }
}
