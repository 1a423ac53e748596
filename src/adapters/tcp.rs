//! Connections of the operating system, in the clear.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;

use crate::ids::Region;
use crate::limits::{REFUSAL_BYTES_MAX, REFUSAL_LINGER};
use crate::seams::IoFuture;
use crate::seams::transport::{Established, Incoming, Listener, Remote, Transport};

/// The first byte of what a TLS client says, and of a TLS server's word that it is no client. HTTP/2 begins
/// with neither.
const TLS_HANDSHAKE: u8 = 22;
const TLS_ALERT: u8 = 21;
/// Answers a client that speaks TLS, which would take silence for a fault of the network.
const NO_TLS_HERE: &[u8] = b"this port does not speak TLS\n";

const TLS_DEMANDED: &str = "the peer demands TLS, and this node has no certificates (peers.tls)";
const IN_THE_CLEAR: &str = "the address is not on this machine, and peers elsewhere are spoken to under \
     TLS only (peers.tls), unless peers.insecure says otherwise";

/// Which addresses are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Reach {
    #[default]
    ThisMachine,
    Anywhere,
}

/// Dials over TCP, without delay of small packets, with keep-alive probes. Unless told otherwise this
/// machine alone, for what is spoken in the clear can be changed on the way.
#[derive(Debug, Default)]
pub struct TcpTransport {
    reach: Reach,
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
            let io = Box::new(Plain::new(stream));
            Ok(Established { io, remote })
        })
    }
}

impl TcpTransport {
    /// Dials other machines too.
    pub fn anywhere() -> Self {
        Self {
            reach: Reach::Anywhere,
            dials: AtomicUsize::new(0),
        }
    }

    pub(super) async fn dial(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
        }
        if self.reach == Reach::ThisMachine {
            addresses.retain(|address| address.ip().to_canonical().is_loopback());
        }
        if addresses.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                IN_THE_CLEAR,
            ));
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
    /// The handshake is a look at the first byte.
    fn accept(&self) -> IoFuture<'_, Incoming> {
        Box::pin(async move {
            let (stream, address) = accept(self).await?;
            Ok(Incoming {
                address: Some(address),
                handshake: Box::pin(plain(stream, address)),
            })
        })
    }
}

async fn plain(stream: TcpStream, address: SocketAddr) -> io::Result<Established> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE {
        let_go(stream, NO_TLS_HERE).await;
        let problem = "the other side speaks TLS, and this node has no certificates for this port";
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let remote = Remote {
        address: Some(address),
        identity: None,
    };
    let io = Box::new(stream);
    Ok(Established { io, remote })
}

/// Says last words and ends the connection so that they arrive: a socket that is closed with bytes unread
/// takes back what it said.
pub(super) async fn let_go(mut stream: TcpStream, words: &[u8]) {
    let linger = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(REFUSAL_BYTES_MAX);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    match timeout(REFUSAL_LINGER, linger).await {
        Ok(Ok(_)) | Err(_) => {}
        Ok(Err(error)) => tracing::trace!(%error, "a refused connection was gone already"),
    }
}

/// A dialled connection in the clear, which tells when the other side wants TLS.
struct Plain {
    stream: TcpStream,
    has_read: bool,
}

impl Plain {
    fn new(stream: TcpStream) -> Self {
        let has_read = false;
        Self { stream, has_read }
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(first) = buffer.filled().get(before).filter(|_| !self.has_read) else {
            return read;
        };
        if *first == TLS_ALERT {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                TLS_DEMANDED,
            )));
        }
        self.has_read = true;
        read
    }
}

impl AsyncWrite for Plain {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
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
        dialled.write_all(b"ping").await.expect("written");
        let mut accepted = handshake.await.expect("in the clear").io;
        let mut bytes = [0; 4];
        accepted.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"ping");
        accepted.write_all(b"pong").await.expect("written");
        dialled.read_exact(&mut bytes).await.expect("read");
        assert_eq!(&bytes, b"pong");
    }
}
