//! What all clients of a run have in common: the posts, who likes them, and what was acknowledged.

use std::collections::HashMap;

use rand::Rng;
use rand::rngs::SmallRng;

use super::audience::Audience;
use super::ledger::Ledger;
use super::settings::Settings;
use super::zipf::Zipf;
use crate::client::Batch;
use crate::wire::v1::write_batch::Users;
use crate::wire::v1::{IntegerColumn, Operation, WriteBatch};

/// Users are this and a number.
const USER_PREFIX: &str = "u";

pub struct Crowd {
    pub name: String,
    pub posts: u32,
    pub ledger: Ledger,
    users: u32,
    audience: Audience,
    popularity: Zipf,
}

/// A like that is made once: a post, and whose turn it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Like {
    pub post: u32,
    pub turn: u32,
    /// Whether the user had their turn before.
    pub repeats: bool,
}

/// How likes are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taste {
    /// The share that goes to the first post, whatever else is popular.
    pub hot_share: f64,
    /// The share of likes by users who like the post already.
    pub dup_ratio: f64,
}

impl Crowd {
    /// Posts are named by `name` and a number.
    pub fn new(settings: &Settings, name: String) -> Self {
        Self {
            name,
            posts: settings.posts,
            ledger: Ledger::new(settings.posts),
            users: settings.users,
            audience: Audience::new(settings.posts, settings.users),
            popularity: Zipf::new(settings.posts, settings.zipf),
        }
    }

    pub fn post_id(&self, post: u32) -> String {
        super::post_id(&self.name, post)
    }

    pub fn user_id(&self, like: Like) -> String {
        let number = self.audience.user(like.post, like.turn);
        format!("{USER_PREFIX}{number}")
    }

    /// Anybody, to see a post through their eyes.
    pub fn viewer(&self, chance: &mut SmallRng) -> String {
        format!("{USER_PREFIX}{}", chance.random_range(0..self.users))
    }

    pub fn post(&self, hot_share: f64, chance: &mut SmallRng) -> u32 {
        match hot_share > 0.0 && chance.random_bool(hot_share) {
            true => 0,
            false => self.popularity.rank(chance.random()),
        }
    }

    pub fn like(&self, taste: Taste, chance: &mut SmallRng) -> Like {
        let post = self.post(taste.hot_share, chance);
        let repeats = taste.dup_ratio > 0.0 && chance.random_bool(taste.dup_ratio);
        let repeats = repeats || self.audience.is_full(post);
        let turn = match repeats {
            true => self.audience.regular(post, chance),
            false => self.audience.newcomer(post, chance),
        };
        Like {
            post,
            turn,
            repeats,
        }
    }

    /// The likes in the columns of the protocol, under a request id of their own.
    pub fn batch(&self, likes: &[Like]) -> WriteBatch {
        let mut batch = WriteBatch::from(Batch::new());
        let mut positions = HashMap::new();
        for like in likes {
            let next = batch.posts.len() as u32;
            let position = *positions.entry(like.post).or_insert(next);
            if position == next {
                batch.posts.push(self.post_id(like.post));
            }
            batch.post_indexes.push(position);
        }
        if batch.posts.len() == 1 {
            batch.post_indexes.clear();
        }
        batch.operations = vec![Operation::Like.into()];
        let users = likes.iter();
        let values = users.map(|like| self.audience.user(like.post, like.turn));
        batch.users = Some(Users::UserIntegers(IntegerColumn {
            prefix: USER_PREFIX.to_owned(),
            values: values.collect(),
        }));
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;

    use super::super::settings::{Kind, Wanted};
    use super::*;

    fn crowd(posts: i64, users: i64) -> Crowd {
        let wanted = Wanted {
            posts: Some(posts),
            users: Some(users),
            ..Wanted::default()
        };
        let settings = Settings::new(Kind::Like, wanted).expect("sound");
        Crowd::new(&settings, "t".to_owned())
    }

    #[test]
    fn without_repeats_no_like_is_made_twice_until_all_like() {
        let crowd = crowd(2, 50);
        let mut chance = SmallRng::seed_from_u64(3);
        let taste = Taste {
            hot_share: 0.5,
            dup_ratio: 0.0,
        };
        let mut seen = BTreeSet::new();
        for _ in 0..1_000 {
            let like = crowd.like(taste, &mut chance);
            let is_new = seen.insert((like.post, crowd.user_id(like)));
            assert_eq!(is_new, !like.repeats);
        }
        assert_eq!(seen.len(), 100);
    }

    #[test]
    fn repeats_are_as_many_as_asked_for() {
        let crowd = crowd(10, 1_000_000);
        let mut chance = SmallRng::seed_from_u64(3);
        let taste = Taste {
            hot_share: 0.0,
            dup_ratio: 0.25,
        };
        let likes = (0..10_000).map(|_| crowd.like(taste, &mut chance));
        let repeats = likes.filter(|like| like.repeats).count();
        assert!((2_300..2_700).contains(&repeats), "{repeats}");
    }

    #[test]
    fn a_batch_names_each_post_once() {
        let crowd = crowd(9, 100);
        let like = |post, turn| Like {
            post,
            turn,
            repeats: false,
        };
        let batch = crowd.batch(&[like(7, 0), like(2, 1), like(7, 2)]);
        assert_eq!(batch.posts, ["t-7", "t-2"]);
        assert_eq!(batch.post_indexes, [0, 1, 0]);
        assert!(!batch.request_id.is_empty());
        let one = crowd.batch(&[like(7, 0), like(7, 1)]);
        assert!(one.post_indexes.is_empty());
        let Some(Users::UserIntegers(users)) = one.users else {
            panic!("users are numbered");
        };
        let ids: Vec<String> = users.values.iter().map(|user| format!("u{user}")).collect();
        assert_eq!(ids, [crowd.user_id(like(7, 0)), crowd.user_id(like(7, 1))]);
    }
}
