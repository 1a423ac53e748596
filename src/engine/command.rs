//! What clients ask for, checked and in the words of the domain.

use xxhash_rust::xxh3::Xxh3Default;

use crate::ids::{CounterName, PostId, Replica, RequestId, UserId};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Like {
        post: PostId,
        user: UserId,
    },
    /// Removes what this node sees, and the dots that a like id named.
    Unlike {
        post: PostId,
        user: UserId,
        named: Vec<(Replica, u64)>,
    },
    Add {
        post: PostId,
        counter: CounterName,
        /// Not zero.
        delta: i64,
    },
}

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Like,
    Unlike,
    Add,
}

impl Command {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Like { .. } => Kind::Like,
            Self::Unlike { .. } => Kind::Unlike,
            Self::Add { .. } => Kind::Add,
        }
    }

    pub fn post(&self) -> &PostId {
        match self {
            Self::Like { post, .. } | Self::Unlike { post, .. } | Self::Add { post, .. } => post,
        }
    }

    /// No fewer bytes than the command's event takes in the log.
    pub fn bytes_max(&self) -> usize {
        const FIGURES: usize = 96;
        const NAMED_DOT: usize = 64;
        let texts = match self {
            Self::Like { post, user } => post.as_bytes().len() + user.bytes_max(),
            Self::Unlike { post, user, named } => {
                post.as_bytes().len() + user.bytes_max() + NAMED_DOT * named.len()
            }
            Self::Add { post, counter, .. } => post.as_bytes().len() + counter.as_bytes().len(),
        };
        FIGURES + texts
    }

    /// What a digest is made of.
    fn spell(&self, into: &mut Vec<u8>) {
        let mut field = |bytes: &[u8]| {
            into.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            into.extend_from_slice(bytes);
        };
        match self {
            Self::Like { post, user } => {
                field(b"like");
                field(post.as_bytes());
                field(user.text().as_bytes());
            }
            Self::Unlike { post, user, named } => {
                field(b"unlike");
                field(post.as_bytes());
                field(user.text().as_bytes());
                for (replica, seq) in named {
                    field(replica.region.as_bytes());
                    field(&replica.epoch.to_bytes());
                    field(&seq.to_le_bytes());
                }
            }
            Self::Add {
                post,
                counter,
                delta,
            } => {
                field(b"add");
                field(post.as_bytes());
                field(counter.as_bytes());
                field(&delta.to_le_bytes());
            }
        }
    }
}

/// Commands that are applied in order for each post and user, and answered together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub commands: Vec<Command>,
    pub request: Option<RequestId>,
}

impl Write {
    /// Frozen hash of the contents: a retry has the same, also after a restart and an upgrade.
    pub fn digest(&self) -> u64 {
        let mut hasher = Xxh3Default::new();
        let mut spelled = Vec::new();
        for command in &self.commands {
            spelled.clear();
            command.spell(&mut spelled);
            hasher.update(&spelled);
        }
        hasher.digest()
    }
}
