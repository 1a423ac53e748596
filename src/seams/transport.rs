//! Connections to peers, dialled and accepted. What is spoken over them is none of its business.

use tokio::io::{AsyncRead, AsyncWrite};

use super::IoFuture;

/// A byte stream both ways. Dropping it ends it.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Dials. Encryption, where there is any, is the implementation's: what it returns is ready for use.
pub trait Transport: Send + Sync + 'static {
    /// Resolves the host anew and connects. The host is a name or an address, IPv6 in brackets. The
    /// caller bounds the time.
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> IoFuture<'a, Box<dyn Connection>>;
}

/// Accepts.
pub trait Listener: Send + Sync + 'static {
    /// The next connection. After an error the next call may succeed.
    fn accept(&self) -> IoFuture<'_, Box<dyn Connection>>;
}
