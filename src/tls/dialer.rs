//! Connections that this server opens itself.
//!
//! Takes a host, a port and the files with whom to believe, gives a stream to that host and no other. The files are read for
//! each connection: a certificate that was renewed is presented with the next one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::client_config::{ClientConfigError, sending_config};

/// How long the other end's machine may leave unacknowledged what was sent to it, before the connection is over.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A stream to somebody whose name was verified.
pub type DialedStream = TlsStream<TcpStream>;

/// Whom a client believes, and what it presents: PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificate authorities; where there are none, what the system trusts.
    pub roots: Option<PathBuf>,
    /// The certificate to present, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientFilesError {
    /// One of them cannot be read.
    #[error("{}: {}", .0.display(), .1)]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// What is in them cannot be used.
    #[error(transparent)]
    Unusable(#[from] ClientConfigError),
}

impl ClientFiles {
    /// Reads them.
    ///
    /// # Errors
    /// [`ClientFilesError`].
    pub fn read(&self) -> Result<ClientConfig, ClientFilesError> {
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| ClientFilesError::Unreadable(path.to_owned(), error));
        let roots = self.roots.as_deref().map(read).transpose()?;
        let identity = match &self.identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        let identity = identity.as_ref().map(|(certificate, key)| (&**certificate, &**key));
        Ok(sending_config(roots.as_deref(), identity)?)
    }
}

/// Opens connections to one server.
#[derive(Clone, Debug)]
pub struct Dialer {
    host: String,
    port: u16,
    files: ClientFiles,
}

impl Dialer {
    /// For the server at `host`: a name, or an address without brackets.
    pub const fn new(host: String, port: u16, files: ClientFiles) -> Self {
        Self { host, port, files }
    }

    /// A connection whose handshake is complete.
    ///
    /// # Errors
    /// The server cannot be reached, or is not whom its certificate would have to name.
    pub async fn dial(&self) -> std::io::Result<DialedStream> {
        let config = self.files.read().map_err(std::io::Error::other)?;
        let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        #[cfg(target_os = "linux")]
        socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}
