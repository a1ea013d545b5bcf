//! What `POST /token`, `/revoke` and `/introspect` have in common: a form, a decision that nothing cancels, its record, its
//! answer.
//!
//! Takes a request and the path that decides it, makes one call to that, gives what was recorded. It decides nothing; what is
//! refused here could not be read as a request, and is put on record by the path all the same.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Response};
use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use tokio::runtime::Handle;

use super::{Places, form, observe, response};
use crate::app::App;
use crate::audit::{Recorded, RequestId};
use crate::config::Limits;
use crate::error::Refusal;
use crate::pki::PresentedChain;
use crate::request::{Parameters, RequestRefusal};

/// What a path decides on.
pub(super) struct Question {
    pub(super) app: Arc<App>,
    pub(super) peer: Arc<PresentedChain>,
    pub(super) parameters: Result<Parameters, RequestRefusal>,
    pub(super) request_id: RequestId,
    pub(super) now: UnixTime,
}

/// Lets `path` decide a request, and gives `answer` to what it came to.
pub(super) async fn decided<T, Deciding>(
    endpoint: &'static str,
    (app, places): (Arc<App>, Places),
    peer: Arc<PresentedChain>,
    request: Request,
    path: impl FnOnce(Question) -> Deciding + Send + 'static,
    answer: impl FnOnce(T) -> Response<Body>,
) -> Response<Body>
where
    T: Send + 'static,
    Deciding: Future<Output = Recorded<Result<T, Refusal>>> + Send,
{
    let began = app.clock.monotonic();
    let (head, body) = request.into_parts();
    // Before any work, the reading of the body included: whoever is refused here costs next to nothing.
    let let_in = app
        .rates
        .count_request(peer.handshake.remote.ip(), peer.thumbprint())
        .and_then(|()| places.look(began, app.audit.commit_time()));
    let scheme = authorization_scheme(&head.headers);
    let parameters = match let_in {
        Ok(()) => parameters(head, body, scheme.is_some(), &app.config.limits).await,
        Err(refusal) => {
            // Not kept for as long as the answer may be.
            drop((head, body));
            Err(refusal)
        }
    };
    let request_id = RequestId::random(app.clock.now());
    // A peer that resets each HTTP/2 stream as soon as it has sent it (CVE-2023-44487) makes room for the next one, but not
    // here. No place is held while a body is awaited.
    let question = parameters.and_then(|parameters| Ok((parameters, places.take(app.clock.monotonic())?)));
    let recorded = match question {
        // From here on nothing can be cancelled: whoever hangs up still leaves a record (design §4).
        Ok((parameters, place)) => {
            let (app, request_id) = (app.clone(), request_id.clone());
            let deciding = async move {
                let (now, parameters) = (app.clock.now(), Ok(parameters));
                let recorded = path(Question { app: app.clone(), peer, parameters, request_id, now }).await;
                if matches!(recorded.answer(), Ok(_) | Err(Refusal::Audit(_))) {
                    place.decided(app.clock.monotonic(), app.audit.commit_time());
                }
                recorded
            };
            AssertUnwindSafe(Uncancelled::new(deciding)).catch_unwind().await
        }
        // Counted, which waits for nothing. (In a box: it need not make the other way's future larger.)
        Err(refusal) => {
            let wait = if refusal == RequestRefusal::Overloaded { places.push_back() } else { None };
            let (now, parameters) = (app.clock.now(), Err(refusal));
            let (app, request_id) = (app.clone(), request_id.clone());
            let recorded = Box::pin(path(Question { app, peer, parameters, request_id, now })).await;
            if let Some(pushed_back) = wait {
                tokio::time::sleep(pushed_back.wait()).await;
            }
            Ok(recorded)
        }
    };
    let (reason, response) = match recorded {
        Ok(recorded) => match recorded.into_answer() {
            Ok(decided) => ("ok", answer(decided)),
            Err(refusal) => {
                let reason = refusal.reason();
                tracing::debug!(request.id = %request_id, endpoint, refusal = reason, "refused");
                (reason, refused(scheme.as_deref(), &refusal))
            }
        },
        Err(_panic) => {
            tracing::error!(request.id = %request_id, endpoint, "a request was not decided");
            ("undecided", response::failure())
        }
    };
    let response = response::with_request_id(response, &request_id);
    observe(endpoint, reason, &response, Some(app.clock.monotonic().saturating_sub(began)));
    response
}

/// Work that goes on without whoever waits for it: dropped before it has ended, it is brought to its end in a task of its own.
/// Nearly every request is waited for, and those are spared that task and the two switches that go with it.
struct Uncancelled<Work>
where
    Work: Future<Output: Send> + Send + 'static,
{
    work: Option<Pin<Box<Work>>>,
    runtime: Handle,
}

impl<Work> Uncancelled<Work>
where
    Work: Future<Output: Send> + Send + 'static,
{
    fn new(work: Work) -> Self {
        Self { work: Some(Box::pin(work)), runtime: Handle::current() }
    }
}

impl<Work> Future for Uncancelled<Work>
where
    Work: Future<Output: Send> + Send + 'static,
{
    type Output = Work::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Taken out while it runs: what has panicked is not run again.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<Work> Drop for Uncancelled<Work>
where
    Work: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.runtime.spawn(work);
        }
    }
}

/// The parameters of a request by a client: in the body, and no second way to authenticate beside them.
async fn parameters(
    head: Parts,
    body: Body,
    with_authorization: bool,
    limits: &Limits,
) -> Result<Parameters, RequestRefusal> {
    form::check_host(&head)?;
    // RFC 6749 §2.3.1, §3.2: parameters travel in the body. One in the URI would end up in logs, and two readers could
    // take two different ones for the request.
    if head.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(RequestRefusal::ParameterInQuery);
    }
    let parameters = form::read(head, body, limits).await?;
    if with_authorization {
        // RFC 6749 §2.3: no more than one method in a request; otherwise it is one that no client is registered for.
        let second = ["client_assertion", "client_assertion_type", "client_secret"];
        let twice = parameters.0.iter().any(|(name, value)| second.contains(&name.as_str()) && !value.is_empty());
        return Err(if twice { RequestRefusal::TwoAuthenticationMethods } else { RequestRefusal::AuthorizationHeader });
    }
    Ok(parameters)
}

/// A refusal, with a challenge where the client used the `Authorization` header.
fn refused(scheme: Option<&str>, refusal: &Refusal) -> Response<Body> {
    match (scheme, refusal) {
        (Some(scheme), Refusal::Request(RequestRefusal::AuthorizationHeader)) => response::challenge(scheme),
        _ => response::refusal(refusal),
    }
}

/// The scheme of the first `Authorization` header, as sent; empty where it is none.
fn authorization_scheme(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?;
    Some(value.to_str().ok().and_then(|value| value.split(' ').next()).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    /// Work that waits for a word, and counts how often it was begun and ended.
    fn work(
        begun: &Arc<AtomicUsize>,
        word: oneshot::Receiver<()>,
        ended: oneshot::Sender<()>,
    ) -> Uncancelled<impl Future<Output = ()> + Send + 'static> {
        let begun = Arc::clone(begun);
        Uncancelled::new(async move {
            begun.fetch_add(1, Ordering::SeqCst);
            let _ = word.await;
            let _ = ended.send(());
        })
    }

    #[tokio::test]
    async fn what_is_waited_for_is_no_task_of_its_own() {
        let begun = Arc::default();
        let (word, heard) = oneshot::channel();
        let (ended, end) = oneshot::channel();
        let waiting = work(&begun, heard, ended);
        word.send(()).unwrap();
        let tasks = Handle::current().metrics().num_alive_tasks();
        waiting.await;
        end.await.unwrap();
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_goes_on_where_it_was() {
        for polls in [0, 1, 2] {
            let begun = Arc::default();
            let (word, heard) = oneshot::channel();
            let (ended, end) = oneshot::channel();
            let mut waiting = work(&begun, heard, ended);
            for _ in 0..polls {
                assert!(futures_util::poll!(&mut waiting).is_pending());
            }
            drop(waiting);
            word.send(()).unwrap();
            end.await.unwrap();
            assert_eq!(begun.load(Ordering::SeqCst), 1, "{polls} polls");
        }
    }

    #[tokio::test]
    async fn what_has_panicked_is_not_run_again() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let panicking = Uncancelled::new(async move {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            panic!("on purpose");
        });
        assert!(AssertUnwindSafe(panicking).catch_unwind().await.is_err());
        tokio::task::yield_now().await;
        assert_eq!(begun.load(Ordering::SeqCst), 1);
    }
}
