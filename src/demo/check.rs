//! Asking every node about every post and every user, and holding the answers against the record.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::Place;
use super::cluster::Cluster;
use super::load::{POSTS, USERS, VIEWS};
use super::record::{Post, Record, Seen, User};
use crate::causes;
use crate::client::{Client, Read};
use crate::wire::v1::GetStatusResponse;

/// How long after the last heal the regions may take.
const CONVERGED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const QUESTIONS_AT_ONCE: usize = 32;
/// Differences that are told one by one.
const DIFFERENCES_TOLD: usize = 5;

/// What all regions agreed on.
#[derive(Debug)]
pub struct Agreed {
    pub likes: u64,
    pub likers: u64,
    pub fingerprint: String,
}

/// Waits until all nodes say that they hold the same; otherwise where it hangs.
pub async fn wait_for_convergence(cluster: &Cluster) -> anyhow::Result<String> {
    let until = Instant::now() + CONVERGED_WITHIN;
    loop {
        let problem = match statuses(cluster).await {
            Ok(all) => match disagreement(&all) {
                None => return Ok(all[0].fingerprint.clone()),
                Some(problem) => problem,
            },
            Err(error) => causes::told(error.as_ref()),
        };
        if Instant::now() >= until {
            bail!(problem);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn statuses(cluster: &Cluster) -> anyhow::Result<Vec<GetStatusResponse>> {
    let mut all = Vec::new();
    for place in Place::ALL {
        all.push(cluster.client(place)?.status().await?);
    }
    Ok(all)
}

fn disagreement(all: &[GetStatusResponse]) -> Option<String> {
    if let Some(status) = all.iter().find(|status| !status.settled) {
        return Some(format!("{} is still merging a snapshot", status.region));
    }
    let (first, rest) = all.split_first()?;
    let frontier = |status: &GetStatusResponse| -> BTreeMap<(String, String), u64> {
        let heads = status.heads.iter();
        heads
            .map(|head| ((head.region.clone(), head.epoch.clone()), head.seq))
            .collect()
    };
    rest.iter().find_map(|other| {
        let (a, b) = (&first.region, &other.region);
        if frontier(first) != frontier(other) {
            return Some(format!("{a} and {b} have not seen the same events"));
        }
        let differ = first.fingerprint != other.fingerprint;
        differ.then(|| format!("{a} and {b} hold the same events and different state"))
    })
}

/// What every node holds.
pub async fn ask_everything(cluster: &Cluster) -> anyhow::Result<Vec<(Place, Seen)>> {
    let mut answers = Vec::new();
    for place in Place::ALL {
        answers.push((place, see(&cluster.client(place)?).await?));
    }
    Ok(answers)
}

/// Compares every node with the record and with one another; an error says what differs.
pub fn compare(
    answers: &[(Place, Seen)],
    record: &Record,
    fingerprint: String,
) -> anyhow::Result<Agreed> {
    for (place, seen) in answers {
        let found = record.differences(seen);
        if !found.is_empty() {
            let told: Vec<&str> = found
                .iter()
                .take(DIFFERENCES_TOLD)
                .map(String::as_str)
                .collect();
            bail!(
                "{} differences in {place}: {}",
                found.len(),
                told.join("; ")
            );
        }
    }
    let [(at, first), others @ ..] = answers else {
        bail!("nobody was asked");
    };
    if let Some((place, _)) = others.iter().find(|(_, seen)| seen != first) {
        bail!("{at} and {place} answer differently");
    }
    Ok(Agreed {
        likes: first.counts.values().sum(),
        likers: first.likers.len() as u64,
        fingerprint,
    })
}

/// Everything that a node holds, as far as clients are told.
async fn see(client: &Client) -> anyhow::Result<Seen> {
    let posts: Vec<Post> = (0..POSTS)
        .map(Post::Numbered)
        .chain([Post::Both, Post::BothUnliked])
        .collect();
    let names: Vec<String> = posts.iter().map(Post::to_string).collect();
    let asked = stream::iter((0..USERS).map(User)).map(|user| {
        let names = &names;
        async move {
            let viewer = user.to_string();
            let answer = client.batch_get_posts(names, Some(&viewer), Read::default());
            anyhow::Ok((user, answer.await?))
        }
    });
    let mut answers = asked.buffer_unordered(QUESTIONS_AT_ONCE);
    let mut seen = Seen::default();
    while let Some((user, likes)) = answers.try_next().await? {
        anyhow::ensure!(
            likes.len() == posts.len(),
            "an answer with other posts than asked for"
        );
        for (post, likes) in posts.iter().zip(likes) {
            let before = seen.counts.insert(*post, likes.count);
            anyhow::ensure!(
                before.is_none_or(|count| count == likes.count),
                "{post} changes although nobody writes"
            );
            if likes.viewer_likes {
                seen.likers.insert((*post, user));
            }
        }
    }
    for post in posts {
        let counters = [VIEWS.to_owned()];
        let name = post.to_string();
        let values = client
            .get_counters(&name, &counters, Read::default())
            .await?;
        let value = values.first().map_or(0, |views| views.value);
        seen.views.insert(post, value);
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(likes: bool) -> Seen {
        let likers = likes.then_some((Post::Both, User(1)));
        Seen {
            counts: [(Post::Both, u64::from(likes))].into(),
            likers: likers.into_iter().collect(),
            ..Seen::default()
        }
    }

    fn check(record: &Record, likes: [bool; 2]) -> anyhow::Result<Agreed> {
        let [us, eu] = likes.map(answer);
        compare(&[(Place::Us, us), (Place::Eu, eu)], record, "f".to_owned())
    }

    #[test]
    fn nodes_must_fit_the_record_and_one_another() {
        let mut record = Record::default();
        record.liked(Post::Both, User(1), "a", &[]);
        assert_eq!(check(&record, [true, true]).unwrap().likers, 1);
        let lost = check(&record, [true, false]).unwrap_err().to_string();
        assert_eq!(
            lost,
            "1 differences in eu: user-1 likes sunrise, and it is lost"
        );
        record.unknown(super::super::record::Write::Like(Post::Both, User(1)));
        let differ = check(&record, [true, false]).unwrap_err().to_string();
        assert_eq!(differ, "us and eu answer differently");
    }

    #[test]
    fn regions_agree_when_frontier_and_fingerprint_do() {
        let status = |region: &str, fingerprint: &str| GetStatusResponse {
            region: region.to_owned(),
            fingerprint: fingerprint.to_owned(),
            settled: true,
            ..GetStatusResponse::default()
        };
        assert_eq!(disagreement(&[status("us", "f"), status("eu", "f")]), None);
        let differ = disagreement(&[status("us", "f"), status("eu", "g")]);
        assert!(differ.unwrap().contains("different state"));
    }
}
