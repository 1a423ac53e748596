//! Connections, dialled and accepted, and who is at the other end. What is spoken over them is none of
//! its business, and how the other end proved who it is neither.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};

use super::IoFuture;
use crate::ids::Region;

/// A byte stream both ways. Dropping it ends it.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Who somebody proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// The node of a region of this cluster.
    Region(Region),
    /// One who may do what operators do.
    Operator,
}

/// What is known of the other end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remote {
    /// None where connections have no addresses.
    pub address: Option<SocketAddr>,
    /// None where nothing was proved.
    pub identity: Option<Identity>,
}

impl Remote {
    /// The region whose node it proved to be.
    pub fn region(&self) -> Option<&Region> {
        match &self.identity {
            Some(Identity::Region(region)) => Some(region),
            Some(Identity::Operator) | None => None,
        }
    }
}

/// A connection that is ready for use, and its other end.
pub struct Established {
    pub io: Box<dyn Connection>,
    pub remote: Remote,
}

impl Established {
    /// With an end of which nothing is known.
    pub fn anonymous(io: impl Connection) -> Self {
        Self {
            io: Box::new(io),
            remote: Remote::default(),
        }
    }
}

/// Dials. Encryption, where there is any, is the implementation's: what it returns is ready for use.
pub trait Transport: Send + Sync + 'static {
    /// Resolves the host anew and connects. The host is a name or an address, IPv6 in brackets. Where
    /// peers prove who they are, one of another region than `expected` is refused. The caller bounds the
    /// time.
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        expected: Option<&'a Region>,
    ) -> IoFuture<'a, Established>;
}

/// A connection that was accepted and is not ready for use yet.
pub struct Incoming {
    pub address: Option<SocketAddr>,
    /// Whatever must be said before the connection is ready. An error says why it will never be. The
    /// caller bounds the time and the number.
    pub handshake: IoFuture<'static, Established>,
}

/// Accepts.
pub trait Listener: Send + Sync + 'static {
    /// The next connection, as soon as it is there: it is not waited for its handshake. After an error the
    /// next call may succeed. Dropping the future loses no connection.
    fn accept(&self) -> IoFuture<'_, Incoming>;
}
