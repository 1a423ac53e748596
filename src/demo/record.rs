//! What was acknowledged, written down by the one who asked: the measure of what the nodes hold.
//!
//! A user likes a post if and only if some acknowledged like is named neither as removed by an
//! acknowledged unlike nor as replaced by an acknowledged like. Where the outcome of a write is unknown,
//! both are right. Like ids are compared as they are; nothing here knows how nodes work.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;

use crate::wire::v1::{ItemLikeIds, Outcome, WriteResult};

/// A post of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Post {
    /// One of those that the load writes to.
    Numbered(u32),
    /// Liked by the same users on both sides of a cut.
    Both,
    /// Liked by the same users on both sides of a cut, and unliked on one.
    BothUnliked,
}

impl fmt::Display for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numbered(number) => write!(f, "post-{number}"),
            Self::Both => f.write_str("sunrise"),
            Self::BothUnliked => f.write_str("encore"),
        }
    }
}

/// A user of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct User(pub u32);

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "user-{}", self.0)
    }
}

/// A write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    Like(Post, User),
    Unlike(Post, User),
    View(Post),
}

/// The answers so far.
#[derive(Default)]
pub struct Record {
    pairs: HashMap<(Post, User), Pair>,
    views: BTreeMap<Post, Views>,
    writes: u64,
}

#[derive(Default)]
struct Pair {
    /// Acknowledged likes that nothing acknowledged took away.
    live: HashSet<String>,
    /// What was taken away, also before its like was acknowledged.
    gone: HashSet<String>,
    /// Writes without an outcome.
    unknown: u32,
}

#[derive(Default, Clone, Copy)]
struct Views {
    made: i64,
    unknown: i64,
}

/// What one node holds, as it told a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub counts: BTreeMap<Post, u64>,
    pub likers: BTreeSet<(Post, User)>,
    pub views: BTreeMap<Post, i64>,
}

impl Record {
    /// How many writes were acknowledged.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Writes down an acknowledged like.
    pub fn liked(&mut self, post: Post, user: User, like_id: &str, replaced: &[String]) {
        self.writes += 1;
        let pair = self.pairs.entry((post, user)).or_default();
        pair.remove(replaced);
        if !pair.gone.contains(like_id) {
            pair.live.insert(like_id.to_owned());
        }
    }

    /// Writes down an acknowledged unlike.
    pub fn unliked(&mut self, post: Post, user: User, removed: &[String]) {
        self.writes += 1;
        self.pairs.entry((post, user)).or_default().remove(removed);
    }

    /// Writes down an acknowledged view.
    pub fn viewed(&mut self, post: Post) {
        self.writes += 1;
        self.views.entry(post).or_default().made += 1;
    }

    /// Writes down the answer to a batch; refused items changed nothing.
    pub fn answered(&mut self, writes: &[Write], result: &WriteResult) {
        let nothing = ItemLikeIds::default();
        for (at, write) in writes.iter().enumerate() {
            let refused = result.outcomes.get(at).is_none_or(|outcome| {
                matches!(
                    Outcome::try_from(*outcome),
                    Ok(Outcome::Refused | Outcome::Unspecified) | Err(_)
                )
            });
            if refused {
                continue;
            }
            let ids = result.like_ids.get(at).unwrap_or(&nothing);
            match *write {
                Write::Like(post, user) => {
                    self.liked(post, user, &ids.like_id, &ids.removed_like_ids);
                }
                Write::Unlike(post, user) => self.unliked(post, user, &ids.removed_like_ids),
                Write::View(post) => self.viewed(post),
            }
        }
    }

    /// Writes down that nobody knows what became of a write.
    pub fn unknown(&mut self, write: Write) {
        match write {
            Write::Like(post, user) | Write::Unlike(post, user) => {
                self.pairs.entry((post, user)).or_default().unknown += 1;
            }
            Write::View(post) => self.views.entry(post).or_default().unknown += 1,
        }
    }

    /// How many writes are without an outcome.
    pub fn unknown_writes(&self) -> u64 {
        let pairs: u64 = self
            .pairs
            .values()
            .map(|pair| u64::from(pair.unknown))
            .sum();
        let views: i64 = self.views.values().map(|views| views.unknown).sum();
        pairs + views.unsigned_abs()
    }

    /// Where what a node holds differs from what was acknowledged, in words.
    pub fn differences(&self, seen: &Seen) -> Vec<String> {
        let mut found = Vec::new();
        for ((post, user), pair) in &self.pairs {
            let likes = seen.likers.contains(&(*post, *user));
            match (pair.expected(), likes) {
                (Some(true), false) => found.push(format!("{user} likes {post}, and it is lost")),
                (Some(false), true) => found.push(format!("{user} does not like {post} any more")),
                _ => {}
            }
        }
        for (post, user) in &seen.likers {
            if !self.pairs.contains_key(&(*post, *user)) {
                found.push(format!("{user} never liked {post}"));
            }
        }
        found.extend(seen.counts.iter().filter_map(|(post, count)| {
            let likers = seen
                .likers
                .iter()
                .filter(|(liked, _)| liked == post)
                .count() as u64;
            (likers != *count).then(|| format!("{post} counts {count} and has {likers} likers"))
        }));
        for (post, views) in &self.views {
            let value = seen.views.get(post).copied().unwrap_or(0);
            let right = views.expected();
            if !right.contains(&value) {
                found.push(format!("{post} has {value} views, not {right:?}"));
            }
        }
        found.sort();
        found
    }
}

impl Pair {
    fn remove(&mut self, ids: &[String]) {
        for id in ids {
            self.live.remove(id);
            self.gone.insert(id.clone());
        }
    }

    /// Whether the user likes the post; `None` where both are right.
    fn expected(&self) -> Option<bool> {
        (self.unknown == 0).then_some(!self.live.is_empty())
    }
}

impl Views {
    fn expected(self) -> RangeInclusive<i64> {
        self.made..=self.made + self.unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POST: Post = Post::Numbered(1);
    const USER: User = User(7);

    fn ids<const N: usize>(ids: [&str; N]) -> Vec<String> {
        ids.map(str::to_owned).to_vec()
    }

    fn seen(likes: bool) -> Seen {
        let likers: BTreeSet<_> = likes.then_some((POST, USER)).into_iter().collect();
        Seen {
            counts: [(POST, likers.len() as u64)].into(),
            likers,
            views: BTreeMap::new(),
        }
    }

    fn check(record: &Record, likes: Option<bool>) {
        assert_eq!(
            record.differences(&seen(true)).is_empty(),
            likes != Some(false)
        );
        assert_eq!(
            record.differences(&seen(false)).is_empty(),
            likes != Some(true)
        );
    }

    #[test]
    fn a_hidden_acknowledged_like_is_caught() {
        let mut record = Record::default();
        record.liked(POST, USER, "a", &[]);
        assert_eq!(
            record.differences(&seen(false)),
            ["user-7 likes post-1, and it is lost"]
        );
        check(&record, Some(true));
    }

    #[test]
    fn a_liker_whom_nobody_made_is_caught() {
        let record = Record::default();
        assert_eq!(
            record.differences(&seen(true)),
            ["user-7 never liked post-1"]
        );
    }

    #[test]
    fn an_unlike_takes_what_it_names_and_nothing_else() {
        let mut record = Record::default();
        record.liked(POST, USER, "us", &[]);
        record.liked(POST, USER, "ap", &[]);
        record.unliked(POST, USER, &ids(["ap"]));
        check(&record, Some(true));
        record.unliked(POST, USER, &ids(["us"]));
        check(&record, Some(false));
    }

    #[test]
    fn a_repeated_like_replaces_and_an_early_removal_holds() {
        let mut record = Record::default();
        record.liked(POST, USER, "b", &ids(["a"]));
        record.liked(POST, USER, "a", &[]);
        record.unliked(POST, USER, &ids(["b"]));
        check(&record, Some(false));
    }

    #[test]
    fn unknown_outcomes_may_be_either() {
        let mut record = Record::default();
        record.liked(POST, USER, "a", &[]);
        record.unknown(Write::Unlike(POST, USER));
        record.unknown(Write::View(POST));
        check(&record, None);
        assert_eq!(record.unknown_writes(), 2);
    }

    #[test]
    fn a_count_beside_its_likers_is_caught() {
        let mut record = Record::default();
        record.liked(POST, USER, "a", &[]);
        let mut drifted = seen(true);
        drifted.counts.insert(POST, 2);
        assert_eq!(
            record.differences(&drifted),
            ["post-1 counts 2 and has 1 likers"]
        );
    }

    #[test]
    fn views_are_exact() {
        let mut record = Record::default();
        record.viewed(POST);
        let mut viewed = seen(false);
        assert_eq!(
            record.differences(&viewed),
            ["post-1 has 0 views, not 1..=1"]
        );
        viewed.views.insert(POST, 1);
        assert!(record.differences(&viewed).is_empty());
    }

    #[test]
    fn refused_items_change_nothing() {
        let mut record = Record::default();
        let item = |like_id: &str| ItemLikeIds {
            like_id: like_id.to_owned(),
            removed_like_ids: Vec::new(),
        };
        let result = WriteResult {
            outcomes: vec![Outcome::Refused.into(), Outcome::Liked.into()],
            like_ids: vec![item(""), item("a")],
            ..WriteResult::default()
        };
        let writes = [Write::Like(POST, User(1)), Write::Like(POST, USER)];
        record.answered(&writes, &result);
        assert_eq!(record.writes(), 1);
        check(&record, Some(true));
    }
}
