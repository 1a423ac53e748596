//! Calls that a full node refuses before it reads their messages: what a refusal costs is taken from the work of others.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tower::Layer;

use crate::api::Api;
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
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let full = self.api.full().filter(|_| is_work(request.uri().path()));
        match full {
            Some(error) => Either::Left(ready(Ok(Status::from(error).into_http()))),
            None => Either::Right(self.inner.call(request)),
        }
    }
}

/// Of the path `/service/call`.
fn is_work(path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(service, call)| SERVICES.contains(&service) && !STREAMS.contains(&call))
}
