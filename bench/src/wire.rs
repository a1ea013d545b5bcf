//! One client's connection: HTTP/1.1 over TLS, one request after the other, on the thread that asks.
//!
//! Takes an address, TLS settings and requests as octets, gives answers. It is thin on purpose: it shares the cores with the
//! server that is measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use rustls_pki_types::ServerName;

use crate::Failure;

/// How long an answer may take before the measurement counts as failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection.
pub(crate) struct Line {
    stream: StreamOwned<ClientConnection, TcpStream>,
    heard: Vec<u8>,
}

/// An answer, as long as nothing else is asked.
pub(crate) struct Answer<'a> {
    /// Its status code.
    pub(crate) status: u16,
    /// Its body.
    pub(crate) body: &'a [u8],
}

impl Line {
    /// Connects. The handshake is made with the first request.
    pub(crate) fn open(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Self, Failure> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let connection = ClientConnection::new(config, ServerName::try_from("localhost")?)?;
        Ok(Self { stream: StreamOwned::new(connection, socket), heard: Vec::with_capacity(4_096) })
    }

    /// Asks, and waits for the whole answer.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Answer<'_>, Failure> {
        self.stream.write_all(request)?;
        self.stream.flush()?;
        self.heard.clear();
        let mut whole = None;
        loop {
            if whole.is_none()
                && let Some(end) = self.heard.windows(4).position(|window| window == b"\r\n\r\n")
            {
                whole = Some(Head::read(&self.heard[..end], end + 4)?);
            }
            if let Some(head) = &whole
                && self.heard.len() >= head.body_from + head.body_length
            {
                let body = &self.heard[head.body_from..head.body_from + head.body_length];
                return Ok(Answer { status: head.status, body });
            }
            let mut some = [0; 4_096];
            match self.stream.read(&mut some)? {
                0 => return Err("the server closed the connection before its answer was there".into()),
                read => self.heard.extend_from_slice(&some[..read]),
            }
        }
    }

    /// How the handshake went.
    pub(crate) fn kind(&self) -> Option<HandshakeKind> {
        self.stream.conn.handshake_kind()
    }

    /// Says that nothing more is asked, as TLS wants it (RFC 8446 §6.1).
    pub(crate) fn close(mut self) {
        self.stream.conn.send_close_notify();
        // Whoever has gone already need not be told.
        let _ = self.stream.conn.write_tls(&mut self.stream.sock);
    }
}

struct Head {
    status: u16,
    body_from: usize,
    body_length: usize,
}

impl Head {
    fn read(head: &[u8], body_from: usize) -> Result<Self, Failure> {
        let head = std::str::from_utf8(head)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or("an answer without a status")?;
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim())
        });
        let body_length = length.ok_or("an answer without Content-Length")?.parse()?;
        Ok(Self { status: status.parse()?, body_from, body_length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Option<(u16, usize)> {
        Head::read(head.as_bytes(), head.len() + 4).ok().map(|head| (head.status, head.body_length))
    }

    #[test]
    fn a_head_by_any_spelling_of_its_length() {
        for name in ["Content-Length", "content-length", "CONTENT-LENGTH"] {
            assert_eq!(read(&format!("HTTP/1.1 200 OK\r\nx: y\r\n{name}:  17")), Some((200, 17)));
        }
    }

    #[test]
    fn an_answer_that_does_not_say_its_length_is_none() {
        for head in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ncontent-length: -1",
            "HTTP/1.1 200 OK\r\ncontent-length: 1, 1",
            "HTTP/1.1",
            "",
        ] {
            assert_eq!(read(head), None, "{head:?}");
        }
    }
}
