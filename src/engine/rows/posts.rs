//! Posts: figures, likers, and packs of both.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Dictionary, ReplicaRow, RowError, at, intern_all, open, seal};
use crate::codec;
use crate::codec::likers::put_likers;
use crate::codec::reader::Reader;
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::figures::Figures;
use crate::crdt::pn_counter::CounterEntry;
use crate::engine::replicas::ReplicaTable;
use crate::ids::{CounterName, PostId, UserId};

/// A user, and of each dot the place of the replica and the number.
type LikerBody = (String, Vec<(u32, u64)>);

/// A counter's name and its entries: place of the replica, increments, decrements.
type CounterBody = (String, Vec<(u32, u64, u64)>);

#[derive(Serialize, Deserialize)]
struct LikersRow {
    replicas: Vec<ReplicaRow>,
    /// As `codec::likers` has them.
    likers: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct FiguresBody {
    likes: Vec<(u32, u64)>,
    counters: Vec<CounterBody>,
    updated_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct FiguresRow {
    replicas: Vec<ReplicaRow>,
    figures: FiguresBody,
}

#[derive(Serialize, Deserialize)]
struct PackRow {
    replicas: Vec<ReplicaRow>,
    posts: Vec<(String, FiguresBody, Vec<LikerBody>)>,
}

/// The figures of a post without the credit, which follows from the likers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredFigures {
    pub likes: Vec<(ReplicaIndex, u64)>,
    pub counters: Vec<(CounterName, Vec<CounterEntry>)>,
    pub updated_at_ms: u64,
}

/// A small post, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedPost {
    pub id: PostId,
    pub figures: StoredFigures,
    pub likers: Vec<(UserId, Dots)>,
}

impl StoredFigures {
    pub fn of(figures: &Figures) -> Self {
        let likes = figures.likes().iter().filter(|entry| entry.increments > 0);
        let counters = figures.counters().iter();
        Self {
            likes: likes
                .map(|entry| (entry.replica, entry.increments))
                .collect(),
            counters: counters
                .map(|(name, counter)| (name.clone(), counter.entries().to_vec()))
                .collect(),
            updated_at_ms: figures.updated_at_ms(),
        }
    }

    /// Without what counts for nothing, in an order of its own: equal where they mean the same.
    pub fn essential(mut self) -> Self {
        self.likes.retain(|(_, increments)| *increments > 0);
        self.likes.sort_unstable();
        for (_, entries) in &mut self.counters {
            entries.retain(|entry| entry.figures() != [0, 0]);
            entries.sort_unstable_by_key(|entry| entry.replica);
        }
        self.counters.retain(|(_, entries)| !entries.is_empty());
        self.counters.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        self.updated_at_ms = 0;
        self
    }

    fn body(&self, dictionary: &mut Dictionary) -> FiguresBody {
        let likes = self.likes.iter();
        let likes = likes
            .map(|(replica, figure)| (dictionary.place(*replica), *figure))
            .collect();
        let mut counters = Vec::with_capacity(self.counters.len());
        for (name, entries) in &self.counters {
            let entries = entries.iter().map(|entry| {
                let place = dictionary.place(entry.replica);
                (place, entry.increments, entry.decrements)
            });
            counters.push((name.to_string(), entries.collect()));
        }
        FiguresBody {
            likes,
            counters,
            updated_at_ms: self.updated_at_ms,
        }
    }
}

impl FiguresBody {
    fn figures(self, places: &[ReplicaIndex]) -> Result<StoredFigures, RowError> {
        let mut figures = StoredFigures {
            updated_at_ms: self.updated_at_ms,
            ..StoredFigures::default()
        };
        for (place, increments) in self.likes {
            figures.likes.push((at(places, place)?, increments));
        }
        for (name, entries) in self.counters {
            let entry = |(place, increments, decrements)| {
                Ok::<_, RowError>(CounterEntry {
                    replica: at(places, place)?,
                    increments,
                    decrements,
                })
            };
            let entries = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
            figures.counters.push((CounterName::new(&name)?, entries));
        }
        Ok(figures)
    }
}

fn liker_body(user: &UserId, dots: &Dots, dictionary: &mut Dictionary) -> LikerBody {
    let dots = dots
        .iter()
        .map(|dot| (dictionary.place(dot.replica), dot.seq));
    (user.to_string(), dots.collect())
}

fn likers(
    bodies: Vec<LikerBody>,
    places: &[ReplicaIndex],
) -> Result<Vec<(UserId, Dots)>, RowError> {
    let mut likers = Vec::with_capacity(bodies.len());
    for (user, raw) in bodies {
        let mut dots = Dots::with_capacity(raw.len());
        for (place, seq) in raw {
            let replica = at(places, place)?;
            dots.push(Dot { seq, replica });
        }
        likers.push((UserId::new(&user)?, dots));
    }
    Ok(likers)
}

pub fn encode_likers(likers: &[(UserId, Dots)], replicas: &Replicas) -> Result<Bytes, RowError> {
    let mut dictionary = Dictionary::default();
    let mut bytes = Vec::new();
    put_likers(&mut bytes, likers, |replica| dictionary.place(replica));
    seal(&LikersRow {
        replicas: dictionary.rows(replicas),
        likers: bytes,
    })
}

pub fn decode_likers(row: &[u8], table: &ReplicaTable) -> Result<Vec<(UserId, Dots)>, RowError> {
    let row: LikersRow = open(row)?;
    let mut reader = Reader::new(&row.likers);
    let likers = codec::likers::likers(&mut reader, &intern_all(&row.replicas, table)?)?;
    reader.finish("likers")?;
    Ok(likers)
}

pub fn encode_figures(figures: &StoredFigures, replicas: &Replicas) -> Result<Bytes, RowError> {
    let mut dictionary = Dictionary::default();
    let figures = figures.body(&mut dictionary);
    let replicas = dictionary.rows(replicas);
    seal(&FiguresRow { replicas, figures })
}

pub fn decode_figures(row: &[u8], table: &ReplicaTable) -> Result<StoredFigures, RowError> {
    let row: FiguresRow = open(row)?;
    row.figures.figures(&intern_all(&row.replicas, table)?)
}

pub fn encode_pack(posts: &[PackedPost], replicas: &Replicas) -> Result<Bytes, RowError> {
    let mut dictionary = Dictionary::default();
    let mut bodies = Vec::with_capacity(posts.len());
    for post in posts {
        let figures = post.figures.body(&mut dictionary);
        let likers = post.likers.iter();
        let likers = likers
            .map(|(user, dots)| liker_body(user, dots, &mut dictionary))
            .collect();
        bodies.push((post.id.to_string(), figures, likers));
    }
    seal(&PackRow {
        replicas: dictionary.rows(replicas),
        posts: bodies,
    })
}

pub fn decode_pack(row: &[u8], table: &ReplicaTable) -> Result<Vec<PackedPost>, RowError> {
    let row: PackRow = open(row)?;
    let places = intern_all(&row.replicas, table)?;
    let mut posts = Vec::with_capacity(row.posts.len());
    for (id, figures, bodies) in row.posts {
        posts.push(PackedPost {
            id: PostId::new(&id)?,
            figures: figures.figures(&places)?,
            likers: likers(bodies, &places)?,
        });
    }
    Ok(posts)
}
