//! Tokens, like ids and page tokens: what clients are given, as compact, versioned, checksummed text.
//!
//! A token is a version vector in the short form. A like id names dots, bound to cluster, post and
//! user. A page token names the last user of a page of likers, bound to cluster and post. All are opaque
//! to clients; none is a secret.

use data_encoding::BASE64URL_NOPAD;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::reader::{DecodeError, Reader, put_prefixed, put_replica, put_varint};
use crate::ids::{ClusterId, PostId, Replica, UserId};
use crate::limits::{ID_BYTES_MAX, REMOVED_DOTS_MAX, TOKEN_CHARS_MAX, TOKEN_ENTRIES_MAX};
use crate::versions::TOKEN_FORMAT;

/// What is sealed has seldom more bytes.
const USUAL_BYTES: usize = 96;

const TOKEN: u8 = b'T';
const LIKE_ID: u8 = b'L';
const PAGE_TOKEN: u8 = b'P';
/// What errors speak of: the field at fault is named before them.
const TEXT: &str = "the text";

/// Why a token, like id or page token was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("has {len} characters; the limit is {TOKEN_CHARS_MAX}")]
    TooLong { len: usize },
    #[error("is not base64url text; pass it on exactly as it was given")]
    NotBase64,
    #[error("is {found}, not {wanted}")]
    WrongKind {
        found: &'static str,
        wanted: &'static str,
    },
    #[error("belongs to another cluster")]
    OtherCluster,
    #[error("belongs to another post or user")]
    OtherTarget,
    #[error("belongs to the likers of another post")]
    OtherPost,
    #[error("cannot be read: {0}")]
    Decode(#[from] DecodeError),
}

/// An entry of a token or the dot of a like id: a replica and a number.
pub type NamedSeq = (Replica, u64);

pub fn encode_token<'a>(
    cluster: &ClusterId,
    entries: impl Iterator<Item = (&'a Replica, u64)>,
) -> String {
    let mut sorted: Vec<_> = entries.collect();
    sorted.sort();
    seal(TOKEN, cluster, |bytes| put_entries(bytes, &sorted))
}

pub fn decode_token(cluster: &ClusterId, text: &str) -> Result<Vec<NamedSeq>, TextError> {
    open(TOKEN, cluster, text)?.entries(0, TOKEN_ENTRIES_MAX)
}

/// The like id of dots. They are written in the order that all nodes agree on, so that the same dots
/// have the same text everywhere.
pub fn encode_like_id<'a>(
    cluster: &ClusterId,
    (post, user): (&PostId, &UserId),
    dots: impl Iterator<Item = (&'a Replica, u64)>,
) -> String {
    let mut sorted: SmallVec<[_; 1]> = dots.collect();
    sorted.sort();
    seal(LIKE_ID, cluster, |bytes| {
        bytes.extend_from_slice(&binding(post, user));
        put_entries(bytes, &sorted);
    })
}

pub fn decode_like_id(
    cluster: &ClusterId,
    (post, user): (&PostId, &UserId),
    text: &str,
) -> Result<Vec<NamedSeq>, TextError> {
    let opened = open(LIKE_ID, cluster, text)?;
    let bound = binding(post, user);
    if opened.body.get(..bound.len()) != Some(&bound) {
        return Err(TextError::OtherTarget);
    }
    opened.entries(bound.len(), REMOVED_DOTS_MAX)
}

/// Where a page of the post's likers ended: after `last`, in the order of the users' frozen hashes and, where
/// those are equal, of their bytes. The hash is not in it, for it follows from the user.
pub fn encode_page_token(cluster: &ClusterId, post: &PostId, last: &UserId) -> String {
    seal(PAGE_TOKEN, cluster, |bytes| {
        bytes.extend_from_slice(&post_binding(post));
        put_prefixed(bytes, last.text().as_bytes());
    })
}

pub fn decode_page_token(
    cluster: &ClusterId,
    post: &PostId,
    text: &str,
) -> Result<UserId, TextError> {
    let opened = open(PAGE_TOKEN, cluster, text)?;
    let bound = post_binding(post);
    let Some(rest) = opened.body.strip_prefix(&bound) else {
        return Err(TextError::OtherPost);
    };
    let mut reader = Reader::new(rest);
    let last = reader.id(TEXT, ID_BYTES_MAX, UserId::from_utf8)?;
    reader.finish(TEXT)?;
    Ok(last)
}

fn post_binding(post: &PostId) -> [u8; 8] {
    xxh3_64(post.as_bytes()).to_be_bytes()
}

fn binding(post: &PostId, user: &UserId) -> [u8; 8] {
    let mut both: SmallVec<[u8; 128]> = SmallVec::from_slice(post.as_bytes());
    both.push(0);
    both.extend_from_slice(user.text().as_bytes());
    xxh3_64(&both).to_be_bytes()
}

fn cluster_tag(cluster: &ClusterId) -> [u8; 4] {
    crc32fast::hash(cluster.as_bytes()).to_be_bytes()
}

fn put_entries(bytes: &mut Vec<u8>, entries: &[(&Replica, u64)]) {
    put_varint(bytes, entries.len() as u64);
    for (replica, seq) in entries {
        put_replica(bytes, replica);
        put_varint(bytes, *seq);
    }
}

fn seal(kind: u8, cluster: &ClusterId, put_body: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = Vec::with_capacity(USUAL_BYTES);
    bytes.extend_from_slice(&[kind, TOKEN_FORMAT]);
    bytes.extend_from_slice(&cluster_tag(cluster));
    put_body(&mut bytes);
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_be_bytes());
    BASE64URL_NOPAD.encode(&bytes)
}

struct Opened {
    body: Vec<u8>,
}

fn open(kind: u8, cluster: &ClusterId, text: &str) -> Result<Opened, TextError> {
    if text.len() > TOKEN_CHARS_MAX {
        return Err(TextError::TooLong { len: text.len() });
    }
    let bytes = BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| TextError::NotBase64)?;
    let name = |kind| match kind {
        TOKEN => "a token",
        LIKE_ID => "a like id",
        PAGE_TOKEN => "a page token",
        _ => "a text of another kind",
    };
    let Some((signed, checksum)) = bytes.split_last_chunk::<4>() else {
        return Err(DecodeError::Truncated {
            what: TEXT,
            at: bytes.len(),
        }
        .into());
    };
    if crc32fast::hash(signed).to_be_bytes() != *checksum {
        return Err(DecodeError::Checksum { what: TEXT }.into());
    }
    let mut reader = Reader::new(signed);
    let found = reader.byte(TEXT)?;
    if found != kind {
        let (found, wanted) = (name(found), name(kind));
        return Err(TextError::WrongKind { found, wanted });
    }
    let format = reader.byte(TEXT)?;
    if format != TOKEN_FORMAT {
        let (what, found, known) = (TEXT, format, TOKEN_FORMAT);
        return Err(DecodeError::Format { what, found, known }.into());
    }
    if reader.array::<4>(TEXT)? != cluster_tag(cluster) {
        return Err(TextError::OtherCluster);
    }
    let body = signed[reader.position()..].to_vec();
    Ok(Opened { body })
}

impl Opened {
    fn entries(self, from: usize, max: usize) -> Result<Vec<NamedSeq>, TextError> {
        let mut reader = Reader::new(&self.body[from..]);
        let count = reader.count(TEXT, max)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let replica = reader.replica()?;
            let at = reader.position();
            let seq = reader.varint(TEXT)?;
            if seq == 0 {
                return Err(DecodeError::Invalid { what: TEXT, at }.into());
            }
            entries.push((replica, seq));
        }
        reader.finish(TEXT)?;
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Epoch, Region};
    use proptest::prelude::*;

    fn cluster(name: &str) -> ClusterId {
        ClusterId::new(name).expect("valid")
    }

    #[test]
    fn errors_go_on_from_the_name_of_the_field() {
        let like_id = decode_like_id(
            &cluster("c"),
            (&target("p", "u").0, &target("p", "u").1),
            "AAAA",
        );
        let error = like_id.expect_err("too short");
        assert_eq!(
            error.to_string(),
            "cannot be read: the text ends early at byte 3"
        );
    }

    fn target(post: &str, user: &str) -> (PostId, UserId) {
        (
            PostId::new(post).expect("valid"),
            UserId::new(user).expect("valid"),
        )
    }

    fn replica(region: &str) -> Replica {
        Replica {
            region: Region::new(region).expect("valid"),
            epoch: Epoch(u128::MAX / 3),
        }
    }

    #[test]
    fn a_token_of_ten_regions_has_at_most_512_characters() {
        let replicas: Vec<_> = (0..10)
            .map(|number| replica(&format!("region-{number}")))
            .collect();
        let entries = replicas.iter().map(|replica| (replica, 1_000_000_000));
        let text = encode_token(&cluster("c"), entries);
        assert!(text.len() <= 512, "{}", text.len());
    }

    #[test]
    fn texts_of_another_kind_cluster_or_target_are_refused() {
        let eu = replica("eu");
        let (post, user) = target("post", "ann");
        let token = encode_token(&cluster("a"), [(&eu, 3)].into_iter());
        let id = encode_like_id(&cluster("a"), (&post, &user), [(&eu, 3)].into_iter());
        assert_eq!(
            decode_token(&cluster("a"), &token),
            Ok(vec![(eu.clone(), 3)])
        );
        assert_eq!(
            decode_token(&cluster("b"), &token),
            Err(TextError::OtherCluster)
        );
        assert!(matches!(
            decode_token(&cluster("a"), &id),
            Err(TextError::WrongKind { .. })
        ));
        let (other, _) = target("other", "ann");
        let opened = decode_like_id(&cluster("a"), (&other, &user), &id);
        assert_eq!(opened, Err(TextError::OtherTarget));
        let opened = decode_like_id(&cluster("a"), (&post, &user), &id);
        assert_eq!(opened, Ok(vec![(eu, 3)]));

        let page = encode_page_token(&cluster("a"), &post, &user);
        let decode = |name: &str, post: &PostId, text: &str| {
            decode_page_token(&cluster(name), post, text).map(|last| last.to_string())
        };
        assert_eq!(decode("a", &post, &page), Ok("ann".to_owned()));
        assert_eq!(decode("b", &post, &page), Err(TextError::OtherCluster));
        assert_eq!(decode("a", &other, &page), Err(TextError::OtherPost));
        for foreign in [&token, &id] {
            let refused = decode("a", &post, foreign);
            assert!(matches!(refused, Err(TextError::WrongKind { .. })));
        }
        let refused = decode_token(&cluster("a"), &page);
        assert!(matches!(refused, Err(TextError::WrongKind { .. })));
    }

    #[test]
    fn the_longest_page_token_is_short_enough_to_be_read() {
        let (post, user) = target(&"p".repeat(256), &"u".repeat(256));
        let page = encode_page_token(&cluster("a"), &post, &user);
        assert!(page.len() <= 370, "{}", page.len());
        assert_eq!(decode_page_token(&cluster("a"), &post, &page), Ok(user));
    }

    /// Clients keep them: what was once given must read the same for ever.
    #[test]
    fn old_texts_still_read() {
        let (eu, (post, user)) = (replica("eu"), target("post", "ann"));
        let token = encode_token(&cluster("a"), [(&eu, 300)].into_iter());
        assert_eq!(token, OLD_TOKEN);
        let id = encode_like_id(&cluster("a"), (&post, &user), [(&eu, 300)].into_iter());
        assert_eq!(id, OLD_LIKE_ID);
        let page = encode_page_token(&cluster("a"), &post, &user);
        assert_eq!(page, OLD_PAGE_TOKEN);
    }

    const OLD_TOKEN: &str = "VAHot75DAQJldVVVVVVVVVVVVVVVVVVVVVWsAjOijvI";
    const OLD_PAGE_TOKEN: &str = "UAHot75DdVdnAsaeRGwDYW5uqSQWLQ";
    const OLD_LIKE_ID: &str = "TAHot75DLkjKnknxXMcBAmV1VVVVVVVVVVVVVVVVVVVVVawCtzG3vg";

    proptest! {
        #[test]
        fn changed_or_cut_texts_are_refused(at in 0usize..60, with in "[A-Za-z0-9_-]") {
            let eu = replica("eu");
            let token = encode_token(&cluster("a"), [(&eu, 3)].into_iter());
            let at = at % token.len();
            prop_assert!(decode_token(&cluster("a"), &token[..at]).is_err());
            let mut changed = token.clone();
            changed.replace_range(at..=at, &with);
            if changed != token {
                prop_assert!(decode_token(&cluster("a"), &changed).is_err());
            }
        }

        #[test]
        fn any_text_never_panics(text: String) {
            prop_assert!(decode_token(&cluster("a"), &text).is_err());
            prop_assert!(decode_page_token(&cluster("a"), &target("p", "u").0, &text).is_err());
        }
    }
}
