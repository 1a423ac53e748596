//! Likers of a post with their dots, by columns and in an order that makes them small.
//!
//! Users are apart by form: those of a common prefix and a number, group by group, each in the order of the numbers; then
//! the others as texts. The dots follow in the same order.

use std::collections::BTreeMap;

use crate::codec::columns::{put_texts, texts};
use crate::codec::dots::{Owned, Owners};
use crate::codec::reader::{DecodeError, Reader, put_prefixed, put_varint};
use crate::crdt::dot::{Dots, ReplicaIndex};
use crate::ids::{NumberedUsers, Prefix, UserId, UserText};
use crate::limits::ID_BYTES_MAX;

/// Users of one prefix that are worth a group.
const GROUP_MIN: usize = 4;
const WHAT: &str = "likers";

/// Writes likers. Replicas stand as the places that are given for them.
pub fn put_likers(
    out: &mut Vec<u8>,
    likers: &[(UserId, Dots)],
    mut place: impl FnMut(ReplicaIndex) -> u32,
) {
    let mut groups: BTreeMap<Prefix<'_>, Vec<(u64, &UserId, &Dots)>> = BTreeMap::new();
    let mut others: Vec<(&UserId, &Dots)> = Vec::new();
    for (user, dots) in likers {
        match user.split() {
            Some((prefix, number)) => groups.entry(prefix).or_default().push((number, user, dots)),
            None => others.push((user, dots)),
        }
    }
    // The few of a prefix of their own are texts, like those that are no numbers.
    let few = groups.extract_if(.., |_, group| group.len() < GROUP_MIN);
    others.extend(
        few.flat_map(|(_, group)| group)
            .map(|(_, user, dots)| (user, dots)),
    );
    let mut all: Vec<&Dots> = Vec::with_capacity(likers.len());
    put_varint(out, groups.len() as u64);
    for (prefix, mut group) in groups {
        group.sort_unstable_by_key(|(number, ..)| *number);
        put_prefixed(out, prefix.as_bytes());
        put_varint(out, group.len() as u64);
        let mut last = 0;
        for (number, _, dots) in group {
            put_varint(out, number - last);
            last = number;
            all.push(dots);
        }
    }
    others.sort_unstable_by_key(|(user, _)| *user);
    put_varint(out, others.len() as u64);
    let users: Vec<UserText<'_>> = others.iter().map(|(user, _)| user.text()).collect();
    let users: Vec<&[u8]> = users.iter().map(UserText::as_bytes).collect();
    put_texts(out, &users);
    all.extend(others.into_iter().map(|(_, dots)| dots));
    let mut owners = Owners::default();
    for dots in &all {
        owners.push(dots, |replica| u64::from(place(replica)));
    }
    owners.put(out);
    let numbers: Vec<u64> = all.into_iter().flatten().map(|dot| dot.seq).collect();
    put_packed(out, &numbers);
}

/// Writes numbers in as many bits each as the difference between the least and the greatest needs.
fn put_packed(out: &mut Vec<u8>, numbers: &[u64]) {
    let Some(least) = numbers.iter().copied().min() else {
        return;
    };
    let greatest = numbers.iter().copied().max().unwrap_or(least);
    let bits = u64::BITS - (greatest - least).leading_zeros();
    put_varint(out, least);
    out.push(bits as u8);
    let (mut open, mut held) = (0u128, 0);
    for number in numbers {
        open |= u128::from(number - least) << held;
        held += bits;
        while held >= u8::BITS {
            out.push(open as u8);
            open >>= u8::BITS;
            held -= u8::BITS;
        }
    }
    if held > 0 {
        out.push(open as u8);
    }
}

/// Reads likers. `dictionary` has the replicas by their places.
pub fn likers(
    reader: &mut Reader<'_>,
    dictionary: &[ReplicaIndex],
) -> Result<Vec<(UserId, Dots)>, DecodeError> {
    let mut users = Vec::new();
    for _ in 0..reader.count(WHAT, reader.remaining())? {
        numbered(reader, &mut users)?;
    }
    let others = reader.count(WHAT, reader.remaining())?;
    users.extend(texts(reader, WHAT, others, UserId::from_utf8)?);
    let dots = dots(reader, users.len(), dictionary)?;
    Ok(users.into_iter().zip(dots).collect())
}

fn numbered(reader: &mut Reader<'_>, users: &mut Vec<UserId>) -> Result<(), DecodeError> {
    let at = reader.position();
    let prefix = std::str::from_utf8(reader.prefixed(WHAT, ID_BYTES_MAX)?);
    let prefix = prefix.map_err(|_| DecodeError::Invalid { what: WHAT, at })?;
    let numbered = NumberedUsers::of(prefix);
    let count = reader.count(WHAT, reader.remaining())?;
    users.reserve(count);
    let mut number = 0u64;
    for _ in 0..count {
        let at = reader.position();
        let next = number.checked_add(reader.varint(WHAT)?);
        number = next.ok_or(DecodeError::Invalid { what: WHAT, at })?;
        let (what, user) = (WHAT, numbered.user(number));
        users.push(user.map_err(|source| DecodeError::Id { what, at, source })?);
    }
    Ok(())
}

fn dots(
    reader: &mut Reader<'_>,
    users: usize,
    dictionary: &[ReplicaIndex],
) -> Result<Vec<Dots>, DecodeError> {
    let at = reader.position();
    let owned = Owned::read(reader, WHAT, users, dictionary)?;
    let numbers = packed(reader, owned.len())?;
    let dots = owned.with(numbers);
    let is_valid = |dots: &Dots| !dots.is_empty() && dots.iter().all(|dot| dot.seq > 0);
    match dots.iter().all(is_valid) {
        true => Ok(dots),
        false => Err(DecodeError::Invalid { what: WHAT, at }),
    }
}

fn packed(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u64>, DecodeError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let least = reader.varint(WHAT)?;
    let at = reader.position();
    let bits = u32::from(reader.byte(WHAT)?);
    if bits > u64::BITS {
        return Err(DecodeError::Invalid { what: WHAT, at });
    }
    let mut bytes = reader
        .take(WHAT, (count * bits as usize).div_ceil(8))?
        .iter();
    let (mut open, mut held) = (0u128, 0);
    let mut numbers = Vec::with_capacity(count);
    for _ in 0..count {
        while held < bits {
            let byte = *bytes.next().expect("as many bytes as the bits need");
            open |= u128::from(byte) << held;
            held += u8::BITS;
        }
        let above = (open & ((1 << bits) - 1)) as u64;
        open >>= bits;
        held -= bits;
        let number = least.checked_add(above);
        numbers.push(number.ok_or(DecodeError::Invalid { what: WHAT, at })?);
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crdt::dot::Dot;
    use proptest::prelude::*;

    const REPLICAS: [ReplicaIndex; 2] = [ReplicaIndex(4), ReplicaIndex(9)];

    fn place(replica: ReplicaIndex) -> u32 {
        u32::from(replica == REPLICAS[1])
    }

    fn written(likers: &[(UserId, Dots)]) -> Vec<u8> {
        let mut out = Vec::new();
        put_likers(&mut out, likers, place);
        out
    }

    fn dots() -> impl Strategy<Value = Dots> {
        let seq = prop_oneof![
            1u64..2_000,
            Just(u64::MAX),
            any::<u64>().prop_map(|it| it.max(1))
        ];
        prop::collection::vec((0usize..2, seq), 1..4).prop_map(|dots| {
            let dot = |(replica, seq): (usize, u64)| Dot {
                seq,
                replica: REPLICAS[replica],
            };
            dots.into_iter().map(dot).collect()
        })
    }

    fn all() -> impl Strategy<Value = Vec<(UserId, Dots)>> {
        let user = prop_oneof!["u(0|[1-9][0-9]{0,6})", "[a-c0é]{1,3}[0-9]{0,22}"];
        prop::collection::btree_map(user, dots(), 0..60).prop_map(|likers| {
            let liker = |(user, dots): (String, _)| (UserId::new(&user).expect("valid"), dots);
            likers.into_iter().map(liker).collect()
        })
    }

    proptest! {
        #[test]
        fn likers_survive_and_cut_ones_are_refused(mut all in all()) {
            let bytes = written(&all);
            let mut reader = Reader::new(&bytes);
            let mut read = likers(&mut reader, &REPLICAS).expect("as written");
            prop_assert!(reader.finish("likers").is_ok());
            read.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            prop_assert_eq!(read, all);
            for cut in 0..bytes.len() {
                prop_assert!(likers(&mut Reader::new(&bytes[..cut]), &REPLICAS).is_err());
            }
        }

        #[test]
        fn any_bytes_never_panic(bytes: Vec<u8>) {
            let _outcome_is_free = likers(&mut Reader::new(&bytes), &REPLICAS);
        }
    }

    #[test]
    fn a_bucket_of_numbered_users_takes_six_bytes_each() {
        let random = |number: u64, factor: u64| number.wrapping_mul(factor) % 10_000_000;
        let likers = (0..1_000).map(|number| {
            let user = format!("u{}", random(number, 0x9e37_79b9_7f4a_7c15));
            let dot = Dot {
                seq: 1 + random(number, 0xd6e8_feb8_6659_fd93),
                replica: REPLICAS[0],
            };
            (UserId::new(&user).expect("valid"), Dots::from_buf([dot]))
        });
        let bytes = written(&likers.collect::<Vec<_>>());
        assert!(bytes.len() < 5_600, "{} bytes", bytes.len());
    }
}
