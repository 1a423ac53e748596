//! A connection under TLS: how an accepted one comes about, and its errors in words.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::problem::{told, told_of_handshake};
use crate::adapters::tcp;
use crate::seams::transport::{Established, Identity, Remote};

/// The handshake of an accepted connection. `identity` says who shows a certificate that was verified.
pub async fn accept(
    (stream, address): (TcpStream, SocketAddr),
    config: Arc<ServerConfig>,
    other: &'static str,
    identity: impl FnOnce(&CertificateDer<'_>) -> Option<Identity>,
) -> io::Result<Established> {
    let accepted = TlsAcceptor::from(config).accept(stream);
    let stream = match accepted.into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            tcp::let_go(stream, b"").await;
            return Err(told_of_handshake(error, other));
        }
    };
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().and_then(<[_]>::first);
    Ok(Established {
        remote: Remote {
            address: Some(address),
            identity: shown.and_then(identity),
        },
        io: Box::new(Told::new(stream, other)),
    })
}

/// Passes bytes on and tells errors in words. A refusal of this side's certificate comes here, for who
/// dials is done with its handshake before the other side has seen it.
pub struct Told<T> {
    io: T,
    /// Who is at the other end.
    other: &'static str,
}

impl<T> Told<T> {
    pub fn new(io: T, other: &'static str) -> Self {
        Self { io, other }
    }

    fn told<R>(&self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        polled.map_err(|error| told(error, self.other))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Told<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        self.told(read)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Told<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.told(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.io).poll_shutdown(context);
        self.told(shut)
    }
}
