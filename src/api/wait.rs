//! WaitFor: which regions have made durable what a token names.
//!
//! Answers from acknowledgements, the regions' own and those that peers passed on. Missing regions are no
//! error: the call did what it was asked for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::api::Api;
use crate::api::error::ApiError;
use crate::codec::text::NamedSeq;
use crate::ids::Region;
use crate::replication::regions::RegionState;
use crate::wire::regions;
use crate::wire::v1::{WaitForRequest, WaitForResponse};

/// Who has it, and who is not known to.
struct Progress<'a> {
    token: &'a [NamedSeq],
    reached: Vec<Region>,
    missing: Vec<Region>,
}

impl Api {
    pub(super) async fn wait_for(
        &self,
        request: WaitForRequest,
    ) -> Result<WaitForResponse, ApiError> {
        let query = regions::wait_for(self.engine.cluster(), request)?;
        self.check_seen("token", &query.token)?;
        let mut progress = Progress {
            token: &query.token,
            reached: Vec::new(),
            missing: match query.regions.is_empty() {
                true => self.all_that_count(),
                false => query.regions,
            },
        };
        let wait = query.wait.unwrap_or(self.limits.wait_default);
        self.wait_until_reached(&mut progress, wait.min(self.limits.wait_max))
            .await?;
        Ok(self.told(progress))
    }

    /// This node's own region and the known ones.
    fn all_that_count(&self) -> Vec<Region> {
        let all = self.regions.all().into_iter();
        let counting = all.filter(|view| view.state != RegionState::Retired);
        counting.map(|view| view.region).collect()
    }

    /// Looks once, and then whenever there is news, until none is missing or the time is over.
    async fn wait_until_reached(
        &self,
        progress: &mut Progress<'_>,
        wait: Duration,
    ) -> Result<(), ApiError> {
        // Subscribed before the first look: what comes after it is not missed.
        let mut acknowledged = self.regions.acks().changes();
        let mut published = self.engine.board().subscribe();
        self.look(progress);
        if progress.missing.is_empty() || wait.is_zero() {
            return Ok(());
        }
        let _waiting = self.enter_waiting()?;
        let end = Instant::now() + wait;
        while !progress.missing.is_empty() {
            tokio::select! {
                // Whatever else is true: a stopping node keeps nobody waiting.
                biased;
                () = self.shutdown.cancelled() => return Err(ApiError::Stopping),
                () = sleep_until(end) => return Ok(()),
                Ok(()) = acknowledged.changed() => {}
                Ok(()) = published.changed() => {}
            }
            self.look(progress);
        }
        Ok(())
    }

    fn look(&self, progress: &mut Progress<'_>) {
        let missing = std::mem::take(&mut progress.missing);
        for region in missing {
            match self.regions.has_durable(&region, progress.token) {
                true => progress.reached.push(region),
                false => progress.missing.push(region),
            }
        }
    }

    fn told(&self, mut progress: Progress<'_>) -> WaitForResponse {
        progress.reached.sort();
        let is_here = progress.reached.contains(self.regions.own());
        let seen = if is_here { progress.token } else { &[] };
        let names = |regions: Vec<Region>| regions.iter().map(Region::to_string).collect();
        WaitForResponse {
            token: self.token_now(seen),
            reached: names(progress.reached),
            missing: names(progress.missing),
        }
    }
}
