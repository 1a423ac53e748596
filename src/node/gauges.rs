//! What the status tells of the log and the checkpoints.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::api::Gauges;
use crate::log::LogReader;

/// Sentences for the operator, by what they are about.
#[derive(Default)]
pub struct Warnings {
    checkpoint: Mutex<Option<String>>,
    snapshot: Mutex<Option<String>>,
    taking: Mutex<Option<String>>,
}

impl Warnings {
    pub fn set_checkpoint(&self, warning: Option<String>) {
        *self.checkpoint.lock() = warning;
    }

    pub fn set_snapshot(&self, warning: Option<String>) {
        *self.snapshot.lock() = warning;
    }

    /// How far a snapshot is that is being received, or that broke off.
    pub fn set_taking(&self, warning: Option<String>) {
        *self.taking.lock() = warning;
    }

    fn all(&self) -> Vec<String> {
        let all = [&self.checkpoint, &self.snapshot, &self.taking];
        let all = all.into_iter();
        all.filter_map(|warning| warning.lock().clone()).collect()
    }
}

pub struct NodeGauges {
    pub log: LogReader,
    pub warnings: Arc<Warnings>,
    /// A log that is longer than this cannot be cut: nobody has acknowledged it.
    pub retain_bytes: u64,
}

/// Bytes of log between the oldest kept segment and the end.
pub fn log_bytes(log: &LogReader) -> u64 {
    let first = log
        .segments()
        .first()
        .map_or(log.synced(), |segment| segment.base);
    log.synced().0.saturating_sub(first.0)
}

impl Gauges for NodeGauges {
    fn log_bytes(&self) -> u64 {
        log_bytes(&self.log)
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.warnings.all();
        let bytes = log_bytes(&self.log);
        if bytes > self.retain_bytes.saturating_mul(2) {
            warnings.push(format!(
                "the log holds {bytes} bytes, more than twice log.retain_bytes: no peer has acknowledged \
                 what it holds, so it is not cut"
            ));
        }
        warnings
    }
}
