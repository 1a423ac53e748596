//! Calls that a full node refuses before it looks into their messages: what a refusal costs is taken from the work of others.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, Either};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as _, Service};
use tower::Layer;

use crate::api::Api;
use crate::api::error::ApiError;
use crate::limits::REFUSED_MESSAGE_MAX;
use crate::wire::v1::{counter_service_server, like_service_server};

/// Whose calls are work that is bounded.
const SERVICES: [&str; 2] = [
    like_service_server::SERVICE_NAME,
    counter_service_server::SERVICE_NAME,
];
/// What is no work by itself: batches are refused one by one, and watches have a bound of their own.
const STREAMS: [&str; 2] = ["StreamWrites", "WatchPosts"];

/// Stands before all services.
#[derive(Clone)]
pub(super) struct Door(pub Arc<Api>);

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        let api = self.0.clone();
        Guarded { inner, api }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    api: Arc<Api>,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<BoxFuture<'static, Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let full = self.api.full().filter(|_| is_work(request.uri().path()));
        match full {
            Some(error) => Either::Left(Box::pin(refuse(error, request.into_body()))),
            None => Either::Right(self.inner.call(request)),
        }
    }
}

/// Answers once the message has gone by unread. A call that is answered before resets its stream, so that what comes of its
/// message is an error; after too many of those the connection is closed, with all its other calls.
async fn refuse<E>(error: ApiError, mut message: Body) -> Result<Response<Body>, E> {
    let gone_by = async {
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut message).poll_frame(cx)).await {}
    };
    // Who takes longer is answered all the same.
    timeout(REFUSED_MESSAGE_MAX, gone_by)
        .await
        .unwrap_or_default();
    Ok(Status::from(error).into_http())
}

/// Of the path `/service/call`.
fn is_work(path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(service, call)| SERVICES.contains(&service) && !STREAMS.contains(&call))
}
