//! TLS that nobody should speak, octet by octet: a ServerHello for a ClientHello that a decent library refuses.
//!
//! Enough for a probe that asks whether the server would go on; there is no handshake behind it.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::defect::{Broken, Defect};

/// Whether the connection was answered here.
pub(crate) async fn answered(stream: &mut TcpStream, broken: &Broken) -> io::Result<bool> {
    let defects = [
        Defect::Tls10,
        Defect::Tls10AfterWarning,
        Defect::Tls10Coalesced,
        Defect::Tls10Split,
        Defect::Tls11,
        Defect::WeakSuites,
        Defect::WeakSuitesPreferred,
    ];
    if !defects.into_iter().any(|defect| broken.is(defect)) {
        return Ok(false);
    }
    let mut octets = [0; 4096];
    let length = stream.peek(&mut octets).await?;
    let Some(hello) = ClientHello::read(&octets[..length]) else { return Ok(false) };
    let version = hello.newest_version();
    let of_tls10 = [Defect::Tls10, Defect::Tls10AfterWarning, Defect::Tls10Coalesced, Defect::Tls10Split];
    let answers = match version {
        0x0301 => of_tls10.into_iter().any(|one| broken.is(one)),
        0x0302 => broken.is(Defect::Tls11),
        0x0303 => {
            let none_is_decent = !hello.suites.iter().any(|suite| is_decent(*suite));
            broken.is(Defect::WeakSuites) && none_is_decent || broken.is(Defect::WeakSuitesPreferred) && !none_is_decent
        }
        _ => false,
    };
    let Some(suite) = hello.suites.first().filter(|_| answers) else { return Ok(false) };
    stream.read_exact(&mut octets[..length]).await?;
    let message = server_hello(version, *suite);
    // RFC 5246 §6.2.1: how messages lie in records is the sender's choice.
    let records = match message.split_at(message.len() / 2) {
        _ if broken.is(Defect::Tls10AfterWarning) => [NO_RENEGOTIATION, &record(version, &message)].concat(),
        _ if broken.is(Defect::Tls10Coalesced) => record(version, &[&message[..], CERTIFICATE].concat()),
        (one, other) if broken.is(Defect::Tls10Split) => [record(version, one), record(version, other)].concat(),
        _ => record(version, &message),
    };
    stream.write_all(&records).await?;
    stream.shutdown().await?;
    Ok(true)
}

/// What a ClientHello says, as far as it matters here (RFC 8446 §4.1.2).
struct ClientHello {
    version: u16,
    suites: Vec<u16>,
    /// supported_versions (RFC 8446 §4.2.1).
    versions: Vec<u16>,
}

impl ClientHello {
    /// Out of the first record of a connection.
    fn read(record: &[u8]) -> Option<Self> {
        let mut rest = record;
        // RFC 8446 §5.1: handshake, version, length; §4: client_hello, length.
        if take(&mut rest, 1)? != [22] {
            return None;
        }
        take(&mut rest, 4)?;
        if take(&mut rest, 1)? != [1] {
            return None;
        }
        take(&mut rest, 3)?;
        let version = number(take(&mut rest, 2)?);
        take(&mut rest, 32)?;
        let session = take(&mut rest, 1)?[0];
        take(&mut rest, session.into())?;
        let length = number(take(&mut rest, 2)?);
        let suites = take(&mut rest, length.into())?.chunks(2).map(number).collect();
        let compressions = take(&mut rest, 1)?[0];
        take(&mut rest, compressions.into())?;
        Some(Self { version, suites, versions: supported_versions(rest).unwrap_or_default() })
    }

    fn newest_version(&self) -> u16 {
        // RFC 8701: values of the form 0x?A?A are grease.
        self.versions.iter().copied().filter(|version| *version <= 0x0304).max().unwrap_or(self.version)
    }
}

fn supported_versions(mut rest: &[u8]) -> Option<Vec<u16>> {
    take(&mut rest, 2)?;
    loop {
        let kind = number(take(&mut rest, 2)?);
        let length = number(take(&mut rest, 2)?);
        let content = take(&mut rest, length.into())?;
        if kind == 43 {
            return Some(content.get(1..)?.chunks(2).map(number).collect());
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number(octets: &[u8]) -> u16 {
    octets.iter().fold(0, |number, octet| number << 8 | u16::from(*octet))
}

/// A suite that rustls knows: ECDHE with an AEAD. TLS 1.3's are no suites of TLS 1.2.
const fn is_decent(suite: u16) -> bool {
    matches!(suite, 0xC02B | 0xC02C | 0xC02F | 0xC030 | 0xCCA8 | 0xCCA9)
}

/// An alert that is always a warning, after which the server goes on (RFC 5246 §7.2.2).
const NO_RENEGOTIATION: &[u8] = &[21, 3, 1, 0, 2, 1, 100];

/// A Certificate message without a certificate (RFC 5246 §7.4.2).
const CERTIFICATE: &[u8] = &[11, 0, 0, 3, 0, 0, 0];

/// RFC 5246 §7.4.1.3.
fn server_hello(version: u16, suite: u16) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([0x5A; 32]);
    body.push(0);
    body.extend(suite.to_be_bytes());
    body.push(0);
    let [high, low] = u16::try_from(body.len()).unwrap_or_default().to_be_bytes();
    let mut message = vec![2, 0, high, low];
    message.extend(body);
    message
}

/// RFC 5246 §6.2.1.
fn record(version: u16, content: &[u8]) -> Vec<u8> {
    let mut record = vec![22];
    record.extend(version.to_be_bytes());
    record.extend(u16::try_from(content.len()).unwrap_or_default().to_be_bytes());
    record.extend(content);
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_hello_is_as_long_as_it_says() {
        let record = record(0x0301, &server_hello(0x0301, 0x002F));
        assert_eq!(record.len(), 5 + usize::from(number(&record[3..5])));
        assert_eq!(number(&record[7..9]), 38);
        assert_eq!(record.len(), 9 + 38);
    }

    #[test]
    fn what_is_no_client_hello_is_left_to_the_library() {
        assert!(ClientHello::read(b"GET / HTTP/1.1\r\n\r\n").is_none());
        assert!(ClientHello::read(&[22, 3, 1, 0, 9, 1, 0, 0, 200]).is_none());
    }
}
