//! Running a node as a process: the runtime, the ready line, signals, exit codes.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::adapters::allocator;
use crate::adapters::chitchat_membership;
use crate::adapters::sled_store;
use crate::adapters::threads::{EXIT_CODE_PANIC, ThreadWorkers};
use crate::config::{Config, OnSyncFailure};
use crate::display::output::{self, OutputError};
use crate::node::{Folder, RunningNode, engine_options, network, start, storage};

/// Exit code after the log failed, where `log.on_sync_failure` is `exit`.
const EXIT_CODE_LOG_FAILED: u8 = 74;
/// Exit code after a second signal: nothing was finished.
const EXIT_CODE_QUIT: u8 = 130;

/// Runs a node until it is told to stop. Called outside of any runtime; logging is set up.
///
/// A build with the feature `sim` has code that must not serve anybody; it refuses.
pub fn run(config: Config, folder: Folder) -> anyhow::Result<ExitCode> {
    if cfg!(feature = "sim") {
        anyhow::bail!(
            "this binary was built with the feature `sim`, which is for the simulator alone; \
             build the node without it"
        );
    }
    end_on_panic();
    allocator::share_arenas();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let code = runtime.block_on(serve(config, folder))?;
    runtime.shutdown_background();
    Ok(code)
}

/// A panic leaves state behind that nobody should trust: the process ends without a checkpoint, and
/// the log has what was acknowledged. sled's own panics are caught where they happen; the gossip's thread has
/// no part in the state, and starts its task again.
fn end_on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if sled_store::is_inside() {
            tracing::warn!(%panic, "the checkpoint store panicked");
            return;
        }
        if chitchat_membership::is_inside() {
            tracing::warn!(%panic, "the gossip panicked");
            return;
        }
        tracing::error!(%panic, "a bug: the process ends without a checkpoint");
        before(panic);
        std::process::exit(EXIT_CODE_PANIC);
    }));
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn serve(config: Config, folder: Folder) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let (network, peer_address) = network::bind(&config).await?;
    let storage = match folder {
        Folder::Keep => storage::open(&config, engine_options(&config)).await?,
        Folder::Rebuild => storage::rebuild(&config, engine_options(&config)).await?,
    };
    let workers = Arc::new(ThreadWorkers::new(tokio::runtime::Handle::current()));
    let mut node = start(&config, storage, workers, network).await?;
    say_ready(&config, &node, peer_address)?;
    let log_failure = tokio::select! {
        () = signals.next() => None,
        failure = node.log_failed() => Some(failure),
    };
    let Some(failure) = log_failure else {
        return stop(node, &mut signals).await;
    };
    tracing::error!(%failure, "the log failed: what waits has an unknown outcome");
    if config.log.on_sync_failure == OnSyncFailure::Exit {
        return Ok(ExitCode::from(EXIT_CODE_LOG_FAILED));
    }
    signals.next().await;
    stop(node, &mut signals).await
}

/// One line for whoever started the process: where it listens.
fn say_ready(config: &Config, node: &RunningNode, peers: SocketAddr) -> anyhow::Result<()> {
    let said = output::line(format!(
        "likewise ready region={} client={} peers={} epoch={}",
        config.node.region,
        node.client_address,
        peers,
        node.engine.own().epoch,
    ));
    match said {
        // A node serves whether or not it was started by somebody who reads.
        Err(OutputError::Closed) => Ok(()),
        said => Ok(said?),
    }
}

async fn stop(node: RunningNode, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    tracing::info!("stopping; a second signal quits at once");
    tokio::select! {
        stopped = node.stop() => stopped.map(|()| ExitCode::SUCCESS),
        () = signals.next() => {
            tracing::warn!("quitting without a checkpoint");
            Ok(ExitCode::from(EXIT_CODE_QUIT))
        }
    }
}
