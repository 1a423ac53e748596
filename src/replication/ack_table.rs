//! What the regions have made durable, by their own word or by others': decides what the log may forget, and
//! answers who waits for a region.
//!
//! A session counts for more than hearsay. Where a region has no session, the newest that is known of it
//! counts: of one replica whatever covers more, of several the one whose clock was later.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::crdt::dot::ReplicaIndex;
use crate::crdt::version_vector::VersionVector;
use crate::ids::{Epoch, Region, Replica};
use crate::limits::{HEARD_HOPS_MAX, REGIONS_HEARD_MAX};
use crate::replication::complete::Marks;
use crate::replication::links::Owner;
use crate::replication::session::{Hearsay, Said};

/// How long a clock may go on over an unchanged frontier before that is news. It costs a hundred bytes each
/// time, and "complete until" is as fine as this over a bridge at rest.
const TIME_IS_NEWS_AFTER_MS: u64 = 10_000;

/// The newest acknowledgement of a replica.
#[derive(Debug, Clone)]
pub struct Acked {
    pub replica: Replica,
    pub vector: Arc<VersionVector>,
    pub is_connected: bool,
}

/// What was heard of a replica from others than itself.
#[derive(Debug, Clone)]
struct Heard {
    said: Said,
    /// The region whose node told it, which is not told it back.
    via: Region,
    /// Nodes between the replica and this node.
    hops: u32,
}

/// What is known of one replica.
#[derive(Debug, Default)]
struct Entry {
    /// By its own word.
    direct: Option<Said>,
    heard: Option<Heard>,
    /// The newest session that spoke; what an older one says counts no more.
    owner: Owner,
    sessions: u32,
    /// The table's revision when this last was news, and the replica's clock then.
    news: (u64, u64),
}

#[derive(Default)]
struct Regions {
    all: BTreeMap<Region, BTreeMap<Epoch, Entry>>,
    /// Up to when the regions' events are here.
    complete: BTreeMap<Region, Marks>,
    /// Counts the changes.
    revision: u64,
}

/// For each region its connected replicas, or else the newest of those that are known. What is kept is bounded
/// by the sessions and the regions.
pub struct AckTable {
    /// Guards the table; never held while anything waits.
    regions: Mutex<Regions>,
    /// Told after a change.
    changed: watch::Sender<u64>,
}

impl Default for AckTable {
    fn default() -> Self {
        Self {
            regions: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl AckTable {
    /// Tells the revision after each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A session begins: its frontier replaces all memory of the replica, and of those of its region
    /// that are gone.
    pub fn begin(&self, owner: Owner, replica: &Replica, vector: Arc<VersionVector>) {
        self.change(|regions, revision| {
            let region = regions.entry(replica.region.clone()).or_default();
            region.retain(|epoch, entry| entry.sessions > 0 || *epoch == replica.epoch);
            let entry = region.entry(replica.epoch).or_default();
            entry.sessions += 1;
            entry.heard = None;
            let said = Said {
                vector,
                short: None,
                at_ms: 0,
            };
            entry.take(owner, said);
            entry.news.0 = revision;
            true
        });
    }

    /// A session's replica has acknowledged.
    pub fn set(&self, owner: Owner, replica: &Replica, said: Said) {
        self.note_clock(&replica.region, &said);
        self.change(|regions, revision| {
            let region = regions.get_mut(&replica.region);
            let entry = region.and_then(|region| region.get_mut(&replica.epoch));
            entry.is_some_and(|entry| {
                let before = entry.direct.clone();
                entry.take(owner, said);
                entry.note_news(before.as_ref(), revision)
            })
        });
    }

    /// A session has ended; what it said stays until a replica of its region says something else.
    pub fn end(&self, replica: &Replica) {
        self.change(|regions, revision| {
            let Some(region) = regions.get_mut(&replica.region) else {
                return false;
            };
            if let Some(entry) = region.get_mut(&replica.epoch) {
                entry.sessions = entry.sessions.saturating_sub(1);
            }
            trim(region);
            for entry in region.values_mut().filter(|entry| entry.sessions == 0) {
                entry.news.0 = revision;
            }
            true
        });
    }

    /// A peer passed on what a third replica has said. Of a region without a session it counts if it is
    /// newer than what is known.
    pub fn hear(&self, via: &Region, hearsay: Hearsay) {
        let (of, clock) = (hearsay.replica.region.clone(), hearsay.said.clone());
        self.change(|regions, revision| {
            let Hearsay {
                replica,
                said,
                hops,
            } = hearsay;
            if !regions.contains_key(&replica.region) && regions.len() >= REGIONS_HEARD_MAX {
                return false;
            }
            let region = regions.entry(replica.region).or_default();
            let entry = region.entry(replica.epoch).or_default();
            let before = entry.newest();
            entry.hear(via, said, hops + 1);
            let is_news = entry.note_news(before.as_ref(), revision);
            trim(region);
            is_news && region.contains_key(&replica.epoch)
        });
        self.note_clock(&of, &clock);
    }

    fn note_clock(&self, region: &Region, said: &Said) {
        let mut regions = self.regions.lock();
        if regions.all.contains_key(region) {
            let marks = regions.complete.entry(region.clone()).or_default();
            marks.note(&said.vector, said.at_ms);
        }
    }

    /// Origin times up to which regions' events are covered by `here`, where they said their time.
    /// `is_of` says whether a replica is of a region.
    pub fn complete_until_ms(
        &self,
        here: &VersionVector,
        is_of: impl Fn(&Region, ReplicaIndex) -> bool,
    ) -> BTreeMap<Region, u64> {
        let mut regions = self.regions.lock();
        let all = regions.complete.iter_mut();
        let reached = all.filter_map(|(region, marks)| {
            let until_ms = marks.reached(here, |replica| is_of(region, replica))?;
            Some((region.clone(), until_ms))
        });
        reached.collect()
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<Region, BTreeMap<Epoch, Entry>>, u64) -> bool,
    ) {
        let mut regions = self.regions.lock();
        let revision = regions.revision + 1;
        if change(&mut regions.all, revision) {
            regions.revision = revision;
            drop(regions);
            self.changed.send_replace(revision);
        }
    }

    /// What is news for a peer since a revision, and the revision of now. Not of its own region, nor what it
    /// told itself, nor what has gone through too many nodes.
    pub fn news(&self, peer: &Region, since: u64) -> (u64, Vec<Hearsay>) {
        let regions = self.regions.lock();
        let others = regions.all.iter().filter(|(region, _)| *region != peer);
        let news = others.flat_map(|(region, replicas)| {
            let fresh = counting(replicas).filter(|(_, entry)| entry.news.0 > since);
            fresh.filter_map(|(epoch, entry)| {
                let epoch = *epoch;
                let region = region.clone();
                entry.passed_on(Replica { region, epoch }, peer)
            })
        });
        (regions.revision, news.collect())
    }

    /// What counts of each region.
    pub fn all(&self) -> Vec<Acked> {
        let regions = self.regions.lock();
        let of_region = |(region, replicas)| {
            let acked = move |(epoch, entry): (&Epoch, &Entry)| {
                let region = Region::clone(region);
                Some(Acked {
                    replica: Replica {
                        region,
                        epoch: *epoch,
                    },
                    vector: entry.newest()?.vector,
                    is_connected: entry.sessions > 0,
                })
            };
            counting(replicas).filter_map(acked)
        };
        regions.all.iter().flat_map(of_region).collect()
    }

    /// How many events of the vector no replica of the region is known to have made durable: all, if nothing
    /// was heard of it.
    pub fn events_behind(&self, region: &Region, vector: &VersionVector) -> u64 {
        let behind = |said: Said| vector.events_beyond(&said.vector);
        let said = self.said_of(region).into_iter().map(behind);
        said.min()
            .unwrap_or_else(|| vector.events_beyond(&VersionVector::default()))
    }

    /// Whether some other node has made durable all that the vector covers, by its own word.
    pub fn covered_by_any(&self, vector: &VersionVector) -> bool {
        let regions = self.regions.lock();
        let entries = regions.all.values().flat_map(BTreeMap::values);
        let mut direct = entries.filter_map(|entry| entry.direct.as_ref());
        direct.any(|said| said.vector.covers_all(vector))
    }

    /// Whether every replica of each of the regions has. A region of which nothing was heard has nothing.
    pub fn covered_by_all<'a>(
        &self,
        regions: impl IntoIterator<Item = &'a Region>,
        vector: &VersionVector,
    ) -> bool {
        let mut regions = regions.into_iter();
        regions.all(|region| self.has_durable(region, |known| known.covers_all(vector)))
    }

    /// Whether something is true of what every replica of the region that counts has made durable.
    pub fn has_durable(&self, region: &Region, holds: impl Fn(&VersionVector) -> bool) -> bool {
        let said = self.said_of(region);
        !said.is_empty() && said.iter().all(|said| holds(&said.vector))
    }

    fn said_of(&self, region: &Region) -> Vec<Said> {
        let regions = self.regions.lock();
        let replicas = regions.all.get(region).into_iter().flat_map(counting);
        replicas.filter_map(|(_, entry)| entry.newest()).collect()
    }
}

/// The replicas that count: those that are connected, or else the newest.
fn counting(replicas: &BTreeMap<Epoch, Entry>) -> impl Iterator<Item = (&Epoch, &Entry)> {
    let is_any_connected = replicas.values().any(|entry| entry.sessions > 0);
    let newest = replicas.iter().max_by_key(|(_, entry)| entry.age());
    let newest = newest.map(|(epoch, _)| *epoch);
    replicas
        .iter()
        .filter(move |(epoch, entry)| match is_any_connected {
            true => entry.sessions > 0,
            false => Some(**epoch) == newest,
        })
}

/// Keeps the connected replicas, and of the others the newest.
fn trim(replicas: &mut BTreeMap<Epoch, Entry>) {
    let others = replicas.iter().filter(|(_, entry)| entry.sessions == 0);
    let newest = others.max_by_key(|(_, entry)| entry.age());
    let newest = newest.map(|(epoch, _)| *epoch);
    replicas.retain(|epoch, entry| entry.sessions > 0 || Some(*epoch) == newest);
}

impl Entry {
    /// By the session's own word, also downwards.
    fn take(&mut self, owner: Owner, said: Said) {
        if owner >= self.owner {
            self.owner = owner;
            self.direct = Some(said);
        }
    }

    /// A replica's frontier only grows, so of what was heard of it the larger is the newer.
    fn hear(&mut self, via: &Region, said: Said, hops: u32) {
        let heard = Heard {
            said,
            via: via.clone(),
            hops,
        };
        match &mut self.heard {
            Some(known) if !heard.said.is_beyond(&known.said) => {}
            known => *known = Some(heard),
        }
    }

    /// Whether what was heard counts: the replica has no session, and the hearsay goes beyond its last word.
    fn hearsay(&self) -> Option<&Heard> {
        let is_beyond = |heard: &&Heard| {
            let direct = self.direct.as_ref();
            self.sessions == 0 && direct.is_none_or(|direct| heard.said.is_beyond(direct))
        };
        self.heard.as_ref().filter(is_beyond)
    }

    fn newest(&self) -> Option<Said> {
        let heard = self.hearsay().map(|heard| heard.said.clone());
        heard.or_else(|| self.direct.clone())
    }

    /// Later is larger.
    fn age(&self) -> (u64, u64) {
        let at_ms = self.newest().map_or(0, |said| said.at_ms);
        (at_ms, self.news.0)
    }

    /// Notes whether what counts is news, compared with what counted before.
    fn note_news(&mut self, before: Option<&Said>, revision: u64) -> bool {
        let Some(now) = self.newest() else {
            return false;
        };
        let is_known = before.is_some_and(|before| {
            now.vector == before.vector
                && now.short.is_some() == before.short.is_some()
                && now.at_ms < self.news.1 + TIME_IS_NEWS_AFTER_MS
        });
        if !is_known {
            self.news = (revision, now.at_ms);
        }
        !is_known
    }

    /// As it is told to a peer. What a replica said in full alone is not: its short form follows.
    fn passed_on(&self, replica: Replica, peer: &Region) -> Option<Hearsay> {
        let (said, hops) = match self.hearsay() {
            Some(heard) if heard.via == *peer || heard.hops > HEARD_HOPS_MAX => return None,
            Some(heard) => (heard.said.clone(), heard.hops),
            None => (self.direct.clone()?, 0),
        };
        said.short.as_ref()?;
        Some(Hearsay {
            replica,
            said,
            hops,
        })
    }
}

impl Said {
    /// Whether this was said after the other by the same replica.
    fn is_beyond(&self, other: &Self) -> bool {
        match self.vector.covers_all(&other.vector) {
            true => self.vector != other.vector || self.at_ms > other.at_ms,
            false => false,
        }
    }
}

#[cfg(test)]
mod tests;
