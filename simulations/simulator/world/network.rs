//! The transport seam over simulated TCP. Every byte goes into the trace.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use likewise::ids::Region;
use likewise::seams::IoFuture;
use likewise::seams::transport::{Established, Incoming, Listener, Remote, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::machine::PEER_PORT;
use super::trace::{Kind, Trace};

/// Dials from one machine. Hosts are named as their regions are.
pub struct SimulatedTransport {
    trace: Trace,
    machine: usize,
}

impl SimulatedTransport {
    pub fn new(trace: Trace, machine: usize) -> Self {
        Self { trace, machine }
    }

    pub async fn dial(&self, host: &str, port: u16) -> io::Result<Wire> {
        let stream = TcpStream::connect((host, port)).await;
        let outcome = match &stream {
            Ok(_) => "dialled",
            Err(_) => "not dialled",
        };
        let name = format!("{outcome} {host}:{port}");
        self.trace
            .note(Kind::Connection, self.machine, name.as_bytes(), &[]);
        Ok(Wire::new(stream?, self.trace.clone(), self.machine))
    }
}

impl Transport for SimulatedTransport {
    fn connect<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        _expected: Option<&'a Region>,
    ) -> IoFuture<'a, Established> {
        Box::pin(async move {
            let wire = self.dial(host, port).await?;
            let address = wire.stream.peer_addr()?;
            Ok(wire.established(address))
        })
    }
}

/// Accepts at one port of a machine.
pub struct SimulatedListener {
    listener: TcpListener,
    trace: Trace,
    machine: usize,
}

impl SimulatedListener {
    pub async fn bind(port: u16, trace: Trace, machine: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
        Ok(Self {
            listener,
            trace,
            machine,
        })
    }
}

impl Listener for SimulatedListener {
    fn accept(&self) -> IoFuture<'_, Incoming> {
        Box::pin(async move {
            let (stream, address) = self.listener.accept().await?;
            let name = format!("accepted {address}");
            self.trace
                .note(Kind::Connection, self.machine, name.as_bytes(), &[]);
            let wire = Wire::new(stream, self.trace.clone(), self.machine);
            Ok(Incoming {
                address: Some(address),
                handshake: Box::pin(std::future::ready(Ok(wire.established(address)))),
            })
        })
    }
}

/// One end of a simulated connection.
pub struct Wire {
    stream: TcpStream,
    trace: Trace,
    machine: usize,
    /// Names the connection in the trace.
    name: Box<[u8]>,
}

impl Wire {
    fn new(stream: TcpStream, trace: Trace, machine: usize) -> Self {
        let text = |address: io::Result<SocketAddr>| match address {
            Ok(address) => address.to_string(),
            Err(_) => "?".to_owned(),
        };
        let name = format!("{}-{}", text(stream.local_addr()), text(stream.peer_addr()));
        Self {
            name: name.into_bytes().into(),
            stream,
            trace,
            machine,
        }
    }
}

impl Wire {
    /// Nobody proves anything here.
    fn established(self, address: SocketAddr) -> Established {
        let remote = Remote {
            address: Some(address),
            identity: None,
        };
        let io = Box::new(self);
        Established { io, remote }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(())) = &read {
            let got = &buffer.filled()[before..];
            self.trace
                .note(Kind::Received, self.machine, &self.name, got);
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(len)) = &written {
            let sent = &bytes[..*len];
            let this = &mut *self;
            this.trace.note(Kind::Sent, this.machine, &this.name, sent);
            let to_peer = this
                .stream
                .peer_addr()
                .is_ok_and(|peer| peer.port() == PEER_PORT);
            if to_peer {
                this.trace.capture(&this.name, sent);
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
