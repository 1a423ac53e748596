//! Rows of the checkpoint store: what a post looks like on disk, and the metadata.
//!
//! A row is a format byte, a CRC-32 of what follows, and a bincode body; this is the one module that
//! names bincode. Likers are stored by buckets: a row holds all likers from the hash in its key to the
//! hash before the next row of the post, whatever else may stand in it. So a bucket that was split is
//! stored upper part first, and no order of crashes loses the lower or the upper one.

use bincode::Options;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::DecodeError;
use crate::crdt::dot::{Dot, Dots, ReplicaIndex, Replicas};
use crate::crdt::figures::Figures;
use crate::crdt::pn_counter::CounterEntry;
use crate::engine::replicas::ReplicaTable;
use crate::ids::{CounterName, Epoch, IdError, PostId, Region, Replica, UserId};
use crate::versions::CHECKPOINT_FORMAT;

/// Bytes of one row; far above what buckets and tables of limited size need.
const ROW_BYTES_MAX: u64 = 1 << 30;

/// Key of the metadata.
pub const META_KEY: &[u8] = b"m";
/// Key of the log position that rows may show.
pub const SHOWS_KEY: &[u8] = b"s";
const POST_PREFIX: u8 = b'p';
const FIGURES: u8 = b'f';
const LIKERS: u8 = b'l';

/// Why a row was refused.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
    #[error("the checksum does not fit")]
    Checksum,
    #[error("it has format {found}; this build reads {CHECKPOINT_FORMAT}")]
    Format { found: u8 },
    #[error("it is garbled: {0}")]
    Garbled(#[from] bincode::Error),
    #[error("it holds an id that {0}")]
    Id(#[from] IdError),
    #[error("it is garbled: {0}")]
    Decode(#[from] DecodeError),
    #[error("it speaks of a replica that it does not name")]
    UnknownReplica,
    #[error("its key means nothing")]
    Key,
}

/// What a key of a post's row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostKey {
    Figures(PostId),
    /// With the first hash.
    Likers(PostId, u64),
}

pub fn figures_key(post: &PostId) -> Vec<u8> {
    [&[POST_PREFIX], post.as_bytes(), &[0, FIGURES]].concat()
}

pub fn likers_key(post: &PostId, from: u64) -> Vec<u8> {
    [
        &[POST_PREFIX],
        post.as_bytes(),
        &[0, LIKERS],
        &from.to_be_bytes(),
    ]
    .concat()
}

/// Reads a key; none for one that is not a post's.
pub fn post_key(key: &[u8]) -> Result<Option<PostKey>, RowError> {
    let Some((&POST_PREFIX, rest)) = key.split_first() else {
        return Ok(None);
    };
    let end = rest
        .iter()
        .position(|byte| *byte == 0)
        .ok_or(RowError::Key)?;
    let post = PostId::from_utf8(&rest[..end])?;
    match &rest[end + 1..] {
        [FIGURES] => Ok(Some(PostKey::Figures(post))),
        [LIKERS, from @ ..] => {
            let from = from.try_into().map_err(|_| RowError::Key)?;
            Ok(Some(PostKey::Likers(post, u64::from_be_bytes(from))))
        }
        _ => Err(RowError::Key),
    }
}

#[derive(Serialize, Deserialize)]
pub struct ReplicaRow {
    region: String,
    epoch: [u8; 16],
}

impl ReplicaRow {
    pub fn of(replica: &Replica) -> Self {
        Self {
            region: replica.region.to_string(),
            epoch: replica.epoch.to_bytes(),
        }
    }

    pub fn replica(&self) -> Result<Replica, RowError> {
        Ok(Replica {
            region: Region::new(&self.region)?,
            epoch: Epoch::from_bytes(self.epoch),
        })
    }
}

/// Replicas that a row speaks of, by their place in it.
#[derive(Default)]
struct Dictionary {
    known: Vec<ReplicaIndex>,
}

impl Dictionary {
    fn place(&mut self, replica: ReplicaIndex) -> u32 {
        let known = self.known.iter().position(|other| *other == replica);
        let place = known.unwrap_or_else(|| {
            self.known.push(replica);
            self.known.len() - 1
        });
        place as u32
    }

    fn rows(&self, replicas: &Replicas) -> Vec<ReplicaRow> {
        let ids = self.known.iter().map(|index| replicas.id(*index));
        ids.map(ReplicaRow::of).collect()
    }
}

fn intern_all(rows: &[ReplicaRow], table: &ReplicaTable) -> Result<Vec<ReplicaIndex>, RowError> {
    rows.iter()
        .map(|row| Ok(table.intern(&row.replica()?)?))
        .collect()
}

fn at(places: &[ReplicaIndex], place: u32) -> Result<ReplicaIndex, RowError> {
    places
        .get(place as usize)
        .copied()
        .ok_or(RowError::UnknownReplica)
}

#[derive(Serialize, Deserialize)]
struct LikersRow {
    replicas: Vec<ReplicaRow>,
    likers: Vec<(String, Vec<(u32, u64)>)>,
}

pub fn encode_likers<'a>(
    likers: impl Iterator<Item = (&'a UserId, &'a Dots)>,
    replicas: &Replicas,
) -> Result<Bytes, RowError> {
    let mut dictionary = Dictionary::default();
    let likers = likers
        .map(|(user, dots)| {
            let dots = dots
                .iter()
                .map(|dot| (dictionary.place(dot.replica), dot.seq));
            (user.to_string(), dots.collect())
        })
        .collect();
    let replicas = dictionary.rows(replicas);
    seal(&LikersRow { replicas, likers })
}

pub fn decode_likers(row: &[u8], table: &ReplicaTable) -> Result<Vec<(UserId, Dots)>, RowError> {
    let row: LikersRow = open(row)?;
    let places = intern_all(&row.replicas, table)?;
    let mut likers = Vec::with_capacity(row.likers.len());
    for (user, raw) in row.likers {
        let mut dots = Dots::with_capacity(raw.len());
        for (place, seq) in raw {
            let replica = at(&places, place)?;
            dots.push(Dot { seq, replica });
        }
        likers.push((UserId::new(&user)?, dots));
    }
    Ok(likers)
}

/// A counter's name and its entries: place of the replica, increments, decrements.
type CounterRow = (String, Vec<(u32, u64, u64)>);

#[derive(Serialize, Deserialize)]
struct FiguresRow {
    replicas: Vec<ReplicaRow>,
    likes: Vec<(u32, u64)>,
    counters: Vec<CounterRow>,
    updated_at_ms: u64,
}

/// The figures of a post without the credit, which follows from the likers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoredFigures {
    pub likes: Vec<(ReplicaIndex, u64)>,
    pub counters: Vec<(CounterName, Vec<CounterEntry>)>,
    pub updated_at_ms: u64,
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
}

impl StoredFigures {
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
}

pub fn encode_figures(figures: &StoredFigures, replicas: &Replicas) -> Result<Bytes, RowError> {
    let mut dictionary = Dictionary::default();
    let likes = figures.likes.iter();
    let likes = likes
        .map(|(replica, figure)| (dictionary.place(*replica), *figure))
        .collect();
    let mut counters = Vec::new();
    for (name, entries) in &figures.counters {
        let entries = entries.iter();
        let entries = entries.map(|entry| {
            let place = dictionary.place(entry.replica);
            (place, entry.increments, entry.decrements)
        });
        counters.push((name.to_string(), entries.collect()));
    }
    seal(&FiguresRow {
        replicas: dictionary.rows(replicas),
        likes,
        counters,
        updated_at_ms: figures.updated_at_ms,
    })
}

pub fn decode_figures(row: &[u8], table: &ReplicaTable) -> Result<StoredFigures, RowError> {
    let row: FiguresRow = open(row)?;
    let places = intern_all(&row.replicas, table)?;
    let mut figures = StoredFigures {
        updated_at_ms: row.updated_at_ms,
        ..StoredFigures::default()
    };
    for (place, increments) in row.likes {
        figures.likes.push((at(&places, place)?, increments));
    }
    for (name, entries) in row.counters {
        let entry = |(place, increments, decrements)| {
            Ok::<_, RowError>(CounterEntry {
                replica: at(&places, place)?,
                increments,
                decrements,
            })
        };
        let entries = entries.into_iter().map(entry).collect::<Result<_, _>>()?;
        figures.counters.push((CounterName::new(&name)?, entries));
    }
    Ok(figures)
}

/// An orphan removal.
#[derive(Serialize, Deserialize)]
pub struct OrphanRow {
    pub replica: ReplicaRow,
    pub seq: u64,
    pub post: String,
    pub user: String,
    /// Whether a client of this node asked for it: those are bounded.
    pub by_client: bool,
}

/// A remembered request. Answers are in the encoding of the log's records.
#[derive(Serialize, Deserialize)]
pub struct RequestRow {
    pub id: String,
    pub digest: u64,
    pub at_ms: u64,
    pub items: Vec<Option<Vec<u8>>>,
    pub token: Option<String>,
}

/// Everything of the instant at which a checkpoint began. Written after all its rows are durable.
#[derive(Serialize, Deserialize)]
pub struct MetaRow {
    /// The frontier with its lineage, as `codec::vector` has it.
    pub frontier: Vec<u8>,
    /// From where the log is whole, by replica, as `codec::vector` has it.
    pub floor: Vec<u8>,
    pub orphans: Vec<OrphanRow>,
    pub requests: Vec<RequestRow>,
    /// Where replay begins.
    pub replay_from: u64,
    /// The log position that rows may show: a log that ends before it is refused.
    pub shows: u64,
    pub finished_at_ms: u64,
    /// Replicas that have been retired.
    pub retired: Vec<ReplicaRow>,
    /// Of each region the replica that completed a session last.
    pub met: Vec<ReplicaRow>,
}

pub fn encode_meta(meta: &MetaRow) -> Result<Bytes, RowError> {
    seal(meta)
}

pub fn decode_meta(row: &[u8]) -> Result<MetaRow, RowError> {
    open(row)
}

pub fn encode_shows(position: u64) -> Result<Bytes, RowError> {
    seal(&position)
}

pub fn decode_shows(row: &[u8]) -> Result<u64, RowError> {
    open(row)
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_limit(ROW_BYTES_MAX)
}

fn seal<T: Serialize>(body: &T) -> Result<Bytes, RowError> {
    let mut out = vec![CHECKPOINT_FORMAT, 0, 0, 0, 0];
    options().serialize_into(&mut out, body)?;
    let checksum = crc32fast::hash(&out[5..]);
    out[1..5].copy_from_slice(&checksum.to_be_bytes());
    Ok(Bytes::from(out))
}

fn open<T: DeserializeOwned>(row: &[u8]) -> Result<T, RowError> {
    let (Some(format), Some(body)) = (row.first(), row.get(5..)) else {
        return Err(RowError::Checksum);
    };
    if *format != CHECKPOINT_FORMAT {
        return Err(RowError::Format { found: *format });
    }
    if crc32fast::hash(body).to_be_bytes() != row[1..5] {
        return Err(RowError::Checksum);
    }
    Ok(options().deserialize(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ReplicaTable {
        let table = ReplicaTable::default();
        for region in ["eu", "us"] {
            table.intern_own(&Replica {
                region: Region::new(region).expect("valid"),
                epoch: Epoch(7),
            });
        }
        table
    }

    fn post(text: &str) -> PostId {
        PostId::new(text).expect("valid")
    }

    fn old_liker() -> (UserId, Dots) {
        let user = UserId::new("ann").expect("valid");
        let dots = Dots::from_slice(&[
            Dot {
                seq: 3,
                replica: ReplicaIndex(1),
            },
            Dot {
                seq: 4,
                replica: ReplicaIndex(0),
            },
        ]);
        (user, dots)
    }

    fn old_figures() -> StoredFigures {
        let entry = CounterEntry {
            replica: ReplicaIndex(1),
            increments: 9,
            decrements: 2,
        };
        StoredFigures {
            likes: vec![(ReplicaIndex(0), 5)],
            counters: vec![(CounterName::new("views").expect("valid"), vec![entry])],
            updated_at_ms: 8,
        }
    }

    #[test]
    fn rows_survive_and_every_flipped_byte_is_found() {
        let table = table();
        let (user, dots) = old_liker();
        let row = encode_likers([(&user, &dots)].into_iter(), &table.all()).expect("small");
        let likers = decode_likers(&row, &table).expect("as it was");
        assert_eq!(likers, vec![(user, dots)]);
        for at in 0..row.len() {
            let mut bad = row.to_vec();
            bad[at] ^= 0x10;
            assert!(decode_likers(&bad, &table).is_err(), "flipped byte {at}");
        }
    }

    #[test]
    fn figures_survive() {
        let table = table();
        let figures = old_figures();
        let row = encode_figures(&figures, &table.all()).expect("small");
        assert_eq!(decode_figures(&row, &table).expect("as it was"), figures);
    }

    fn old_meta() -> MetaRow {
        let replica = |epoch| ReplicaRow {
            region: "eu".to_owned(),
            epoch: [epoch; 16],
        };
        MetaRow {
            frontier: vec![1, 2, 3],
            floor: vec![4],
            orphans: vec![OrphanRow {
                replica: replica(7),
                seq: 5,
                post: "p".to_owned(),
                user: "ann".to_owned(),
                by_client: true,
            }],
            requests: vec![RequestRow {
                id: "r".to_owned(),
                digest: 6,
                at_ms: 7,
                items: vec![None, Some(vec![8])],
                token: Some("t".to_owned()),
            }],
            replay_from: 9,
            shows: 10,
            finished_at_ms: 11,
            retired: vec![replica(12)],
            met: vec![replica(13)],
        }
    }

    /// Written by the first version of the format. They must read the same for ever.
    #[test]
    fn old_rows_still_read() {
        let table = table();
        let (user, dots) = old_liker();
        let row = include_bytes!("../../tests/fixtures/likers-row-1.bin");
        let likers = decode_likers(row, &table).expect("format 1");
        assert_eq!(likers, vec![(user, dots)]);
        let row = include_bytes!("../../tests/fixtures/figures-row-1.bin");
        assert_eq!(
            decode_figures(row, &table).expect("format 1"),
            old_figures()
        );
        let row = include_bytes!("../../tests/fixtures/meta-row-1.bin");
        let meta = decode_meta(row).expect("format 1");
        assert_eq!(
            encode_meta(&meta).expect("small"),
            encode_meta(&old_meta()).expect("small")
        );
    }

    #[test]
    fn keys_of_a_post_stand_together_and_in_order_of_hashes() {
        let mut keys = [
            likers_key(&post("b"), 0),
            likers_key(&post("a"), 1 << 60),
            figures_key(&post("a")),
            likers_key(&post("a"), 0),
            likers_key(&post("a1"), 0),
        ];
        keys.sort();
        let read: Vec<_> = keys
            .iter()
            .map(|key| post_key(key).expect("well formed"))
            .collect();
        let expected = [
            PostKey::Figures(post("a")),
            PostKey::Likers(post("a"), 0),
            PostKey::Likers(post("a"), 1 << 60),
            PostKey::Likers(post("a1"), 0),
            PostKey::Likers(post("b"), 0),
        ];
        assert_eq!(read, expected.map(Some).to_vec());
        assert_eq!(post_key(META_KEY).expect("well formed"), None);
    }
}
