//! Whether every node counts what was acknowledged.

use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use super::crowd::Crowd;
use super::ledger::Expected;
use super::nodes::Met;
use crate::client::{Client, ClientError, Read, Reason};
use crate::limits::READ_POSTS_MAX;
use crate::wire::v1::Consistency;

/// How long nodes may take until they have what was written at the others.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// How long one read may wait for that at its node; less than a call may take, so that the node says what is missing.
const WAIT: Duration = Duration::from_secs(5);

/// What came of comparing the counts of all nodes with the ledger.
#[derive(Debug, Default, PartialEq)]
pub struct Accuracy {
    pub posts: u64,
    /// Likes of all posts that were acknowledged, each once.
    pub likes: u64,
    /// Posts whose count may be one of several, for some outcomes are unknown.
    pub inexact: u64,
    pub wrong: Vec<Wrong>,
    /// How long the nodes took after the last answer until each had what the others took.
    pub settled_after: Duration,
}

/// A count that is not what it must be.
#[derive(Debug, PartialEq)]
pub struct Wrong {
    pub region: String,
    pub post: String,
    pub count: u64,
    pub expected: Expected,
}

/// An error if some post was written before: its count would say nothing.
pub async fn untouched(nodes: &[Met], crowd: &Crowd) -> anyhow::Result<()> {
    for node in nodes {
        for from in (0..crowd.posts).step_by(READ_POSTS_MAX) {
            for (post, count) in counts(node, crowd, from).await? {
                anyhow::ensure!(
                    count == 0,
                    "{} has likes already ({count} at {}); choose another --name, or none",
                    crowd.post_id(post),
                    node.region
                );
            }
        }
    }
    Ok(())
}

/// Waits until each node has what all have, then reads every count at every node.
pub async fn compare(nodes: &[Met], crowd: &Crowd) -> anyhow::Result<Accuracy> {
    let mut accuracy = Accuracy {
        posts: crowd.posts.into(),
        ..Accuracy::default()
    };
    for post in 0..crowd.posts {
        let expected = crowd.ledger.expected(post);
        accuracy.likes += expected.least;
        accuracy.inexact += u64::from(!expected.is_exact());
    }
    let began = Instant::now();
    settle(nodes, crowd).await?;
    accuracy.settled_after = began.elapsed();
    for node in nodes {
        for from in (0..crowd.posts).step_by(READ_POSTS_MAX) {
            let counts = counts(node, crowd, from).await?.into_iter();
            let wrong = counts.filter_map(|(post, count)| {
                let expected = crowd.ledger.expected(post);
                (!expected.is_met_by(count)).then(|| Wrong {
                    region: node.region.clone(),
                    post: crowd.post_id(post),
                    count,
                    expected,
                })
            });
            accuracy.wrong.extend(wrong);
        }
    }
    Ok(accuracy)
}

/// A token promises that a read which waits for it shows nothing older: no guess about what is still on its way.
async fn settle(nodes: &[Met], crowd: &Crowd) -> anyhow::Result<()> {
    let until = Instant::now() + SETTLED_WITHIN;
    for of in nodes {
        let status = of.client.status().await;
        let token = status.with_context(|| at(of))?.token;
        for node in nodes {
            let client = node.client.session();
            client.set_token(token.clone());
            while let Err(error) = seen(&client, crowd).await {
                let passes = error.reason() == Some(Reason::TokenNotCovered);
                if !passes || Instant::now() >= until {
                    let words = format!("{} did not get what {} has", node.region, of.region);
                    return Err(error).context(words);
                }
            }
        }
    }
    Ok(())
}

async fn seen(client: &Client, crowd: &Crowd) -> Result<(), ClientError> {
    let read = Read {
        consistency: Consistency::AtLeast,
        wait: Some(WAIT),
        ..Read::default()
    };
    let post = client.get_post(&crowd.post_id(0), None, read).await;
    post.map(drop)
}

/// The counts of as many posts as one read may ask for.
async fn counts(node: &Met, crowd: &Crowd, from: u32) -> anyhow::Result<Vec<(u32, u64)>> {
    let until = crowd.posts.min(from + READ_POSTS_MAX as u32);
    let posts: Vec<String> = (from..until).map(|post| crowd.post_id(post)).collect();
    let read = Read {
        consistency: Consistency::Exact,
        ..Read::default()
    };
    let answer = node.client.batch_get_posts(&posts, None, read).await;
    let answer = answer.with_context(|| at(node))?;
    anyhow::ensure!(
        answer.len() == posts.len(),
        "{} left out posts that were asked for",
        node.region
    );
    let counts = answer.into_iter().map(|likes| likes.count);
    Ok((from..until).zip(counts).collect())
}

fn at(node: &Met) -> String {
    format!("the counts at {} could not be read", node.region)
}
