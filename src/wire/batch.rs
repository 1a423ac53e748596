//! Batches of writes: columns → commands.
//!
//! A batch whose columns do not fit together says nothing reliable about any item and is refused whole.
//! A bad id or delta concerns its own items alone.

use crate::codec::text::NamedSeq;
use crate::engine::command::{Command, Kind, Write};
use crate::ids::{ClusterId, CounterName, IdError, NumberedUsers, PostId, UserId};
use crate::limits::BATCH_ITEMS_MAX;
use crate::wire::field::{self, FieldError};
use crate::wire::v1::{Operation, StringColumn, WriteBatch, write_batch};

/// A batch whose columns fit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedBatch {
    /// The good items.
    pub write: Write,
    /// For each command its position in the batch.
    pub places: Vec<u32>,
    /// The bad items, by position.
    pub refused: Vec<(u32, FieldError)>,
    /// Good and bad items.
    pub items: usize,
    pub include_like_ids: bool,
    pub include_figures: bool,
    /// What the caller has seen.
    pub seen: Vec<NamedSeq>,
}

/// Checks a batch.
///
/// # Errors
/// When the columns do not fit together or exceed a limit: the whole batch is refused.
pub fn check(cluster: &ClusterId, batch: Option<WriteBatch>) -> Result<CheckedBatch, FieldError> {
    let Some(batch) = batch else {
        return Err(FieldError::invalid("batch", "is missing"));
    };
    columns(cluster, &batch).map_err(|error| error.within("batch"))
}

fn columns(cluster: &ClusterId, batch: &WriteBatch) -> Result<CheckedBatch, FieldError> {
    field::length("posts", batch.posts.len(), BATCH_ITEMS_MAX)?;
    field::at_most("counters", batch.counters.len(), BATCH_ITEMS_MAX)?;
    let operations = Operations::of(batch)?;
    let posts = Dictionary::of("posts", &batch.posts);
    let counters = Dictionary::of("counters", &batch.counters);
    let post_indexes = Indexes::of(
        "post_indexes",
        &batch.post_indexes,
        operations.items,
        batch.posts.len(),
    )?;
    let counter_indexes = Indexes::of(
        "counter_indexes",
        &batch.counter_indexes,
        batch.deltas.len(),
        batch.counters.len(),
    )?;
    let mut items = Items {
        batch,
        posts,
        counters,
        post_indexes,
        counter_indexes,
        users: Users::of(batch)?,
        liked: 0,
        added: 0,
    };
    let mut checked = CheckedBatch {
        write: Write {
            commands: Vec::with_capacity(operations.items),
            request: field::request_id(&batch.request_id)?,
        },
        places: Vec::with_capacity(operations.items),
        refused: Vec::new(),
        items: operations.items,
        include_like_ids: batch.include_like_ids,
        include_figures: batch.include_figures,
        seen: field::token(cluster, "token", &batch.token)?,
    };
    for at in 0..operations.items {
        match items.command(at, operations.at(at)) {
            Ok(command) => {
                checked.write.commands.push(command);
                checked.places.push(at as u32);
            }
            Err(error) => checked.refused.push((at as u32, error.within("batch"))),
        }
    }
    Ok(checked)
}

fn length_mismatch(field: &str, found: usize, wanted: usize, of: &str) -> FieldError {
    let problem = format!("has {found} values; {wanted} are needed, one for each {of}");
    FieldError::invalid(field, problem)
}

/// What an item does.
fn kind(at: usize, operation: i32) -> Result<Kind, FieldError> {
    match Operation::try_from(operation) {
        Ok(Operation::Like) => Ok(Kind::Like),
        Ok(Operation::Unlike) => Ok(Kind::Unlike),
        Ok(Operation::Add) => Ok(Kind::Add),
        Ok(Operation::Unspecified) | Err(_) => {
            let field = format!("operations[{at}]");
            let problem = format!("is {operation}; give LIKE, UNLIKE or ADD");
            Err(FieldError::invalid(field, problem))
        }
    }
}

struct Operations {
    kinds: Vec<Kind>,
    items: usize,
}

impl Operations {
    /// The operations, one for all items or one for each; users and deltas are as many as they need.
    fn of(batch: &WriteBatch) -> Result<Self, FieldError> {
        field::length("operations", batch.operations.len(), BATCH_ITEMS_MAX)?;
        let kinds = batch.operations.iter().enumerate();
        let kinds = kinds.map(|(at, operation)| kind(at, *operation));
        let kinds = kinds.collect::<Result<Vec<_>, _>>()?;
        let users = users_len(batch);
        let deltas = batch.deltas.len();
        let items = match kinds.as_slice() {
            [Kind::Add] => deltas,
            [_] => users.unwrap_or(0),
            several => several.len(),
        };
        let adds = match kinds.as_slice() {
            [Kind::Add] => items,
            [_] => 0,
            several => several.iter().filter(|kind| **kind == Kind::Add).count(),
        };
        if items == 0 {
            let empty = match kinds.as_slice() {
                [Kind::Add] => "deltas",
                _ => "users",
            };
            let problem = "is empty; give at least one value";
            return Err(FieldError::invalid(empty, problem));
        }
        field::at_most("operations", items, BATCH_ITEMS_MAX)?;
        let users = users.unwrap_or(0);
        if users != items - adds {
            return Err(length_mismatch(
                "users",
                users,
                items - adds,
                "like or unlike",
            ));
        }
        if deltas != adds {
            return Err(length_mismatch("deltas", deltas, adds, "add"));
        }
        Ok(Self { kinds, items })
    }

    fn at(&self, item: usize) -> Kind {
        match self.kinds.as_slice() {
            [all] => *all,
            each => each[item],
        }
    }
}

fn users_len(batch: &WriteBatch) -> Option<usize> {
    match batch.users.as_ref()? {
        write_batch::Users::UserStrings(column) => Some(column.lengths.len()),
        write_batch::Users::UserIntegers(column) => Some(column.values.len()),
    }
}

/// The names that items speak of, each checked once.
struct Dictionary<T> {
    field: &'static str,
    names: Vec<Result<T, IdError>>,
}

impl<T: std::str::FromStr<Err = IdError> + Clone> Dictionary<T> {
    fn of(field: &'static str, names: &[String]) -> Self {
        let names = names.iter().map(|name| name.parse()).collect();
        Self { field, names }
    }

    fn get(&self, at: usize) -> Result<T, FieldError> {
        let bad = |error| FieldError::invalid(format!("{}[{at}]", self.field), error);
        self.names[at].clone().map_err(bad)
    }
}

/// Positions in a dictionary, all of them inside.
struct Indexes<'a> {
    indexes: &'a [u32],
}

impl<'a> Indexes<'a> {
    fn of(
        field: &str,
        indexes: &'a [u32],
        wanted: usize,
        names: usize,
    ) -> Result<Self, FieldError> {
        if !indexes.is_empty() && indexes.len() != wanted {
            return Err(length_mismatch(field, indexes.len(), wanted, "item"));
        }
        if indexes.is_empty() && wanted > 0 && names == 0 {
            let problem = "is empty, and so is the list that it would point into";
            return Err(FieldError::invalid(field, problem));
        }
        match indexes.iter().position(|index| *index as usize >= names) {
            None => Ok(Self { indexes }),
            Some(at) => {
                let problem = format!("is {}; the list has {names} elements", indexes[at]);
                Err(FieldError::invalid(format!("{field}[{at}]"), problem))
            }
        }
    }

    fn at(&self, item: usize) -> usize {
        self.indexes.get(item).map_or(0, |index| *index as usize)
    }
}

/// The users of likes and unlikes, taken one after the other.
enum Users<'a> {
    None,
    Strings {
        text: &'a str,
        lengths: &'a [u32],
    },
    Integers {
        users: NumberedUsers,
        values: &'a [u64],
    },
}

impl<'a> Users<'a> {
    fn of(batch: &'a WriteBatch) -> Result<Self, FieldError> {
        match &batch.users {
            None => Ok(Self::None),
            Some(write_batch::Users::UserStrings(column)) => strings(column),
            Some(write_batch::Users::UserIntegers(column)) => Ok(Self::Integers {
                users: NumberedUsers::of(&column.prefix),
                values: &column.values,
            }),
        }
    }

    fn next(&mut self, at: usize) -> Result<UserId, FieldError> {
        match self {
            Self::None => Err(FieldError::invalid("users", "is missing")),
            Self::Strings { text, lengths } => {
                let (user, rest) = text.split_at(lengths[at] as usize);
                *text = rest;
                UserId::new(user)
                    .map_err(|error| FieldError::invalid(format!("user_strings[{at}]"), error))
            }
            Self::Integers { users, values } => users
                .user(values[at])
                .map_err(|error| FieldError::invalid(format!("user_integers[{at}]"), error)),
        }
    }
}

/// The column as text, once it is known that every value in it is text of its own.
fn strings(column: &StringColumn) -> Result<Users<'_>, FieldError> {
    let bytes: u64 = column.lengths.iter().map(|length| u64::from(*length)).sum();
    if bytes != column.data.len() as u64 {
        let problem = format!("add up to {bytes}; data has {} bytes", column.data.len());
        return Err(FieldError::invalid("user_strings.lengths", problem));
    }
    let text = std::str::from_utf8(&column.data).map_err(|error| {
        let error = IdError::NotUtf8 {
            at: error.valid_up_to(),
        };
        FieldError::invalid("user_strings.data", error)
    })?;
    let mut end = 0;
    for (at, length) in column.lengths.iter().enumerate() {
        end += *length as usize;
        if !text.is_char_boundary(end) {
            let problem = format!("ends inside a character, at byte {end} of data");
            let field = format!("user_strings.lengths[{at}]");
            return Err(FieldError::invalid(field, problem));
        }
    }
    let lengths = &column.lengths;
    Ok(Users::Strings { text, lengths })
}

/// Walks over the items; users and deltas advance with the items that have them.
struct Items<'a> {
    batch: &'a WriteBatch,
    posts: Dictionary<PostId>,
    counters: Dictionary<CounterName>,
    post_indexes: Indexes<'a>,
    counter_indexes: Indexes<'a>,
    users: Users<'a>,
    /// Likes and unlikes so far.
    liked: usize,
    /// Adds so far.
    added: usize,
}

impl Items<'_> {
    fn command(&mut self, at: usize, kind: Kind) -> Result<Command, FieldError> {
        let post = self.posts.get(self.post_indexes.at(at));
        match kind {
            Kind::Like => {
                let user = self.user();
                Ok(Command::Like {
                    post: post?,
                    user: user?,
                })
            }
            Kind::Unlike => {
                let user = self.user();
                Ok(Command::Unlike {
                    post: post?,
                    user: user?,
                    named: Vec::new(),
                })
            }
            Kind::Add => self.add(post),
        }
    }

    /// Taken also where the post is bad, so that the next item finds its own.
    fn user(&mut self) -> Result<UserId, FieldError> {
        self.liked += 1;
        self.users.next(self.liked - 1)
    }

    fn add(&mut self, post: Result<PostId, FieldError>) -> Result<Command, FieldError> {
        let at = self.added;
        self.added += 1;
        Ok(Command::Add {
            post: post?,
            counter: self.counters.get(self.counter_indexes.at(at))?,
            delta: field::delta(&format!("deltas[{at}]"), self.batch.deltas[at])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::Reason;

    fn check_it(batch: Option<WriteBatch>) -> Result<CheckedBatch, FieldError> {
        check(&ClusterId::new("test").expect("valid"), batch)
    }

    fn texts(users: &[&str]) -> Option<write_batch::Users> {
        Some(write_batch::Users::UserStrings(StringColumn {
            data: users.concat().into_bytes().into(),
            lengths: users.iter().map(|user| user.len() as u32).collect(),
        }))
    }

    fn likes(users: &[&str]) -> WriteBatch {
        WriteBatch {
            posts: vec!["p".into()],
            operations: vec![Operation::Like as i32],
            users: texts(users),
            ..Default::default()
        }
    }

    /// A like, an add, an unlike.
    fn mixed() -> WriteBatch {
        WriteBatch {
            posts: vec!["p".into(), "q".into()],
            post_indexes: vec![1, 0, 1],
            operations: [Operation::Like, Operation::Add, Operation::Unlike]
                .map(|operation| operation as i32)
                .to_vec(),
            users: Some(write_batch::Users::UserIntegers(
                crate::wire::v1::IntegerColumn {
                    prefix: "u".into(),
                    values: vec![7, 8],
                },
            )),
            counters: vec!["views".into()],
            deltas: vec![-3],
            ..Default::default()
        }
    }

    fn refuses(batch: WriteBatch, field: &str) {
        let error = check_it(Some(batch)).expect_err("refused");
        assert_eq!(error.field, field, "{error}");
    }

    #[test]
    fn columns_become_commands() {
        let checked = check_it(Some(mixed())).expect("fine");
        let post = |name| PostId::new(name).expect("valid");
        let user = |name| UserId::new(name).expect("valid");
        let like = Command::Like {
            post: post("q"),
            user: user("u7"),
        };
        let add = Command::Add {
            post: post("p"),
            counter: CounterName::new("views").expect("valid"),
            delta: -3,
        };
        let unlike = Command::Unlike {
            post: post("q"),
            user: user("u8"),
            named: Vec::new(),
        };
        assert_eq!(checked.write.commands, vec![like, add, unlike]);
        assert_eq!(checked.places, vec![0, 1, 2]);
        let one_post = check_it(Some(likes(&["ann", "пост"]))).expect("fine");
        assert_eq!(one_post.write.commands[1].post(), &post("p"));
    }

    #[test]
    fn broken_shapes_are_refused_whole() {
        assert_eq!(check_it(None).expect_err("refused").field, "batch");
        let change = |change: fn(&mut WriteBatch), field: &str| {
            let mut batch = mixed();
            change(&mut batch);
            refuses(batch, field);
        };
        change(|batch| batch.posts.clear(), "batch.posts");
        change(|batch| batch.operations.clear(), "batch.operations");
        change(|batch| batch.operations[1] = 0, "batch.operations[1]");
        change(|batch| batch.operations[2] = 77, "batch.operations[2]");
        change(|batch| batch.post_indexes[2] = 2, "batch.post_indexes[2]");
        change(|batch| batch.post_indexes.truncate(2), "batch.post_indexes");
        change(|batch| batch.counters.clear(), "batch.counter_indexes");
        change(
            |batch| batch.counter_indexes = vec![1],
            "batch.counter_indexes[0]",
        );
        change(|batch| batch.deltas.push(1), "batch.deltas");
        change(|batch| batch.users = None, "batch.users");
        change(|batch| batch.users = texts(&["one"]), "batch.users");
        change(|batch| batch.request_id = "\n".into(), "batch.request_id");
    }

    #[test]
    fn a_single_operation_takes_its_number_from_its_column() {
        refuses(likes(&[]), "batch.users");
        let mut batch = likes(&["ann"]);
        batch.users = None;
        refuses(batch, "batch.users");
        let mut batch = likes(&["ann"]);
        batch.deltas = vec![1];
        refuses(batch, "batch.deltas");
        let mut batch = mixed();
        batch.operations = vec![Operation::Add as i32];
        batch.post_indexes.clear();
        refuses(batch, "batch.users");
    }

    #[test]
    fn broken_string_columns_are_refused_whole() {
        let column = |data: &[u8], lengths: &[u32]| {
            let mut batch = likes(&[]);
            batch.users = Some(write_batch::Users::UserStrings(StringColumn {
                data: data.to_vec().into(),
                lengths: lengths.to_vec(),
            }));
            batch
        };
        refuses(column(b"ann", &[2]), "batch.user_strings.lengths");
        refuses(column(b"ann", &[u32::MAX, 4]), "batch.user_strings.lengths");
        refuses(column(b"a\xffn", &[3]), "batch.user_strings.data");
        refuses(
            column("ä".as_bytes(), &[1, 1]),
            "batch.user_strings.lengths[0]",
        );
    }

    #[test]
    fn more_items_than_the_limit_are_refused_whole() {
        let error = check_it(Some(likes(&vec!["u"; BATCH_ITEMS_MAX + 1]))).expect_err("refused");
        assert_eq!(error.reason, Reason::TooLarge);
        let mut batch = mixed();
        batch.posts = vec!["p".into(); BATCH_ITEMS_MAX + 1];
        assert_eq!(
            check_it(Some(batch)).expect_err("refused").reason,
            Reason::TooLarge
        );
    }

    #[test]
    fn a_bad_item_fails_alone() {
        let long = "x".repeat(257);
        let checked = check_it(Some(likes(&["ann", "", &long, "a\tb", "bob"]))).expect("fits");
        assert_eq!(checked.places, vec![0, 4]);
        let places: Vec<u32> = checked.refused.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, vec![1, 2, 3]);
        let (_, error) = &checked.refused[1];
        assert!(
            error
                .to_string()
                .ends_with("has 257 bytes; the limit is 256"),
            "{error}"
        );

        let mut batch = mixed();
        batch.posts[1] = "\n".into();
        batch.deltas[0] = 0;
        let checked = check_it(Some(batch)).expect("fits");
        assert_eq!(checked.write.commands, vec![]);
        let fields: Vec<&str> = checked
            .refused
            .iter()
            .map(|(_, error)| error.field.as_str())
            .collect();
        assert_eq!(
            fields,
            ["batch.posts[1]", "batch.deltas[0]", "batch.posts[1]"]
        );
    }

    #[test]
    fn a_bad_post_does_not_shift_the_users_behind_it() {
        let mut batch = likes(&["ann", "bob"]);
        batch.posts.push(String::new());
        batch.post_indexes = vec![1, 0];
        let checked = check_it(Some(batch)).expect("fits");
        let bob = UserId::new("bob").expect("valid");
        assert!(
            matches!(&checked.write.commands[..], [Command::Like { user, .. }] if *user == bob)
        );
    }
}
