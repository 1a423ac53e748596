//! Many writes in the columns of the protocol.

use std::collections::HashMap;

use super::calls::request_id;
use crate::wire::v1;
use crate::wire::v1::Operation;
use crate::wire::v1::write_batch::Users;

/// Bytes of a user's name that is called short.
const SHORT_NAME: usize = 16;

/// Many writes, applied in their order for each post and user.
#[derive(Debug, Clone)]
pub struct Batch {
    request_id: String,
    posts: Dictionary,
    operations: Vec<i32>,
    users: Vec<u8>,
    user_lengths: Vec<u32>,
    counters: Dictionary,
    deltas: Vec<i64>,
    include_like_ids: bool,
    include_figures: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            request_id: request_id(),
            posts: Dictionary::default(),
            operations: Vec::new(),
            users: Vec::new(),
            user_lengths: Vec::new(),
            counters: Dictionary::default(),
            deltas: Vec::new(),
            include_like_ids: false,
            include_figures: false,
        }
    }
}

impl Batch {
    /// An empty batch with a request id of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for so many writes more, of users with short names.
    pub(super) fn reserve(&mut self, writes: usize) {
        self.operations.reserve(writes);
        self.posts.indexes.reserve(writes);
        self.users.reserve(writes * SHORT_NAME);
        self.user_lengths.reserve(writes);
    }

    /// Asks for the like ids of each item.
    pub fn include_like_ids(mut self) -> Self {
        self.include_like_ids = true;
        self
    }

    /// Asks for the figure of each item: likers of the post, or the counter's value.
    pub fn include_figures(mut self) -> Self {
        self.include_figures = true;
        self
    }

    pub fn like(&mut self, post: &str, user: &str) {
        self.push_user(Operation::Like, post, user);
    }

    pub fn unlike(&mut self, post: &str, user: &str) {
        self.push_user(Operation::Unlike, post, user);
    }

    pub fn add(&mut self, post: &str, counter: &str, delta: i64) {
        self.operations.push(Operation::Add.into());
        self.posts.push(post);
        self.counters.push(counter);
        self.deltas.push(delta);
    }

    /// What the node knows the batch by, also in a retry.
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// How many writes it holds.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    fn push_user(&mut self, operation: Operation, post: &str, user: &str) {
        self.operations.push(operation.into());
        self.posts.push(post);
        self.users.extend_from_slice(user.as_bytes());
        let length = u32::try_from(user.len()).expect("a user id is far shorter than 4 GiB");
        self.user_lengths.push(length);
    }
}

/// The batch as it is sent; columns that hold one value throughout are shortened.
impl From<Batch> for v1::WriteBatch {
    fn from(batch: Batch) -> Self {
        let mut operations = batch.operations;
        if operations.windows(2).all(|pair| pair[0] == pair[1]) {
            operations.truncate(1);
        }
        let users = (!batch.user_lengths.is_empty()).then(|| {
            Users::UserStrings(v1::StringColumn {
                data: batch.users.into(),
                lengths: batch.user_lengths,
            })
        });
        let (posts, post_indexes) = batch.posts.into_columns();
        let (counters, counter_indexes) = batch.counters.into_columns();
        v1::WriteBatch {
            request_id: batch.request_id,
            posts,
            post_indexes,
            operations,
            users,
            counters,
            counter_indexes,
            deltas: batch.deltas,
            include_like_ids: batch.include_like_ids,
            include_figures: batch.include_figures,
            // What was seen is known when the batch is sent.
            token: String::new(),
        }
    }
}

/// Values that come again and again, each once, and where each item's stands.
#[derive(Debug, Clone, Default)]
struct Dictionary {
    values: Vec<String>,
    positions: HashMap<String, u32>,
    indexes: Vec<u32>,
}

impl Dictionary {
    fn push(&mut self, value: &str) {
        let index = match self.positions.get(value) {
            Some(index) => *index,
            None => {
                let index = u32::try_from(self.values.len()).expect("a batch is far smaller");
                self.values.push(value.to_owned());
                self.positions.insert(value.to_owned(), index);
                index
            }
        };
        self.indexes.push(index);
    }

    fn into_columns(self) -> (Vec<String>, Vec<u32>) {
        match self.values.len() {
            0 | 1 => (self.values, Vec::new()),
            _ => (self.values, self.indexes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_hold_one_value_are_shortened() {
        let mut batch = Batch::new();
        batch.like("p", "ada");
        batch.like("p", "bob");
        let wire = v1::WriteBatch::from(batch);
        assert_eq!(wire.posts, ["p"]);
        assert!(wire.post_indexes.is_empty());
        assert_eq!(wire.operations, [i32::from(Operation::Like)]);
        match wire.users {
            Some(Users::UserStrings(users)) => {
                assert_eq!(&users.data[..], b"adabob");
                assert_eq!(users.lengths, [3, 3]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mixed_items_keep_their_order() {
        let mut batch = Batch::new().include_like_ids();
        batch.like("p", "ada");
        batch.add("q", "views", 3);
        batch.unlike("p", "ada");
        batch.add("q", "shares", -1);
        assert_eq!(batch.len(), 4);
        let wire = v1::WriteBatch::from(batch);
        assert_eq!(wire.post_indexes, [0, 1, 0, 1]);
        assert_eq!(wire.operations, [1, 3, 2, 3]);
        assert_eq!(wire.counters, ["views", "shares"]);
        assert_eq!(wire.counter_indexes, [0, 1]);
        assert_eq!(wire.deltas, [3, -1]);
        assert!(wire.include_like_ids);
    }
}
