//! The rows of a range, read and compared with memory.

use std::collections::HashMap;
use std::sync::Arc;

use super::{MendError, Mender};
use crate::crdt::likers::Likers;
use crate::engine::post::Post;
use crate::engine::rows::{self, PostKey, RowError, StoredFigures};
use crate::engine::stored::{Assembly, Place, StoredPost};
use crate::ids::PostId;

/// Rows that are read at a time.
const ROWS_AT_ONCE: usize = 64;

impl Mender {
    /// Posts of which a row cannot be read, is missing, or differs from an unchanged bucket.
    pub(super) async fn posts_with_bad_rows(
        &self,
        range: usize,
    ) -> Result<Vec<Arc<Post>>, MendError> {
        let mut unseen = self.posts_of(range);
        let mut bad = Vec::new();
        let mut see = |id: PostId, stored: StoredPost| {
            if let Some(post) = unseen.remove(&id)
                && !self.fits(&post, &stored)
            {
                bad.push(post);
            }
        };
        let damaged = self.read_range(range, &mut see).await?;
        for (key, error) in damaged {
            tracing::error!(range, ?key, %error, "a row of the checkpoint is damaged");
            let (PostKey::Figures(id) | PostKey::Likers(id, _)) = key else {
                continue;
            };
            bad.extend(self.engine.directory.get(&id));
        }
        // What no row speaks of was never stored, or its row is lost.
        let nothing = StoredPost::default();
        bad.extend(
            unseen
                .into_values()
                .filter(|post| !self.fits(post, &nothing)),
        );
        bad.sort_unstable_by_key(|post| post.number);
        bad.dedup_by_key(|post| post.number);
        Ok(bad)
    }

    fn posts_of(&self, range: usize) -> HashMap<PostId, Arc<Post>> {
        let posts = self.engine.directory.in_range(range).into_iter();
        posts.map(|post| (post.id.clone(), post)).collect()
    }

    fn fits(&self, post: &Arc<Post>, stored: &StoredPost) -> bool {
        let figures_fit = || {
            let figures = StoredFigures::of(&post.figures()).essential();
            post.has_changed() || figures == stored.figures.clone().essential()
        };
        // A write notes that it changed the figures after it did, but before it gives its shard back.
        let mut fit = figures_fit() || {
            let _shards = self.engine.lock_all();
            figures_fit()
        };
        for shard in &self.engine.shards {
            let shard = shard.lock();
            let unchanged = shard.likers(post).into_iter().flat_map(Likers::unchanged);
            for (from, to, likers) in unchanged {
                let likers = likers.map(|liker| (liker.user, liker.dots));
                fit &= stored.says(from, to, likers);
            }
        }
        for (from, _) in &stored.likers {
            fit &= !self.engine.begin_bucket_at(post, *from);
        }
        if stored.place != Place::Pack && !post.owns_rows() {
            post.set_owns_rows();
            fit = false;
        }
        fit
    }

    /// Hands over the posts of a range as the store has them. Returns the rows that cannot be read, which are
    /// passed over.
    pub(super) async fn read_range(
        &self,
        range: usize,
        see: &mut impl FnMut(PostId, StoredPost),
    ) -> Result<Vec<(PostKey, RowError)>, MendError> {
        let prefix = rows::range_prefix(range);
        let mut after = prefix.to_vec();
        let mut assembly = Assembly::default();
        let mut damaged = Vec::new();
        loop {
            let page = self.store.scan(Some(after), ROWS_AT_ONCE).await?;
            let rows = page.iter().take_while(|(key, _)| key.starts_with(&prefix));
            let mut read = 0;
            for (key, row) in rows {
                read += 1;
                let Some(key) = rows::post_key(key)? else {
                    continue;
                };
                if let PostKey::Pack(from) = key {
                    self.engine.packs.begin_at(from);
                }
                let added = assembly.add(key.clone(), row, &self.engine.replicas, see);
                damaged.extend(added.err().map(|error| (key, error)));
            }
            match page.into_iter().next_back() {
                Some((last, _)) if read == ROWS_AT_ONCE => after = last,
                _ => break,
            }
        }
        assembly.finish(see);
        Ok(damaged)
    }
}
