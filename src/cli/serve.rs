//! `serve`: from flags, environment and file to a running node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use figment::value::{Dict, Value};

use crate::address::PeerAddress;
use crate::config::{self, Config, Flag, Sources, StaticPeer};
use crate::display::figures::counted;
use crate::display::output;
use crate::logging;
use crate::node::{self, Folder};

/// What `serve` takes; everything else is in the file and the environment.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Move the state aside, start empty and take the state from the peers: for a damaged folder
    #[arg(long)]
    rebuild: bool,
}

/// Where a configuration comes from, besides the environment.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// The configuration; config/node.toml shows all keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The node's region [node.region]
    #[arg(long)]
    region: Option<String>,
    /// The folder of its data [node.data_dir]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Where clients connect [client.listen]
    #[arg(long, value_name = "ADDRESS:PORT")]
    client_listen: Option<String>,
    /// Where peers connect [peers.listen]
    #[arg(long, value_name = "ADDRESS:PORT")]
    peer_listen: Option<String>,
    /// Speak to peers in the clear beyond this machine: on private networks only [peers.insecure]
    #[arg(long)]
    insecure: bool,
    /// Another region's node; repeated for each, in place of [peers.static]
    #[arg(long = "peer", value_name = "REGION=HOST:PORT", value_parser = peer)]
    peers: Vec<StaticPeer>,
    /// A node by which the others are found; repeated for each, in place of those of [peers.seeds]
    #[arg(long = "seed", value_name = "HOST:PORT", value_parser = seed)]
    seeds: Vec<PeerAddress>,
}

/// Reads the configuration, says what was chosen where nothing was, and runs the node to its end.
pub fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let chosen_for_them = args.sources.config.is_none();
    let config = config::load(&args.sources.sources())?;
    logging::init(&config.logging)?;
    let folder = match args.rebuild {
        true => Folder::Rebuild,
        false => Folder::Keep,
    };
    if chosen_for_them {
        output::complain(what_was_chosen(&config));
    }
    node::run(config, folder)
}

impl SourceArgs {
    /// The file and the flags, with the environment of this process between them.
    pub fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), flags(self))
    }
}

fn flags(args: &SourceArgs) -> Vec<Flag> {
    let text = |name, key, value: &Option<String>| {
        value.as_deref().map(|value| Flag {
            name,
            key,
            value: Value::from(value),
        })
    };
    let data_dir = args.data_dir.as_ref();
    let data_dir = data_dir.map(|path| path.to_string_lossy().into_owned());
    let mut flags: Vec<Flag> = [
        text("--region", "node.region", &args.region),
        text("--data-dir", "node.data_dir", &data_dir),
        text("--client-listen", "client.listen", &args.client_listen),
        text("--peer-listen", "peers.listen", &args.peer_listen),
    ]
    .into_iter()
    .flatten()
    .collect();
    if args.insecure {
        flags.push(Flag {
            name: "--insecure",
            key: "peers.insecure",
            value: Value::from(true),
        });
    }
    if !args.peers.is_empty() {
        let entries: Vec<Value> = args.peers.iter().map(entry).collect();
        flags.push(Flag {
            name: "--peer",
            key: "peers.static",
            value: Value::from(entries),
        });
    }
    if !args.seeds.is_empty() {
        let seeds = args.seeds.iter();
        let texts: Vec<String> = seeds.map(ToString::to_string).collect();
        flags.push(Flag {
            name: "--seed",
            key: "peers.seeds",
            value: Value::from(texts),
        });
    }
    flags
}

fn entry(peer: &StaticPeer) -> Value {
    let pair = |key: &str, value: String| (key.to_owned(), Value::from(value));
    Value::from(Dict::from([
        pair("region", peer.region.to_string()),
        pair("address", peer.address.to_string()),
    ]))
}

fn peer(text: &str) -> Result<StaticPeer, String> {
    let (region, address) = text.split_once('=').ok_or("write REGION=HOST:PORT")?;
    Ok(StaticPeer {
        region: region
            .parse()
            .map_err(|error| format!("the region {region:?} {error}"))?,
        address: address
            .parse()
            .map_err(|error| format!("the address {address:?} {error}"))?,
    })
}

fn seed(text: &str) -> Result<PeerAddress, String> {
    text.parse()
        .map_err(|error| format!("the address {text:?} {error}"))
}

fn what_was_chosen(config: &Config) -> String {
    let peers = counted(config.peers.static_peers.len() as u64, "peer");
    let seeds = counted(config.peers.seeds.len() as u64, "seed");
    let has_peers = !config.peers.static_peers.is_empty();
    let company = match (has_peers, !config.peers.seeds.is_empty()) {
        (false, false) => "a single node".to_owned(),
        (true, false) => format!("a node with {peers}"),
        (false, true) => format!("a node with {seeds}"),
        (true, true) => format!("a node with {peers} and {seeds}"),
    };
    format!(
        "no --config given: {company}, region {}, clients on {}, peers on {}, data in {}",
        config.node.region,
        config.client.listen,
        config.peers.listen,
        config.node.data_dir.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: SourceArgs,
    }

    #[test]
    fn flags_become_configuration() {
        let line = Line::try_parse_from([
            "serve",
            "--region=eu",
            "--data-dir=/tmp/x",
            "--client-listen=127.0.0.1:0",
            "--peer-listen=127.0.0.1:0",
            "--peer=us=us.example:7401",
            "--peer=ap=127.0.0.1:7431",
            "--seed=seed.example:7401",
            "--insecure",
        ]);
        let sources = Sources {
            flags: flags(&line.unwrap().args),
            ..Sources::default()
        };
        let config = config::load(&sources).unwrap();
        assert_eq!(config.node.region.as_str(), "eu");
        assert!(config.peers.insecure);
        assert_eq!(config.peers.static_peers[0].address.host(), "us.example");
        assert_eq!(config.peers.seeds[0].to_string(), "seed.example:7401");
        assert_eq!(
            what_was_chosen(&config),
            "no --config given: a node with 2 peers and 1 seed, region eu, clients on 127.0.0.1:0, \
             peers on 127.0.0.1:0, data in /tmp/x"
        );
    }

    #[test]
    fn a_bad_flag_is_named() {
        assert!(Line::try_parse_from(["serve", "--peer=us"]).is_err());
        assert!(Line::try_parse_from(["serve", "--peer=us=host"]).is_err());
        assert!(Line::try_parse_from(["serve", "--seed=us"]).is_err());
        let line = Line::try_parse_from(["serve", "--client-listen=here"]);
        let sources = Sources {
            flags: flags(&line.unwrap().args),
            ..Sources::default()
        };
        let message = config::load(&sources).unwrap_err().to_string();
        assert!(message.contains("the flag --client-listen"), "{message}");
    }
}
