//! Looks into running nodes, past their interfaces, and hands what it sees to the checkers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use likewise::codec::text::NamedSeq;
use likewise::counts::Counts;
use likewise::engine::published::Published;
use likewise::engine::read::Detail;
use likewise::engine::{Serving, Settlement};
use likewise::ids::{PostId, Replica, UserId};
use likewise::log::Position;

use super::checkers::{Figures, Findings, Fingerprints, State, Vectors};
use super::history::Recorder;
use super::workload::{COUNTERS, post_name};
use super::world::World;
use super::world::machine::Seen;

/// How often nodes are looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);
const LIKERS_MAX: usize = 1 << 20;
/// Bytes that the files of a node may take: its log, and a snapshot that is on its way.
const DISK_BYTES_MAX: u64 = 64 << 20;

/// See the module.
#[derive(Default)]
pub struct Probe {
    pub vectors: Vectors,
    pub fingerprints: Fingerprints,
    pub figures: Figures,
    pub bounds: Findings,
    /// Operations whose posts were looked at.
    looked: usize,
    /// What was counted by nodes that others have followed.
    ended: BTreeMap<&'static str, u64>,
    /// By machine, of its newest node.
    running: BTreeMap<usize, Arc<Counts>>,
    /// Machines that came back as something else, and are in nobody's vector yet.
    returning: Vec<(usize, Return)>,
    /// How often what such a machine wrote since has come to another one.
    pub returned: BTreeMap<Return, u64>,
    orphans: BTreeMap<usize, usize>,
    /// By machine, where its log begins.
    beginnings: BTreeMap<usize, Position>,
    /// By machine, snapshots that its newest node has merged.
    merged: BTreeMap<usize, u64>,
    pub orphans_made: u64,
    pub orphans_resolved: u64,
    pub cuts_with_somebody_away: u64,
    /// How many likers each machine has, over time, for plots.
    pub samples: Vec<(Duration, usize, u64)>,
    /// How many events of the second machine's region the first one lacks, over time.
    pub lags: Vec<(Duration, usize, usize, u64)>,
}

/// As what a machine comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Return {
    /// With an older folder.
    Restored,
    /// After others have retired its region.
    Retired,
}

fn is_settled(seen: &Seen) -> bool {
    seen.engine.settlement() == Settlement::Settled
}

pub fn vector_of(published: &Published) -> BTreeMap<Replica, u64> {
    let entries = published.vector.iter().filter(|(_, seq)| *seq > 0);
    entries
        .map(|(replica, seq)| (published.replicas.id(replica).clone(), seq))
        .collect()
}

impl Probe {
    /// The cheap look: vectors, sums and bounds of all nodes, and figures of posts that were just written.
    pub fn look(&mut self, world: &World, recorder: &Recorder, is_somebody_away: bool) {
        let touched: BTreeSet<String> = {
            let inner = recorder.lock();
            let operations = &inner.history.operations;
            let fresh = &operations[self.looked.min(operations.len())..];
            let posts = fresh.iter().map(|operation| operation.post.clone());
            let touched = posts.collect();
            self.looked = operations.len();
            touched
        };
        for (number, machine) in world.machines().iter().enumerate() {
            let Some(seen) = machine.seen() else { continue };
            if seen.engine.serving() != Serving::Ready {
                // An empty folder: some writes wait until a peer has answered.
                let now = recorder.now();
                let span = (now.saturating_sub(LOOK_EVERY), now + LOOK_EVERY);
                let mut inner = recorder.lock();
                inner.history.excused.entry(number).or_default().push(span);
            }
            if self.has_merged(number, &seen) {
                let earliest = recorder.now().saturating_sub(LOOK_EVERY);
                recorder.lock().history.merged(number, earliest);
            }
            let newest = seen.engine.board().newest();
            let vector = vector_of(&newest);
            let is_damaged = recorder.lock().history.may_have_damage(number);
            if is_settled(&seen) && !is_damaged {
                let sum = newest.sums.total().to_string();
                self.fingerprints.see(number, &vector, sum);
            }
            self.vectors.see(number, vector);
            if !is_damaged {
                self.look_at_figures(number, &seen, touched.iter().map(String::as_str));
            }
            let orphans = seen.engine.orphan_removals();
            let before = self.orphans.insert(number, orphans).unwrap_or_default();
            self.orphans_made += u64::from(orphans > before);
            self.orphans_resolved += u64::from(orphans < before);
            let orphans_max = seen.engine.options().orphan_removals_max;
            self.bounds.check(orphans <= orphans_max, || {
                format!("machine {number} holds {orphans} orphan removals")
            });
            let used = machine.disk_used();
            self.bounds.check(used <= DISK_BYTES_MAX, || {
                format!("the files of machine {number} take {used} bytes")
            });
            if let Some(first) = seen.log.segments().first() {
                let before = self.beginnings.insert(number, first.base);
                let is_cut = before.is_some_and(|before| before < first.base);
                self.cuts_with_somebody_away += u64::from(is_cut && is_somebody_away);
            }
        }
        self.look_for_returns(world);
    }

    fn count(&mut self, number: usize, seen: &Seen) {
        let is_same = |counts: &Arc<Counts>| Arc::ptr_eq(counts, &seen.counts);
        if self.running.get(&number).is_some_and(is_same) {
            return;
        }
        if let Some(ended) = self.running.insert(number, seen.counts.clone()) {
            add(&mut self.ended, &ended);
        }
        self.orphans.remove(&number);
        self.beginnings.remove(&number);
        self.merged.remove(&number);
    }

    /// Whether the machine's node has merged a snapshot since it was last looked at.
    fn has_merged(&mut self, number: usize, seen: &Seen) -> bool {
        self.count(number, seen);
        let merged = seen.counts.snapshots_merged.get();
        merged > self.merged.insert(number, merged).unwrap_or_default()
    }

    /// The machine comes back as something else; what it writes from then on is waited for.
    pub fn expect_back(&mut self, number: usize, as_what: Return) {
        self.returning.push((number, as_what));
    }

    fn look_for_returns(&mut self, world: &World) {
        let (back, waited): (Vec<_>, Vec<_>) = std::mem::take(&mut self.returning)
            .into_iter()
            .partition(|(number, as_what)| self.is_back(world, *number, *as_what));
        self.returning = waited;
        for (_, as_what) in back {
            *self.returned.entry(as_what).or_default() += 1;
        }
    }

    /// Whether another machine has events of the replica that runs there now and, where its region was retired, knows
    /// of that.
    fn is_back(&self, world: &World, number: usize, as_what: Return) -> bool {
        let Some(seen) = world.machine(number).seen() else {
            return false;
        };
        let own = seen.engine.own();
        let knows = |other: usize| {
            let has_events = self
                .vectors
                .newest(other)
                .is_some_and(|vector| vector.contains_key(&own));
            let knows_retired = world.machine(other).seen().is_some_and(|seen| {
                let newest = seen.engine.board().newest();
                let mut retired = newest.retired.iter();
                retired.any(|replica| newest.replicas.id(*replica).region == own.region)
            });
            has_events && (as_what == Return::Restored || knows_retired)
        };
        (0..world.machines().len()).any(|other| other != number && knows(other))
    }

    /// Figures of all posts.
    pub fn look_at_all(&mut self, world: &World, recorder: &Recorder, posts: usize) {
        let names: Vec<String> = (0..posts).map(post_name).collect();
        let now = recorder.now();
        for (number, machine) in world.machines().iter().enumerate() {
            let Some(seen) = machine.seen() else { continue };
            if !recorder.lock().history.may_have_damage(number) {
                self.look_at_figures(number, &seen, names.iter().map(String::as_str));
            }
            self.samples.push((now, number, seen.engine.likers()));
            for (other, from) in world.machines().iter().enumerate() {
                if other != number && from.seen().is_some() {
                    let events = self.lag(number, other, from.region());
                    self.lags.push((now, number, other, events));
                }
            }
        }
    }

    /// How many events of a region's replicas one machine lacks that another one has.
    fn lag(&self, number: usize, other: usize, region: &str) -> u64 {
        let none = BTreeMap::new();
        let here = self.vectors.newest(number).unwrap_or(&none);
        let there = self.vectors.newest(other).unwrap_or(&none).iter();
        let of_region = there.filter(|(replica, _)| replica.region.as_str() == region);
        let lacking = of_region.map(|(replica, seq)| {
            let known = here.get(replica).copied().unwrap_or_default();
            seq.saturating_sub(known)
        });
        lacking.sum()
    }

    fn look_at_figures<'a>(
        &mut self,
        number: usize,
        seen: &Seen,
        posts: impl Iterator<Item = &'a str>,
    ) {
        if !is_settled(seen) {
            return;
        }
        for name in posts {
            let post = PostId::new(name).expect("a valid post");
            let view = seen.engine.view_post(&post, None, Detail::Regions);
            let listed = seen
                .engine
                .list_likers(&post, None, LIKERS_MAX)
                .now_or_never();
            let Some(listed) = listed else { continue };
            let entries = view.regions.iter();
            let entries =
                entries.map(|region| i128::from(region.increments) - i128::from(region.decrements));
            let likers = listed.users.len() as u64;
            self.figures
                .see(number, name, view.count, likers, entries.sum());
        }
    }

    /// What all nodes counted.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut all = self.ended.clone();
        for counts in self.running.values() {
            add(&mut all, counts);
        }
        all
    }
}

fn add(all: &mut BTreeMap<&'static str, u64>, counts: &Counts) {
    for (name, count) in counts.all() {
        *all.entry(name).or_default() += count;
    }
}

/// Whether these machines' nodes all run, are settled, ready, and have published the same.
pub fn are_equal(world: &World, machines: &[usize]) -> bool {
    let mut first: Option<(BTreeMap<Replica, u64>, String)> = None;
    for number in machines {
        let Some(seen) = world.machine(*number).seen() else {
            return false;
        };
        if !is_settled(&seen) || seen.engine.serving() != Serving::Ready {
            return false;
        }
        let newest = seen.engine.board().newest();
        let shown = (vector_of(&newest), newest.sums.total().to_string());
        match &first {
            Some(first) if *first != shown => return false,
            Some(_) => {}
            None => first = Some(shown),
        }
    }
    true
}

/// Whether what these nodes hold is what their sums say, entry by entry.
pub fn are_sound(world: &World, machines: &[usize]) -> bool {
    let is_sound = |seen: Seen| {
        let computed = seen.engine.recompute_sums();
        computed == seen.engine.board().newest().sums
    };
    machines
        .iter()
        .all(|number| world.machine(*number).seen().is_some_and(is_sound))
}

/// What a node holds, of all posts and users that there can be.
pub fn state_of(seen: &Seen, posts: usize) -> State {
    let mut state = State::default();
    let replicas = seen.engine.replicas().all();
    for name in (0..posts).map(post_name) {
        let post = PostId::new(&name).expect("a valid post");
        let listed = seen
            .engine
            .list_likers(&post, None, LIKERS_MAX)
            .now_or_never();
        let users: Vec<UserId> = listed.map(|listed| listed.users).unwrap_or_default();
        for user in users {
            let view = seen.engine.view_post(&post, Some(&user), Detail::Figures);
            let mut dots: Vec<NamedSeq> = view
                .viewer_dots
                .iter()
                .map(|dot| (replicas.id(dot.replica).clone(), dot.seq))
                .collect();
            dots.sort();
            state.likers.insert((name.clone(), user.to_string()), dots);
        }
        for view in seen.engine.view_counters(&post, &[], Detail::Regions) {
            let counter = view.counter.as_str();
            for part in view.regions.iter().filter(|_| COUNTERS.contains(&counter)) {
                let value = part.increments as i64 - part.decrements as i64;
                let region = part.region.as_str().to_owned();
                if value != 0 {
                    state
                        .counters
                        .insert((name.clone(), counter.to_owned(), region), value);
                }
            }
        }
    }
    state
}
