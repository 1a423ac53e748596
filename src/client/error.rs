//! What can come of a call besides its answer, by what the caller can do next.

use std::error::Error;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::causes;
use crate::wire::v1::{self, Reason};

/// The domain in which reasons are given.
const DOMAIN: &str = "likewise";
const REASON_PREFIX: &str = "REASON_";

/// Why a call gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The client was described wrongly; nothing was sent.
    #[error("{endpoint:?} is no endpoint: {problem}; write http://host:port or https://host:port")]
    BadEndpoint { endpoint: String, problem: String },
    /// A certificate or key cannot be used; nothing was sent.
    #[error("the {what} {problem}")]
    BadCertificate {
        what: &'static str,
        problem: &'static str,
    },
    /// The client was described without an endpoint; nothing was sent.
    #[error("no endpoint is given")]
    NoEndpoint,
    /// The node refused, and nothing happened.
    #[error("{0}")]
    Refused(Refusal),
    /// No node could be reached until the deadline, and nothing happened.
    #[error("no node answers ({endpoint}: {problem})")]
    Unreachable { endpoint: String, problem: String },
    /// The write may or may not have happened. A further try with the same request id at the same node
    /// does nothing twice.
    #[error("the outcome of the write is unknown after {attempts} tries at {endpoint}: {problem}")]
    OutcomeUnknown {
        endpoint: String,
        request_id: String,
        attempts: u32,
        problem: String,
    },
    /// The answer was none that a node of this version gives.
    #[error("unexpected answer from {endpoint} ({code:?}): {message}")]
    Unexpected {
        endpoint: String,
        code: Code,
        message: String,
    },
}

/// A refusal with its reason. Nothing happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The general class of the refusal.
    pub code: Code,
    /// The same in words.
    pub message: String,
    /// The fields at fault.
    pub fields: Vec<FieldViolation>,
    /// How long to wait before a further try, where the node says so.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Of an item of a batch.
    pub(super) fn of_item(error: v1::ItemError) -> Self {
        let reason = error.reason();
        let code = match reason {
            Reason::CounterBound => Code::OutOfRange,
            Reason::OrphanRemovalsFull => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        Self::in_words(reason, code, error.message)
    }

    /// Of a batch on a stream.
    pub(super) fn of_batch(error: v1::BatchError) -> Self {
        let (reason, code) = (error.reason(), Code::from(error.code));
        Self::in_words(reason, code, error.message)
    }

    fn in_words(reason: Reason, code: Code, message: String) -> Self {
        Self {
            reason,
            code,
            message,
            fields: Vec::new(),
            retry_after: None,
        }
    }
}

/// A field of the request that is at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    pub field: String,
    pub description: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reason = self.reason.as_str_name();
        let reason = reason.strip_prefix(REASON_PREFIX).unwrap_or(reason);
        write!(f, "{reason}: {}", self.message)?;
        for violation in &self.fields {
            if !self.message.contains(&violation.description) {
                write!(f, "; {} {}", violation.field, violation.description)?;
            }
        }
        Ok(())
    }
}

impl ClientError {
    /// Whether the write may have happened all the same.
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown { .. } | Self::Unexpected { .. })
    }

    /// The reason of a refusal.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            _ => None,
        }
    }
}

/// What a failed attempt means for the next one.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The node's word, and nothing happened.
    Refused(Refusal),
    /// Nothing was sent.
    NotReached(String),
    /// It may have happened.
    Unknown {
        problem: String,
        retry_after: Option<Duration>,
    },
    /// A further try is of no use.
    Unexpected { code: Code, message: String },
}

impl Failure {
    /// Reads a status as sent by a node, or as made by the transport beneath this client.
    pub fn of(status: &Status) -> Self {
        let message = status.message().to_owned();
        let retry_after = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay);
        match reason_of(status) {
            Some(Reason::OutcomeUnknown) => Self::Unknown {
                problem: message,
                retry_after,
            },
            Some(reason) => Self::Refused(Refusal {
                reason,
                code: status.code(),
                message,
                fields: fields_of(status),
                retry_after,
            }),
            None if never_sent(status) => Self::NotReached(innermost(status)),
            None if may_pass(status.code()) => Self::Unknown {
                problem: innermost(status),
                retry_after,
            },
            None => Self::Unexpected {
                code: status.code(),
                message,
            },
        }
    }
}

/// The reason of a refusal; one that this build does not know is no reason to retry, and none to
/// believe that something happened.
fn reason_of(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    if info.domain != DOMAIN {
        return None;
    }
    let name = match info.reason.starts_with(REASON_PREFIX) {
        true => info.reason,
        false => format!("{REASON_PREFIX}{}", info.reason),
    };
    Some(Reason::from_str_name(&name).unwrap_or(Reason::Unspecified))
}

fn fields_of(status: &Status) -> Vec<FieldViolation> {
    let Some(bad_request) = status.get_details_bad_request() else {
        return Vec::new();
    };
    let violations = bad_request.field_violations.into_iter();
    violations
        .map(|violation| FieldViolation {
            field: violation.field,
            description: violation.description,
        })
        .collect()
}

/// Codes that the transport makes of a connection that broke, or that an intermediary gives.
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::ResourceExhausted
    )
}

/// Whether the connection never came about.
fn never_sent(status: &Status) -> bool {
    causes::behind(status).any(|cause| cause.is::<tonic::ConnectError>())
}

fn innermost(status: &Status) -> String {
    match status.source() {
        Some(cause) => causes::innermost(cause).to_string(),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn status(code: Code, details: ErrorDetails) -> Status {
        Status::with_error_details(code, "words", details)
    }

    fn with_reason(reason: &str, domain: &str) -> ErrorDetails {
        ErrorDetails::with_error_info(reason, domain, [])
    }

    #[test]
    fn a_refusal_keeps_reason_fields_and_delay() {
        let mut details = with_reason("INVALID_FIELD", "likewise");
        details.add_bad_request_violation("post", "is empty");
        details.set_retry_info(Some(Duration::from_millis(250)));
        match Failure::of(&status(Code::InvalidArgument, details)) {
            Failure::Refused(refusal) => {
                assert_eq!(refusal.reason, Reason::InvalidField);
                assert_eq!(refusal.code, Code::InvalidArgument);
                assert_eq!(refusal.fields[0].field, "post");
                assert_eq!(refusal.retry_after, Some(Duration::from_millis(250)));
                assert_eq!(refusal.to_string(), "INVALID_FIELD: words; post is empty");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reasons_are_read_with_and_without_their_prefix() {
        for name in ["OVERLOADED", "REASON_OVERLOADED"] {
            let status = status(Code::ResourceExhausted, with_reason(name, "likewise"));
            assert_eq!(reason_of(&status), Some(Reason::Overloaded));
        }
        let newer = status(Code::FailedPrecondition, with_reason("NEWER", "likewise"));
        assert_eq!(reason_of(&newer), Some(Reason::Unspecified));
    }

    #[test]
    fn what_no_node_said_is_of_unknown_outcome() {
        let foreign = status(
            Code::Unavailable,
            with_reason("OVERLOADED", "proxy.example"),
        );
        assert!(matches!(Failure::of(&foreign), Failure::Unknown { .. }));
        let said = status(Code::Unknown, with_reason("OUTCOME_UNKNOWN", "likewise"));
        assert!(matches!(Failure::of(&said), Failure::Unknown { .. }));
        let broken = Status::unknown("transport error");
        assert!(matches!(Failure::of(&broken), Failure::Unknown { .. }));
    }

    #[test]
    fn a_further_try_is_of_no_use_where_the_service_is_missing() {
        let missing = Status::unimplemented("no such call");
        assert!(matches!(Failure::of(&missing), Failure::Unexpected { .. }));
    }
}
