//! What an operation on a post's likers changed, gathered so that figures and fingerprint follow in
//! one step.

use smallvec::SmallVec;

use crate::crdt::dot::{Dot, ReplicaIndex, Replicas};
use crate::crdt::fingerprint::{Fingerprint, FingerprintKey, PostHash};
use crate::crdt::user_key::UserHash;

/// What is needed to name the entries of one post.
#[derive(Clone, Copy)]
pub struct PostContext<'a> {
    pub key: FingerprintKey,
    pub post: PostHash,
    pub replicas: &'a Replicas,
}

impl PostContext<'_> {
    pub fn liker(&self, user: UserHash, dot: Dot) -> Fingerprint {
        let replica = self.replicas.hash(dot.replica);
        Fingerprint::liker(self.key, self.post, user, replica, dot.seq)
    }

    pub fn orphan_removal(&self, user: UserHash, dot: Dot) -> Fingerprint {
        let replica = self.replicas.hash(dot.replica);
        Fingerprint::orphan_removal(self.key, self.post, user, replica, dot.seq)
    }
}

/// Changes of one post.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// By how much each replica's credited users became more or fewer.
    pub credited: SmallVec<[(ReplicaIndex, i64); 2]>,
    /// By how much the sum over the post's entries changed.
    pub fingerprint: Fingerprint,
}

impl Changes {
    pub(super) fn credit(&mut self, replica: ReplicaIndex, by: i64) {
        match self
            .credited
            .iter_mut()
            .find(|(known, _)| *known == replica)
        {
            Some((_, sum)) => *sum += by,
            None => self.credited.push((replica, by)),
        }
    }

    /// A user has come to like the post, with these dots.
    #[inline]
    pub(super) fn add_liker(&mut self, context: PostContext<'_>, user: UserHash, dots: &[Dot]) {
        if let Some(credited) = context.replicas.smallest(dots) {
            self.credit(credited.replica, 1);
        }
        for dot in dots {
            self.fingerprint += context.liker(user, *dot);
        }
    }

    /// Adds what was changed elsewhere of the same post.
    pub fn join(&mut self, other: &Self) {
        for (replica, by) in &other.credited {
            self.credit(*replica, *by);
        }
        self.fingerprint += other.fingerprint;
    }

    /// By how much the post's likers became more or fewer.
    pub fn likers(&self) -> i64 {
        self.credited.iter().map(|(_, by)| by).sum()
    }
}
