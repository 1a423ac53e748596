//! A wire that counts what arrives over it, and breaks when a given amount has.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

const NEVER: u64 = u64::MAX;

/// Where one node dials to reach another. It ends when dropped.
pub struct Counted {
    pub address: SocketAddr,
    line: Arc<Line>,
    accepting: JoinHandle<()>,
}

struct Line {
    target: Mutex<Option<SocketAddr>>,
    /// Bytes that the dialling side was sent,
    arrived: AtomicU64,
    /// and those that it sent.
    sent: AtomicU64,
    /// It breaks when so many have arrived, once.
    breaks_at: AtomicU64,
    /// Grows by one each time that it breaks.
    breaks: watch::Sender<u64>,
}

impl Counted {
    pub async fn lay() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port of the system's choice");
        let line = Arc::new(Line {
            target: Mutex::new(None),
            arrived: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            breaks_at: AtomicU64::new(NEVER),
            breaks: watch::Sender::new(0),
        });
        Self {
            address: listener.local_addr().expect("bound"),
            accepting: tokio::spawn(accept(listener, line.clone())),
            line,
        }
    }

    pub fn lead_to(&self, target: SocketAddr) {
        *self.line.target.lock() = Some(target);
    }

    pub fn arrived(&self) -> u64 {
        self.line.arrived.load(Ordering::Acquire)
    }

    /// Bytes in both directions.
    pub fn crossed(&self) -> u64 {
        self.arrived() + self.line.sent.load(Ordering::Acquire)
    }

    /// All connections end when so many bytes have arrived; later ones are whole.
    pub fn break_at(&self, bytes: u64) {
        self.line.breaks_at.store(bytes, Ordering::Release);
    }

    pub fn has_broken(&self) -> bool {
        *self.line.breaks.borrow() > 0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, line: Arc<Line>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, line.clone()));
            }
        }
    }
}

/// Whatever ends one direction ends the connection.
async fn connection(near: TcpStream, line: Arc<Line>) {
    let mut breaks = line.breaks.subscribe();
    let target = *line.target.lock();
    let Some(target) = target else { return };
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = far_in.read(&mut buffer).await {
            if near_out.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            line.count(read as u64);
        }
    };
    let there = async {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = near_in.read(&mut buffer).await {
            if far_out.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            line.sent.fetch_add(read as u64, Ordering::AcqRel);
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = breaks.changed() => {}
    }
}

impl Line {
    fn count(&self, bytes: u64) {
        let arrived = self.arrived.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let breaks_at = self.breaks_at.load(Ordering::Acquire);
        if arrived >= breaks_at && self.breaks_at.swap(NEVER, Ordering::AcqRel) != NEVER {
            self.breaks.send_modify(|breaks| *breaks += 1);
        }
    }
}
