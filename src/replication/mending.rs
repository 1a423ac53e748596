//! Does what [`Audits`](crate::replication::audits::Audits) decides: has ranges compared with checkpoint and
//! log, and takes them from other regions.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout};

use crate::crdt::fingerprint::Fingerprint;
use crate::crdt::ranges::RangeSet;
use crate::engine::mending::{Arriving, Checked, Hearsay, MendError, Taken};
use crate::engine::rebuild::RebuiltRange;
use crate::ids::Region;
use crate::replication::audits::{RepairError, Work};
use crate::replication::{Exchange, parts, snapshot_call};
use crate::wire::frames::write_replica;
use crate::wire::replication::SnapshotRequest;

/// How often it is looked for work that became due by time alone.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// How long the events may take to arrive that a range from another region shows.
const ARRIVAL_MAX: Duration = Duration::from_secs(30);

/// What looking after a range comes to.
pub type Mending<'a, T> = Pin<Box<dyn Future<Output = Result<T, MendError>> + Send + 'a>>;

/// Looks after ranges, one at a time, with no checkpoint and no merge in between.
pub trait RangeMender: Send + Sync + 'static {
    /// Compares a range with checkpoint and log, and puts right what can be told to be wrong.
    fn check(&self, range: usize, hearsay: Hearsay) -> Mending<'_, Checked>;

    /// Compares the entries of these ranges with what their changes made of them, before somebody else is given them.
    /// What is found wrong is in dispute when this returns.
    fn look(&self, ranges: RangeSet) -> Mending<'_, ()>;

    /// Holds what memory has of a range to be right.
    fn keep(&self, range: usize) -> Mending<'_, Taken>;

    /// Puts a range from another region in its place.
    fn take(&self, range: RebuiltRange, expected: Option<Fingerprint>) -> Mending<'_, Taken>;
}

/// Works for as long as the node runs.
pub(super) async fn run(exchange: Arc<Exchange>) {
    let stop = exchange.stop.clone();
    stop.run_until_cancelled(work_on(&exchange)).await;
}

async fn work_on(exchange: &Exchange) {
    let audits = &exchange.audits;
    loop {
        let told = audits.work.notified();
        match audits.next(Instant::now()) {
            Some(work) => perform(exchange, work).await,
            None => tokio::select! {
                biased;
                () = told => {}
                () = sleep(LOOK_PAUSE) => {}
            },
        }
    }
}

async fn perform(exchange: &Exchange, work: Work) {
    match work {
        Work::Check { range, hearsay } => {
            match exchange.mender.check(range, hearsay.clone()).await {
                Ok(checked) => exchange.audits.note_checked(hearsay, &checked),
                Err(error) => {
                    tracing::warn!(range, %error, "a disputed range cannot be looked at now");
                    exchange.audits.note_failed(range, None);
                }
            }
        }
        Work::Take {
            range,
            from,
            expected,
            answer,
        } => {
            let taken = match from == exchange.engine.own().region {
                true => keep(exchange, range, &from).await,
                false => take(exchange, range, &from, expected).await,
            };
            match &taken {
                Ok(taken) => exchange.audits.note_taken(&from, taken),
                Err(error) => {
                    tracing::warn!(%error, "nothing was changed");
                    exchange.audits.note_failed(range, Some(&from));
                }
            }
            if let Some(answer) = answer
                && answer.send(taken).is_err()
            {
                tracing::debug!(range, "nobody waits for the repair any more");
            }
        }
    }
}

async fn keep(exchange: &Exchange, range: usize, own: &Region) -> Result<Taken, RepairError> {
    let kept = exchange.mender.keep(range).await;
    kept.map_err(|error| failed(range, own)(error.to_string()))
}

fn failed(range: usize, from: &Region) -> impl Fn(String) -> RepairError + '_ {
    move |why| RepairError::Failed {
        range,
        from: from.clone(),
        why,
    }
}

async fn take(
    exchange: &Exchange,
    range: usize,
    from: &Region,
    expected: Option<Fingerprint>,
) -> Result<Taken, RepairError> {
    let failed = failed(range, from);
    let rebuilt = fetch(exchange, range, from).await.map_err(&failed)?;
    let arrival = timeout(ARRIVAL_MAX, arrived(exchange, &rebuilt)).await;
    arrival.map_err(|_| failed(MendError::Ahead.to_string()))?;
    let taken = exchange.mender.take(rebuilt, expected).await;
    taken.map_err(|error| failed(error.to_string()))
}

/// Returns when everything is durable here that the range may show.
async fn arrived(exchange: &Exchange, rebuilt: &RebuiltRange) {
    let board = exchange.engine.board();
    let mut published = board.subscribe();
    while !board.newest().vector.covers_all(rebuilt.covered()) {
        if published.changed().await.is_err() {
            return;
        }
    }
}

/// A snapshot of the range alone.
async fn fetch(exchange: &Exchange, range: usize, from: &Region) -> Result<RebuiltRange, String> {
    let endpoint = exchange.endpoint(from);
    let endpoint = endpoint.ok_or("this node has no address of it")?;
    let protocol = &exchange.engine.options().dialect.protocol;
    let request = SnapshotRequest {
        protocol_min: *protocol.start(),
        protocol_max: *protocol.end(),
        cluster: exchange.engine.cluster().as_str().to_owned(),
        replica: Some(write_replica(&exchange.engine.own())),
        only: vec![range as u32],
        ..SnapshotRequest::default()
    };
    let opened = snapshot_call::open(exchange, &endpoint, request).await;
    let mut stream = opened.map_err(|error| error.to_string())?;
    let mut arriving = Arriving::new(exchange.engine.clone(), range);
    while let Some(part) = stream.next().await {
        let part = part.map_err(|fault| fault.to_string())?;
        let part = parts::read(part, &mut exchange.engine.replicas());
        let part = part.map_err(|error| error.to_string())?;
        if let Some(range) = arriving.take(part).map_err(|error| error.to_string())? {
            return Ok(range);
        }
    }
    Err("the snapshot ended before its end".to_owned())
}
