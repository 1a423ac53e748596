//! The listeners and the dials of a process, encrypted or in the clear, as the configuration says.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;

use crate::adapters::chitchat_membership::Home;
use crate::adapters::tcp::TcpTransport;
use crate::adapters::tls::{
    ClientTlsListener, PeerTls, PeerTlsListener, PeerTlsTransport, TlsFiles,
};
use crate::config::{self, Config};
use crate::node::Network;
use crate::seams::{Listener, Transport};

/// Binds the listeners. Also the address that peers reach.
pub(super) async fn bind(config: &Config) -> anyhow::Result<(Network, SocketAddr)> {
    let (clients, peers) = (config.client.listen, config.peers.listen);
    let clients = TcpListener::bind(clients)
        .await
        .with_context(|| format!("cannot listen for clients on {clients} (client.listen)"))?;
    let peers = TcpListener::bind(peers)
        .await
        .with_context(|| format!("cannot listen for peers on {peers} (peers.listen)"))?;
    let peer_address = peers.local_addr().context("the peers' listener")?;
    let client_address = clients.local_addr().context("the clients' listener")?;
    let (peers, transport) = peers_by(config, peers)?;
    let network = Network {
        clients: clients_by(config, clients)?,
        client_address,
        peers,
        peer_address,
        gossip: Home::Thread,
        transport,
    };
    Ok((network, peer_address))
}

fn clients_by(config: &Config, listener: TcpListener) -> anyhow::Result<Box<dyn Listener>> {
    let Some(tls) = config.client.tls.clone() else {
        if !config.client.listen.ip().is_loopback() {
            tracing::warn!(
                address = %config.client.listen,
                "clients are spoken to in the clear; see that only a trusted network reaches \
                 client.listen, or set client.tls"
            );
        }
        return Ok(Box::new(listener));
    };
    let config::ClientTls {
        certificate,
        key,
        authority,
    } = tls;
    let files = TlsFiles {
        section: "client.tls",
        certificate,
        key,
        authority,
    };
    Ok(Box::new(ClientTlsListener::load(listener, files)?))
}

type PeerNetwork = (Box<dyn Listener>, Arc<dyn Transport>);

fn peers_by(config: &Config, listener: TcpListener) -> anyhow::Result<PeerNetwork> {
    let Some(tls) = config.peers.tls.clone() else {
        let transport = match config.peers.insecure {
            true => TcpTransport::anywhere(),
            false => TcpTransport::default(),
        };
        return Ok((Box::new(listener), Arc::new(transport)));
    };
    let config::PeerTls {
        certificate,
        key,
        authority,
    } = tls;
    let files = TlsFiles {
        section: "peers.tls",
        certificate,
        key,
        authority: Some(authority),
    };
    let (cluster, region) = (config.cluster.id.clone(), config.node.region.clone());
    let tls = PeerTls::load(files, cluster, region)?;
    let listener = Box::new(PeerTlsListener::new(listener, tls.clone()));
    Ok((listener, Arc::new(PeerTlsTransport::new(tls))))
}
