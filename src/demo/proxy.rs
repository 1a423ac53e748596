//! A wire from one region to another: TCP with a distance and a switch.
//!
//! Bytes arrive a fixed time after they were sent, however many are on their way. When the switch is
//! off nothing arrives and nothing is reported, as when a cable is cut: what was on its way waits, and
//! goes on if both ends are still there when the switch is on again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

const READ_BYTES: usize = 64 << 10;
/// Pieces on their way in one direction; a sender that is further ahead waits, as in a full window.
const PIECES_MAX: usize = 1_024;

/// Whether bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    On,
    Off,
}

/// One directed wire; it ends when dropped.
pub struct Proxy {
    /// Where the dialling side connects.
    pub address: SocketAddr,
    /// Where new connections lead; nowhere while the other side is down.
    target: Arc<Mutex<Option<SocketAddr>>>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of the system's choice.
    pub async fn start(distance: Duration, switch: watch::Receiver<Switch>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(None));
        let wire = Wire {
            distance,
            switch,
            target: Arc::clone(&target),
        };
        let accepting = tokio::spawn(accept(listener, wire));
        Ok(Self {
            address,
            target,
            accepting,
        })
    }

    /// Leads new connections to where the other side listens now.
    pub fn lead_to(&self, target: Option<SocketAddr>) {
        *self.target.lock() = target;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Clone)]
struct Wire {
    distance: Duration,
    switch: watch::Receiver<Switch>,
    target: Arc<Mutex<Option<SocketAddr>>>,
}

async fn accept(listener: TcpListener, wire: Wire) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            // An accept fails for the connection's own reasons; the next one may be sound.
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                connections.spawn(connection(stream, wire.clone()));
            }
        }
    }
}

/// Errors end a connection as they would end it on a real wire: each side sees it closed.
async fn connection(near: TcpStream, mut wire: Wire) {
    let was_off = *wire.switch.borrow() == Switch::Off;
    if on(&mut wire.switch).await.is_none() || was_off {
        // It was begun over a cut wire, so it never came about.
        return;
    }
    let target = *wire.target.lock();
    let Some(target) = target else { return };
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(
        carry(near_in, far_out, &wire),
        carry(far_in, near_out, &wire)
    );
}

/// Waits until the switch is on; `None` when there is nobody left to turn it.
async fn on(switch: &mut watch::Receiver<Switch>) -> Option<()> {
    let turned = switch.wait_for(|switch| *switch == Switch::On).await;
    turned.is_ok().then_some(())
}

async fn carry(from: OwnedReadHalf, to: OwnedWriteHalf, wire: &Wire) {
    let (pieces, arriving) = mpsc::channel(PIECES_MAX);
    tokio::join!(
        depart(from, pieces, wire.clone()),
        arrive(arriving, to, wire.clone())
    );
}

async fn depart(mut from: OwnedReadHalf, pieces: mpsc::Sender<(Instant, Bytes)>, mut wire: Wire) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let read = tokio::select! {
            biased;
            () = pieces.closed() => return,
            read = from.read_buf(&mut buffer) => read,
        };
        // Read or closed while the wire is cut: the other side hears of it when it is whole again.
        if !matches!(read, Ok(1..)) || on(&mut wire.switch).await.is_none() {
            return;
        }
        let piece = buffer.split().freeze();
        if pieces
            .send((Instant::now() + wire.distance, piece))
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn arrive(
    mut pieces: mpsc::Receiver<(Instant, Bytes)>,
    mut to: OwnedWriteHalf,
    mut wire: Wire,
) {
    while let Some((at, piece)) = pieces.recv().await {
        tokio::time::sleep_until(at).await;
        if on(&mut wire.switch).await.is_none() || to.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The end of the stream travels over the wire like everything else: dropping `to` tells it.
    on(&mut wire.switch).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISTANCE: Duration = Duration::from_millis(40);
    /// Long enough for what is to arrive; only a failing test waits for it.
    const PATIENCE: Duration = Duration::from_secs(10);

    struct World {
        switch: watch::Sender<Switch>,
        proxy: Proxy,
        server: TcpListener,
    }

    async fn world() -> World {
        let (switch, seen) = watch::channel(Switch::On);
        let proxy = Proxy::start(DISTANCE, seen).await.unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        proxy.lead_to(Some(server.local_addr().unwrap()));
        World {
            switch,
            proxy,
            server,
        }
    }

    async fn pair(world: &World) -> (TcpStream, TcpStream) {
        let near = TcpStream::connect(world.proxy.address).await.unwrap();
        let (far, _) = world.server.accept().await.unwrap();
        (near, far)
    }

    async fn receive(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
        let mut received = vec![0; bytes];
        let all = tokio::time::timeout(PATIENCE, stream.read_exact(&mut received)).await;
        all.unwrap().unwrap();
        received
    }

    #[tokio::test]
    async fn bytes_arrive_after_the_distance_both_ways() {
        let world = world().await;
        let (mut near, mut far) = pair(&world).await;
        let sent = Instant::now();
        near.write_all(b"there").await.unwrap();
        assert_eq!(receive(&mut far, 5).await, b"there");
        far.write_all(b"back").await.unwrap();
        assert_eq!(receive(&mut near, 4).await, b"back");
        assert!(sent.elapsed() >= 2 * DISTANCE);
    }

    #[tokio::test]
    async fn distance_does_not_limit_throughput() {
        let world = world().await;
        let (mut near, mut far) = pair(&world).await;
        let data = vec![7; 8 << 20];
        let expected = data.len();
        let sent = Instant::now();
        let sending = tokio::spawn(async move {
            near.write_all(&data).await.unwrap();
            near
        });
        assert_eq!(receive(&mut far, expected).await.len(), expected);
        sending.await.unwrap();
        let one_piece_a_distance = DISTANCE * u32::try_from(expected / READ_BYTES).unwrap();
        assert!(sent.elapsed() < one_piece_a_distance / 2);
    }

    #[tokio::test]
    async fn a_cut_wire_is_silent_and_goes_on_when_it_is_healed() {
        let world = world().await;
        let (mut near, mut far) = pair(&world).await;
        world.switch.send_replace(Switch::Off);
        near.write_all(b"held").await.unwrap();
        let mut byte = [0];
        let nothing = tokio::time::timeout(4 * DISTANCE, far.read(&mut byte)).await;
        assert!(nothing.is_err(), "something crossed a cut wire");
        world.switch.send_replace(Switch::On);
        assert_eq!(receive(&mut far, 4).await, b"held");
    }

    #[tokio::test]
    async fn a_connection_begun_over_a_cut_wire_never_comes_about() {
        let world = world().await;
        world.switch.send_replace(Switch::Off);
        let mut near = TcpStream::connect(world.proxy.address).await.unwrap();
        let mut byte = [0];
        let nothing = tokio::time::timeout(4 * DISTANCE, near.read(&mut byte)).await;
        assert!(nothing.is_err(), "a cut wire answered");
        world.switch.send_replace(Switch::On);
        let ended = tokio::time::timeout(PATIENCE, near.read(&mut byte))
            .await
            .unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn new_connections_follow_the_target() {
        let world = world().await;
        let (mut old, mut far) = pair(&world).await;
        let moved = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.proxy.lead_to(Some(moved.local_addr().unwrap()));
        let mut near = TcpStream::connect(world.proxy.address).await.unwrap();
        let (mut new_far, _) = moved.accept().await.unwrap();
        near.write_all(b"new").await.unwrap();
        assert_eq!(receive(&mut new_far, 3).await, b"new");
        old.write_all(b"old").await.unwrap();
        assert_eq!(receive(&mut far, 3).await, b"old");
        drop(far);
        let mut byte = [0];
        let ended = tokio::time::timeout(PATIENCE, old.read(&mut byte))
            .await
            .unwrap();
        assert!(
            matches!(ended, Ok(0) | Err(_)),
            "a closed end is told to the other"
        );
    }
}
