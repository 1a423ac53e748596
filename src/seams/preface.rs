//! New connections must say soon what they want: the deadline until the first bytes are in.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use super::transport::{Connection, Established, Remote};
use crate::limits::{PREFACE_BYTES, PREFACE_MAX};

/// Watches the first bytes of a connection. Must be made within a runtime.
pub struct PrefaceWatch {
    /// None once enough bytes came.
    deadline: Option<Pin<Box<Sleep>>>,
    missing: usize,
}

impl Default for PrefaceWatch {
    fn default() -> Self {
        Self {
            deadline: Some(Box::pin(sleep(PREFACE_MAX))),
            missing: PREFACE_BYTES,
        }
    }
}

impl PrefaceWatch {
    /// Reads from the connection; fails when the first bytes have not come in time.
    pub fn poll_read(
        &mut self,
        connection: Pin<&mut impl AsyncRead>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = connection.poll_read(context, buffer);
        let Some(deadline) = &mut self.deadline else {
            return read;
        };
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if self.missing == 0 {
            self.deadline = None;
            return read;
        }
        if deadline.as_mut().poll(context).is_ready() {
            let late = "the connection did not say in time what it wants";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, late)));
        }
        read
    }
}

/// A connection that holds its place among those that may be open, until it ends.
pub struct Admitted {
    pub remote: Remote,
    io: Box<dyn Connection>,
    preface: PrefaceWatch,
    _place: OwnedSemaphorePermit,
}

impl Admitted {
    /// Must be called within a runtime.
    pub fn new(established: Established, place: OwnedSemaphorePermit) -> Self {
        Self {
            remote: established.remote,
            io: established.io,
            preface: PrefaceWatch::default(),
            _place: place,
        }
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, preface, .. } = &mut *self;
        preface.poll_read(Pin::new(io), context, buffer)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::{Duration, Instant};

    async fn read(watch: &mut PrefaceWatch, connection: &mut DuplexStream) -> io::Result<usize> {
        let mut bytes = [0; 64];
        let mut buffer = ReadBuf::new(&mut bytes);
        poll_fn(|context| watch.poll_read(Pin::new(&mut *connection), context, &mut buffer))
            .await?;
        Ok(buffer.filled().len())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_too_little_is_given_up() {
        let (mut here, mut there) = duplex(64);
        let mut watch = PrefaceWatch::default();
        there.write_all(b"PRI").await.expect("room");
        assert_eq!(read(&mut watch, &mut here).await.expect("in time"), 3);
        let begun = Instant::now();
        let late = read(&mut watch, &mut here).await.expect_err("silent");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() <= PREFACE_MAX + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_spoken_may_rest() {
        let (mut here, mut there) = duplex(64);
        let mut watch = PrefaceWatch::default();
        there.write_all(&[b'x'; PREFACE_BYTES]).await.expect("room");
        assert_eq!(
            read(&mut watch, &mut here).await.expect("in time"),
            PREFACE_BYTES
        );
        tokio::spawn(async move {
            tokio::time::sleep(PREFACE_MAX * 3).await;
            there.write_all(b"later").await.expect("room");
            std::future::pending::<()>().await;
        });
        assert_eq!(
            read(&mut watch, &mut here).await.expect("never too late"),
            5
        );
    }
}
