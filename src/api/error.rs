//! Every refusal that a client can meet, and the one table that says what each becomes.
//!
//! A status carries ErrorInfo (domain `likewise`, reason by its name in the proto), BadRequest where a
//! field is at fault, and RetryInfo where asking this node again helps. The codes tell a client
//! without knowledge of the reasons what to do:
//!
//! - INVALID_ARGUMENT, OUT_OF_RANGE, ALREADY_EXISTS: the request is at fault, retries do not help.
//! - RESOURCE_EXHAUSTED: this node is full for now; wait as RetryInfo says.
//! - UNAVAILABLE: nothing happened and the same request may succeed in another region at once.
//!   TOKEN_NOT_COVERED is among these and not FAILED_PRECONDITION: nobody needs to repair anything,
//!   the region that gave the token covers it.
//! - UNKNOWN: the write may have happened; a retry with the same request id finds out.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::engine::commit::{OutcomeUnknown, Refused};
use crate::engine::read::NotCovered;
use crate::engine::replicas::TooManyUnseen;
use crate::engine::watch::TooManyWatchers;
use crate::engine::write::WriteError;
use crate::limits::{CLIENT_REPLICAS_MAX, COUNTER_BOUND, REPAIRS_WAITING_MAX, TOKEN_ENTRIES_MAX};
use crate::replication::audits::RepairError;
use crate::replication::regions::CannotRetire;
use crate::wire::field::FieldError;
use crate::wire::v1::{BatchError, Reason};

/// The domain of all reasons.
pub const DOMAIN: &str = "likewise";

/// Why a call was refused. Each but `OutcomeUnknown` means that nothing happened.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("{field} names events that this node has not made")]
    FromTheFuture { field: &'static str },
    #[error(
        "{field} has {found} entries with those of this node; the limit is {TOKEN_ENTRIES_MAX}"
    )]
    TokenTooLong { field: &'static str, found: usize },
    #[error("delta would take the counter beyond ±{COUNTER_BOUND}")]
    CounterBound,
    #[error("the token is {0}")]
    NotCovered(#[from] NotCovered),
    #[error("request_id was used before with other contents; give each request its own")]
    RequestIdReused,
    #[error("too many removals of likes that have not arrived here; the limit is {max}")]
    OrphanRemovalsFull { max: usize },
    #[error("the node is busy: {what} are limited to {max}")]
    Overloaded { what: &'static str, max: usize },
    #[error("region {0}")]
    CannotRetire(CannotRetire),
    #[error("there is no room on the node's disk for another write")]
    DiskFull,
    #[error("a sync of the log failed; the node takes no writes until it is restarted")]
    LogPoisoned,
    #[error("the node has no state yet and waits for a peer to give it")]
    Rebuilding,
    /// A range was not taken from another region.
    #[error("{0}")]
    NotRepaired(RepairError),
    #[error("the node is stopping")]
    Stopping,
    #[error(
        "operators call from the node's own machine, or with a certificate of client.tls.authority"
    )]
    NotAllowed,
    #[error("whether the write happened is not known; retry with the same request_id")]
    OutcomeUnknown,
}

/// What a reason becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    code: Code,
    /// How long to wait before asking this node again; none where that does not help.
    retry_after: Option<Duration>,
}

const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(1);

/// The table.
fn row(reason: Reason) -> Row {
    let (code, retry_after) = match reason {
        Reason::InvalidField
        | Reason::InvalidToken
        | Reason::InvalidLikeId
        | Reason::FromTheFuture
        | Reason::TooLarge => (Code::InvalidArgument, None),
        Reason::CounterBound => (Code::OutOfRange, None),
        Reason::RequestIdReused => (Code::AlreadyExists, None),
        Reason::OrphanRemovalsFull | Reason::DiskFull => (Code::ResourceExhausted, Some(LATER)),
        Reason::Overloaded => (Code::ResourceExhausted, Some(SOON)),
        Reason::TokenNotCovered => (Code::Unavailable, Some(SOON)),
        Reason::Rebuilding => (Code::Unavailable, Some(LATER)),
        Reason::LogPoisoned | Reason::Stopping => (Code::Unavailable, None),
        Reason::NotAllowed => (Code::PermissionDenied, None),
        Reason::RegionUnavailable | Reason::RegionConnected => (Code::FailedPrecondition, None),
        Reason::OutcomeUnknown | Reason::Unspecified => (Code::Unknown, None),
    };
    Row { code, retry_after }
}

impl ApiError {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Field(error) => error.reason,
            Self::FromTheFuture { .. } => Reason::FromTheFuture,
            Self::TokenTooLong { .. } => Reason::InvalidToken,
            Self::CounterBound => Reason::CounterBound,
            Self::NotCovered(_) => Reason::TokenNotCovered,
            Self::RequestIdReused => Reason::RequestIdReused,
            Self::OrphanRemovalsFull { .. } => Reason::OrphanRemovalsFull,
            Self::Overloaded { .. } => Reason::Overloaded,
            Self::CannotRetire(CannotRetire::Connected) => Reason::RegionConnected,
            Self::CannotRetire(_) => Reason::RegionUnavailable,
            Self::DiskFull => Reason::DiskFull,
            Self::LogPoisoned => Reason::LogPoisoned,
            Self::Rebuilding => Reason::Rebuilding,
            Self::NotRepaired(_) => Reason::RegionUnavailable,
            Self::Stopping => Reason::Stopping,
            Self::NotAllowed => Reason::NotAllowed,
            Self::OutcomeUnknown => Reason::OutcomeUnknown,
        }
    }

    /// The field at fault, where one is, and what is wrong with it.
    fn violation(&self) -> Option<(&str, String)> {
        match self {
            Self::Field(error) => Some((&error.field, error.problem.clone())),
            Self::FromTheFuture { field } | Self::TokenTooLong { field, .. } => {
                Some((field, self.to_string()))
            }
            Self::CounterBound => Some(("delta", self.to_string())),
            Self::CannotRetire(why) => Some(("region", why.to_string())),
            Self::RequestIdReused => Some(("request_id", self.to_string())),
            _ => None,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let reason = error.reason();
        let row = row(reason);
        let mut details = ErrorDetails::new();
        details.set_error_info(reason.as_str_name(), DOMAIN, []);
        if let Some((field, problem)) = error.violation() {
            details.add_bad_request_violation(field, problem);
        }
        if row.retry_after.is_some() {
            details.set_retry_info(row.retry_after);
        }
        Self::with_error_details(row.code, error.to_string(), details)
    }
}

/// The same for a batch on a stream, which lives on.
impl From<ApiError> for BatchError {
    fn from(error: ApiError) -> Self {
        let reason = error.reason();
        Self {
            code: row(reason).code as i32,
            reason: reason as i32,
            message: error.to_string(),
        }
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Refused(refused) => refused.into(),
            WriteError::RequestIdReused => Self::RequestIdReused,
            WriteError::FromTheFuture => Self::FromTheFuture { field: "like_id" },
            WriteError::TooManyUnseen(TooManyUnseen) => Self::OrphanRemovalsFull {
                max: CLIENT_REPLICAS_MAX,
            },
            WriteError::OutcomeUnknown(OutcomeUnknown) => Self::OutcomeUnknown,
        }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            // The engine waits for these; who sees one came between.
            Refused::BatchFull | Refused::Frozen | Refused::RoomComing { .. } => Self::Overloaded {
                what: "bytes of one commit",
                max: crate::limits::COMMIT_BYTES_MAX,
            },
            Refused::DiskFull => Self::DiskFull,
            Refused::Poisoned => Self::LogPoisoned,
            Refused::Stopping => Self::Stopping,
        }
    }
}

impl From<RepairError> for ApiError {
    fn from(error: RepairError) -> Self {
        match error {
            RepairError::TooMany => Self::Overloaded {
                what: "repairs",
                max: REPAIRS_WAITING_MAX,
            },
            RepairError::Stopping => Self::Stopping,
            RepairError::Failed { .. } => Self::NotRepaired(error),
        }
    }
}

impl From<TooManyWatchers> for ApiError {
    fn from(TooManyWatchers { max }: TooManyWatchers) -> Self {
        let what = "watches at once";
        Self::Overloaded { what, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Region;

    /// One of each.
    fn all() -> Vec<(ApiError, Code, bool)> {
        let field = |reason| ApiError::from(FieldError::new(reason, "post", "is empty"));
        let behind = vec![Region::new("eu").expect("valid")];
        let not_covered = NotCovered {
            waited_ms: 5,
            behind,
        };
        let busy = ApiError::from(TooManyWatchers { max: 3 });
        let orphans = ApiError::OrphanRemovalsFull { max: 3 };
        let token = "options.token";
        let long = ApiError::TokenTooLong {
            field: token,
            found: 70,
        };
        vec![
            (field(Reason::InvalidField), Code::InvalidArgument, false),
            (field(Reason::InvalidToken), Code::InvalidArgument, false),
            (field(Reason::InvalidLikeId), Code::InvalidArgument, false),
            (field(Reason::TooLarge), Code::InvalidArgument, false),
            (long, Code::InvalidArgument, false),
            (
                ApiError::FromTheFuture { field: token },
                Code::InvalidArgument,
                false,
            ),
            (ApiError::CounterBound, Code::OutOfRange, false),
            (not_covered.into(), Code::Unavailable, true),
            (ApiError::RequestIdReused, Code::AlreadyExists, false),
            (orphans, Code::ResourceExhausted, true),
            (busy, Code::ResourceExhausted, true),
            (ApiError::DiskFull, Code::ResourceExhausted, true),
            (
                ApiError::CannotRetire(CannotRetire::NeverMet),
                Code::FailedPrecondition,
                false,
            ),
            (
                ApiError::CannotRetire(CannotRetire::Connected),
                Code::FailedPrecondition,
                false,
            ),
            (ApiError::LogPoisoned, Code::Unavailable, false),
            (ApiError::Rebuilding, Code::Unavailable, true),
            (ApiError::Stopping, Code::Unavailable, false),
            (ApiError::NotAllowed, Code::PermissionDenied, false),
            (ApiError::OutcomeUnknown, Code::Unknown, false),
        ]
    }

    #[test]
    fn each_refusal_has_its_code_reason_and_hint() {
        for (error, code, retry) in all() {
            let (reason, text) = (error.reason(), error.to_string());
            let status = Status::from(error);
            assert_eq!((status.code(), status.message()), (code, text.as_str()));
            let details = status.get_error_details();
            let info = details.error_info().expect("always there");
            assert_eq!(info.domain, DOMAIN);
            assert_eq!(info.reason, reason.as_str_name());
            assert!(info.reason.starts_with("REASON_"));
            assert_eq!(details.retry_info().is_some(), retry, "{reason:?}");
            if code == Code::InvalidArgument {
                let fields = &details.bad_request().expect("a field").field_violations;
                assert!(["post", "options.token"].contains(&fields[0].field.as_str()));
            }
        }
    }

    #[test]
    fn every_reason_of_the_proto_is_in_use() {
        let used: Vec<Reason> = all().iter().map(|(error, ..)| error.reason()).collect();
        let known = (1..).map_while(|number| Reason::try_from(number).ok());
        for reason in known {
            assert!(used.contains(&reason), "{reason:?}");
        }
    }

    #[test]
    fn a_token_that_is_not_covered_names_the_regions_behind() {
        let (error, ..) = all().swap_remove(7);
        let text = "the token is not covered within 5 ms; behind on eu";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_batch_gets_the_same_code_and_reason() {
        let error = BatchError::from(ApiError::DiskFull);
        assert_eq!(error.code, Code::ResourceExhausted as i32);
        assert_eq!(error.reason, Reason::DiskFull as i32);
    }

    #[test]
    fn refusals_of_the_engine_keep_their_meaning() {
        let reason = |error: WriteError| ApiError::from(error).reason();
        let refused = |why| reason(WriteError::Refused(why));
        assert_eq!(refused(Refused::Poisoned), Reason::LogPoisoned);
        assert_eq!(refused(Refused::Stopping), Reason::Stopping);
        assert_eq!(refused(Refused::DiskFull), Reason::DiskFull);
        let future = WriteError::FromTheFuture;
        assert_eq!(reason(future), Reason::FromTheFuture);
        let unknown = WriteError::OutcomeUnknown(OutcomeUnknown);
        assert_eq!(reason(unknown), Reason::OutcomeUnknown);
    }
}
