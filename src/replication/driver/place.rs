//! The session among the others: its place, what third replicas said, the way to a snapshot, and what status shows.

use std::sync::Arc;

use tokio::time::Instant;

use crate::crdt::frontier::ShortForm;
use crate::crdt::version_vector::VersionVector;
use crate::ids::Replica;
use crate::replication::PeerAnswer;
use crate::replication::driver::{DUPLICATE, Driver, STANDING_PAUSE};
use crate::replication::frame::CloseReason;
use crate::replication::session::{Hearsay, Input, Standing};

impl Driver {
    /// Takes the place among the sessions, unless another with the same replica keeps it.
    pub(super) fn enter(&mut self, peer: Replica, frontier: Arc<VersionVector>) -> Option<Input> {
        self.peer = Some(peer.clone());
        let exchange = &self.exchange;
        let own = self.session.own();
        let Some(place) = exchange.links.enter(own, &peer, self.direction) else {
            let message = DUPLICATE.to_owned();
            return Some(Input::Stop(CloseReason::Duplicate, message));
        };
        exchange.acks.begin(place.owner, &peer, frontier.clone());
        let replica = exchange.engine.replicas().all().get(&peer);
        if peer.region != own.region
            && let Some(replica) = replica
        {
            exchange.engine.meet(replica);
        }
        let answer = PeerAnswer {
            replica: peer.clone(),
            frontier,
        };
        exchange.answers.send_modify(|answers| {
            answers.insert(peer.region.clone(), answer);
        });
        tracing::info!(%peer, direction = ?self.direction, "session begins");
        self.place = Some(place);
        None
    }

    /// Gives the place back.
    pub(super) fn leave(&mut self) {
        let Some(place) = self.place.take() else {
            return;
        };
        let exchange = &self.exchange;
        let ended = self.ended.as_ref().expect("left when ended");
        tracing::info!(peer = %place.peer, message = ended.message, "session over");
        exchange.acks.end(&place.peer);
        if exchange.links.leave(&place, &ended.message) {
            exchange.catch_up.forget(&place.peer);
        }
    }

    pub(super) fn hand_over_news(&mut self) {
        let Some(place) = &self.place else {
            return;
        };
        let news = self.news.take(&self.exchange.acks, &place.peer.region);
        if !news.is_empty() {
            self.feed(Input::Heard(news));
        }
    }

    pub(super) fn hear(&self, hearsay: Hearsay) {
        let Some(place) = &self.place else {
            return;
        };
        let engine = &self.exchange.engine;
        let replica = engine.replicas().all().get(&hearsay.replica);
        if hearsay.replica.region != self.session.own().region
            && let Some(replica) = replica
        {
            engine.hear_met(replica);
        }
        self.exchange.acks.hear(&place.peer.region, hearsay);
    }

    pub(super) fn want_snapshot(&self, whole_from: ShortForm) {
        if let Some(place) = &self.place {
            self.exchange.catch_up.want(&place.peer, whole_from);
        }
    }

    pub(super) fn show_standing(&mut self) {
        let now = Instant::now();
        if now < self.shown + STANDING_PAUSE {
            return;
        }
        self.shown = now;
        let Some(place) = &self.place else {
            return;
        };
        let standing = Standing {
            traffic: self.traffic,
            ..self.session.standing(self.now_ms())
        };
        self.exchange.links.update(place, standing);
    }
}
