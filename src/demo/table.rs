//! The three regions at a glance.

use std::time::Duration;

use super::Place;
use super::cluster::Cluster;
use super::proxy::Switch;
use crate::client::Read;
use crate::display::figures::span;
use crate::display::table::{Align, Table};
use crate::wire::v1::{Consistency, GetStatusResponse, NodeState};

/// Digits of a fingerprint that are shown.
const FINGERPRINT_SHOWN: usize = 12;
/// A node that does not answer within this is shown as silent.
const PATIENCE: Duration = Duration::from_millis(400);

/// What is shown of one region.
pub struct Row {
    pub place: Place,
    /// `None` while the node does not run or does not answer.
    pub status: Option<GetStatusResponse>,
    pub runs: bool,
    /// The likes of the posts that the console knows.
    pub likes: Option<u64>,
    /// The switches to the other regions.
    pub switches: [(Place, Switch); 2],
}

/// Asks the nodes, and gives the table's lines.
pub async fn look(cluster: &Cluster, posts: &[String]) -> Vec<String> {
    let [us, eu, ap] = Place::ALL.map(|place| row(cluster, place, posts));
    let (us, eu, ap) = tokio::join!(us, eu, ap);
    lines(&[us, eu, ap])
}

async fn row(cluster: &Cluster, place: Place, posts: &[String]) -> Row {
    let switches = place
        .others()
        .map(|other| (other, cluster.links.between(place, other)));
    let mut row = Row {
        place,
        status: None,
        runs: cluster.runs(place),
        likes: None,
        switches,
    };
    let Ok(client) = cluster.client(place) else {
        return row;
    };
    let read = Read {
        consistency: Consistency::Fast,
        ..Read::default()
    };
    let asked = async { tokio::join!(client.status(), client.batch_get_posts(posts, None, read)) };
    if let Ok((status, likes)) = tokio::time::timeout(PATIENCE, asked).await {
        row.status = status.ok();
        row.likes = likes
            .ok()
            .map(|likes| likes.iter().map(|post| post.count).sum());
    }
    row
}

fn lines(rows: &[Row]) -> Vec<String> {
    let mut table = Table::new([
        ("REGION", Align::Left),
        ("STATE", Align::Left),
        ("LIKES", Align::Right),
        ("LIKERS", Align::Right),
        ("LAG", Align::Right),
        ("FINGERPRINT", Align::Left),
        ("LINKS", Align::Left),
    ]);
    for row in rows {
        let status = row.status.as_ref();
        let figure = |figure: Option<u64>| figure.map_or_else(dash, |figure| figure.to_string());
        let fingerprint = status.map(|status| {
            status
                .fingerprint
                .chars()
                .take(FINGERPRINT_SHOWN)
                .collect::<String>()
        });
        table.row([
            row.place.to_string(),
            state(row).to_owned(),
            figure(row.likes.filter(|_| status.is_some())),
            figure(status.map(|status| status.likers)),
            status.map_or_else(dash, lag),
            fingerprint.unwrap_or_else(dash),
            links(row),
        ]);
    }
    table.lines()
}

fn dash() -> String {
    "-".to_owned()
}

fn state(row: &Row) -> &'static str {
    match (&row.status, row.runs) {
        (_, false) => "down",
        (None, true) => "silent",
        (Some(status), true) => match status.state() {
            NodeState::Ready if !status.settled => "merging",
            NodeState::Ready => "ready",
            NodeState::Rebuilding => "rebuilding",
            NodeState::Poisoned => "poisoned",
            NodeState::Stopping => "stopping",
            NodeState::Unspecified => "unknown",
        },
    }
}

/// The longest time that a peer waits for an event of this node.
fn lag(status: &GetStatusResponse) -> String {
    let lags = status
        .links
        .iter()
        .filter_map(|link| Duration::try_from(link.lag?).ok());
    match lags.max() {
        Some(lag) if !lag.is_zero() => span(lag),
        _ => dash(),
    }
}

fn links(row: &Row) -> String {
    let links = row.switches.iter().map(|(other, switch)| {
        let link = row
            .status
            .as_ref()
            .and_then(|status| status.links.iter().find(|link| link.region == other.name()));
        let word = match (switch, link.is_some_and(|link| link.connected)) {
            (Switch::Off, _) => "cut",
            (Switch::On, true) => "up",
            (Switch::On, false) => "down",
        };
        format!("{other} {word}")
    });
    links.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::LinkStatus;

    #[test]
    fn a_row_says_what_is_known() {
        let status = GetStatusResponse {
            state: NodeState::Ready.into(),
            settled: true,
            fingerprint: "0123456789abcdef0123456789abcdef".to_owned(),
            likers: 41,
            links: vec![LinkStatus {
                region: "eu".to_owned(),
                connected: true,
                lag: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 90_000_000,
                }),
                ..LinkStatus::default()
            }],
            ..GetStatusResponse::default()
        };
        let up = Row {
            place: Place::Us,
            status: Some(status),
            runs: true,
            likes: Some(41),
            switches: [(Place::Eu, Switch::On), (Place::Ap, Switch::Off)],
        };
        let down = Row {
            place: Place::Eu,
            status: None,
            runs: false,
            likes: None,
            switches: [(Place::Us, Switch::On), (Place::Ap, Switch::On)],
        };
        assert_eq!(
            lines(&[up, down]),
            [
                "REGION  STATE  LIKES  LIKERS    LAG  FINGERPRINT   LINKS",
                "us      ready     41      41  90 ms  0123456789ab  eu up, ap cut",
                "eu      down       -       -      -  -             us down, ap down",
            ]
        );
    }
}
