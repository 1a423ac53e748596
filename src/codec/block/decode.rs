//! Bytes → block, with strict limits.

use super::{ADD, EMPTY, LIKE, RETIRE, UNLIKE, USERS_AS_NUMBERS, USERS_AS_TEXT, read_head};
use crate::codec::columns::{runs, runs_below};
use crate::codec::reader::{DecodeError, Reader};
use crate::codec::vector::Intern;
use crate::crdt::dot::{Dot, Dots, ReplicaIndex};
use crate::crdt::event::{Action, Block, Event};
use crate::ids::{CounterName, IdError, PostId, UserId};
use crate::limits::{BLOCK_EVENTS_MAX, ID_BYTES_MAX, REMOVED_DOTS_MAX, REPLICAS_MAX};
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
    let posts = texts(reader, "post", PostId::from_utf8)?;
    let counters = texts(reader, "counter", CounterName::from_utf8)?;
    let actions = runs(reader, "actions", head.events)?;
    check_kinds(&actions, kind_max)?;
    let events = Columns::read(reader, &actions, posts.len())?;
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

fn texts<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    check: fn(&[u8]) -> Result<T, IdError>,
) -> Result<Vec<T>, DecodeError> {
    let count = reader.count(what, BLOCK_EVENTS_MAX)?;
    (0..count)
        .map(|_| reader.id(what, ID_BYTES_MAX, check))
        .collect()
}

/// The columns that stand before the adds, in the order of the events that have them.
struct Columns {
    times: Vec<u64>,
    posts: Vec<u32>,
    users: Vec<UserId>,
    increments: Vec<u64>,
    dots: Vec<i64>,
}

impl Columns {
    fn read(reader: &mut Reader<'_>, actions: &[i64], posts: usize) -> Result<Self, DecodeError> {
        let number = |wanted: &[i64]| actions.iter().filter(|kind| wanted.contains(kind)).count();
        let mut last = 0u64;
        let steps = runs(reader, "times", actions.len())?.into_iter();
        let times = steps
            .map(|step| {
                last = last.wrapping_add(step as u64);
                last
            })
            .collect();
        let posts_column = runs_below(reader, "posts", number(&[LIKE, UNLIKE, ADD]), posts)?;
        let users = users(reader, number(&[LIKE, UNLIKE]))?;
        let like_posts = posts_of_likes(actions, &posts_column);
        let differences = runs(reader, "increments", number(&[LIKE]))?;
        let increments = resolve_increments(&differences, &like_posts, posts);
        let dots = runs(reader, "removed dots", number(&[LIKE, UNLIKE]))?;
        Ok(Self {
            times,
            posts: posts_column,
            users,
            increments,
            dots,
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
        let mut named = Vec::with_capacity(self.dots.len());
        let mut last = 0;
        for count in self.dots {
            named.push(dots(reader, count, dictionary, &mut last)?);
        }
        let mut named = named.into_iter();
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
        USERS_AS_TEXT => (0..count)
            .map(|_| reader.id("user", ID_BYTES_MAX, UserId::from_utf8))
            .collect(),
        USERS_AS_NUMBERS => {
            let prefix = reader.prefixed("prefix of users", ID_BYTES_MAX)?;
            let prefix = std::str::from_utf8(prefix).map_err(|_| DecodeError::Invalid {
                what: "prefix of users",
                at,
            })?;
            let mut text = String::with_capacity(prefix.len() + 20);
            (0..count)
                .map(|_| {
                    let at = reader.position();
                    let number = reader.varint("number of a user")?;
                    text.clear();
                    text.push_str(prefix);
                    text.push_str(&number.to_string());
                    let what = "user";
                    UserId::new(&text).map_err(|source| DecodeError::Id { what, at, source })
                })
                .collect()
        }
        _ => Err(DecodeError::Invalid {
            what: "form of users",
            at,
        }),
    }
}

fn dots(
    reader: &mut Reader<'_>,
    count: i64,
    dictionary: &[ReplicaIndex],
    last: &mut u64,
) -> Result<Dots, DecodeError> {
    let at = reader.position();
    let what = "removed dots";
    let count = usize::try_from(count).map_err(|_| DecodeError::Invalid { what, at })?;
    if count > REMOVED_DOTS_MAX || count > reader.remaining() {
        return Err(DecodeError::OverLimit {
            what,
            at,
            found: count as u64,
            max: REMOVED_DOTS_MAX as u64,
        });
    }
    let mut dots = Dots::with_capacity(count);
    for _ in 0..count {
        let replica = reader.bounded(what, dictionary.len() as u64 - 1)?;
        let seq = last.wrapping_add(reader.signed(what)? as u64);
        *last = seq;
        let dot = Dot {
            seq,
            replica: dictionary[replica as usize],
        };
        if seq == 0 || dots.contains(&dot) {
            return Err(DecodeError::Invalid { what, at });
        }
        dots.push(dot);
    }
    Ok(dots)
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
