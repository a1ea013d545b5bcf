//! Clients that ask both nodes for tokens at a steady pace whatever happens, and write down what they were told.
//!
//! Takes an installation, gives a [`Journal`]. Each request goes out when its time has come, on a connection that is free or on a
//! new one: a server that is slow is asked as often as one that is not. It judges nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Failure;
use crate::nodes::{CLIENTS, Site};
use crate::population::{Population, identity};

/// How long an answer is waited for before it counts as none.
pub(crate) const LONGEST: Duration = Duration::from_secs(10);

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No answer: why.
    Failed(String),
    /// An answer without a token: its status.
    Refused(u16),
    /// A token.
    Token(Token),
}

/// A token as its client has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) jti: String,
    pub(crate) client: String,
    /// `X-Request-Id` of the answer that it came with.
    pub(crate) request: String,
    /// `iat`, in seconds.
    pub(crate) issued_at: i64,
}

/// One request, and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) node: usize,
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    /// On a connection of its own.
    pub(crate) is_new: bool,
    /// By a client that this node need not have in memory.
    pub(crate) is_stranger: bool,
    pub(crate) outcome: Outcome,
}

/// What clients were told, in the order in which they were.
#[derive(Default)]
pub(crate) struct Journal(Mutex<Vec<Asked>>);

impl Journal {
    fn held(&self) -> MutexGuard<'_, Vec<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, asked: Asked) {
        self.held().push(asked);
    }

    /// Everything that was asked from then on, and has come to something.
    pub(crate) fn since(&self, then: Instant) -> Vec<Asked> {
        self.held().iter().filter(|asked| asked.at >= then).cloned().collect()
    }

    /// Every token there is.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        let token = |asked: &Asked| match &asked.outcome {
            Outcome::Token(token) => Some(token.clone()),
            Outcome::Failed(_) | Outcome::Refused(_) => None,
        };
        self.held().iter().filter_map(token).collect()
    }
}

/// How much is asked of each node.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// Requests a second on connections that are kept.
    pub(crate) kept: u32,
    /// Requests a second on a new connection each, each time by the next of all clients that nobody else asks as.
    pub(crate) new: u32,
}

/// Clients at work.
pub(crate) struct Load {
    pub(crate) journal: Arc<Journal>,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// Clients that the load asks as: the first ones.
pub(crate) const LOAD: u32 = 16;

impl Load {
    /// Sets them to work.
    pub(crate) fn begin(site: &Site, pace: Pace) -> Result<Self, Failure> {
        let (journal, over) = (Arc::new(Journal::default()), Arc::new(AtomicBool::new(false)));
        let callers = callers(&site.population)?;
        let mut tasks = Vec::new();
        for (node, address) in site.addresses().into_iter().enumerate() {
            for (rate, is_new) in [(pace.kept, false), (pace.new, true)] {
                let Some(every) = Duration::from_secs(1).checked_div(rate) else { continue };
                let asking = Asking {
                    node,
                    pool: Pool::to(address, &callers),
                    is_new,
                    population: Arc::clone(&site.population),
                    journal: Arc::clone(&journal),
                };
                tasks.push(tokio::spawn(asking.go_on(every, Arc::clone(&over))));
            }
        }
        Ok(Self { journal, over, tasks })
    }

    /// Nobody asks any more; what was asked is waited for.
    pub(crate) async fn end(self) -> Result<Arc<Journal>, Failure> {
        self.over.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await?;
        }
        Ok(self.journal)
    }
}

/// Those who ask one node in one manner.
#[derive(Clone)]
struct Asking {
    node: usize,
    pool: Pool,
    is_new: bool,
    population: Arc<Population>,
    journal: Arc<Journal>,
}

impl Asking {
    async fn go_on(self, every: Duration, over: Arc<AtomicBool>) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut next, mut under_way) = (0, JoinSet::new());
        while !over.load(Ordering::Relaxed) {
            ticks.tick().await;
            while under_way.try_join_next().is_some() {}
            under_way.spawn(self.clone().one(next));
            next += 1;
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn one(self, count: u32) {
        let at = Instant::now();
        let strangers = self.population.size().saturating_sub(CLIENTS);
        let is_stranger = self.is_new && strangers > 0;
        let (is_new, outcome) = if is_stranger {
            let asked = async {
                let caller = Caller::new(&self.population, CLIENTS + count % strangers)?;
                caller.token(&mut caller.connect(self.pool.address).await?).await
            };
            (true, in_time(asked).await)
        } else {
            self.pool.ask(count, self.is_new).await
        };
        self.journal.note(Asked { node: self.node, at, took: at.elapsed(), is_new, is_stranger, outcome });
    }
}

/// The clients that the load asks as.
pub(crate) fn callers(population: &Population) -> Result<Arc<[Caller]>, Failure> {
    (0..LOAD).map(|number| Caller::new(population, number)).collect()
}

/// Connections to one node, as a client keeps them that asks often.
#[derive(Clone)]
pub(crate) struct Pool {
    address: SocketAddr,
    callers: Arc<[Caller]>,
    free: Arc<Mutex<Vec<Free>>>,
}

/// A connection that nobody uses just now, whose it is, and since when.
struct Free {
    connection: Connection,
    number: usize,
    since: Instant,
}

/// How long a connection is kept that nobody uses: a server closes it after a minute, and may do so just when it is used again.
const KEPT: Duration = Duration::from_secs(40);

impl Pool {
    /// Without any connection so far.
    pub(crate) fn to(address: SocketAddr, callers: &Arc<[Caller]>) -> Self {
        Self { address, callers: Arc::clone(callers), free: Arc::default() }
    }

    /// Asks for a token, on a connection that is free or else on a new one; always on a new one where that is said. Says whether
    /// it was one.
    pub(crate) async fn ask(&self, count: u32, anew: bool) -> (bool, Outcome) {
        let held = if anew { None } else { self.free().pop() }.filter(|free| free.since.elapsed() < KEPT);
        let is_new = held.is_none();
        let asked = async {
            let caller = |number: usize| self.callers.get(number).ok_or("no such client");
            let mut free = match held {
                Some(free) => free,
                None => {
                    let number = count as usize % self.callers.len();
                    let connection = caller(number)?.connect(self.address).await?;
                    Free { connection, number, since: Instant::now() }
                }
            };
            let outcome = caller(free.number)?.token(&mut free.connection).await?;
            if !anew {
                free.since = Instant::now();
                self.free().push(free);
            }
            Ok(outcome)
        };
        (is_new, in_time(asked).await)
    }

    fn free(&self) -> MutexGuard<'_, Vec<Free>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn in_time(asked: impl Future<Output = Result<Outcome, Failure>>) -> Outcome {
    match timeout(LONGEST, asked).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failure)) => Outcome::Failed(failure.to_string()),
        Err(_) => Outcome::Failed(format!("no answer within {LONGEST:?}")),
    }
}

/// A connection to a node.
pub(crate) type Connection = TlsStream<TcpStream>;

/// Somebody with a certificate.
pub(crate) struct Caller {
    tls: Arc<ClientConfig>,
    request: Vec<u8>,
}

impl Caller {
    /// The client with this number.
    pub(crate) fn new(population: &Population, number: u32) -> Result<Self, Failure> {
        let form = format!("grant_type=client_credentials&client_id={}", identity(number).id);
        let request = format!(
            "POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{form}",
            form.len()
        );
        let tls = Arc::new(population.caller(number, Resumption::disabled())?);
        Ok(Self { tls, request: request.into_bytes() })
    }

    /// A new connection, with a full handshake.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Connection, Failure> {
        connect(address, &self.tls).await
    }

    /// Asks for a token.
    pub(crate) async fn token(&self, connection: &mut Connection) -> Result<Outcome, Failure> {
        let answer = ask(connection, &self.request).await?;
        if answer.status != 200 {
            return Ok(Outcome::Refused(answer.status));
        }
        let body: Value = serde_json::from_slice(&answer.body)?;
        let claims = claims(body["access_token"].as_str().ok_or("an answer without a token")?)?;
        let text = |name: &str| claims[name].as_str().map(str::to_owned).ok_or("a token without a claim");
        Ok(Outcome::Token(Token {
            jti: text("jti")?,
            client: text("client_id")?,
            request: answer.header("x-request-id").ok_or("an answer without an id")?.to_owned(),
            issued_at: claims["iat"].as_i64().ok_or("a token without iat")?,
        }))
    }
}

/// What a compact JWS says; nobody checks the signature here.
pub(crate) fn claims(compact: &str) -> Result<Value, Failure> {
    let payload = compact.split('.').nth(1).ok_or("no JWS")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// A new connection, with a full handshake.
pub(crate) async fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from("localhost")?, stream).await?)
}

/// An answer, head and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (this, value) = line.split_once(':')?;
            this.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Sends a request and reads the answer to its end.
pub(crate) async fn ask(connection: &mut Connection, request: &[u8]) -> Result<Answer, Failure> {
    connection.write_all(request).await?;
    // Otherwise what a busy task could not write at once stays where it is.
    connection.flush().await?;
    let (mut heard, mut some) = (Vec::with_capacity(4_096), [0; 4_096]);
    let mut whole: Option<(Answer, usize)> = None;
    loop {
        if whole.is_none()
            && let Some(end) = heard.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let head = String::from_utf8(heard.drain(..end + 4).collect())?;
            let status = head.split(' ').nth(1).ok_or("an answer without a status")?.parse()?;
            let answer = Answer { status, head, body: Vec::new() };
            let length = answer.header("content-length").ok_or("an answer without a length")?.parse()?;
            whole = Some((answer, length));
        }
        match whole.take() {
            Some((_, length)) if heard.len() > length => return Err("more than an answer".into()),
            Some((mut answer, length)) if heard.len() == length => {
                answer.body = heard;
                return Ok(answer);
            }
            read => whole = read,
        }
        match connection.read(&mut some).await? {
            0 => return Err("closed".into()),
            count => heard.extend_from_slice(some.get(..count).unwrap_or_default()),
        }
    }
}
