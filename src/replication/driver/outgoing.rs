//! Frames on their way to the connection, to the last.

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tonic::Status;

use crate::replication::driver::Driver;
use crate::replication::frame::Frame;
use crate::wire::frames::write_frame;
use crate::wire::replication as wire;

impl Driver {
    /// Gives the connection what it takes at once.
    pub(super) fn flush<T>(&mut self, frames: &mpsc::Sender<T>, wrap: fn(wire::Frame) -> T) {
        while let Some(frame) = self.outgoing.front() {
            let Ok(permit) = frames.try_reserve() else {
                return;
            };
            let frame = write_frame(frame);
            self.traffic
                .note_sent(&frame, self.exchange.engine.as_ref());
            permit.send(wrap(frame));
            self.outgoing.pop_front();
        }
    }

    /// Sends what is left, the closing frame last, and waits until the peer ends its side.
    pub(super) async fn say_goodbye<S, T>(
        &mut self,
        incoming: &mut S,
        frames: mpsc::Sender<T>,
        wrap: fn(wire::Frame) -> T,
    ) where
        S: Stream<Item = Result<Option<wire::Frame>, Status>> + Unpin + Send,
        T: Send,
    {
        let closing = self.outgoing.drain(..);
        for frame in closing.filter(|frame| matches!(frame, Frame::Close { .. })) {
            if frames.send(wrap(write_frame(&frame))).await.is_err() {
                return;
            }
        }
        drop(frames);
        while let Some(Ok(_)) = incoming.next().await {}
    }
}
