//! Syslog (RFC 5424) over TLS (RFC 5425).
//!
//! Takes runs, gives a message for each record to a receiver whose name was verified. Nothing in the protocol says that a
//! message arrived: what was sent counts as sent once the connection has lived on for a while.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use countersign_resource_server::time::UnixTime;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::line::{Item, Weight};
use super::{Run, Sink, SinkFailure};
use crate::tls::{DialedStream, Dialer};

/// How long connecting may take, and how long a run: together shorter than a turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long after it was sent a message may still turn out to be lost: longer than it takes to learn that the other end's
/// machine has not acknowledged it ([`Dialer`]).
const SETTLES_AFTER: Duration = Duration::from_secs(15);

/// How often a receiver that talks is listened to at one time. RFC 5425 has nothing for it to say.
const READS: usize = 16;

/// Sends messages.
#[derive(Debug)]
pub struct SyslogSink {
    dialer: Dialer,
    facility: u8,
    host: String,
    stream: Option<DialedStream>,
}

impl SyslogSink {
    /// Sends through `dialer`, under this facility, 0 to 23, as the machine `host`.
    pub const fn new(dialer: Dialer, facility: u8, host: String) -> Self {
        Self { dialer, facility, host, stream: None }
    }

    async fn write(&mut self, octets: &[u8]) -> std::io::Result<()> {
        // One that is gone was so before anything of this run was on it.
        if let Some(stream) = &mut self.stream {
            is_open(stream)?;
        }
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let dialed = timeout(PATIENCE, self.dialer.dial()).await.unwrap_or_else(|_| Err(timed_out()))?;
                self.stream.insert(dialed)
            }
        };
        let written = async {
            stream.write_all(octets).await?;
            stream.flush().await
        };
        timeout(PATIENCE, written).await.unwrap_or_else(|_| Err(timed_out()))
    }
}

impl Sink for SyslogSink {
    fn name(&self) -> &'static str {
        "syslog"
    }

    fn send<'a>(&'a mut self, run: &'a Run) -> BoxFuture<'a, Result<(), SinkFailure>> {
        async move {
            let octets: Vec<u8> =
                run.items().iter().flat_map(|item| frame(&message(item, self.facility, &self.host))).collect();
            let written = self.write(&octets).await;
            written.map_err(|error| {
                self.stream = None;
                SinkFailure::because(error)
            })
        }
        .boxed()
    }

    fn settles_after(&self) -> Duration {
        SETTLES_AFTER
    }

    fn look(&mut self) -> BoxFuture<'_, Result<(), SinkFailure>> {
        async move {
            // Where there is none nothing was sent since the last failure.
            let open = self.stream.as_mut().map_or(Ok(()), is_open);
            open.map_err(|error| {
                self.stream = None;
                SinkFailure::because(error)
            })
        }
        .boxed()
    }
}

/// Whether the other end is still there, as far as this one has been told. Does not wait.
fn is_open(stream: &mut DialedStream) -> std::io::Result<()> {
    let mut octets = [0; 4096];
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..READS {
        let mut buffer = ReadBuf::new(&mut octets);
        match Pin::new(&mut *stream).poll_read(&mut context, &mut buffer) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Err(ended()),
            // What it says is for nobody.
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Err(error),
        }
    }
    Ok(())
}

fn ended() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the receiver has closed the connection")
}

fn timed_out() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::TimedOut, "the receiver did not take it in time")
}

/// RFC 5425 §4.3: MSG-LEN, a space, the message; the length counts octets.
fn frame(message: &[u8]) -> Vec<u8> {
    [message.len().to_string().as_bytes(), b" ", message].concat()
}

/// RFC 5424 §6: header, no structured data, and the line as the message.
fn message(item: &Item<'_>, facility: u8, host: &str) -> Vec<u8> {
    let (kind, weight) = item.kind();
    // §6.2.1: facility times eight, plus severity (table 2).
    let severity = match weight {
        Weight::Notice => 5,
        Weight::Informational => 6,
    };
    let priority = u32::from(facility) * 8 + severity;
    // §6.2.2: version 1. §6.2.6: no process id, for a record may be another's.
    // §6.3: SD-IDs without `@` are for IANA to give, those with it need an enterprise number, and we have none; what would
    // stand there is in the message, which is the same line as in a file.
    let header = format!(
        "<{priority}>1 {} {} countersign - {} - ",
        timestamp(item.at()),
        printable(host, 255),
        printable(&kind, 32)
    );
    // §6.4: what is encoded in UTF-8 begins with the byte order mark.
    [header.as_bytes(), b"\xEF\xBB\xBF", item.line().as_bytes()].concat()
}

/// §6.2.3: RFC 3339 in upper case, up to six digits of a fraction; NILVALUE for what cannot be written so.
fn timestamp(at: UnixTime) -> String {
    let text = at.to_string();
    if text.ends_with('Z') { text } else { "-".to_owned() }
}

/// PRINTUSASCII of a bounded length (§6), or NILVALUE.
fn printable(text: &str, longest: usize) -> &str {
    let good = (1..=longest).contains(&text.len()) && text.bytes().all(|octet| matches!(octet, 0x21..=0x7E));
    if good { text } else { "-" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::forward::tests::{checkpoint, entry};

    fn text(item: &Item<'_>) -> String {
        String::from_utf8(message(item, 13, "as.example")).unwrap()
    }

    #[test]
    fn a_message_is_header_and_line() {
        let record = entry(1, 7, r#"{"kind":"decision","outcome":"issued"}"#);
        let hash = record.hash;
        assert_eq!(
            text(&Item::Record(&record)),
            format!(
                "<110>1 2027-01-15T08:00:00.000Z as.example countersign - decision - \u{feff}\
                 {{\"chain\":1,\"sequence\":7,\"at\":1800000000000,\"hash\":\"{hash}\",\
                 \"record\":{{\"kind\":\"decision\",\"outcome\":\"issued\"}}}}"
            )
        );
        let checkpoint = checkpoint(3, "a.b.c");
        assert_eq!(
            text(&Item::Checkpoint(&checkpoint)),
            "<110>1 2027-01-15T08:00:00.000Z as.example countersign - checkpoint - \u{feff}\
             {\"checkpoint\":{\"number\":3,\"at\":1800000000000,\"statement\":\"a.b.c\"}}"
        );
    }

    #[tokio::test]
    async fn where_nothing_was_sent_nothing_is_lost() {
        let dialer = Dialer::new("localhost".to_owned(), 6514, crate::tls::ClientFiles::default());
        assert_eq!(SyslogSink::new(dialer, 13, "as.example".to_owned()).look().await, Ok(()));
    }

    #[test]
    fn what_was_refused_or_withheld_is_a_notice() {
        for (body, priority) in [
            (r#"{"kind":"decision","outcome":"refused"}"#, "<109>1 "),
            (r#"{"kind":"withheld"}"#, "<109>1 "),
            (r#"{"kind":"refusals"}"#, "<109>1 "),
            (r#"{"kind":"dropped"}"#, "<109>1 "),
            (r#"{"kind":"opened"}"#, "<110>1 "),
            (r#"{"kind":"check","outcome":"checked"}"#, "<110>1 "),
            ("no JSON", "<110>1 "),
        ] {
            assert!(text(&Item::Record(&entry(1, 1, body))).starts_with(priority), "{body}");
        }
    }

    #[test]
    fn a_frame_counts_octets() {
        let record = entry(1, 1, r#"{"kind":"decision","client":"Zürich 東京 \n"}"#);
        let message = message(&Item::Record(&record), 13, "as.example");
        let framed = frame(&message);
        let space = framed.iter().position(|octet| *octet == b' ').unwrap();
        let length: usize = std::str::from_utf8(&framed[..space]).unwrap().parse().unwrap();
        assert_eq!(length, framed.len() - space - 1);
        assert!(length > String::from_utf8(message).unwrap().chars().count());
    }

    #[test]
    fn no_header_field_breaks_the_header() {
        for kind in ["", "two words", "\\u000a", "ü", &"k".repeat(33)] {
            let record = entry(1, 1, &format!(r#"{{"kind":"{kind}"}}"#));
            assert!(text(&Item::Record(&record)).contains(" countersign - - - \u{feff}{"), "{kind}");
        }
        let longest = "k".repeat(32);
        let record = entry(1, 1, &format!(r#"{{"kind":"{longest}"}}"#));
        assert!(text(&Item::Record(&record)).contains(&format!(" countersign - {longest} - ")));
        let ancient = crate::audit::AuditEntry { at: UnixTime::from_millis(i64::MAX), ..entry(1, 1, "{}") };
        assert!(text(&Item::Record(&ancient)).starts_with("<110>1 - as.example "));
    }
}
