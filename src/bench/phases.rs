//! What happens in a run, one phase after the other.

use std::time::Duration;

use super::settings::{Kind, Settings};

/// Likes that are there before anything is read, and at least one a post.
const FILLING: u64 = 200_000;
/// How long filling may take.
const FILLING_MAX: Duration = Duration::from_secs(120);
const FILLING_BATCH: usize = 1_000;
/// Those who read beside a storm, so many that one is free whenever a read is due, and how often all of them together.
const STORM_READERS: usize = 200;
const STORM_READS: f64 = 1_000.0;

/// A part of a run in which everybody does the same all the while.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    pub name: &'static str,
    pub length: Duration,
    pub likes: Option<Likes>,
    pub reads: Option<Reads>,
    /// The share of likes and reads that go to the first post, whatever else is popular.
    pub hot_share: f64,
}

/// Clients that like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likes {
    pub clients: usize,
    /// Likes a second; without it as many as are answered.
    pub rate: Option<f64>,
    /// After so many likes the phase is over.
    pub most: Option<u64>,
    pub dup_ratio: f64,
    pub sending: Sending,
}

/// How likes are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// A call a like; a client waits for the answer before it makes the next.
    Calls,
    /// Batches on a stream of each client, with so many unanswered at once.
    Stream { batch: usize, in_flight: usize },
}

impl Sending {
    /// Likes that are sent together.
    pub fn batch(self) -> usize {
        match self {
            Self::Calls => 1,
            Self::Stream { batch, .. } => batch,
        }
    }

    /// What a client may have under way at once.
    pub fn in_flight(self) -> usize {
        match self {
            Self::Calls => 1,
            Self::Stream { in_flight, .. } => in_flight,
        }
    }
}

/// Clients that read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reads {
    pub clients: usize,
    /// Reads a second; without it as many as are answered.
    pub rate: Option<f64>,
    /// Posts of one read.
    pub posts: usize,
}

/// The phases of a run.
pub fn of(settings: &Settings) -> Vec<Phase> {
    match settings.kind {
        Kind::Like => vec![likes(settings)],
        Kind::Read => vec![filling(settings), reads(settings)],
        Kind::Mixed => vec![filling(settings), mixed(settings)],
        Kind::Storm => storm(settings),
    }
}

fn sending(settings: &Settings) -> Sending {
    match settings.unary {
        true => Sending::Calls,
        false => Sending::Stream {
            batch: settings.batch,
            in_flight: settings.in_flight,
        },
    }
}

fn likes(settings: &Settings) -> Phase {
    Phase {
        name: "like",
        length: settings.duration,
        likes: Some(Likes {
            clients: settings.clients,
            rate: settings.rate,
            most: None,
            dup_ratio: settings.dup_ratio,
            sending: sending(settings),
        }),
        reads: None,
        hot_share: 0.0,
    }
}

fn filling(settings: &Settings) -> Phase {
    let room = u64::from(settings.users) * u64::from(settings.posts);
    Phase {
        name: "fill",
        length: FILLING_MAX,
        likes: Some(Likes {
            clients: settings.clients,
            rate: None,
            most: Some(FILLING.max(settings.posts.into()).min(room)),
            dup_ratio: 0.0,
            sending: Sending::Stream {
                batch: FILLING_BATCH,
                in_flight: settings.in_flight,
            },
        }),
        ..likes(settings)
    }
}

fn reads(settings: &Settings) -> Phase {
    Phase {
        name: "read",
        likes: None,
        reads: Some(Reads {
            clients: settings.clients,
            rate: settings.rate,
            posts: settings.batch,
        }),
        ..likes(settings)
    }
}

fn mixed(settings: &Settings) -> Phase {
    let (rate, readers) = (settings.rate.map(|rate| rate / 2.0), settings.clients / 2);
    Phase {
        name: "mixed",
        likes: Some(Likes {
            clients: settings.clients - readers,
            rate,
            most: None,
            dup_ratio: settings.dup_ratio,
            sending: sending(settings),
        }),
        reads: Some(Reads {
            clients: readers,
            rate,
            posts: 1,
        }),
        ..likes(settings)
    }
}

/// First what a day is like; then one post has half of all likes, and there are three times as many; then nearly
/// all go there, as fast as they are taken, and people tap again and again.
fn storm(settings: &Settings) -> Vec<Phase> {
    let phase = |name, tenths, faster: Option<f64>, hot_share, dups: f64| Phase {
        name,
        length: settings.duration * tenths / 10,
        likes: Some(Likes {
            clients: settings.clients,
            rate: faster.and_then(|faster| Some(settings.rate? * faster)),
            most: None,
            dup_ratio: (settings.dup_ratio * dups).min(1.0),
            sending: sending(settings),
        }),
        reads: Some(Reads {
            clients: STORM_READERS,
            rate: Some(STORM_READS),
            posts: 1,
        }),
        hot_share,
    };
    vec![
        phase("normal", 3, Some(1.0), 0.0, 1.0),
        phase("viral", 3, Some(3.0), 0.5, 2.0),
        phase("tsunami", 4, None, 0.9, 3.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::settings::Wanted;
    use super::*;

    fn phases(kind: Kind, wanted: Wanted) -> Vec<Phase> {
        of(&Settings::new(kind, wanted).expect("sound"))
    }

    #[test]
    fn a_storm_grows_from_phase_to_phase() {
        let phases = phases(Kind::Storm, Wanted::default());
        let names: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        assert_eq!(names, ["normal", "viral", "tsunami"]);
        let length: Duration = phases.iter().map(|phase| phase.length).sum();
        assert_eq!(length, Duration::from_secs(30));
        let likes: Vec<_> = phases.iter().filter_map(|phase| phase.likes).collect();
        assert_eq!(likes[0].rate, Some(20_000.0));
        assert_eq!(likes[1].rate, Some(60_000.0));
        assert_eq!(likes[2].rate, None);
        for (earlier, later) in phases.iter().zip(&phases[1..]) {
            assert!(earlier.hot_share < later.hot_share);
        }
        assert!(likes[0].dup_ratio < likes[1].dup_ratio && likes[1].dup_ratio < likes[2].dup_ratio);
        assert!(likes.iter().all(|likes| likes.clients == 200));
        assert!(phases.iter().all(|phase| phase.reads.is_some()));
    }

    #[test]
    fn no_more_than_all_likes_are_repeated() {
        let wanted = Wanted {
            dup_ratio: Some(0.6),
            ..Wanted::default()
        };
        let likes: Vec<_> = phases(Kind::Storm, wanted)
            .iter()
            .filter_map(|phase| phase.likes)
            .map(|likes| likes.dup_ratio)
            .collect();
        assert_eq!(likes, [0.6, 1.0, 1.0]);
    }

    #[test]
    fn what_is_read_was_liked_before() {
        for kind in [Kind::Read, Kind::Mixed] {
            let wanted = Wanted {
                users: Some(3),
                posts: Some(5),
                ..Wanted::default()
            };
            let phases = phases(kind, wanted);
            assert_eq!(phases[0].likes.and_then(|likes| likes.most), Some(15));
            assert!(phases[0].reads.is_none() && phases[1].reads.is_some());
        }
    }

    #[test]
    fn who_reads_and_who_likes_share_clients_and_rate() {
        let wanted = Wanted {
            clients: Some(5),
            rate: Some(1_000),
            ..Wanted::default()
        };
        let phase = phases(Kind::Mixed, wanted)[1];
        let (likes, reads) = (phase.likes.expect("some"), phase.reads.expect("some"));
        assert_eq!((likes.clients, reads.clients), (3, 2));
        assert_eq!((likes.rate, reads.rate), (Some(500.0), Some(500.0)));
    }
}
