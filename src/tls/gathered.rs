//! Octets that are written together.
//!
//! Takes what TLS writes on a socket, and holds it for as long as there is something to read, and from when a request begins to come
//! until something is written for it: the ticket that ends a handshake leaves with the answer to the request that came with it, as one
//! packet instead of two. What a peer waits for before it asks has to be sent by whoever knows that. It knows nothing of TLS.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::connection::Activity;

/// Octets that are held for the answer to a request: a ticket has the client's certificates, and whoever brings long ones and begins
/// requests without end is to cost no memory for that as well.
const MOST_HELD: usize = 4_096;

/// A socket that is written to as seldom as can be.
#[derive(Debug)]
pub struct Gathered {
    socket: TcpStream,
    held: Vec<u8>,
    /// Whether anything was asked for; none before the connection is open.
    activity: Option<Arc<Activity>>,
}

impl Gathered {
    /// Over a socket that hands over at once what it is given.
    pub(super) const fn new(socket: TcpStream) -> Self {
        Self { socket, held: Vec::new(), activity: None }
    }

    /// From now on requests may come, and what is written is part of an answer.
    pub(super) fn open(&mut self, activity: Arc<Activity>) {
        self.activity = Some(activity);
    }

    /// Sends what is held, whether or not anything follows it soon.
    ///
    /// # Errors
    /// What the socket says.
    pub(super) async fn send(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx)).await
    }

    /// Whether what is held is not held any longer: the peer has asked for nothing, so nothing will be written soon; or it is long. HTTP reads on, to the end of a request
    /// and for what comes after it, before it begins with it: that a request is under way would be known too late.
    fn is_sent_now(&self) -> bool {
        self.held.len() > MOST_HELD || self.activity.as_ref().is_none_or(|activity| activity.is_unheard())
    }

    /// Sends what is held.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.held))?;
            self.let_go(sent)?;
        }
        Poll::Ready(Ok(()))
    }

    fn let_go(&mut self, sent: usize) -> io::Result<()> {
        if sent == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held.drain(..sent);
        if self.held.is_empty() {
            // It is not used again for as long as the connection lasts.
            self.held = Vec::new();
        }
        Ok(())
    }
}

impl AsyncRead for Gathered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.socket).poll_read(cx, buf);
        if read.is_pending()
            && this.is_sent_now()
            && let Poll::Ready(Err(error)) = this.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        read
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.activity.is_none() {
            bufs.iter().for_each(|buf| this.held.extend_from_slice(buf));
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        while !this.held.is_empty() {
            let together: Vec<_> = std::iter::once(IoSlice::new(&this.held)).chain(bufs.iter().copied()).collect();
            let sent = ready!(Pin::new(&mut this.socket).poll_write_vectored(cx, &together))?;
            let held = this.held.len();
            this.let_go(sent.min(held))?;
            if sent > held {
                return Poll::Ready(Ok(sent - held));
            }
        }
        Pin::new(&mut this.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // In a handshake TLS reads next, and what is to be sent is sent where that has to wait.
        if this.activity.is_some() && this.is_sent_now() {
            ready!(this.poll_send(cx))?;
        }
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_shutdown(cx)
    }
}

impl Drop for Gathered {
    /// A handshake that fails ends with an alert (RFC 8446 §6.2), and nothing is read after it.
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let _ = self.socket.try_write(&self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    async fn pair() -> (Gathered, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        (Gathered::new(socket), peer)
    }

    /// What the peer gets until nothing comes any more.
    async fn got(peer: &mut TcpStream) -> Vec<u8> {
        let mut got = Vec::new();
        let mut piece = [0; 4_096];
        while let Ok(Ok(read @ 1..)) = timeout(Duration::from_millis(50), peer.read(&mut piece)).await {
            got.extend_from_slice(&piece[..read]);
        }
        got
    }

    /// Begins to read, and gives up where that would have to wait.
    fn reads_nothing(gathered: &mut Gathered) -> bool {
        gathered.read_u8().now_or_never().is_none()
    }

    #[tokio::test]
    async fn a_flight_is_sent_where_the_next_one_has_to_be_waited_for() {
        let (mut gathered, mut peer) = pair().await;
        gathered.write_all(b"server hello").await.unwrap();
        gathered.flush().await.unwrap();
        assert_eq!(got(&mut peer).await, b"");
        assert!(reads_nothing(&mut gathered));
        assert_eq!(got(&mut peer).await, b"server hello");
    }

    #[tokio::test]
    async fn a_ticket_leaves_with_the_answer() {
        let (mut gathered, mut peer) = pair().await;
        gathered.write_all(b"ticket, ").await.unwrap();
        let activity = Activity::new(None);
        gathered.open(activity.clone());
        // As HTTP reads: for the rest of the request, before it begins with it, and for what comes meanwhile.
        activity.hear();
        assert!(reads_nothing(&mut gathered));
        let under_way = activity.begin();
        assert!(reads_nothing(&mut gathered));
        gathered.flush().await.unwrap();
        assert_eq!(got(&mut peer).await, b"");
        drop(under_way);
        gathered.write_all(b"answer").await.unwrap();
        assert_eq!(got(&mut peer).await, b"ticket, answer");
        gathered.write_all(b", another").await.unwrap();
        assert_eq!(got(&mut peer).await, b", another");
    }

    #[tokio::test]
    async fn a_long_ticket_waits_for_no_answer() {
        for (octets, is_held) in [(MOST_HELD, true), (MOST_HELD + 1, false)] {
            let (mut gathered, mut peer) = pair().await;
            gathered.write_all(&vec![7; octets]).await.unwrap();
            let activity = Activity::new(None);
            gathered.open(activity.clone());
            activity.hear();
            assert!(reads_nothing(&mut gathered));
            assert_eq!(got(&mut peer).await.is_empty(), is_held, "{octets}");
        }
    }

    #[tokio::test]
    async fn whoever_asks_for_nothing_has_the_ticket_at_once() {
        for flushed in [false, true] {
            let (mut gathered, mut peer) = pair().await;
            gathered.write_all(b"ticket").await.unwrap();
            gathered.open(Activity::new(None));
            if flushed {
                gathered.flush().await.unwrap();
            } else {
                assert!(reads_nothing(&mut gathered));
            }
            assert_eq!(got(&mut peer).await, b"ticket");
        }
    }

    #[tokio::test]
    async fn nothing_is_lost_with_the_connection() {
        for is_shut_down in [false, true] {
            let (mut gathered, mut peer) = pair().await;
            gathered.write_all(b"alert").await.unwrap();
            if is_shut_down {
                gathered.shutdown().await.unwrap();
            }
            drop(gathered);
            let mut all = Vec::new();
            peer.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"alert");
        }
    }

    /// More than a socket takes at once.
    const MUCH: usize = 16 << 20;

    #[tokio::test]
    async fn what_a_slow_peer_takes_piece_by_piece_keeps_its_order() {
        let (mut gathered, mut peer) = pair().await;
        let held: Vec<u8> = (0..MUCH).map(|at| (at % 251) as u8).collect();
        gathered.write_all(&held).await.unwrap();
        gathered.open(Activity::new(None));
        let writing = async {
            gathered.write_all(b"answer").await.unwrap();
            gathered.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        let (read, ()) = tokio::join!(peer.read_to_end(&mut all), writing);
        assert_eq!(read.unwrap(), MUCH + b"answer".len());
        assert!(all == [held.as_slice(), b"answer"].concat());
    }

    #[tokio::test]
    async fn a_reader_sends_on_as_a_slow_peer_takes_it() {
        let (mut gathered, mut peer) = pair().await;
        gathered.write_all(&vec![7; MUCH]).await.unwrap();
        let asking = async {
            let mut all = vec![0; MUCH];
            peer.read_exact(&mut all).await.unwrap();
            peer.write_u8(8).await.unwrap();
            all
        };
        let (read, all) = tokio::join!(gathered.read_u8(), asking);
        assert_eq!(read.unwrap(), 8);
        assert!(all.iter().all(|octet| *octet == 7));
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_an_error_and_no_endless_wait() {
        let (mut gathered, _peer) = pair().await;
        gathered.write_all(b"ticket").await.unwrap();
        gathered.open(Activity::new(None));
        // The peer says nothing, so reading would wait for ever.
        socket2::SockRef::from(&gathered.socket).shutdown(std::net::Shutdown::Write).unwrap();
        let reading = timeout(Duration::from_secs(5), gathered.read_u8()).await.unwrap();
        assert_eq!(reading.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(gathered.write_all(b"answer").await.is_err());
    }
}
