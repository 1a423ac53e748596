//! Connections of the operating system, in the clear.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::{TcpListener, TcpSocket, lookup_host};

use crate::seams::IoFuture;
use crate::seams::transport::{Connection, Listener, Transport};

/// Dials over TCP, without delay of small packets, with keep-alive probes.
#[derive(Debug, Default)]
pub struct TcpTransport {
    dials: AtomicUsize,
}

impl Transport for TcpTransport {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> IoFuture<'a, Box<dyn Connection>> {
        Box::pin(async move {
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
                    Ok(connection) => return Ok(connection),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }
}

async fn dial(address: SocketAddr) -> io::Result<Box<dyn Connection>> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    socket.set_keepalive(true)?;
    Ok(Box::new(socket.connect(address).await?))
}

impl Listener for TcpListener {
    fn accept(&self) -> IoFuture<'_, Box<dyn Connection>> {
        Box::pin(async move {
            let (stream, _) = TcpListener::accept(self).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
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
        let (dialled, accepted) = tokio::join!(transport.connect("localhost", port), accept);
        let (mut dialled, mut accepted) = (dialled.expect("dialled"), accepted.expect("accepted"));
        dialled.write_all(b"ping").await.expect("written");
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"ping");
        accepted.write_all(b"pong").await.expect("written");
        dialled.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"pong");
    }
}
