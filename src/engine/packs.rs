//! Packs: small posts stand many in one row of the store, for small rows are dear.
//!
//! A pack holds the small posts whose hash lies between its key and the next pack's, within one range. Packs
//! are split and never joined. A post that has outgrown them gets rows of its own and never comes back: so
//! where both are found, its own rows are the newer ones.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use crate::crdt::fingerprint::PostHash;
use crate::engine::rows::PackedPost;

/// A pack beyond this is split,
const PACK_BYTES_MAX: usize = 32 << 10;
/// into packs of about this size.
const PACK_BYTES: usize = 16 << 10;
/// A post beyond this gets rows of its own: it would be written again with every change of its neighbours.
const PACKED_POST_BYTES_MAX: usize = 4 << 10;
/// Bytes of a number in a row, about.
const NUMBER_BYTES: usize = 5;

/// Where packs begin: at least where they do in the store, so that writing one never covers another that is
/// not written with it.
#[derive(Default)]
pub(super) struct Packs {
    begins: Mutex<BTreeSet<u64>>,
}

impl Packs {
    /// The first and the last hash of the pack to which a hash belongs. The first pack of a range begins where
    /// the range does.
    pub fn around(&self, hash: u64) -> (u64, u64) {
        let (first, last) = PostHash::orders_of_range(PostHash::range_of_order(hash));
        let begins = self.begins.lock();
        let from = begins.range(first..=hash).next_back();
        let next = match hash < last {
            true => begins.range(hash + 1..=last).next(),
            false => None,
        };
        (
            from.copied().unwrap_or(first),
            next.map_or(last, |next| next - 1),
        )
    }

    /// A pack begins at the hash. Returns whether none did.
    pub fn begin_at(&self, hash: u64) -> bool {
        self.begins.lock().insert(hash)
    }
}

/// Whether a post is small enough for a pack.
pub(super) fn fits(post: &PackedPost) -> bool {
    bytes_of(post) <= PACKED_POST_BYTES_MAX
}

/// Bytes of a post in a row, about.
fn bytes_of(post: &PackedPost) -> usize {
    let likers = post.likers.iter();
    let likers = likers.map(|(user, dots)| user.bytes_len() + 2 + NUMBER_BYTES * dots.len());
    let counters = post.figures.counters.iter();
    let counters = counters
        .map(|(name, entries)| name.as_bytes().len() + 2 + 2 * NUMBER_BYTES * entries.len());
    let fixed = post.id.as_bytes().len() + 2 * NUMBER_BYTES;
    let likes = NUMBER_BYTES * post.figures.likes.len();
    fixed + likes + likers.sum::<usize>() + counters.sum::<usize>()
}

/// Splits the posts of a pack, which come in descending order of their hashes, where they are too many for one.
/// Returns packs in the same order, the last of which begins at `from`.
pub(super) fn split(from: u64, posts: Vec<PackedPost>) -> Vec<(u64, Vec<PackedPost>)> {
    if posts.iter().map(bytes_of).sum::<usize>() <= PACK_BYTES_MAX {
        return vec![(from, posts)];
    }
    let mut packs = Vec::new();
    let (mut pack, mut bytes) = (Vec::new(), 0);
    let mut begin = from;
    for post in posts {
        let hash = PostHash::of(&post.id).order();
        // Posts of one hash stay together.
        if bytes >= PACK_BYTES && hash < begin {
            packs.push((begin, std::mem::take(&mut pack)));
            bytes = 0;
        }
        begin = hash;
        bytes += bytes_of(&post);
        pack.push(post);
    }
    packs.push((from, pack));
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::rows::StoredFigures;
    use crate::ids::{PostId, UserId};

    fn post(number: usize, likers: usize) -> PackedPost {
        let liker = |number| {
            let user = UserId::new(&format!("user-{number}")).expect("valid");
            (user, Default::default())
        };
        PackedPost {
            id: PostId::new(&format!("post-{number}")).expect("valid"),
            figures: StoredFigures::default(),
            likers: (0..likers).map(liker).collect(),
        }
    }

    fn descending(posts: usize) -> Vec<PackedPost> {
        let mut posts: Vec<_> = (0..posts).map(|number| post(number, 20)).collect();
        posts.sort_unstable_by_key(|post| std::cmp::Reverse(PostHash::of(&post.id).order()));
        posts
    }

    #[test]
    fn every_hash_belongs_to_one_pack_and_none_spans_two_ranges() {
        let packs = Packs::default();
        assert_eq!(packs.around(0), (0, (1 << 56) - 1));
        assert_eq!(packs.around(u64::MAX), (0xff << 56, u64::MAX));
        assert!(packs.begin_at(100) && !packs.begin_at(100));
        assert_eq!(packs.around(99), (0, 99));
        assert_eq!(packs.around(100), (100, (1 << 56) - 1));
        packs.begin_at(u64::MAX);
        assert_eq!(packs.around(u64::MAX), (u64::MAX, u64::MAX));
        assert_eq!(packs.around(1 << 56), (1 << 56, (2 << 56) - 1));
    }

    #[test]
    fn a_large_pack_is_split_and_holds_every_post_where_it_is_looked_for() {
        assert_eq!(split(7, descending(20)), vec![(7, descending(20))]);
        let posts = descending(1_000);
        let packs = split(0, posts.clone());
        assert!(packs.len() > 5, "{}", packs.len());
        let mut last = u64::MAX;
        for (from, pack) in &packs {
            let hashes = pack.iter().map(|post| PostHash::of(&post.id).order());
            assert!(
                hashes
                    .into_iter()
                    .all(|hash| (*from..=last).contains(&hash))
            );
            assert!(pack.iter().map(bytes_of).sum::<usize>() < PACK_BYTES_MAX);
            last = from.wrapping_sub(1);
        }
        assert_eq!(packs.last().map(|(from, _)| *from), Some(0));
        let all: Vec<_> = packs.into_iter().flat_map(|(_, pack)| pack).collect();
        assert_eq!(all, posts);
    }
}
