//! Nothing acknowledged is lost, and nothing else is there: what the clients were told, against the state that
//! all regions came to.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Debug;

use likewise::codec::text::NamedSeq;

use super::{Findings, Verdict};
use crate::simulator::history::{Action, History, Outcome};

/// The live dots of a user on a post.
pub type PairState = Vec<NamedSeq>;

/// What a node holds, by names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// By post and user; only who likes is in it.
    pub likers: BTreeMap<(String, String), PairState>,
    /// By post, counter and region that added; zero where nothing was added.
    pub counters: BTreeMap<(String, String, String), i64>,
}

impl State {
    /// The first thing that the two hold otherwise, in words.
    pub fn difference(&self, other: &Self) -> Option<String> {
        first_difference(&self.likers, &other.likers)
            .or_else(|| first_difference(&self.counters, &other.counters))
    }
}

fn first_difference<K: Ord + Debug, V: PartialEq + Debug>(
    ours: &BTreeMap<K, V>,
    theirs: &BTreeMap<K, V>,
) -> Option<String> {
    let keys: BTreeSet<&K> = ours.keys().chain(theirs.keys()).collect();
    let mut differing = keys
        .into_iter()
        .filter(|key| ours.get(key) != theirs.get(key));
    let key = differing.next()?;
    Some(format!(
        "{key:?}: {:?} and {:?}",
        ours.get(key),
        theirs.get(key)
    ))
}

/// What is known of a user and a post from the answers alone.
#[derive(Default)]
struct Told {
    liked: HashSet<NamedSeq>,
    removed: HashSet<NamedSeq>,
    /// Named by an acknowledged unlike that did not tell who removed them: it, or an earlier one, which may be lost.
    named: HashSet<NamedSeq>,
    /// Likes that may have happened, or may be lost.
    unsure_likes: usize,
    unsure_unlikes: usize,
}

fn told(history: &History) -> BTreeMap<(String, String), Told> {
    let mut pairs: BTreeMap<(String, String), Told> = BTreeMap::new();
    for (operation, outcome) in history.operations.iter().zip(history.outcomes()) {
        let Some(outcome) = outcome else { continue };
        let is_like = match operation.action {
            Action::Like => true,
            Action::Unlike | Action::UnlikeById(_) => false,
            Action::Add { .. } | Action::Read { .. } => continue,
        };
        let key = (operation.post.clone(), operation.user.clone());
        let pair = pairs.entry(key).or_default();
        match outcome {
            Outcome::Liked { dots, replaced } => {
                if history.is_lost(&dots) || history.is_lost(&operation.through) {
                    pair.unsure_likes += 1;
                    pair.unsure_unlikes += 1;
                } else {
                    pair.removed.extend(replaced);
                    pair.liked.extend(dots);
                }
            }
            Outcome::Unliked { removed } => {
                if history.is_lost(&operation.through) || history.is_damaged(operation) {
                    pair.unsure_unlikes += 1;
                } else {
                    pair.removed.extend(removed);
                    if let Action::UnlikeById(named) = &operation.action {
                        pair.named.extend(named.iter().cloned());
                    }
                }
            }
            Outcome::Unknown | Outcome::Pending if is_like => pair.unsure_likes += 1,
            Outcome::Unknown | Outcome::Pending => pair.unsure_unlikes += 1,
            Outcome::Refused(_) | Outcome::NotReached | Outcome::Added | Outcome::Shown { .. } => {}
        }
    }
    for pair in pairs.values_mut().filter(|pair| pair.unsure_unlikes == 0) {
        pair.removed.extend(pair.named.drain());
    }
    pairs
}

/// A user is a liker if and only if an acknowledged like's dot was neither removed nor replaced by what was
/// acknowledged; what is unknown may be either.
pub fn acknowledged(history: &History, state: &State) -> Verdict {
    let mut findings = Findings::default();
    let pairs = told(history);
    let none = Vec::new();
    for ((post, user), pair) in &pairs {
        let live = state
            .likers
            .get(&(post.clone(), user.clone()))
            .unwrap_or(&none);
        for dot in live {
            findings.check(!pair.removed.contains(dot), || {
                format!("{user} likes {post} by {dot:?}, which an acknowledged answer removed")
            });
            findings.check(pair.liked.contains(dot) || pair.unsure_likes > 0, || {
                format!("{user} likes {post} by {dot:?}, which nobody was told of")
            });
        }
        let alive: Vec<_> = pair.liked.difference(&pair.removed).collect();
        // A like that may have happened may have replaced them; then it is there, unless something may have
        // removed it.
        let names_unknown = !pair.removed.is_subset(&pair.liked);
        let may_be_replaced =
            pair.unsure_likes > 0 && (!live.is_empty() || names_unknown || pair.unsure_unlikes > 0);
        if history.may_be_outvoted(&(post.clone(), user.clone())) {
            continue;
        }
        for dot in alive {
            let is_explained = live.contains(dot) || pair.unsure_unlikes > 0 || may_be_replaced;
            findings.check(is_explained, || {
                format!("the acknowledged like {dot:?} of {post} by {user} is lost")
            });
        }
    }
    for (post, user) in state.likers.keys() {
        findings.check(pairs.contains_key(&(post.clone(), user.clone())), || {
            format!("{user} likes {post}, and nobody ever asked for it")
        });
    }
    findings.verdict("acknowledged writes")
}

/// A region's part of a counter is the sum of what it acknowledged, give or take what is unknown. The regions are those
/// of the machines.
pub fn counters(history: &History, state: &State, regions: &[&str]) -> Verdict {
    let mut sums: HashMap<(String, String, String), (i64, i64)> = HashMap::new();
    for (operation, outcome) in history.operations.iter().zip(history.outcomes()) {
        let (Some(outcome), Action::Add { counter, delta }) = (outcome, &operation.action) else {
            continue;
        };
        let region = regions[operation.machine].to_owned();
        let key = (operation.post.clone(), (*counter).to_owned(), region);
        let (least, most) = sums.entry(key).or_default();
        let is_sure = outcome == Outcome::Added && !history.is_lost(&operation.through);
        let is_unsure = matches!(
            outcome,
            Outcome::Added | Outcome::Unknown | Outcome::Pending
        );
        if is_sure {
            (*least, *most) = (*least + delta, *most + delta);
        } else if is_unsure {
            (*least, *most) = (*least + delta.min(&0), *most + delta.max(&0));
        }
    }
    let mut findings = Findings::default();
    let keys: BTreeSet<_> = sums.keys().chain(state.counters.keys()).collect();
    for key in keys {
        let (least, most) = sums.get(key).copied().unwrap_or_default();
        let value = state.counters.get(key).copied().unwrap_or_default();
        findings.check((least..=most).contains(&value), || {
            let (post, counter, region) = key;
            format!(
                "{region}'s part of {counter} of {post} is {value}; by what it acknowledged {least} to {most}"
            )
        });
    }
    findings.verdict("counters")
}
