//! Single writes and reads: clients' messages → commands and questions of the domain. All that can be
//! checked without state is checked here.

use std::time::Duration;

use crate::codec::text::NamedSeq;
use crate::engine::command::{Command, Write};
use crate::ids::{ClusterId, CounterName, PostId, UserId};
use crate::limits::{READ_COUNTERS_MAX, READ_POSTS_MAX};
use crate::wire::field::{self, FieldError};
use crate::wire::v1::{
    AddRequest, BatchGetPostsRequest, Consistency, ExplainPostRequest, GetCountersRequest,
    GetPostRequest, LikeRequest, ListLikersRequest, ReadOptions, UnlikeRequest, WatchPostsRequest,
};

/// A write, and what its caller has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteCall {
    pub write: Write,
    pub seen: Vec<NamedSeq>,
}

/// How fresh the state must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Waits for nothing, not even for a sync.
    Fast,
    /// The state of the moment.
    Exact,
    /// Waits until what the caller has seen is covered; none leaves the length to the node.
    AtLeast(Option<Duration>),
}

/// How a read is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPlan {
    pub freshness: Freshness,
    pub seen: Vec<NamedSeq>,
    pub include_regions: bool,
}

/// A read of posts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostsQuery {
    pub posts: Vec<PostId>,
    pub viewer: Option<UserId>,
    pub plan: ReadPlan,
}

/// A read of counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountersQuery {
    pub post: PostId,
    /// Empty for all.
    pub counters: Vec<CounterName>,
    pub plan: ReadPlan,
}

/// A page of a post's likers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LikersQuery {
    pub post: PostId,
    pub page_size: usize,
    /// The last user of the page before.
    pub after: Option<UserId>,
    pub plan: ReadPlan,
}

/// How a post's figures come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainQuery {
    pub post: PostId,
    pub user: Option<UserId>,
    pub plan: ReadPlan,
}

/// Posts to follow, and what the caller has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchCall {
    pub posts: Vec<PostId>,
    pub seen: Vec<NamedSeq>,
}

pub fn like(cluster: &ClusterId, request: &LikeRequest) -> Result<WriteCall, FieldError> {
    let command = Command::Like {
        post: field::id("post", &request.post)?,
        user: field::id("user", &request.user)?,
    };
    single(cluster, command, &request.request_id, &request.token)
}

pub fn unlike(cluster: &ClusterId, request: &UnlikeRequest) -> Result<WriteCall, FieldError> {
    let post = field::id("post", &request.post)?;
    let user = field::id("user", &request.user)?;
    let named = field::like_id(cluster, (&post, &user), &request.like_id)?;
    let command = Command::Unlike { post, user, named };
    single(cluster, command, &request.request_id, &request.token)
}

pub fn add(cluster: &ClusterId, request: &AddRequest) -> Result<WriteCall, FieldError> {
    let command = Command::Add {
        post: field::id("post", &request.post)?,
        counter: field::id("counter", &request.counter)?,
        delta: field::delta("delta", request.delta)?,
    };
    single(cluster, command, &request.request_id, &request.token)
}

fn single(
    cluster: &ClusterId,
    command: Command,
    request_id: &str,
    token: &str,
) -> Result<WriteCall, FieldError> {
    let write = Write {
        commands: vec![command],
        request: field::request_id(request_id)?,
    };
    let seen = field::token(cluster, "token", token)?;
    Ok(WriteCall { write, seen })
}

pub fn get_post(cluster: &ClusterId, request: GetPostRequest) -> Result<PostsQuery, FieldError> {
    Ok(PostsQuery {
        posts: vec![field::id("post", &request.post)?],
        viewer: field::optional_id("viewer", &request.viewer)?,
        plan: plan(cluster, request.options)?,
    })
}

pub fn batch_get_posts(
    cluster: &ClusterId,
    request: BatchGetPostsRequest,
) -> Result<PostsQuery, FieldError> {
    Ok(PostsQuery {
        posts: posts(&request.posts)?,
        viewer: field::optional_id("viewer", &request.viewer)?,
        plan: plan(cluster, request.options)?,
    })
}

pub fn get_counters(
    cluster: &ClusterId,
    request: GetCountersRequest,
) -> Result<CountersQuery, FieldError> {
    let post = field::id("post", &request.post)?;
    field::at_most("counters", request.counters.len(), READ_COUNTERS_MAX)?;
    let counters = request.counters.iter().enumerate();
    let counters = counters.map(|(at, name)| field::id(&format!("counters[{at}]"), name));
    Ok(CountersQuery {
        post,
        counters: counters.collect::<Result<_, _>>()?,
        plan: plan(cluster, request.options)?,
    })
}

pub fn list_likers(
    cluster: &ClusterId,
    request: ListLikersRequest,
) -> Result<LikersQuery, FieldError> {
    let post = field::id("post", &request.post)?;
    Ok(LikersQuery {
        page_size: field::page_size("page_size", request.page_size)?,
        after: field::page_token(cluster, &post, &request.page_token)?,
        plan: plan(cluster, request.options)?,
        post,
    })
}

pub fn explain_post(
    cluster: &ClusterId,
    request: ExplainPostRequest,
) -> Result<ExplainQuery, FieldError> {
    Ok(ExplainQuery {
        post: field::id("post", &request.post)?,
        user: field::optional_id("user", &request.user)?,
        plan: plan(cluster, request.options)?,
    })
}

pub fn watch_posts(
    cluster: &ClusterId,
    request: &WatchPostsRequest,
) -> Result<WatchCall, FieldError> {
    Ok(WatchCall {
        posts: posts(&request.posts)?,
        seen: field::token(cluster, "token", &request.token)?,
    })
}

fn posts(names: &[String]) -> Result<Vec<PostId>, FieldError> {
    field::length("posts", names.len(), READ_POSTS_MAX)?;
    let posts = names.iter().enumerate();
    posts
        .map(|(at, name)| field::id(&format!("posts[{at}]"), name))
        .collect()
}

fn plan(cluster: &ClusterId, options: Option<ReadOptions>) -> Result<ReadPlan, FieldError> {
    let options = options.unwrap_or_default();
    let wait = field::wait("options.wait", options.wait)?;
    let freshness = match Consistency::try_from(options.consistency) {
        Ok(Consistency::Fast) => Freshness::Fast,
        Ok(Consistency::Exact) => Freshness::Exact,
        Ok(Consistency::AtLeast) => Freshness::AtLeast(wait),
        Ok(Consistency::Unspecified) => match wait {
            None => Freshness::Exact,
            Some(_) => Freshness::AtLeast(wait),
        },
        Err(_) => {
            let problem = format!("is {}, which is no known value", options.consistency);
            return Err(FieldError::invalid("options.consistency", problem));
        }
    };
    Ok(ReadPlan {
        freshness,
        seen: field::token(cluster, "options.token", &options.token)?,
        include_regions: options.include_regions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::v1::Reason;

    fn cluster() -> ClusterId {
        ClusterId::new("c").expect("valid")
    }

    fn check<T: std::fmt::Debug>(result: Result<T, FieldError>, field: &str, reason: Reason) {
        let error = result.expect_err("refused");
        assert_eq!((error.field.as_str(), error.reason), (field, reason));
    }

    fn options(options: ReadOptions) -> Result<ReadPlan, FieldError> {
        plan(&cluster(), Some(options))
    }

    #[test]
    fn each_field_of_a_write_is_checked() {
        let fine = LikeRequest {
            post: "p".into(),
            user: "u".into(),
            request_id: "r".into(),
            token: String::new(),
        };
        let call = like(&cluster(), &fine).expect("fine");
        assert!(call.write.request.is_some() && call.seen.is_empty());
        let bad = Reason::InvalidField;
        let with = |change: fn(&mut LikeRequest)| {
            let mut request = fine.clone();
            change(&mut request);
            like(&cluster(), &request)
        };
        check(with(|like| like.post.clear()), "post", bad);
        check(with(|like| like.user = "\n".into()), "user", bad);
        check(
            with(|like| like.request_id = "\n".into()),
            "request_id",
            bad,
        );
        check(
            with(|like| like.token = "x".into()),
            "token",
            Reason::InvalidToken,
        );
    }

    #[test]
    fn an_unlike_checks_its_like_id_and_an_add_its_delta() {
        let request = UnlikeRequest {
            post: "p".into(),
            user: "u".into(),
            like_id: "x".into(),
            ..Default::default()
        };
        check(
            unlike(&cluster(), &request),
            "like_id",
            Reason::InvalidLikeId,
        );
        let request = AddRequest {
            post: "p".into(),
            counter: "views".into(),
            ..Default::default()
        };
        check(add(&cluster(), &request), "delta", Reason::InvalidField);
    }

    #[test]
    fn a_wait_without_consistency_means_at_least() {
        let wait = Some(prost_types::Duration {
            seconds: 1,
            nanos: 0,
        });
        let freshness = |given: ReadOptions| options(given).expect("fine").freshness;
        assert_eq!(freshness(ReadOptions::default()), Freshness::Exact);
        let second = Some(Duration::from_secs(1));
        let given = ReadOptions {
            wait,
            ..Default::default()
        };
        assert_eq!(freshness(given), Freshness::AtLeast(second));
        let given = ReadOptions {
            consistency: Consistency::Fast as i32,
            ..Default::default()
        };
        assert_eq!(freshness(given), Freshness::Fast);
    }

    #[test]
    fn read_options_are_checked() {
        let given = ReadOptions {
            consistency: 9,
            ..Default::default()
        };
        check(options(given), "options.consistency", Reason::InvalidField);
        let given = ReadOptions {
            token: "!".into(),
            ..Default::default()
        };
        check(options(given), "options.token", Reason::InvalidToken);
    }

    #[test]
    fn lists_of_posts_name_the_one_at_fault() {
        let request = |posts: Vec<String>| BatchGetPostsRequest {
            posts,
            ..Default::default()
        };
        let ask = |posts| batch_get_posts(&cluster(), request(posts));
        check(ask(vec![]), "posts", Reason::InvalidField);
        check(
            ask(vec!["p".into(), String::new()]),
            "posts[1]",
            Reason::InvalidField,
        );
        check(ask(vec!["p".into(); 1_001]), "posts", Reason::TooLarge);
    }
}
