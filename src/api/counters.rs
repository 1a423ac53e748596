//! CounterService.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::api::answers::{counter_value, timestamp};
use crate::api::error::ApiError;
use crate::api::reads::detail;
use crate::engine::Serving;
use crate::engine::command::Command;
use crate::engine::read::Detail;
use crate::wire::requests::{self, WriteCall};
use crate::wire::v1::counter_service_server::CounterService;
use crate::wire::v1::{AddRequest, AddResponse, GetCountersRequest, GetCountersResponse};

/// The service of counters.
#[derive(Clone)]
pub struct Counters(pub(super) Arc<Api>);

#[tonic::async_trait]
impl CounterService for Counters {
    async fn add(&self, request: Request<AddRequest>) -> Result<Response<AddResponse>, Status> {
        Ok(Response::new(self.0.add(request.into_inner()).await?))
    }

    async fn get_counters(
        &self,
        request: Request<GetCountersRequest>,
    ) -> Result<Response<GetCountersResponse>, Status> {
        let answer = self.0.get_counters(request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}

impl Api {
    async fn add(self: &Arc<Self>, request: AddRequest) -> Result<AddResponse, ApiError> {
        let WriteCall { write, seen } = requests::add(self.engine.cluster(), &request)?;
        self.check_seen("token", &seen)?;
        let _work = self.load.enter(1)?;
        let (write, _) = self.write_one(write).await?;
        let value = match self.engine.serving() {
            Serving::Ready => self.value(&write.commands[0]),
            Serving::Rebuilding => None,
        };
        let token = self.token_now(&seen);
        Ok(AddResponse { value, token })
    }

    /// What a counter is that the command adds to.
    pub(super) fn value(&self, command: &Command) -> Option<i64> {
        let Command::Add { post, counter, .. } = command else {
            return None;
        };
        let wanted = std::slice::from_ref(counter);
        let views = self.engine.view_counters(post, wanted, Detail::Figures);
        views.first().map(|view| view.value.value)
    }

    async fn get_counters(
        self: &Arc<Self>,
        request: GetCountersRequest,
    ) -> Result<GetCountersResponse, ApiError> {
        let query = requests::get_counters(self.engine.cluster(), request)?;
        self.prepare_read(&query.plan).await?;
        let _work = self.load.enter(1)?;
        let detail = detail(&query.plan);
        let complete = self.complete(&query.plan);
        let views = self
            .engine
            .view_counters(&query.post, &query.counters, detail);
        Ok(GetCountersResponse {
            counters: views
                .into_iter()
                .map(|view| counter_value(view, &complete))
                .collect(),
            updated_at: timestamp(self.engine.updated_at_ms(&query.post)),
            token: self.token_now(&query.plan.seen),
        })
    }
}
