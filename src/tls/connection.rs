//! What one connection may use up: a permit, and time.
//!
//! Takes the stream under HTTP and word from the service of when requests begin and end, gives a stream that ends when a
//! deadline of design §8 has passed: first byte, request head, idle, answer not taken. It reads no more of HTTP than
//! where an HTTP/2 frame begins; sizes are bounded by hyper, bodies by `endpoint/form.rs`.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::frames::{Flood, Frames, ILLEGAL, Most};
use super::turns::Turns;
use super::{Announcement, HandshakeRefusal};
use crate::config::Limits;
use crate::telemetry;

/// The last connections, one part in so many of all, are for whoever has few.
const SCARCE: usize = 4;

/// Of all connections, an address has one part in so many where they are scarce.
const SHARES_WHERE_SCARCE: usize = 64;

/// How many connections there may be, in all and from one address, and whose handshake is computed next. Shared by the listeners that strangers reach.
#[derive(Debug)]
pub struct Permits {
    in_all: usize,
    per_address: usize,
    open: Mutex<Open>,
    turns: Arc<Turns>,
}

#[derive(Debug, Default)]
struct Open {
    in_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Permits {
    /// As many as `limits` says.
    pub fn new(limits: &Limits) -> Arc<Self> {
        let (in_all, per_address) = (limits.connections, limits.connections_per_address);
        let turns = Arc::new(Turns::new(limits.handshakes));
        Arc::new(Self { in_all, per_address, open: Mutex::default(), turns })
    }

    /// Whose handshake is computed next.
    pub(super) const fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// One more connection from `address`, until the permit is dropped. Where few are left, not for whoever has many: otherwise
    /// a handful of addresses could shut out all others.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Result<Permit, HandshakeRefusal> {
        let address = neighbourhood(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.in_all >= self.in_all {
            return Err(HandshakeRefusal::ConnectionLimit);
        }
        let is_scarce = open.in_all >= self.in_all - self.in_all / SCARCE;
        let share = (self.in_all / SHARES_WHERE_SCARCE).max(1);
        let per_address = if is_scarce { self.per_address.min(share) } else { self.per_address };
        let from_here = open.by_address.entry(address).or_default();
        if *from_here >= per_address {
            return Err(HandshakeRefusal::AddressLimit);
        }
        *from_here += 1;
        open.in_all += 1;
        metrics::gauge!(telemetry::CONNECTIONS).set(open.in_all as f64);
        Ok(Permit { permits: self.clone(), address })
    }
}

/// Leave to keep one connection open.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.permits.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.in_all -= 1;
        metrics::gauge!(telemetry::CONNECTIONS).set(open.in_all as f64);
        if let Some(from_here) = open.by_address.get_mut(&self.address) {
            *from_here -= 1;
            if *from_here == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// One IPv4 address, or the /64 that one IPv6 host has to itself.
pub(crate) fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

/// Which requests of a connection are under way: written by its service, read by its stream.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    under_way: AtomicUsize,
    /// Whether any of what HTTP reads has come.
    heard: AtomicBool,
    /// Octets of bodies that are not whole yet.
    bodies: AtomicUsize,
    /// Nanoseconds from `opened` to the last request's begin and end.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Until the first request is answered.
    announcement: Mutex<Option<Announcement>>,
}

impl Activity {
    pub(super) fn new(announcement: Option<Announcement>) -> Arc<Self> {
        Arc::new(Self { announcement: Mutex::new(announcement), ..Self::opened_at(Instant::now()) })
    }

    fn opened_at(opened: Instant) -> Self {
        let (under_way, bodies) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (begun, ended) = (AtomicU64::new(0), AtomicU64::new(0));
        let heard = AtomicBool::new(false);
        Self { opened, under_way, heard, bodies, begun, ended, announcement: Mutex::default() }
    }

    /// A request begins; it ends when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.store(self.since_opened(), Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Release);
        UnderWay(self.clone())
    }

    fn since_opened(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Notes that something came: a request, or a part of one.
    pub(super) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether nothing ever came.
    pub(super) fn is_unheard(&self) -> bool {
        !self.heard.load(Ordering::Relaxed)
    }

    /// Whether no request is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0
    }

    fn last_begun(&self) -> Instant {
        self.opened + Duration::from_nanos(self.begun.load(Ordering::Relaxed))
    }

    fn last_ended(&self) -> Instant {
        self.opened + Duration::from_nanos(self.ended.load(Ordering::Relaxed))
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.store(self.0.since_opened(), Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Release);
        self.0.announcement.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// What a body holds of what one HTTP/2 connection may, as long as it is not whole: the connection's streams share it.
#[derive(Clone, Debug)]
pub(crate) struct BodyRoom {
    activity: Arc<Activity>,
    most: usize,
}

impl BodyRoom {
    pub(super) const fn of(activity: Arc<Activity>, most: usize) -> Self {
        Self { activity, most }
    }

    /// Nothing yet, for one body.
    pub(crate) const fn begin(self) -> BodyHeld {
        BodyHeld { room: self, octets: 0 }
    }
}

/// What one body holds of it, until it is dropped.
#[derive(Debug)]
pub(crate) struct BodyHeld {
    room: BodyRoom,
    octets: usize,
}

impl BodyHeld {
    /// Whether there is room for so many octets more.
    pub(crate) fn grow(&mut self, octets: usize) -> bool {
        self.octets += octets;
        let before = self.room.activity.bodies.fetch_add(octets, Ordering::Relaxed);
        before.saturating_add(octets) <= self.room.most
    }
}

impl Drop for BodyHeld {
    fn drop(&mut self) {
        self.room.activity.bodies.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

/// A stream with deadlines.
#[derive(Debug)]
pub struct LimitedStream<S> {
    stream: S,
    activity: Arc<Activity>,
    patience: Patience,
    /// How many frames of HTTP/2 it may send.
    most: Most,
    /// Fires at the next deadline or after the shortest patience, whichever is sooner: a deadline that comes into being
    /// meanwhile is never before that, so the timer need not be touched for every request.
    timer: Pin<Box<Sleep>>,
    reading: Reading,
    write_blocked: Option<Instant>,
    /// Until when what the peer took of answers accounts for its time, at [`SLOWEST_BYTES_PER_SECOND`]; never ahead of now.
    taken: Instant,
    /// The limit it ran into, if it did: then it reads nothing more.
    ended: Option<Limit>,
    _permit: Permit,
}

/// A peer that takes an answer faster than this is not idle, however large the answer. One that is slower has the idle
/// time on top and no more: an answer that is not taken keeps its octets in memory.
const SLOWEST_BYTES_PER_SECOND: u32 = 8 * 1024;

/// How long for what.
#[derive(Clone, Copy, Debug)]
struct Patience {
    first_byte: Duration,
    head: Duration,
    idle: Duration,
    write: Duration,
}

impl Patience {
    fn shortest(&self) -> Duration {
        self.first_byte.min(self.head).min(self.idle).min(self.write)
    }
}

/// Which limit a connection ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    FirstByte,
    Head,
    Idle,
    Write,
    Frames,
}

impl Limit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Head => "request_head",
            Self::Idle => "idle",
            Self::Write => "write",
            Self::Frames => "http2_frames",
        }
    }
}

impl<S> LimitedStream<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>, limits: &Limits, permit: Permit) -> Self {
        let patience = Patience {
            first_byte: limits.first_byte,
            head: limits.request_head,
            idle: limits.idle,
            write: limits.write,
        };
        Self {
            stream,
            timer: Box::pin(tokio::time::sleep(patience.shortest())),
            taken: activity.opened,
            activity,
            patience,
            most: Most::of(limits),
            reading: Reading::Nothing,
            write_blocked: None,
            ended: None,
            _permit: permit,
        }
    }

    /// The next deadline as things stand.
    fn deadline(&self) -> Option<(Instant, Limit)> {
        let reading = match &self.reading {
            Reading::Nothing => Some((self.activity.opened + self.patience.first_byte, Limit::FirstByte)),
            Reading::Preface { since, .. } => Some((*since + self.patience.head, Limit::Head)),
            // Bytes since the last request began are the head of the next one, which waits while an answer is taken.
            Reading::Http1 { head_since } => head_since
                .filter(|since| self.activity.is_idle() && *since > self.activity.last_begun())
                .filter(|_| self.write_blocked.is_none())
                .map(|since| (since.max(self.taken) + self.patience.head, Limit::Head)),
            Reading::Http2(frames) => frames.unfinished_since().map(|since| (since + self.patience.head, Limit::Head)),
        };
        // Frames that are no requests (PING, SETTINGS, …) do not keep a connection alive.
        let idle = (!matches!(self.reading, Reading::Nothing) && self.activity.is_idle())
            .then(|| (self.activity.last_ended().max(self.taken) + self.patience.idle, Limit::Idle));
        let write = self.write_blocked.map(|since| (since + self.patience.write, Limit::Write));
        [reading, idle, write].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Ready when a deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Limit> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let soon = now + self.patience.shortest();
            match self.deadline() {
                Some((at, limit)) if at <= now => {
                    self.end(limit);
                    return Poll::Ready(limit);
                }
                Some((at, _)) => self.timer.as_mut().reset(at.min(soon)),
                None => self.timer.as_mut().reset(soon),
            }
        }
    }

    fn end(&mut self, limit: Limit) {
        self.ended = Some(limit);
        metrics::counter!(telemetry::CONNECTIONS_ENDED, "limit" => limit.as_str()).increment(1);
    }

    /// Counts the answers hyper gives by itself to heads it cannot read: the one thing on the wire that no handler sees.
    /// They are told by their status with no body, which no handler sends.
    fn count_bare_answer(&self, written: &[u8]) {
        let Some(rest) = written.strip_prefix(b"HTTP/1.1 4") else { return };
        let status = match rest {
            [b'0', b'0', ..] => "400",
            [b'1', b'4', ..] => "414",
            [b'3', b'1', ..] => "431",
            _ => return,
        };
        if rest.windows(EMPTY_BODY.len()).any(|window| window.eq_ignore_ascii_case(EMPTY_BODY)) {
            metrics::counter!(telemetry::HEADS_REFUSED, "status" => status).increment(1);
        }
    }

    /// Notes how much of an answer went on its way.
    fn count_taken(&mut self, outcome: &Poll<io::Result<usize>>) {
        // On HTTP/2 what is no answer is counted too: too little of it to keep a connection alive.
        if let Poll::Ready(Ok(bytes)) = outcome {
            let bytes = u32::try_from(*bytes).unwrap_or(u32::MAX);
            let worth = Duration::from_secs(bytes.into()) / SLOWEST_BYTES_PER_SECOND;
            self.taken = (self.taken.max(self.activity.last_ended()) + worth).min(Instant::now());
        }
    }

    /// Notes whether a write could go on, and ends it when the peer has taken nothing for too long.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.write_blocked = None;
            return outcome;
        }
        let since = *self.write_blocked.get_or_insert_with(Instant::now);
        if self.ended.is_some() {
            // The last words: no timer is left to wake anybody for them but this one.
            if since + self.patience.write <= Instant::now() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.timer.as_mut().reset(since + self.patience.write);
            if self.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return Poll::Pending;
        }
        match self.poll_deadline(cx) {
            Poll::Ready(_) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ended.is_some() {
            return Poll::Ready(Ok(()));
        }
        let filled = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                let fresh = &buf.filled()[filled..];
                if fresh.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.activity.hear();
                if let Err(Flood { boundary }) = this.reading.take(fresh, &this.activity, this.most) {
                    // As if the peer had broken the protocol there, so that it is told by a GOAWAY; otherwise as if it had
                    // closed the connection. What it sent last counts for nothing.
                    buf.set_filled(filled + boundary.unwrap_or_default());
                    if boundary.is_some() && buf.remaining() >= ILLEGAL.len() {
                        buf.put_slice(&ILLEGAL);
                    }
                    this.end(Limit::Frames);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match ready!(this.poll_deadline(cx)) {
                // An idle connection ends as if the peer had closed it: with a GOAWAY or a close_notify.
                Limit::Idle | Limit::FirstByte | Limit::Frames => Poll::Ready(Ok(())),
                Limit::Head | Limit::Write => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            },
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.count_bare_answer(buf);
        let outcome = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.count_taken(&outcome);
        this.watch_write(cx, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(cx);
        this.watch_write(cx, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.watch_write(cx, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.count_bare_answer(bufs.first().map_or(&[], |buf| buf));
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.count_taken(&outcome);
        this.watch_write(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

const EMPTY_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// What has been read so far.
#[derive(Debug)]
enum Reading {
    Nothing,
    /// As many bytes of the HTTP/2 preface, and nothing else.
    Preface {
        since: Instant,
        matched: usize,
    },
    Http1 {
        head_since: Option<Instant>,
    },
    Http2(Frames),
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Reading {
    /// Goes on with what was read.
    ///
    /// # Errors
    /// [`Flood`]: nothing is to be read any more.
    fn take(&mut self, read: &[u8], activity: &Activity, most: Most) -> Result<(), Flood> {
        let mut bytes = read;
        if let Self::Nothing = self {
            *self = Self::Preface { since: Instant::now(), matched: 0 };
        }
        if let Self::Preface { since, matched } = self {
            let expected = &PREFACE[*matched..];
            let common = expected.iter().zip(bytes).take_while(|(one, other)| one == other).count();
            *matched += common;
            if *matched == PREFACE.len() {
                bytes = &bytes[common..];
                *self = Self::Http2(Frames::new(most, Instant::now()));
            } else if common < bytes.len() {
                *self = Self::Http1 { head_since: Some(*since) };
                return Ok(());
            } else {
                return Ok(());
            }
        }
        match self {
            Self::Http1 { head_since } => {
                if activity.is_idle() && head_since.is_none_or(|since| since <= activity.last_begun()) {
                    *head_since = Some(Instant::now());
                }
                Ok(())
            }
            Self::Http2(frames) => {
                let preface = read.len() - bytes.len();
                frames
                    .take(bytes, Instant::now())
                    .map_err(|Flood { boundary }| Flood { boundary: boundary.map(|boundary| preface + boundary) })
            }
            Self::Nothing | Self::Preface { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(3600);

    /// Every patience long: a test shortens the one it is about.
    fn patient() -> Limits {
        Limits { first_byte: LONG, request_head: LONG, idle: LONG, write: LONG, ..Limits::default() }
    }

    struct Rig {
        peer: DuplexStream,
        stream: LimitedStream<DuplexStream>,
        activity: Arc<Activity>,
    }

    impl Rig {
        fn open(limits: &Limits) -> Self {
            let (peer, stream) = duplex(256);
            let activity = Activity::new(None);
            let permit = Permits::new(limits).take([127, 0, 0, 1].into()).unwrap();
            Self { peer, stream: LimitedStream::new(stream, activity.clone(), limits, permit), activity }
        }

        /// Sends `bytes`, and reads them on the other side.
        async fn send(&mut self, bytes: &[u8]) {
            self.peer.write_all(bytes).await.unwrap();
            self.stream.read_exact(&mut vec![0; bytes.len()]).await.unwrap();
        }

        /// Reads until the stream ends: the limit it ran into, after how long.
        async fn end(&mut self) -> (Option<Limit>, Duration) {
            let since = Instant::now();
            while matches!(self.stream.read(&mut [0; 256]).await, Ok(1..)) {}
            (self.stream.ended, since.elapsed())
        }
    }

    #[tokio::test]
    async fn the_first_byte_has_its_time() {
        let mut rig = Rig::open(&Limits { first_byte: SHORT, ..patient() });
        let (limit, after) = rig.end().await;
        assert_eq!(limit, Some(Limit::FirstByte));
        // A little is gone between opening and reading.
        assert!(after >= SHORT / 2, "{after:?}");
    }

    #[tokio::test]
    async fn a_head_that_never_ends_has_its_time_from_its_first_byte_however_it_drips() {
        let mut rig = Rig::open(&Limits { request_head: SHORT, ..patient() });
        let (mut peer, _) = duplex(1);
        std::mem::swap(&mut peer, &mut rig.peer);
        let dripping = tokio::spawn(async move {
            while peer.write_all(b"G").await.is_ok() {
                tokio::time::sleep(SHORT / 10).await;
            }
        });
        assert_eq!(rig.end().await.0, Some(Limit::Head));
        drop(rig);
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_request_under_way_may_take_its_time_and_then_the_connection_is_idle() {
        let mut rig = Rig::open(&Limits { request_head: SHORT, idle: SHORT, ..patient() });
        rig.send(HEAD).await;
        let request = rig.activity.begin();
        assert!(tokio::time::timeout(SHORT * 4, rig.end()).await.is_err());
        drop(request);
        let (limit, after) = rig.end().await;
        assert_eq!(limit, Some(Limit::Idle));
        assert!(after >= SHORT / 2, "{after:?}");
    }

    #[tokio::test]
    async fn a_peer_is_announced_until_its_first_request_is_answered_or_its_connection_ends() {
        let announced = Arc::new(());
        let is_announced = || Arc::strong_count(&announced) > 1;
        let activity = Activity::new(Some(Box::new(announced.clone())));
        let request = activity.begin();
        assert!(is_announced());
        drop(request);
        assert!(!is_announced());
        drop(activity.begin());
        let unused = Activity::new(Some(Box::new(announced.clone())));
        assert!(is_announced());
        drop(unused);
        assert!(!is_announced());
    }

    #[tokio::test]
    async fn deadlines_count_from_where_they_should() {
        let limits = Limits::default();
        let mut rig = Rig::open(&limits);
        let opened = rig.activity.opened;
        assert_eq!(rig.stream.deadline(), Some((opened + limits.first_byte, Limit::FirstByte)));

        rig.send(HEAD).await;
        let Some((at, Limit::Head)) = rig.stream.deadline() else { panic!("{:?}", rig.stream.deadline()) };
        assert!(at >= opened + limits.request_head && at <= Instant::now() + limits.request_head);

        let request = rig.activity.begin();
        assert_eq!(rig.stream.deadline(), None);
        rig.send(b"body").await;
        assert_eq!(rig.stream.deadline(), None);

        drop(request);
        assert_eq!(rig.stream.deadline(), Some((rig.activity.last_ended() + limits.idle, Limit::Idle)));
        rig.send(b"G").await;
        let Some((second, Limit::Head)) = rig.stream.deadline() else { panic!("{:?}", rig.stream.deadline()) };
        assert!(second > at);
        rig.send(b"E").await;
        assert_eq!(rig.stream.deadline(), Some((second, Limit::Head)));
    }

    #[tokio::test]
    async fn http2_frames_that_are_no_requests_do_not_keep_it_alive() {
        let limits = Limits::default();
        let mut rig = Rig::open(&limits);
        rig.send(PREFACE).await;
        let idle = Some((rig.activity.last_ended() + limits.idle, Limit::Idle));
        assert_eq!(rig.stream.deadline(), idle);
        rig.send(&[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]).await; // PING
        assert_eq!(rig.stream.deadline(), idle);
    }

    #[tokio::test]
    async fn an_http2_header_block_without_end_has_the_time_of_a_head() {
        let limits = Limits::default();
        let mut rig = Rig::open(&limits);
        rig.send(PREFACE).await;
        // A request under way on another stream does not excuse it.
        let _request = rig.activity.begin();
        assert_eq!(rig.stream.deadline(), None);
        rig.send(&[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x82]).await; // HEADERS, no END_HEADERS
        let deadline = rig.stream.deadline();
        assert_eq!(deadline.map(|(_, limit)| limit), Some(Limit::Head));
        rig.send(&[0, 0, 1, 9, 0, 0, 0, 0, 1, 0x82]).await; // CONTINUATION, no END_HEADERS
        assert_eq!(rig.stream.deadline(), deadline);
        rig.send(&[0, 0, 1, 9, 4, 0, 0, 0, 1, 0x82]).await; // CONTINUATION, END_HEADERS
        assert_eq!(rig.stream.deadline(), None);
    }

    #[tokio::test]
    async fn an_answer_nobody_takes_ends_the_connection() {
        let mut rig = Rig::open(&Limits { write: SHORT, ..patient() });
        let _request = rig.activity.begin();
        let error = rig.stream.write_all(&[0; 1024]).await.unwrap_err();
        assert_eq!((error.kind(), rig.stream.ended), (io::ErrorKind::TimedOut, Some(Limit::Write)));
    }

    #[tokio::test]
    async fn what_is_taken_of_an_answer_puts_off_the_end_at_a_price() {
        const AGO: Duration = Duration::from_secs(100);
        let limits = Limits::default();
        let price = async |octets: usize| {
            let (mut peer, stream) = duplex(4 << 20);
            let activity = Arc::new(Activity::opened_at(Instant::now().checked_sub(AGO).unwrap()));
            let permit = Permits::new(&limits).take([127, 0, 0, 1].into()).unwrap();
            let mut stream = LimitedStream::new(stream, activity.clone(), &limits, permit);
            peer.write_all(HEAD).await.unwrap();
            stream.read_exact(&mut [0; HEAD.len()]).await.unwrap();
            drop(activity.begin());
            // The request ended as long ago as the connection was opened.
            activity.ended.store(0, Ordering::Relaxed);
            stream.write_all(&vec![0; octets]).await.unwrap();
            let (at, limit) = stream.deadline().unwrap();
            assert_eq!(limit, Limit::Idle);
            at - activity.opened - limits.idle
        };
        assert_eq!(price(0).await, Duration::ZERO);
        assert_eq!(price(8 * 1024).await, Duration::from_secs(1));
        assert_eq!(price(256 * 1024).await, Duration::from_secs(32));
        // No credit is given ahead: from now on the idle time runs.
        let all = price(4 << 20).await;
        assert!((AGO..AGO + Duration::from_secs(50)).contains(&all), "{all:?}");
    }

    #[tokio::test]
    async fn a_head_that_comes_before_the_last_answer_is_taken_waits() {
        let mut rig = Rig::open(&Limits { request_head: SHORT, write: LONG / 2, ..patient() });
        rig.send(HEAD).await;
        drop(rig.activity.begin());
        let writing = tokio::time::timeout(Duration::ZERO, rig.stream.write_all(&[0; 1024]));
        assert!(writing.await.is_err());
        rig.send(b"GET /next HTTP/1.1\r\n").await;
        assert_eq!(rig.stream.deadline().map(|(_, limit)| limit), Some(Limit::Write));
        rig.peer.read_exact(&mut [0; 256]).await.unwrap();
        rig.stream.write_all(&[0; 1]).await.unwrap();
        assert_eq!(rig.stream.deadline().map(|(_, limit)| limit), Some(Limit::Head));
    }

    #[tokio::test]
    async fn last_words_nobody_takes_end_as_well() {
        let mut rig = Rig::open(&Limits { idle: SHORT, write: SHORT, ..patient() });
        rig.send(HEAD).await;
        drop(rig.activity.begin());
        assert_eq!(rig.end().await.0, Some(Limit::Idle));
        let error = rig.stream.write_all(&[0; 1024]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn permits_are_counted_by_address_and_in_all() {
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let permits = Permits::new(&limits);
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2:1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let first = permits.take(one).unwrap();
        let _second = permits.take(neighbour).unwrap();
        assert_eq!(permits.take(one).unwrap_err(), HandshakeRefusal::AddressLimit);
        let _third = permits.take(mapped).unwrap();
        assert_eq!(permits.take("192.0.2.2".parse().unwrap()).unwrap_err(), HandshakeRefusal::ConnectionLimit);
        drop(first);
        assert!(permits.take(one).is_ok());
        assert_eq!(permits.open.lock().unwrap().by_address.len(), 2);
    }

    /// `address` by number.
    fn numbered(number: usize) -> IpAddr {
        [192, 0, 2, u8::try_from(number).unwrap()].into()
    }

    #[test]
    fn the_last_quarter_of_the_connections_is_for_whoever_has_few() {
        let limits = Limits { connections: 256, connections_per_address: 64, ..Limits::default() };
        let permits = Permits::new(&limits);
        let take = |number, count| (0..count).map(|_| permits.take(numbered(number)).unwrap()).collect::<Vec<_>>();
        let mut held: Vec<Permit> = [take(1, 64), take(2, 64), take(3, 63)].into_iter().flatten().collect();
        held.extend(take(3, 1)); // the last of three quarters
        let refused = |number| permits.take(numbered(number)).unwrap_err();
        assert_eq!(refused(3), HandshakeRefusal::AddressLimit);
        // A 64th of them for one address, whoever it is.
        held.extend(take(4, 4));
        assert_eq!(refused(4), HandshakeRefusal::AddressLimit);
        for number in 5..20 {
            held.extend(take(number, 4));
        }
        assert_eq!(refused(20), HandshakeRefusal::ConnectionLimit);
        // Where there is room again, each may have as many as before.
        held.truncate(191);
        assert!(permits.take(numbered(4)).is_ok());
        held.extend(take(4, 1));
        assert_eq!(refused(3), HandshakeRefusal::AddressLimit);
    }

    #[test]
    fn even_where_connections_are_few_each_address_may_have_one_of_the_last() {
        let limits = Limits { connections: 4, connections_per_address: 4, ..Limits::default() };
        let permits = Permits::new(&limits);
        let _held: Vec<_> = (0..3).map(|_| permits.take(numbered(1)).unwrap()).collect();
        assert_eq!(permits.take(numbered(1)).unwrap_err(), HandshakeRefusal::AddressLimit);
        let _last = permits.take(numbered(2)).unwrap();
        assert_eq!(permits.take(numbered(3)).unwrap_err(), HandshakeRefusal::ConnectionLimit);
    }
}
