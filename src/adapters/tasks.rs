//! Workers as tokio tasks, for tests and the simulator, where one thread runs everything.

use crate::seams::{Worker, WorkerHandle, WorkerLost, Workers};

/// Runs each worker as a task of the runtime in whose context `spawn` is called. A worker that
/// panics is told by its handle.
#[derive(Debug, Clone, Copy, Default)]
pub struct TaskWorkers;

impl Workers for TaskWorkers {
    fn spawn(&self, name: &'static str, worker: Worker) -> WorkerHandle {
        let task = tokio::spawn(worker);
        WorkerHandle::new(name, async move {
            task.await.map_err(|error| {
                tracing::error!(worker = name, %error, "worker lost");
                WorkerLost { name }
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_tells_how_its_worker_ended() {
        let fine = TaskWorkers.spawn("fine", Box::pin(async {}));
        assert_eq!(fine.await, Ok(()));
        let broken = TaskWorkers.spawn("broken", Box::pin(async { panic!("planted") }));
        assert_eq!(broken.await, Err(WorkerLost { name: "broken" }));
    }
}
