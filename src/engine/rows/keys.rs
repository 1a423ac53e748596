//! Keys of the checkpoint store. All rows of a range of posts stand together: its packs in the order of
//! hashes, then the rows of larger posts, post by post.

use super::RowError;
use crate::crdt::fingerprint::PostHash;
use crate::ids::PostId;

/// Key of the metadata.
pub const META_KEY: &[u8] = b"m";
/// Key of the log position that rows may show.
pub const SHOWS_KEY: &[u8] = b"s";
const POSTS: u8 = b'p';
const PACK: u8 = b'k';
const OWN: u8 = b'o';
const FIGURES: u8 = b'f';
const LIKERS: u8 = b'l';

/// What a key of a row of posts says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostKey {
    /// With the first hash of a post in it.
    Pack(u64),
    Figures(PostId),
    /// With the first hash of a user.
    Likers(PostId, u64),
}

impl PostKey {
    /// The range whose posts the row holds.
    pub fn range(&self) -> usize {
        match self {
            Self::Pack(from) => PostHash::range_of_order(*from),
            Self::Figures(post) | Self::Likers(post, _) => PostHash::of(post).range(),
        }
    }
}

/// What the keys of a range's rows begin with.
pub fn range_prefix(range: usize) -> [u8; 2] {
    [POSTS, range as u8]
}

pub fn pack_key(from: u64) -> Vec<u8> {
    let range = range_prefix(PostHash::range_of_order(from));
    [&range[..], &[PACK], &from.to_be_bytes()].concat()
}

pub fn figures_key(post: &PostId) -> Vec<u8> {
    let mut key = own_key(post);
    key.push(FIGURES);
    key
}

pub fn likers_key(post: &PostId, from: u64) -> Vec<u8> {
    let mut key = own_key(post);
    key.push(LIKERS);
    key.extend(from.to_be_bytes());
    key
}

fn own_key(post: &PostId) -> Vec<u8> {
    let range = range_prefix(PostHash::of(post).range());
    [&range[..], &[OWN], post.as_bytes(), &[0]].concat()
}

/// Reads a key; none for one that is not of posts.
pub fn post_key(key: &[u8]) -> Result<Option<PostKey>, RowError> {
    let [POSTS, range, rest @ ..] = key else {
        return Ok(None);
    };
    let read = match rest {
        [PACK, from @ ..] => PostKey::Pack(hash(from)?),
        [OWN, rest @ ..] => own(rest)?,
        _ => return Err(RowError::Key),
    };
    match read.range() == usize::from(*range) {
        true => Ok(Some(read)),
        false => Err(RowError::Key),
    }
}

fn own(rest: &[u8]) -> Result<PostKey, RowError> {
    let end = rest.iter().position(|byte| *byte == 0);
    let end = end.ok_or(RowError::Key)?;
    let post = PostId::from_utf8(&rest[..end])?;
    match &rest[end + 1..] {
        [FIGURES] => Ok(PostKey::Figures(post)),
        [LIKERS, from @ ..] => Ok(PostKey::Likers(post, hash(from)?)),
        _ => Err(RowError::Key),
    }
}

fn hash(bytes: &[u8]) -> Result<u64, RowError> {
    let bytes = bytes.try_into().map_err(|_| RowError::Key)?;
    Ok(u64::from_be_bytes(bytes))
}
