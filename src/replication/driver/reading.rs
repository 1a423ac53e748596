//! The log as the session asks for it: what it holds, and pieces of it.

use std::future::Future;
use std::pin::Pin;

use crate::log::Position;
use crate::replication::driver::Driver;
use crate::replication::frame::CloseReason;
use crate::replication::knowledge::{read_log, survey};
use crate::replication::session::Input;

pub(super) type Reading = Pin<Box<dyn Future<Output = Input> + Send>>;

impl Driver {
    pub(super) fn survey(&self) -> Input {
        match survey(&self.exchange.engine, &self.exchange.log) {
            Some(survey) => Input::Survey(survey),
            None => {
                let message = "the frontier at the beginning of a log segment cannot be read";
                Input::Stop(CloseReason::Fault, message.to_owned())
            }
        }
    }

    /// Reads a piece of the log, as soon as it may go out.
    pub(super) fn read(&self, generation: u64, from: Position, bytes_max: usize) -> Reading {
        let exchange = self.exchange.clone();
        Box::pin(async move {
            let behind = exchange.log.synced().0.saturating_sub(from.0);
            let table = exchange.engine.replicas();
            let result = read_log(&exchange.log, table, from, bytes_max).await;
            // The newest goes out at once; what is old leaves room for it.
            if behind > exchange.options.window_bytes as u64
                && let Ok(piece) = &result
            {
                let blocks = piece.blocks.iter();
                exchange
                    .pace
                    .take(blocks.map(|block| block.bytes.len()).sum())
                    .await;
            }
            Input::LogRead { generation, result }
        })
    }
}
