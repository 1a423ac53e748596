//! Calls that a full node refuses before it looks into their messages: what a refusal costs is taken from the work of others.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use tokio::time::timeout;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::codegen::{Body as _, Service};
use tower::Layer;

use crate::api::Api;
use crate::api::work::Full;
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
pub(super) struct Door {
    api: Arc<Api>,
    /// What says that the node is full: the same to everybody, and made once.
    full_of_calls: Arc<HeaderMap>,
    full_of_items: Arc<HeaderMap>,
}

impl Door {
    pub fn new(api: Arc<Api>) -> Self {
        let refusal = |full| {
            let refusal = Status::from(api.load.refusal(full)).into_http::<Body>();
            Arc::new(refusal.into_parts().0.headers)
        };
        Self {
            full_of_calls: refusal(Full::Calls),
            full_of_items: refusal(Full::Items),
            api,
        }
    }

    fn refusal(&self, full: Full) -> Arc<HeaderMap> {
        match full {
            Full::Calls => self.full_of_calls.clone(),
            Full::Items => self.full_of_items.clone(),
        }
    }
}

impl<S> Layer<S> for Door {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        let door = self.clone();
        Guarded { inner, door }
    }
}

/// A service behind the door.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    door: Door,
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
        if let Some(full) = self.door.api.load.full()
            && is_work(request.uri().path())
        {
            let refusal = self.door.refusal(full);
            return Either::Left(Box::pin(refuse(refusal, request.into_body())));
        }
        Either::Right(self.inner.call(request))
    }
}

/// Answers once the message has gone by unread. A call that is answered before resets its stream, so that what comes of its
/// message is an error; after too many of those the connection is closed, with all its other calls.
async fn refuse<E>(refusal: Arc<HeaderMap>, mut message: Body) -> Result<Response<Body>, E> {
    let mut gone_by = pin!(async {
        while let Some(Ok(_)) = poll_fn(|cx| Pin::new(&mut message).poll_frame(cx)).await {}
    });
    // Mostly the message has come already, and no timer has to be set.
    if gone_by.as_mut().now_or_never().is_none() {
        // Who takes longer is answered all the same.
        timeout(REFUSED_MESSAGE_MAX, gone_by)
            .await
            .unwrap_or_default();
    }
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = HeaderMap::clone(&refusal);
    Ok(response)
}

/// Of the path `/service/call`.
fn is_work(path: &str) -> bool {
    let parts = path.strip_prefix('/').and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(service, call)| SERVICES.contains(&service) && !STREAMS.contains(&call))
}
