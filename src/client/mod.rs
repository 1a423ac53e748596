//! The client library: typed calls that remember what they saw, retry without doing twice, and go
//! to the next region when one is gone.
//!
//! ```no_run
//! # async fn example() -> Result<(), likewise::client::ClientError> {
//! use likewise::client::{Client, Read};
//!
//! let client = Client::builder()
//!     .endpoints(["http://127.0.0.1:7400"])
//!     .connect()
//!     .await?;
//! client.like("post-1", "ada").await?;
//! let post = client.get_post("post-1", Some("ada"), Read::default()).await?;
//! assert!(post.viewer_likes);
//! # Ok(())
//! # }
//! ```
//!
//! This module speaks the public protocol only: it knows nothing of a node's inside, and tokens and
//! like ids are opaque to it.

mod batch;
mod builder;
mod calls;
mod error;
mod gather;
mod likers;
mod memory;
mod regions;
mod retry;
mod stream;
mod trust;
mod watch;

pub use batch::Batch;
pub use builder::{ClientBuilder, RetryElsewhere};
pub use calls::{Read, RepairOf};
pub use error::{ClientError, Failure, FieldViolation, Refusal};
pub use likers::Likers;
pub use stream::{BatchAnswer, BatchReceiver, BatchSender, StreamError};
pub use watch::Watch;

pub use crate::wire::v1::Reason;

use std::sync::Arc;

use builder::Settings;
use gather::Gathering;
use memory::Memory;
use retry::Endpoints;

/// A handle on a cluster. Clones share connections and memory; it is cheap to clone.
///
/// It remembers the token of the answer that came last and sends it with each call, so calls that follow one
/// another never read older state, in whatever region. Calls made in parallel through one memory are
/// not ordered among one another: give each flow its own [`Client::session`].
#[derive(Clone)]
pub struct Client {
    endpoints: Arc<Endpoints>,
    settings: Arc<Settings>,
    memory: Arc<Memory>,
    /// Where calls are gathered. Not shared with sessions, for a batch has one token.
    gathering: Option<Arc<Gathering>>,
}

impl Client {
    /// Begins to describe a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// A client with the same connections and a memory of its own, which begins with this one's.
    pub fn session(&self) -> Self {
        Self {
            endpoints: Arc::clone(&self.endpoints),
            settings: Arc::clone(&self.settings),
            memory: Arc::new(Memory::beginning_with(self.memory.token())),
            gathering: self.gathering.as_ref().map(|_| Arc::default()),
        }
    }

    /// What this client has seen, to hand to another one. Empty before the first answer.
    pub fn token(&self) -> String {
        self.memory.token()
    }

    /// Goes on from what another client has seen.
    pub fn set_token(&self, token: impl Into<String>) {
        self.memory.saw(token.into());
    }
}
