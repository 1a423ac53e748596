//! What must be true of a node that has applied certain events, computed from nothing: live is every
//! like's dot that no event names as removed or replaced.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use likewise::codec::block;
use likewise::crdt::dot::{Dot, Replicas};
use likewise::crdt::event::Action;
use likewise::crdt::fingerprint::{Fingerprint, FingerprintKey, PostHash, ReplicaHash};
use likewise::crdt::user_key::UserHash;
use likewise::engine::Settlement;
use likewise::engine::read::Detail;
use likewise::ids::{ClusterId, CounterName, PostId, Region, Replica, UserId};

use super::Node;

pub type NamedDot = (Replica, u64);
pub type NamedVector = BTreeMap<Replica, u64>;

/// What an event did, by names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    Nothing,
    Like(PostId, UserId, u64, Vec<NamedDot>),
    Unlike(PostId, UserId, Vec<NamedDot>),
    Add(PostId, CounterName, [u64; 2]),
}

/// All events that anybody ever made durable, as far as they were looked at.
#[derive(Debug, Clone, Default)]
pub struct Oracle {
    facts: HashMap<NamedDot, Did>,
    blocks: HashMap<NamedDot, Bytes>,
}

/// What a node shows that covers a vector.
#[derive(Debug, Default)]
pub struct Expected<'a> {
    pub likers: BTreeMap<(&'a PostId, &'a UserId), BTreeSet<&'a NamedDot>>,
    pub increments: BTreeMap<(&'a PostId, &'a Replica), u64>,
    pub counters: BTreeMap<(&'a PostId, &'a CounterName, &'a Replica), [u64; 2]>,
    pub orphans: BTreeMap<&'a NamedDot, (&'a PostId, &'a UserId)>,
}

/// The events of a block.
pub fn facts(bytes: &Bytes) -> Vec<(NamedDot, Did)> {
    let mut replicas = Replicas::default();
    let decoded = block::decode(bytes, &mut replicas).expect("an honest block");
    let name = |dot: &Dot| (replicas.id(dot.replica).clone(), dot.seq);
    let post = |at: u32| decoded.posts[at as usize].clone();
    let fact = |(dot, event): (Dot, &likewise::crdt::event::Event)| {
        let did = match &event.action {
            Action::Empty | Action::Retire { .. } => Did::Nothing,
            Action::Like {
                post: at,
                user,
                increments,
                replaced,
            } => Did::Like(
                post(*at),
                user.clone(),
                *increments,
                replaced.iter().map(name).collect(),
            ),
            Action::Unlike {
                post: at,
                user,
                removed,
            } => Did::Unlike(post(*at), user.clone(), removed.iter().map(name).collect()),
            Action::Add {
                post: at,
                counter,
                increments,
                decrements,
            } => {
                let counter = decoded.counters[*counter as usize].clone();
                Did::Add(post(*at), counter, [*increments, *decrements])
            }
        };
        (name(&dot), did)
    };
    decoded.dotted().map(fact).collect()
}

impl Oracle {
    /// Notes a durable block. A dot with two meanings, or a block with other bytes, is a broken node.
    /// Returns the events that are new.
    pub fn learn(&mut self, bytes: &Bytes) -> Vec<(NamedDot, Did)> {
        self.try_learn(bytes).expect("a sound node")
    }

    /// As [`Self::learn`], and says how a node is broken.
    pub fn try_learn(&mut self, bytes: &Bytes) -> Result<Vec<(NamedDot, Did)>, String> {
        let facts = facts(bytes);
        let first = facts[0].0.clone();
        if let Some(known) = self.blocks.get(&first) {
            return match known == bytes {
                true => Ok(Vec::new()),
                false => Err(format!("block {first:?} has two contents")),
            };
        }
        self.blocks.insert(first, bytes.clone());
        let mut new = Vec::new();
        for (dot, did) in facts {
            match self.facts.get(&dot) {
                Some(known) if *known == did => {}
                Some(known) => return Err(format!("{dot:?} means {known:?} and {did:?}")),
                None => {
                    self.facts.insert(dot.clone(), did.clone());
                    new.push((dot, did));
                }
            }
        }
        Ok(new)
    }

    pub fn knows(&self, dot: &NamedDot) -> bool {
        self.facts.contains_key(dot)
    }

    pub fn dots(&self) -> impl Iterator<Item = &NamedDot> {
        self.facts.keys()
    }

    /// All likes that were ever made: dot, post, user.
    pub fn likes(&self) -> Vec<(NamedDot, PostId, UserId)> {
        let like = |(dot, did): (&NamedDot, &Did)| match did {
            Did::Like(post, user, ..) => Some((dot.clone(), post.clone(), user.clone())),
            _ => None,
        };
        let mut likes: Vec<_> = self.facts.iter().filter_map(like).collect();
        likes.sort();
        likes
    }

    /// The state of a node that covers exactly this.
    pub fn state(&self, covered: &NamedVector) -> Expected<'_> {
        let mut total = 0;
        for (replica, seq) in covered {
            total += *seq;
            assert!(
                self.knows(&(replica.clone(), *seq)),
                "{replica}.{seq} was never made"
            );
        }
        let is_covered = |dot: &NamedDot| covered.get(&dot.0).is_some_and(|seq| *seq >= dot.1);
        let mut expected = Expected::default();
        let mut named = BTreeMap::new();
        let mut count = 0;
        for (_, did) in self.facts.iter().filter(|(dot, _)| is_covered(dot)) {
            count += 1;
            match did {
                Did::Like(post, user, _, dots) | Did::Unlike(post, user, dots) => {
                    named.extend(dots.iter().map(|dot| (dot, (post, user))));
                }
                Did::Nothing | Did::Add(..) => {}
            }
        }
        assert_eq!(count, total, "every covered event is known");
        for (dot, did) in self.facts.iter().filter(|(dot, _)| is_covered(dot)) {
            match did {
                Did::Like(post, user, increments, _) => {
                    let most = expected.increments.entry((post, &dot.0)).or_default();
                    *most = (*most).max(*increments);
                    if !named.contains_key(dot) {
                        expected.likers.entry((post, user)).or_default().insert(dot);
                    }
                }
                Did::Add(post, counter, figures) => {
                    let most = expected
                        .counters
                        .entry((post, counter, &dot.0))
                        .or_default();
                    *most = [most[0].max(figures[0]), most[1].max(figures[1])];
                }
                Did::Nothing | Did::Unlike(..) => {}
            }
        }
        expected.orphans = named
            .into_iter()
            .filter(|(dot, _)| !is_covered(dot))
            .collect();
        expected
    }
}

impl Expected<'_> {
    /// The fingerprint, by its definition.
    pub fn fingerprint(&self) -> u128 {
        let key = FingerprintKey::of(&ClusterId::new("test").expect("valid"));
        let mut sum = Fingerprint::default();
        for ((post, user), dots) in &self.likers {
            let (post, user) = (PostHash::of(post), UserHash::of(user));
            for (replica, seq) in dots {
                sum += Fingerprint::liker(key, post, user, ReplicaHash::of(replica), *seq);
            }
        }
        for ((post, replica), increments) in &self.increments {
            sum += Fingerprint::likes(
                key,
                PostHash::of(post),
                ReplicaHash::of(replica),
                *increments,
            );
        }
        for ((post, counter, replica), figures) in &self.counters {
            let (post, replica) = (PostHash::of(post), ReplicaHash::of(replica));
            sum += Fingerprint::counter(key, post, counter, replica, *figures);
        }
        for ((replica, seq), (post, user)) in &self.orphans {
            let (post, user) = (PostHash::of(post), UserHash::of(user));
            sum += Fingerprint::orphan_removal(key, post, user, ReplicaHash::of(replica), *seq);
        }
        sum.0
    }

    pub fn is_live(&self, (dot, post, user): (&NamedDot, &PostId, &UserId)) -> bool {
        let dots = self.likers.get(&(post, user));
        dots.is_some_and(|dots| dots.contains(dot))
    }

    fn posts(&self) -> BTreeSet<&PostId> {
        let posts = self.increments.keys().map(|(post, _)| *post);
        posts
            .chain(self.counters.keys().map(|(post, ..)| *post))
            .collect()
    }

    /// Compares with what the node shows. Nobody may be writing, and the node must be settled.
    pub fn check(&self, node: &Node) -> Result<(), String> {
        let differ = |what: &str, found: &dyn std::fmt::Debug, wanted: &dyn std::fmt::Debug| {
            Err(format!(
                "{what}: the node has {found:?}, must have {wanted:?}"
            ))
        };
        if node.engine.settlement() != Settlement::Settled {
            return Err("the node is not settled".to_owned());
        }
        for post in self.posts() {
            let view = node.engine.view_post(post, None, Detail::Regions);
            let likers = self
                .likers
                .keys()
                .filter(|(other, _)| *other == post)
                .count() as u64;
            if view.count != likers || node.engine.count(post) != likers {
                return differ(&format!("count of {post}"), &view.count, &likers);
            }
            let increments: u64 = view.regions.iter().map(|region| region.increments).sum();
            let decrements: u64 = view.regions.iter().map(|region| region.decrements).sum();
            if increments - decrements != likers {
                return differ(&format!("entries of {post}"), &view.regions, &likers);
            }
            let mut wanted: BTreeMap<&Region, u64> = BTreeMap::new();
            for ((_, replica), made) in self.increments.iter().filter(|((of, _), _)| *of == post) {
                *wanted.entry(&replica.region).or_default() += made;
            }
            let found = view
                .regions
                .iter()
                .map(|region| (&region.region, region.increments));
            let found: BTreeMap<&Region, u64> = found.filter(|(_, made)| *made > 0).collect();
            if found != wanted {
                return differ(&format!("increments of {post}"), &found, &wanted);
            }
            for counter in node.engine.view_counters(post, &[], Detail::Figures) {
                let entries = self.counters.iter();
                let of =
                    entries.filter(|((of, name, _), _)| *of == post && **name == counter.counter);
                let sum: i64 = of
                    .map(|(_, figures)| figures[0] as i64 - figures[1] as i64)
                    .sum();
                if counter.value.value != sum {
                    return differ(
                        &format!("{} of {post}", counter.counter),
                        &counter.value,
                        &sum,
                    );
                }
            }
        }
        if node.engine.orphan_removals() != self.orphans.len() {
            let found = node.engine.orphan_removals();
            return differ("orphan removals", &found, &self.orphans);
        }
        let wanted = self.fingerprint();
        if node.engine.recompute_sums().total().0 != wanted {
            return self.name_a_liker(node);
        }
        if node.fingerprint() != wanted {
            return differ("the sum that is kept up", &node.fingerprint(), &wanted);
        }
        Ok(())
    }

    /// The entries differ: says which, as far as it is a liker.
    fn name_a_liker(&self, node: &Node) -> Result<(), String> {
        let all = node.engine.replicas().all();
        for ((post, user), dots) in &self.likers {
            let view = node.engine.view_post(post, Some(user), Detail::Figures);
            let found = view.viewer_dots.iter();
            let found: BTreeSet<NamedDot> = found
                .map(|dot| (all.id(dot.replica).clone(), dot.seq))
                .collect();
            if found.iter().collect::<BTreeSet<_>>() != *dots {
                return Err(format!(
                    "{user} on {post}: the node has {found:?}, must have {dots:?}"
                ));
            }
        }
        Err("the entries differ from the oracle's, in no liker that must be there".to_owned())
    }
}

/// The likes that a block made.
pub fn likes_of(block: &Bytes) -> Vec<(NamedDot, PostId, UserId)> {
    let like = |(dot, did)| match did {
        Did::Like(post, user, ..) => Some((dot, post, user)),
        _ => None,
    };
    facts(block).into_iter().filter_map(like).collect()
}
