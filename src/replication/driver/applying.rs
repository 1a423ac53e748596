//! Blocks of the peer on their way into the engine. One that names known numbers is compared with the log first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use crate::codec::block;
use crate::engine::commit::OutcomeUnknown;
use crate::engine::published::Published;
use crate::engine::remote::Applied;
use crate::replication::conflict;
use crate::replication::driver::Driver;
use crate::replication::knowledge::verdict;
use crate::replication::session::{Input, Verdict};

/// A block of a frame, and the first number in it whose contents are not those that are known.
pub(super) type Compared = (u64, Bytes, Option<u64>);
pub(super) type Comparing = Pin<Box<dyn Future<Output = Compared> + Send>>;
pub(super) type Committing = Pin<Box<dyn Future<Output = Result<u64, OutcomeUnknown>> + Send>>;

impl Driver {
    /// Hands the block to the engine, but for one that names known numbers: that is compared with the log first.
    pub(super) fn compare_or_apply(&mut self, frame: u64, block: Bytes) -> Option<Input> {
        let exchange = &self.exchange;
        if !conflict::overlaps(&exchange.engine, &block) {
            return Some(self.apply(frame, &block));
        }
        exchange.counts.blocks_overlapping.one_more();
        let Some(turn) = exchange.comparisons.take() else {
            exchange.counts.overlaps_unchecked.one_more();
            return Some(self.apply(frame, &block));
        };
        let (engine, log) = (exchange.engine.clone(), exchange.log.clone());
        self.comparing = Some(Box::pin(async move {
            let difference = conflict::difference(engine, log, block.clone()).await;
            drop(turn);
            (frame, block, difference)
        }));
        None
    }

    /// A block was compared with the log.
    pub(super) fn handle_compared(&mut self, (frame, block, difference): Compared) {
        let Some(number) = difference else {
            let input = self.apply(frame, &block);
            return self.feed(input);
        };
        let engine = &self.exchange.engine;
        let head = block::head(&block, &mut engine.replicas());
        let maker = head.map(|head| engine.replicas().all().id(head.replica).clone());
        let maker = maker.map_or_else(|_| "nobody".to_owned(), |maker| maker.to_string());
        tracing::error!(
            peer = ?self.peer, %maker, number,
            "a peer sent a known event with other contents: either the number was made twice, or the peer does \
             not relay what it was given. Nothing was changed"
        );
        let why = format!("event {number} of {maker} is known here with other contents");
        self.feed(Input::Applied(Verdict::Conflict(why)));
    }

    fn apply(&mut self, frame: u64, block: &Bytes) -> Input {
        let applied = self.exchange.engine.apply_remote(block);
        let verdict = verdict(&applied);
        if let Verdict::UnknownKind { .. } = verdict {
            self.exchange.counts.blocks_withheld.one_more();
        }
        if let Ok(Applied::New(wait)) = applied {
            let durable = async move { wait.await.map(|_: Arc<Published>| frame) };
            self.committing.push_back(Box::pin(durable));
        }
        Input::Applied(verdict)
    }
}
