//! Messages that no handler ever saw, because they could not be read: what gRPC itself says of them is put into the
//! words of all other refusals.
//!
//! tonic answers them with a bare code, and by the rules of this interface a status without a reason means that the
//! outcome is unknown. Here it is known: nothing happened.

use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::{Code, Status};

use crate::api::error::ApiError;
use crate::limits::CLIENT_MESSAGE_BYTES_MAX;
use crate::wire::field::FieldError;
use crate::wire::v1::Reason;

/// How prost begins what it says of a message that it cannot read. Words of our codec stand before it, the path of
/// the field behind it.
const UNREADABLE: &str = "failed to decode Protobuf message: ";
/// The field that is named where none is known.
const WHOLE: &str = "request";

/// Gives the answer a reason if it is a refusal of gRPC's own.
pub(super) fn explain(response: Response<Body>) -> Response<Body> {
    // A refusal with details is not gRPC's, and need not be decoded to tell so.
    if response.headers().contains_key(Status::GRPC_STATUS_DETAILS) {
        return response;
    }
    let status = Status::from_header_map(response.headers());
    match status.and_then(|status| reading_failed(&status)) {
        Some(error) => Status::from(error).into_http(),
        None => response,
    }
}

/// As [`explain`], for the status with which a stream of requests broke.
pub(super) fn explain_status(status: Status) -> Status {
    reading_failed(&status).map_or(status, Status::from)
}

/// Handlers give each refusal its details; one without is gRPC's.
fn reading_failed(status: &Status) -> Option<ApiError> {
    if !status.details().is_empty() {
        return None;
    }
    let error = match status.code() {
        Code::ResourceExhausted => {
            FieldError::new(Reason::TooLarge, WHOLE, status.message().to_owned())
        }
        Code::OutOfRange => {
            let problem = format!("has too many bytes; the limit is {CLIENT_MESSAGE_BYTES_MAX}");
            FieldError::new(Reason::TooLarge, WHOLE, problem)
        }
        Code::Internal | Code::InvalidArgument => {
            let (field, problem) = field_at_fault(status.message());
            FieldError::invalid(field, format!("cannot be read: {problem}"))
        }
        _ => return None,
    };
    Some(error.into())
}

/// `LikeRequest.post: invalid string value` → `post`, and what is wrong with it.
fn field_at_fault(message: &str) -> (&str, &str) {
    let Some((_, said)) = message.split_once(UNREADABLE) else {
        return (WHOLE, message);
    };
    let named = said.split_once(": ").and_then(|(path, problem)| {
        let (_, field) = path.split_once('.')?;
        Some((field, problem))
    });
    named.unwrap_or((WHOLE, said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::StatusExt;

    fn explained(status: Status) -> Status {
        let response = explain(status.into_http());
        Status::from_header_map(response.headers()).expect("a status")
    }

    #[test]
    fn what_grpc_refuses_has_a_reason_and_a_field() {
        let text = "failed to decode Protobuf message: LikeRequest.post: invalid string value";
        let cases = [
            (Status::internal(text), Reason::InvalidField, "post"),
            (
                Status::internal("Unexpected EOF"),
                Reason::InvalidField,
                "request",
            ),
            (
                Status::out_of_range("too large"),
                Reason::TooLarge,
                "request",
            ),
        ];
        for (status, reason, field) in cases {
            let status = explained(status);
            assert_eq!(status.code(), Code::InvalidArgument);
            let info = status.get_details_error_info().expect("ours");
            assert_eq!(info.reason, reason.as_str_name());
            let fields = status.get_details_bad_request().expect("a field");
            assert_eq!(fields.field_violations[0].field, field);
        }
    }

    #[test]
    fn refusals_of_handlers_and_answers_stay_as_they_are() {
        let ours = Status::from(ApiError::DiskFull);
        let (code, message) = (ours.code(), ours.message().to_owned());
        let after = explained(ours);
        assert_eq!((after.code(), after.message()), (code, message.as_str()));
        assert_eq!(explained(Status::not_found("x")).code(), Code::NotFound);
        let answer = explain(Response::new(Body::default()));
        assert!(answer.headers().is_empty());
    }
}
