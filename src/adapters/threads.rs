//! Workers as threads: each has its own, so that it may block in system calls.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::seams::{Worker, WorkerHandle, WorkerLost, Workers};

/// The exit code of a process that a panic ended.
pub const EXIT_CODE_PANIC: i32 = 70;

/// Runs each worker on a named thread of its own; timers and channels of the given runtime work
/// inside it.
#[derive(Debug, Clone)]
pub struct ThreadWorkers {
    runtime: Handle,
}

impl ThreadWorkers {
    pub fn new(runtime: Handle) -> Self {
        Self { runtime }
    }
}

impl Workers for ThreadWorkers {
    /// # Panics
    /// If the system gives no thread: workers start with the node, which cannot go on without them.
    fn spawn(&self, name: &'static str, worker: Worker) -> WorkerHandle {
        let (ended, end) = oneshot::channel();
        let runtime = self.runtime.clone();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(worker)));
                if let Err(panic) = outcome {
                    end_process(name, panic.as_ref());
                }
                if ended.send(()).is_err() {
                    tracing::debug!(worker = name, "worker ended, nobody waits for it");
                }
            })
            .expect("a thread for each worker at start");
        WorkerHandle::new(
            name,
            async move { end.await.map_err(|_| WorkerLost { name }) },
        )
    }
}

/// Ends the process at once, without a checkpoint: memory that a panic left behind is not to be
/// trusted, and the log has what was acknowledged.
fn end_process(worker: &'static str, panic: &(dyn Any + Send)) -> ! {
    let reason = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(
        worker,
        reason,
        "a worker panicked; the process ends without a checkpoint"
    );
    std::process::exit(EXIT_CODE_PANIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_worker_runs_on_its_own_named_thread() {
        let (tx, rx) = oneshot::channel();
        let worker = Box::pin(async move {
            tokio::task::yield_now().await;
            let name = std::thread::current().name().map(str::to_owned);
            tx.send(name).expect("the test waits");
        });
        let handle = ThreadWorkers::new(Handle::current()).spawn("log-writer", worker);
        assert_eq!(handle.await, Ok(()));
        assert_eq!(rx.await.expect("sent"), Some("log-writer".to_owned()));
    }
}
