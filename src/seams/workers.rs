//! Workers: the long-lived loops of a node (log writer, checkpointer), threads in production and tasks
//! in the simulator. Shards are none: they are structures behind locks, used by whoever has work for them.
//!
//! Nothing below assembly starts a thread; it hands its worker to this seam.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A loop that ends when its inputs do. It may block its thread for as long as one of its units of
/// work takes.
pub type Worker = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs workers, each under its name.
pub trait Workers: Send + Sync + 'static {
    /// Starts the worker. A panic in it ends the process, except where a test runs it as a task:
    /// then the handle says [`WorkerLost`].
    fn spawn(&self, name: &'static str, worker: Worker) -> WorkerHandle;
}

/// The worker did not return: it panicked, or what ran it was torn down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("worker {name} ended before its work did")]
pub struct WorkerLost {
    pub name: &'static str,
}

/// Awaits the end of a worker. Dropping it leaves the worker running.
pub struct WorkerHandle {
    name: &'static str,
    end: Pin<Box<dyn Future<Output = Result<(), WorkerLost>> + Send>>,
}

impl WorkerHandle {
    /// `end` resolves when the worker has returned or was lost.
    pub fn new(
        name: &'static str,
        end: impl Future<Output = Result<(), WorkerLost>> + Send + 'static,
    ) -> Self {
        let end = Box::pin(end);
        Self { name, end }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl Future for WorkerHandle {
    type Output = Result<(), WorkerLost>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.end.as_mut().poll(context)
    }
}
