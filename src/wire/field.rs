//! Fields of clients' requests, each checked on its own. Knows no service and no state.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::codec::text::{NamedSeq, TextError, decode_like_id, decode_page_token, decode_token};
use crate::ids::{ClusterId, IdError, PostId, RequestId, UserId};
use crate::limits::{COUNTER_BOUND, PAGE_LIKERS_DEFAULT, PAGE_LIKERS_MAX};
use crate::wire::v1::Reason;

/// A field at fault. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct FieldError {
    /// The path in the request's message, such as `batch.posts[3]`.
    pub field: String,
    pub reason: Reason,
    /// What is wrong and what the limit is, as the predicate of a sentence about the field.
    pub problem: String,
}

impl FieldError {
    pub fn new(reason: Reason, field: impl Into<String>, problem: impl Display) -> Self {
        Self {
            field: field.into(),
            reason,
            problem: problem.to_string(),
        }
    }

    pub fn invalid(field: impl Into<String>, problem: impl Display) -> Self {
        Self::new(Reason::InvalidField, field, problem)
    }

    /// The same fault, in a message that is itself a field.
    pub fn within(mut self, parent: &str) -> Self {
        self.field = format!("{parent}.{}", self.field);
        self
    }
}

/// The id of a post, user, counter or request.
pub fn id<T: FromStr<Err = IdError>>(field: &str, text: &str) -> Result<T, FieldError> {
    text.parse()
        .map_err(|error: IdError| FieldError::invalid(field, error))
}

/// An id that may be left out.
pub fn optional_id<T: FromStr<Err = IdError>>(
    field: &str,
    text: &str,
) -> Result<Option<T>, FieldError> {
    match text {
        "" => Ok(None),
        given => id(field, given).map(Some),
    }
}

pub fn request_id(text: &str) -> Result<Option<RequestId>, FieldError> {
    optional_id("request_id", text)
}

/// A list that needs at least one element and has a limit.
pub fn length(field: &str, found: usize, max: usize) -> Result<(), FieldError> {
    if found == 0 {
        return Err(FieldError::invalid(
            field,
            format!("is empty; give 1 to {max}"),
        ));
    }
    at_most(field, found, max)
}

/// A list that has a limit.
pub fn at_most(field: &str, found: usize, max: usize) -> Result<(), FieldError> {
    if found <= max {
        return Ok(());
    }
    let problem = format!("has {found} elements; the limit is {max}");
    Err(FieldError::new(Reason::TooLarge, field, problem))
}

/// The entries of a token; none where it is left out.
pub fn token(cluster: &ClusterId, field: &str, text: &str) -> Result<Vec<NamedSeq>, FieldError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    decode_token(cluster, text).map_err(|error| text_error(Reason::InvalidToken, field, &error))
}

/// The dots of a like id; none where it is left out.
pub fn like_id(
    cluster: &ClusterId,
    target: (&PostId, &UserId),
    text: &str,
) -> Result<Vec<NamedSeq>, FieldError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    decode_like_id(cluster, target, text)
        .map_err(|error| text_error(Reason::InvalidLikeId, "like_id", &error))
}

/// The user after whom a page of the post's likers begins; none for the first page.
pub fn page_token(
    cluster: &ClusterId,
    post: &PostId,
    text: &str,
) -> Result<Option<UserId>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    let last = decode_page_token(cluster, post, text);
    let last = last.map_err(|error| text_error(Reason::InvalidToken, "page_token", &error))?;
    Ok(Some(last))
}

/// How many likers a page has at most.
pub fn page_size(field: &str, given: Option<u32>) -> Result<usize, FieldError> {
    match given {
        None => Ok(PAGE_LIKERS_DEFAULT),
        Some(size) if (1..=PAGE_LIKERS_MAX as u32).contains(&size) => Ok(size as usize),
        Some(size) => {
            let problem = format!("is {size}; give 1 to {PAGE_LIKERS_MAX}");
            Err(FieldError::invalid(field, problem))
        }
    }
}

fn text_error(reason: Reason, field: &str, error: &TextError) -> FieldError {
    FieldError::new(reason, field, error)
}

/// How much is added to a counter.
pub fn delta(field: &str, delta: i64) -> Result<i64, FieldError> {
    if delta == 0 {
        let problem = format!("is 0; give a number within ±{COUNTER_BOUND}");
        return Err(FieldError::invalid(field, problem));
    }
    if delta.unsigned_abs() > COUNTER_BOUND.unsigned_abs() {
        let problem = format!("is {delta}; the limit is ±{COUNTER_BOUND}");
        return Err(FieldError::invalid(field, problem));
    }
    Ok(delta)
}

/// A length of time that is not negative; none where it is left out.
pub fn wait(
    field: &str,
    wait: Option<prost_types::Duration>,
) -> Result<Option<Duration>, FieldError> {
    let Some(wait) = wait else {
        return Ok(None);
    };
    let problem = format!(
        "is {} s and {} ns; it may not be negative, and nanoseconds are below 1000000000",
        wait.seconds, wait.nanos
    );
    let seconds = u64::try_from(wait.seconds).ok();
    let nanos = u32::try_from(wait.nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000);
    match (seconds, nanos) {
        (Some(seconds), Some(nanos)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(FieldError::invalid(field, problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::text::{encode_like_id, encode_token};
    use crate::ids::{Epoch, Region, Replica};

    fn problem<T: std::fmt::Debug>(result: Result<T, FieldError>) -> (Reason, String) {
        let error = result.expect_err("refused");
        (error.reason, error.to_string())
    }

    fn cluster(name: &str) -> ClusterId {
        ClusterId::new(name).expect("valid")
    }

    #[test]
    fn ids_name_their_field_and_limit() {
        let refused = problem(id::<PostId>("post", ""));
        let text = "post is empty; give 1 to 256 bytes".to_owned();
        assert_eq!(refused, (Reason::InvalidField, text));
        let refused = problem(request_id(&"x".repeat(65)));
        let text = "request_id has 65 bytes; the limit is 64".to_owned();
        assert_eq!(refused, (Reason::InvalidField, text));
        assert_eq!(request_id(""), Ok(None));
        let refused = problem(optional_id::<UserId>("viewer", "a\u{7}"));
        let text = "viewer has a control character at byte 1".to_owned();
        assert_eq!(refused, (Reason::InvalidField, text));
    }

    #[test]
    fn lists_are_not_empty_and_within_their_limit() {
        assert_eq!(problem(length("posts", 0, 9)).0, Reason::InvalidField);
        assert_eq!(problem(length("posts", 10, 9)).0, Reason::TooLarge);
        assert_eq!(length("posts", 9, 9), Ok(()));
    }

    #[test]
    fn tokens_and_like_ids_say_what_is_wrong_with_them() {
        let eu = Replica {
            region: Region::new("eu").expect("valid"),
            epoch: Epoch(7),
        };
        let (post, user) = (
            PostId::new("p").expect("valid"),
            UserId::new("u").expect("valid"),
        );
        let foreign = encode_token(&cluster("other"), [(&eu, 1)].into_iter());
        let like = encode_like_id(&cluster("ours"), (&post, &user), [(&eu, 1)].into_iter());
        let ours = cluster("ours");
        assert_eq!(token(&ours, "token", ""), Ok(vec![]));
        for bad in ["?", "AAAA", foreign.as_str(), like.as_str()] {
            let (reason, text) = problem(token(&ours, "options.token", bad));
            assert_eq!(reason, Reason::InvalidToken);
            assert!(text.starts_with("options.token "), "{text}");
        }
        let other = UserId::new("v").expect("valid");
        assert_eq!(
            problem(like_id(&ours, (&post, &other), &like)).0,
            Reason::InvalidLikeId
        );
        assert_eq!(like_id(&ours, (&post, &user), &like), Ok(vec![(eu, 1)]));
    }

    #[test]
    fn deltas_are_not_zero_and_within_the_bound() {
        for bad in [0, i64::MIN, i64::MAX, COUNTER_BOUND + 1, -COUNTER_BOUND - 1] {
            assert_eq!(problem(delta("delta", bad)).0, Reason::InvalidField);
        }
        assert_eq!(delta("delta", -COUNTER_BOUND), Ok(-COUNTER_BOUND));
    }

    #[test]
    fn pages_have_at_least_one_liker_and_at_most_the_limit() {
        assert_eq!(page_size("page_size", None), Ok(PAGE_LIKERS_DEFAULT));
        for size in [1, 10_000] {
            assert_eq!(page_size("page_size", Some(size)), Ok(size as usize));
        }
        for size in [0, 10_001, u32::MAX] {
            let (reason, text) = problem(page_size("page_size", Some(size)));
            assert_eq!(reason, Reason::InvalidField);
            assert_eq!(text, format!("page_size is {size}; give 1 to 10000"));
        }
    }

    #[test]
    fn waits_are_not_negative() {
        let given = |seconds, nanos| wait("wait", Some(prost_types::Duration { seconds, nanos }));
        assert_eq!(given(1, 5), Ok(Some(Duration::new(1, 5))));
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            assert_eq!(problem(given(seconds, nanos)).0, Reason::InvalidField);
        }
    }
}
