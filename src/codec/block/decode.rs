//! Bytes → block, with strict limits.

use super::{ADD, EMPTY, LIKE, RETIRE, UNLIKE, USERS_AS_NUMBERS, USERS_AS_TEXT, read_head};
use crate::codec::columns::{numbers, numbers_below, texts};
use crate::codec::dots::Owned;
use crate::codec::reader::{DecodeError, Reader};
use crate::codec::vector::Intern;
use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::event::{Action, Block, Event};
use crate::ids::{CounterName, IdError, NumberedUsers, PostId, UserId};
use crate::limits::{BLOCK_EVENTS_MAX, ID_BYTES_MAX, REPLICAS_MAX};
use crate::versions::EVENT_KIND_MAX;

/// Decodes a block, giving local numbers to the replicas it speaks of.
pub fn decode(bytes: &[u8], intern: &mut dyn Intern) -> Result<Block, DecodeError> {
    decode_up_to(bytes, EVENT_KIND_MAX, intern)
}

/// Decodes a block as a build does that knows kinds of events up to this one.
pub fn decode_up_to(
    bytes: &[u8],
    kind_max: u8,
    intern: &mut dyn Intern,
) -> Result<Block, DecodeError> {
    let reader = &mut Reader::new(bytes);
    let (head, predecessors) = read_head(reader, intern)?;
    let mut dictionary = vec![head.replica];
    for _ in 0..reader.count("number of replicas", REPLICAS_MAX)? {
        dictionary.push(intern.intern(&reader.replica()?)?);
    }
    let posts = dictionary_texts(reader, "post", PostId::from_utf8)?;
    let counters = dictionary_texts(reader, "counter", CounterName::from_utf8)?;
    let actions = numbers(reader, "actions", head.events)?;
    check_kinds(&actions, kind_max)?;
    let events = Columns::read(reader, &actions, (posts.len(), &dictionary))?;
    let events = events.assemble(reader, &actions, &dictionary, counters.len())?;
    let rest = std::mem::replace(reader, Reader::new(&[]));
    rest.finish("end of a block")?;
    Ok(Block {
        replica: head.replica,
        first_seq: head.first_seq,
        predecessors,
        posts,
        counters,
        events,
    })
}

/// Kinds beyond the known ones may have columns of their own, so nothing is read behind them.
fn check_kinds(actions: &[i64], known: u8) -> Result<(), DecodeError> {
    let kinds = EMPTY..=i64::from(known.min(EVENT_KIND_MAX));
    match actions.iter().find(|kind| !kinds.contains(kind)) {
        None => Ok(()),
        Some(kind) => Err(match u64::try_from(*kind) {
            Ok(kind) => DecodeError::UnknownKind { kind, known },
            Err(_) => DecodeError::Invalid {
                what: "kind of an event",
                at: 0,
            },
        }),
    }
}

fn dictionary_texts<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    check: fn(&[u8]) -> Result<T, IdError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(what, BLOCK_EVENTS_MAX)?;
    texts(reader, what, count, check)
}

/// The columns that stand before the adds, in the order of the events that have them.
struct Columns {
    times: Vec<u64>,
    posts: Vec<u32>,
    users: Vec<UserId>,
    increments: Vec<u64>,
    named: Vec<Dots>,
}

impl Columns {
    fn read(
        reader: &mut Reader<'_>,
        actions: &[i64],
        (posts, dictionary): (usize, &[ReplicaIndex]),
    ) -> Result<Self, DecodeError> {
        let number = |wanted: &[i64]| actions.iter().filter(|kind| wanted.contains(kind)).count();
        let mut last = 0u64;
        let steps = numbers(reader, "times", actions.len())?.into_iter();
        let times = steps
            .map(|step| {
                last = last.wrapping_add(step as u64);
                last
            })
            .collect();
        let posts_column = numbers_below(reader, "posts", number(&[LIKE, UNLIKE, ADD]), posts)?;
        let users = users(reader, number(&[LIKE, UNLIKE]))?;
        let like_posts = posts_of_likes(actions, &posts_column);
        let differences = numbers(reader, "increments", number(&[LIKE]))?;
        let increments = resolve_increments(&differences, &like_posts, posts);
        let named = dots(reader, number(&[LIKE, UNLIKE]), dictionary)?;
        Ok(Self {
            times,
            posts: posts_column,
            users,
            increments,
            named,
        })
    }

    fn assemble(
        self,
        reader: &mut Reader<'_>,
        actions: &[i64],
        dictionary: &[ReplicaIndex],
        counters: usize,
    ) -> Result<Vec<Event>, DecodeError> {
        let mut posts = self.posts.into_iter();
        let mut users = self.users.into_iter();
        let mut increments = self.increments.into_iter();
        let mut named = self.named.into_iter();
        let mut events = Vec::with_capacity(actions.len());
        for (kind, time_ms) in actions.iter().zip(self.times) {
            let missing = "the column was read for exactly these events";
            let action = match *kind {
                LIKE => Action::Like {
                    post: posts.next().expect(missing),
                    user: users.next().expect(missing),
                    increments: increments.next().expect(missing),
                    replaced: named.next().expect(missing),
                },
                UNLIKE => Action::Unlike {
                    post: posts.next().expect(missing),
                    user: users.next().expect(missing),
                    removed: named.next().expect(missing),
                },
                ADD => add(reader, posts.next().expect(missing), counters)?,
                // Its replicas stand behind all adds.
                RETIRE => Action::Retire { replicas: vec![] },
                _ => Action::Empty,
            };
            events.push(Event { time_ms, action });
        }
        for event in &mut events {
            if let Action::Retire { replicas } = &mut event.action {
                *replicas = retired(reader, dictionary)?;
            }
        }
        Ok(events)
    }
}

fn posts_of_likes(actions: &[i64], posts: &[u32]) -> Vec<u32> {
    let with_post = actions
        .iter()
        .filter(|kind| ![EMPTY, RETIRE].contains(kind));
    let both = with_post.zip(posts);
    both.filter(|(kind, _)| **kind == LIKE)
        .map(|(_, post)| *post)
        .collect()
}

fn resolve_increments(differences: &[i64], like_posts: &[u32], posts: usize) -> Vec<u64> {
    let mut expected = vec![0u64; posts];
    let both = differences.iter().zip(like_posts);
    both.map(|(difference, post)| {
        let expected = &mut expected[*post as usize];
        let increments = expected.wrapping_add(*difference as u64);
        *expected = increments.wrapping_add(1);
        increments
    })
    .collect()
}

fn users(reader: &mut Reader<'_>, count: usize) -> Result<Vec<UserId>, DecodeError> {
    let at = reader.position();
    match reader.byte("form of users")? {
        USERS_AS_TEXT => texts(reader, "user", count, UserId::from_utf8),
        USERS_AS_NUMBERS => {
            let prefix = reader.prefixed("prefix of users", ID_BYTES_MAX)?;
            let prefix = std::str::from_utf8(prefix).map_err(|_| DecodeError::Invalid {
                what: "prefix of users",
                at,
            })?;
            let users = NumberedUsers::of(prefix);
            (0..count)
                .map(|_| {
                    let at = reader.position();
                    let user = users.user(reader.varint("number of a user")?);
                    let what = "user";
                    user.map_err(|source| DecodeError::Id { what, at, source })
                })
                .collect()
        }
        _ => Err(DecodeError::Invalid {
            what: "form of users",
            at,
        }),
    }
}

/// Of so many events the dots that each names.
fn dots(
    reader: &mut Reader<'_>,
    events: usize,
    dictionary: &[ReplicaIndex],
) -> Result<Vec<Dots>, DecodeError> {
    let what = "removed dots";
    let at = reader.position();
    let owned = Owned::read(reader, what, events, dictionary)?;
    let steps = numbers(reader, what, owned.len())?;
    let mut last = 0u64;
    let named = owned.with(steps.into_iter().map(|step| {
        last = last.wrapping_add(step as u64);
        last
    }));
    let is_valid = |dots: &Dots| dots.iter().all(|dot| dot.seq > 0) && !has_repeats(dots);
    match named.iter().all(is_valid) {
        true => Ok(named),
        false => Err(DecodeError::Invalid { what, at }),
    }
}

fn has_repeats(dots: &[Dot]) -> bool {
    if dots.len() < 2 {
        return false;
    }
    let mut sorted: Vec<_> = dots.iter().map(|dot| (dot.replica, dot.seq)).collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

/// Positions ascend, so that no replica comes twice.
fn retired(
    reader: &mut Reader<'_>,
    dictionary: &[ReplicaIndex],
) -> Result<Vec<ReplicaIndex>, DecodeError> {
    let what = "retired replicas";
    let at = reader.position();
    let count = reader.count(what, REPLICAS_MAX)?;
    let mut replicas = Vec::with_capacity(count);
    let mut next = 0;
    for _ in 0..count {
        let place = reader.bounded(what, dictionary.len() as u64 - 1)?;
        if place < next {
            return Err(DecodeError::Invalid { what, at });
        }
        next = place + 1;
        replicas.push(dictionary[place as usize]);
    }
    match replicas.is_empty() {
        true => Err(DecodeError::Invalid { what, at }),
        false => Ok(replicas),
    }
}

fn add(reader: &mut Reader<'_>, post: u32, counters: usize) -> Result<Action, DecodeError> {
    let what = "counter of an add";
    let at = reader.position();
    let counter = reader.varint(what)?;
    if counter >= counters as u64 {
        return Err(DecodeError::Invalid { what, at });
    }
    Ok(Action::Add {
        post,
        counter: counter as u32,
        increments: reader.varint("increments")?,
        decrements: reader.varint("decrements")?,
    })
}
