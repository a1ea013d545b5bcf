//! How long may a connection be kept that nothing happens on?
//!
//! Takes the stream under HTTP and word of when this side is at work on a call, gives a stream that ends when that was too
//! long ago. Bytes alone keep nothing open: not a request head that comes drop by drop, not PING frames, not an answer
//! that is never fetched. It reads nothing of HTTP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Whether this side is at work on calls of a connection, or when it last was: written by its service, read by its stream.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    at_work: AtomicUsize,
    /// Nanoseconds from `opened` to the end of the last work.
    ended: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { opened: Instant::now(), at_work: AtomicUsize::new(0), ended: AtomicU64::new(0) })
    }

    /// Work begins; it ends when what is returned is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Work {
        self.at_work.fetch_add(1, Ordering::Release);
        Work(Arc::clone(self))
    }

    /// Since when nothing has been done, if nothing is being done.
    fn idle_since(&self) -> Option<Instant> {
        let idle = self.at_work.load(Ordering::Acquire) == 0;
        idle.then(|| self.opened + Duration::from_nanos(self.ended.load(Ordering::Relaxed)))
    }
}

/// A piece of work on a call.
#[derive(Debug)]
pub(crate) struct Work(Arc<Activity>);

impl Drop for Work {
    fn drop(&mut self) {
        let ended = u64::try_from(self.0.opened.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.ended.store(ended, Ordering::Relaxed);
        self.0.at_work.fetch_sub(1, Ordering::Release);
    }
}

pin_project! {
    /// A call that is being answered.
    #[derive(Debug)]
    pub struct Answering<F> {
        #[pin]
        inner: F,
        work: Option<Work>,
    }
}

impl<F> Answering<F> {
    pub(crate) const fn new(inner: F, work: Work) -> Self {
        Self { inner, work: Some(work) }
    }
}

impl<F, B, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<Answer<B>>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(context))?;
        let activity = this.work.take().map(|work| Arc::clone(&work.0));
        Poll::Ready(Ok(answer.map(|inner| Answer { inner, activity, work: None })))
    }
}

pin_project! {
    /// The body of an answer. Waiting for the handler's next piece is work of this side; that the caller fetches the last
    /// one is waited for as long as for a request.
    #[derive(Debug)]
    pub struct Answer<B> {
        #[pin]
        inner: B,
        activity: Option<Arc<Activity>>,
        work: Option<Work>,
    }
}

impl<B: Body> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if this.work.is_none() {
            *this.work = this.activity.as_ref().map(Activity::begin);
        }
        let frame = ready!(this.inner.poll_frame(context));
        *this.work = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A stream that ends when nothing was done for its connection for too long.
#[derive(Debug)]
pub struct Unidle<S> {
    stream: S,
    activity: Arc<Activity>,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    ended: bool,
}

impl<S> Unidle<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>, patience: Duration) -> Self {
        let patience = patience.min(LONGEST_PATIENCE);
        Self { stream, activity, patience, timer: Box::pin(tokio::time::sleep(patience)), ended: false }
    }

    /// The stream inside.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Ready when the patience is over.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while !self.ended {
            ready!(self.timer.as_mut().poll(context));
            let now = Instant::now();
            // While this side is at work there is no deadline, and the next cannot be nearer than this.
            let deadline = self.activity.idle_since().unwrap_or(now) + self.patience;
            if deadline <= now {
                self.ended = true;
                metrics::counter!("countersign_guard_idle_connections_ended_total").increment(1);
            } else {
                self.timer.as_mut().reset(deadline);
            }
        }
        Poll::Ready(())
    }

    /// What could be written is; what could not be within the patience never will.
    fn written<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Pending => self.poll_end(context).map(|()| Err(io::ErrorKind::TimedOut.into())),
            ready => ready,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unidle<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Before the stream is asked, so that bytes which keep coming do not keep the deadline from being seen.
        if this.poll_end(context).is_ready() {
            return Poll::Ready(Ok(())); // as if the caller had closed: HTTP then says good-bye by its own rules
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unidle<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write(context, buffer);
        this.written(context, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_flush(context);
        this.written(context, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_shutdown(context);
        this.written(context, outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.stream).poll_write_vectored(context, buffers);
        this.written(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

// A year, so that instants can be added up.
const LONGEST_PATIENCE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(30);

    fn connected() -> (DuplexStream, Unidle<DuplexStream>, Arc<Activity>) {
        let (caller, stream) = tokio::io::duplex(1);
        let activity = Activity::new();
        let stream = Unidle::new(stream, Arc::clone(&activity), PATIENCE);
        (caller, stream, activity)
    }

    #[tokio::test]
    async fn a_caller_that_says_nothing() {
        let (_caller, mut stream, _) = connected();
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_says_something_all_the_time() {
        let (mut caller, mut stream, _) = connected();
        let dripping = tokio::spawn(async move { while caller.write_all(b"x").await.is_ok() {} });
        while stream.read(&mut [0; 9]).await.unwrap() > 0 {}
        drop(stream);
        dripping.await.unwrap();
    }

    #[tokio::test]
    async fn a_handler_that_takes_its_time() {
        let (_caller, mut stream, activity) = connected();
        let work = activity.begin();
        let early = tokio::time::timeout(4 * PATIENCE, stream.read(&mut [0; 9])).await;
        assert!(early.is_err(), "ended while a call was being answered");
        drop(work);
        assert!(activity.idle_since().unwrap() > activity.opened + 3 * PATIENCE, "patience begins anew");
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_caller_that_does_not_fetch_its_answer() {
        let (_caller, mut stream, _) = connected();
        assert_eq!(stream.write_all(b"12").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn patience_without_end() {
        let (mut caller, stream) = tokio::io::duplex(1);
        let mut stream = Unidle::new(stream, Activity::new(), Duration::MAX);
        caller.write_all(b"x").await.unwrap();
        assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 1);
    }

    /// A body whose piece is not there yet.
    struct Later;

    impl Body for Later {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn this_side_is_at_work_until_the_next_piece_is_there() {
        let activity = Activity::new();
        let mut context = Context::from_waker(Waker::noop());

        let done = std::future::ready(Ok::<_, io::Error>(Response::new(Full::new(Bytes::from_static(b"whole")))));
        let answering = Answering::new(done, activity.begin());
        assert!(activity.idle_since().is_none());
        let mut whole = answering.await.unwrap().into_body();
        assert!(activity.idle_since().is_some(), "the caller's turn");
        assert!(Pin::new(&mut whole).poll_frame(&mut context).is_ready());
        assert!(activity.idle_since().is_some(), "the caller's turn");

        let done = std::future::ready(Ok::<_, io::Error>(Response::new(Later)));
        let mut later = Answering::new(done, activity.begin()).await.unwrap().into_body();
        assert!(Pin::new(&mut later).poll_frame(&mut context).is_pending());
        assert!(activity.idle_since().is_none(), "the handler's turn");
        drop(later);
        assert!(activity.idle_since().is_some(), "nobody's turn");
    }
}
