//! Connections of the operating system, in the clear.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

use crate::ids::Region;
use crate::seams::IoFuture;
use crate::seams::transport::{Established, Incoming, Listener, Remote, Transport};

/// Dials over TCP, without delay of small packets, with keep-alive probes.
#[derive(Debug, Default)]
pub struct TcpTransport {
    dials: AtomicUsize,
}

impl Transport for TcpTransport {
    /// Nobody proves anything in the clear, so whom to expect is of no use here.
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        _expected: Option<&'a Region>,
    ) -> IoFuture<'a, Established> {
        Box::pin(async move {
            let stream = self.dial(host, port).await?;
            let remote = Remote {
                address: stream.peer_addr().ok(),
                identity: None,
            };
            let io = Box::new(stream);
            Ok(Established { io, remote })
        })
    }
}

impl TcpTransport {
    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
        }
        // Each dial begins with another address: one that swallows packets uses up the whole time.
        let turn = self.dials.fetch_add(1, Ordering::Relaxed) % addresses.len();
        addresses.rotate_left(turn);
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for address in addresses {
            match dial(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.connect(address).await
}

/// The next connection, without delay of small packets.
pub(super) async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, address))
}

impl Listener for TcpListener {
    fn accept(&self) -> IoFuture<'_, Incoming> {
        Box::pin(async move {
            let (stream, address) = accept(self).await?;
            let remote = Remote {
                address: Some(address),
                identity: None,
            };
            let io = Box::new(stream);
            Ok(Incoming {
                address: Some(address),
                handshake: Box::pin(async move { Ok(Established { io, remote }) }),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn names_are_resolved_and_bytes_go_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let transport = TcpTransport::default();
        let accept = Listener::accept(&listener);
        let dial = transport.connect("localhost", port, None);
        let (dialled, accepted) = tokio::join!(dial, accept);
        let handshake = accepted.expect("accepted").handshake;
        let mut dialled = dialled.expect("dialled").io;
        let mut accepted = handshake.await.expect("none is needed").io;
        dialled.write_all(b"ping").await.expect("written");
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"ping");
        accepted.write_all(b"pong").await.expect("written");
        dialled.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"pong");
    }
}
