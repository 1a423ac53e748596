//! One client that reads.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;

use super::crowd::Crowd;
use super::meters::Meters;
use super::pace::Pace;
use crate::client::{Client, ClientError, Read};
use crate::wire::v1::Consistency;

const PAUSE: Duration = Duration::from_millis(10);

pub struct Reader {
    pub crowd: Arc<Crowd>,
    pub meters: Arc<Meters>,
    pub pace: Arc<Pace>,
    /// The share of reads that are about the first post, whatever else is popular.
    pub hot_share: f64,
    pub client: Client,
    pub chance: SmallRng,
}

impl Reader {
    /// Reads so many posts at once until the phase is over.
    pub async fn run(mut self, posts: usize) {
        while let Some(due) = self.pace.turn().await {
            match self.read(posts).await {
                Ok(()) => {
                    self.meters.read_took(due);
                    self.meters.reads.add(1);
                }
                Err(error) => {
                    self.meters.reads_failed.add(1);
                    self.meters.trouble(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn read(&mut self, posts: usize) -> Result<(), ClientError> {
        let viewer = self.crowd.viewer(&mut self.chance);
        let mut post = || {
            let post = self.crowd.post(self.hot_share, &mut self.chance);
            self.crowd.post_id(post)
        };
        // What the node has now: waiting for another node's writes would measure the links.
        let read = Read {
            consistency: Consistency::Exact,
            ..Read::default()
        };
        if posts == 1 {
            let post = post();
            return self
                .client
                .get_post(&post, Some(&viewer), read)
                .await
                .map(drop);
        }
        let posts: Vec<String> = (0..posts).map(|_| post()).collect();
        let answer = self.client.batch_get_posts(&posts, Some(&viewer), read);
        answer.await.map(drop)
    }
}
