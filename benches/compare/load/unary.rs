//! Unary calls from many tasks. h2load sends one body again and again, and likes of one user that wait for the same
//! sync are absorbed into one event; here every like is of another user.

use std::time::Duration;

use clap::ValueEnum;
use likewise::wire::v1::{LikeRequest, LikeResponse};
use serde_json::Value;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::figures;
use crate::measure::unary::Callers;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Method {
    Like,
    /// The bare server's.
    Echo,
}

#[derive(clap::Args)]
pub struct Arguments {
    /// The node, or the bare server
    #[arg(long)]
    address: String,
    /// Its process
    #[arg(long)]
    pid: Option<u32>,
    #[arg(long, value_enum)]
    method: Method,
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Calls under way on each connection
    #[arg(long, default_value_t = 64)]
    calls: usize,
    #[arg(long)]
    seconds: f64,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Value> {
    let mut channels = Vec::new();
    for _ in 0..arguments.connections {
        channels.push(figures::connect(&arguments.address).await?);
    }
    let callers = Callers {
        pid: arguments.pid,
        channels,
        calls: arguments.calls,
    };
    let method = arguments.method;
    let span = Duration::from_secs_f64(arguments.seconds);
    let (latency_us, took) = callers
        .run(span, move |channel, caller, number| {
            call(channel, method, caller << 32 | number)
        })
        .await?;
    let rate = figures::rate(latency_us.len(), took);
    Ok(figures::joined(rate, figures::latency(&latency_us)))
}

async fn call(channel: Channel, method: Method, user: u64) -> Result<(), Status> {
    let request = Request::new(LikeRequest {
        post: "unary".to_owned(),
        user: format!("u{user}"),
        ..LikeRequest::default()
    });
    let mut client = Grpc::new(channel);
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    match method {
        Method::Like => {
            let path = PathAndQuery::from_static("/likewise.v1.LikeService/Like");
            let codec = ProstCodec::<LikeRequest, LikeResponse>::default();
            client.unary(request, path, codec).await.map(drop)
        }
        Method::Echo => {
            let path = PathAndQuery::from_static("/bare.Echo/Echo");
            let codec = ProstCodec::<LikeRequest, LikeRequest>::default();
            client.unary(request, path, codec).await.map(drop)
        }
    }
}
