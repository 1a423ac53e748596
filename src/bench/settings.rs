//! What is asked of a run, checked before anything is sent.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::ids::PostId;
use crate::limits::{BATCH_ITEMS_MAX, READ_POSTS_MAX, STREAM_BATCHES_IN_FLIGHT_MAX};

/// Posts of a run: each takes some tens of bytes here.
pub const POSTS_MAX: i64 = 1_000_000;
/// Users of a run: their turns are numbers of 32 bits.
pub const USERS_MAX: i64 = u32::MAX as i64;
/// Clients of a run: as many streams as a few nodes take.
pub const CLIENTS_MAX: i64 = 2_000;
/// Beyond this nearly all likes go to one post anyway.
pub const ZIPF_MAX: f64 = 10.0;
/// Likes, or reads, a second.
pub const RATE_MAX: i64 = 100_000_000;
pub const DURATION_MIN: Duration = Duration::from_millis(100);
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);

const POSTS: i64 = 1_000;
const USERS: i64 = 10_000_000;
const ZIPF: f64 = 1.0;
const CLIENTS: i64 = 16;
/// What a storm is about: reads beside this many who write.
const STORM_CLIENTS: i64 = 200;
const BATCH: i64 = 100;
const IN_FLIGHT: i64 = 4;
const DURATION: Duration = Duration::from_secs(10);
const STORM_DURATION: Duration = Duration::from_secs(30);
const STORM_RATE: i64 = 20_000;
const STORM_DUP_RATIO: f64 = 0.1;

/// What a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Clients that like.
    Like,
    /// Clients that read posts which were liked before.
    Read,
    /// Half of the clients like, the others read.
    Mixed,
    /// A quiet time, a post that goes viral, and everybody at once.
    Storm,
}

/// What was asked for, as it came; what is missing has a default that depends on the kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    pub posts: Option<i64>,
    pub zipf: Option<f64>,
    pub users: Option<i64>,
    pub clients: Option<i64>,
    pub batch: Option<i64>,
    pub in_flight: Option<i64>,
    pub duration: Option<Duration>,
    pub rate: Option<i64>,
    pub dup_ratio: Option<f64>,
    pub unary: bool,
    pub name: Option<String>,
    pub seed: u64,
}

/// A run that can be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub kind: Kind,
    pub posts: u32,
    pub zipf: f64,
    pub users: u32,
    pub clients: usize,
    /// Likes of a batch; of `read` the posts of one read.
    pub batch: usize,
    /// Batches that a client has under way.
    pub in_flight: usize,
    pub duration: Duration,
    /// Likes or reads a second; without it as many as are answered. Of `storm` that of its first phase.
    pub rate: Option<f64>,
    /// The share of likes by users who like the post already.
    pub dup_ratio: f64,
    /// Whether a like is a call of its own.
    pub unary: bool,
    /// What the names of the posts begin with, if that was chosen.
    pub name: Option<String>,
    pub seed: u64,
}

/// Why a run cannot be made. Nothing was sent.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    #[error("{flag} {value} is out of bounds; give {least} to {most}")]
    OutOfBounds {
        flag: &'static str,
        value: String,
        least: String,
        most: String,
    },
    #[error(
        "--unary sends each like in a call of its own, so {flag} {value} does not fit; leave it out"
    )]
    Unary { flag: &'static str, value: i64 },
    #[error(
        "--rate {rate} makes no batch of --batch {batch} within {span:?}; the limit is {least} a second"
    )]
    TooSlow {
        rate: f64,
        batch: usize,
        span: Duration,
        least: u64,
    },
    #[error("--name {name:?} makes no ids of posts: {problem}")]
    Name { name: String, problem: String },
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Like => "like",
            Self::Read => "read",
            Self::Mixed => "mixed",
            Self::Storm => "storm",
        }
    }

    fn batch(self) -> (i64, i64) {
        match self {
            Self::Read => (1, READ_POSTS_MAX as i64),
            _ => (BATCH, BATCH_ITEMS_MAX as i64),
        }
    }
}

impl Settings {
    /// Fills in what is missing, and checks it.
    pub fn new(kind: Kind, wanted: Wanted) -> Result<Self, SettingsError> {
        let storm = kind == Kind::Storm;
        let (clients, duration, dup_ratio) = match storm {
            true => (STORM_CLIENTS, STORM_DURATION, STORM_DUP_RATIO),
            false => (CLIENTS, DURATION, 0.0),
        };
        let (batch, batch_max) = kind.batch();
        if wanted.unary {
            let flags = [("--batch", wanted.batch), ("--in-flight", wanted.in_flight)];
            for (flag, value) in flags {
                let value = value.filter(|value| *value != 1);
                value.map_or(Ok(()), |value| Err(SettingsError::Unary { flag, value }))?;
            }
        }
        let (batch, in_flight) = match (wanted.unary, storm) {
            (true, _) => (1, 1),
            // A storm is made of many who wait for their answers.
            (false, true) => (wanted.batch.unwrap_or(batch), wanted.in_flight.unwrap_or(1)),
            (false, false) => (
                wanted.batch.unwrap_or(batch),
                wanted.in_flight.unwrap_or(IN_FLIGHT),
            ),
        };
        let in_flight_max = STREAM_BATCHES_IN_FLIGHT_MAX as i64;
        let least_clients = if kind == Kind::Mixed { 2 } else { 1 };
        let posts = within("--posts", wanted.posts.unwrap_or(POSTS), 1..=POSTS_MAX)?;
        let users = within("--users", wanted.users.unwrap_or(USERS), 1..=USERS_MAX)?;
        let clients = wanted.clients.unwrap_or(clients);
        let rate = match storm {
            true => Some(wanted.rate.unwrap_or(STORM_RATE)),
            false => wanted.rate,
        };
        let rate = rate.map(|rate| within("--rate", rate, 1..=RATE_MAX));
        let settings = Self {
            kind,
            posts: posts as u32,
            zipf: within("--zipf", wanted.zipf.unwrap_or(ZIPF), 0.0..=ZIPF_MAX)?,
            users: users as u32,
            clients: within("--clients", clients, least_clients..=CLIENTS_MAX)? as usize,
            batch: within("--batch", batch, 1..=batch_max)? as usize,
            in_flight: within("--in-flight", in_flight, 1..=in_flight_max)? as usize,
            duration: duration_within(wanted.duration.unwrap_or(duration))?,
            rate: rate.transpose()?.map(|rate| rate as f64),
            dup_ratio: within(
                "--dup-ratio",
                wanted.dup_ratio.unwrap_or(dup_ratio),
                0.0..=1.0,
            )?,
            unary: wanted.unary,
            name: wanted.name.map(checked_name).transpose()?,
            seed: wanted.seed,
        };
        settings.check_rate()?;
        Ok(settings)
    }

    /// A schedule without a single turn would measure nothing, and say so too late.
    fn check_rate(&self) -> Result<(), SettingsError> {
        let Some(asked) = self.rate else {
            return Ok(());
        };
        for phase in super::phases::of(self) {
            let likes = phase.likes.map(|likes| (likes.rate, likes.sending.batch()));
            let reads = phase.reads.map(|reads| (reads.rate, 1));
            for (rate, batch) in [likes, reads].into_iter().flatten() {
                let Some(rate) = rate else { continue };
                let turns = rate * phase.length.as_secs_f64() / batch as f64;
                if turns < 1.0 {
                    return Err(SettingsError::TooSlow {
                        rate: asked,
                        batch,
                        span: phase.length,
                        least: (asked / turns).ceil() as u64,
                    });
                }
            }
        }
        Ok(())
    }
}

/// No number that is none is within bounds.
fn within<T: PartialOrd + Display>(
    flag: &'static str,
    value: T,
    bounds: RangeInclusive<T>,
) -> Result<T, SettingsError> {
    match bounds.contains(&value) {
        true => Ok(value),
        false => Err(SettingsError::OutOfBounds {
            flag,
            value: value.to_string(),
            least: bounds.start().to_string(),
            most: bounds.end().to_string(),
        }),
    }
}

fn duration_within(duration: Duration) -> Result<Duration, SettingsError> {
    match (DURATION_MIN..=DURATION_MAX).contains(&duration) {
        true => Ok(duration),
        false => Err(SettingsError::OutOfBounds {
            flag: "--duration",
            value: format!("{duration:?}"),
            least: format!("{DURATION_MIN:?}"),
            most: "1440m".to_owned(),
        }),
    }
}

/// The longest id that is made of the name must be one.
fn checked_name(name: String) -> Result<String, SettingsError> {
    let longest = super::post_id(&name, POSTS_MAX as u32);
    let problem = match (name.is_empty(), PostId::new(&longest)) {
        (true, _) => Some("it is empty".to_owned()),
        (false, Err(problem)) => Some(problem.to_string()),
        (false, Ok(_)) => None,
    };
    match problem {
        None => Ok(name),
        Some(problem) => Err(SettingsError::Name { name, problem }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: Kind, wanted: Wanted) -> String {
        Settings::new(kind, wanted).unwrap_err().to_string()
    }

    #[test]
    fn defaults_make_a_run_of_each_kind() {
        for kind in [Kind::Like, Kind::Read, Kind::Mixed, Kind::Storm] {
            let settings = Settings::new(kind, Wanted::default()).expect("sound");
            assert_eq!(settings.rate.is_some(), kind == Kind::Storm);
        }
        let storm = Settings::new(Kind::Storm, Wanted::default()).expect("sound");
        assert_eq!((storm.clients, storm.in_flight), (200, 1));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_with_flag_and_limit() {
        let none = Wanted::default;
        let posts = |posts| Wanted {
            posts: Some(posts),
            ..none()
        };
        let users = |users| Wanted {
            users: Some(users),
            ..none()
        };
        let zipf = |zipf| Wanted {
            zipf: Some(zipf),
            ..none()
        };
        let batch = |batch| Wanted {
            batch: Some(batch),
            ..none()
        };
        let clients = |clients| Wanted {
            clients: Some(clients),
            ..none()
        };
        let in_flight = |in_flight| Wanted {
            in_flight: Some(in_flight),
            ..none()
        };
        let rate = |rate| Wanted {
            rate: Some(rate),
            ..none()
        };
        let dup = |ratio| Wanted {
            dup_ratio: Some(ratio),
            ..none()
        };
        let long = |secs| Wanted {
            duration: Some(Duration::from_secs(secs)),
            ..none()
        };
        for (kind, wanted, said) in [
            (
                Kind::Like,
                posts(0),
                "--posts 0 is out of bounds; give 1 to 1000000",
            ),
            (Kind::Like, posts(-1), "--posts -1"),
            (Kind::Like, users(5_000_000_000), "give 1 to 4294967295"),
            (
                Kind::Like,
                zipf(f64::NAN),
                "--zipf NaN is out of bounds; give 0 to 10",
            ),
            (Kind::Like, zipf(-0.1), "--zipf -0.1"),
            (
                Kind::Like,
                batch(10_001),
                "--batch 10001 is out of bounds; give 1 to 10000",
            ),
            (Kind::Read, batch(1_001), "give 1 to 1000"),
            (
                Kind::Mixed,
                clients(1),
                "--clients 1 is out of bounds; give 2 to 2000",
            ),
            (
                Kind::Storm,
                in_flight(65),
                "--in-flight 65 is out of bounds; give 1 to 64",
            ),
            (
                Kind::Like,
                rate(0),
                "--rate 0 is out of bounds; give 1 to 100000000",
            ),
            (
                Kind::Like,
                dup(1.5),
                "--dup-ratio 1.5 is out of bounds; give 0 to 1",
            ),
            (Kind::Like, dup(f64::INFINITY), "--dup-ratio inf"),
            (
                Kind::Like,
                long(0),
                "--duration 0ns is out of bounds; give 100ms to 1440m",
            ),
            (Kind::Like, long(86_401), "--duration 86401s"),
        ] {
            let found = refused(kind, wanted);
            assert!(found.contains(said), "{found}");
        }
    }

    #[test]
    fn flags_that_contradict_one_another_are_refused() {
        let unary = Wanted {
            unary: true,
            ..Wanted::default()
        };
        let settings = Settings::new(Kind::Like, unary.clone()).expect("sound");
        assert_eq!((settings.batch, settings.in_flight), (1, 1));
        let one = Wanted {
            batch: Some(1),
            ..unary.clone()
        };
        assert!(Settings::new(Kind::Like, one).is_ok());
        let found = refused(
            Kind::Like,
            Wanted {
                batch: Some(2),
                ..unary
            },
        );
        assert!(
            found.contains("--unary") && found.contains("--batch 2"),
            "{found}"
        );
    }

    #[test]
    fn a_rate_that_makes_no_batch_is_refused_with_the_least_that_does() {
        let wanted = |rate| Wanted {
            rate: Some(rate),
            ..Wanted::default()
        };
        let found = refused(Kind::Like, wanted(9));
        assert!(
            found.contains("--rate 9") && found.contains("the limit is 10"),
            "{found}"
        );
        assert!(Settings::new(Kind::Like, wanted(10)).is_ok());
        assert!(Settings::new(Kind::Read, wanted(1)).is_ok());
        assert!(Settings::new(Kind::Storm, wanted(1)).is_err());
    }

    #[test]
    fn a_name_must_make_ids() {
        let wanted = |name: &str| Wanted {
            name: Some(name.to_owned()),
            ..Wanted::default()
        };
        assert!(Settings::new(Kind::Like, wanted("mine")).is_ok());
        for bad in ["", "a\nb", &"x".repeat(250)] {
            let found = refused(Kind::Like, wanted(bad));
            assert!(found.starts_with("--name"), "{found}");
        }
    }
}
