//! The table of services: from a call's path to its handler.
//!
//! Invariant: a service that the listener does not speak is unknown there; what is unknown is told as the originals do.

use super::call::Call;
use super::config::GrpcConfig;
use super::describe::Described;
use super::socket::Broken;
use super::status::named;
use super::{native, subscribe};
use crate::bodies::Bodies;
use crate::stop::Stop;
use crate::{message_sync, mikudos};
use clarion_core::{Code, Principal};
use clarion_node::Node;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response, StatusCode};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, watch};
use tonic::Status;
use tonic::body::Body;

/// What the handlers share.
pub(crate) struct App {
    pub(crate) node: Node,
    pub(crate) config: GrpcConfig,
    pub(crate) streams: Arc<Semaphore>,
    pub(super) bodies: Bodies,
    pub(super) open_principal: Principal,
    pub(crate) started: Instant,
    pub(crate) quiet: mikudos::Quiet,
    described: Described,
}

impl App {
    pub(super) async fn new(node: Node, config: GrpcConfig) -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            streams: Arc::new(Semaphore::new(config.streams)),
            bodies: Bodies::new(config.bodies_bytes),
            open_principal: config.auth.open(None, None).principal,
            started: Instant::now(),
            quiet: mikudos::Quiet::default(),
            described: Described::new(config.speaks).await?,
            node,
            config,
        }))
    }
}

/// The services behind one connection.
#[derive(Clone)]
pub(super) struct Routed {
    pub(super) app: Arc<App>,
    pub(super) broken: Broken,
    pub(super) stop: watch::Receiver<Stop>,
}

impl Service<Request<Incoming>> for Routed {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let Self { app, broken, stop } = self.clone();
        Box::pin(async move { Ok(route(Call { app, request, broken, stop }).await) })
    }
}

async fn route(call: Call) -> Response<Body> {
    let media = call.request.headers().get("content-type").map(|media| media.as_bytes());
    if !media.is_some_and(|media| media.starts_with(b"application/grpc")) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let path = call.request.uri().path().to_owned();
    let mut parts = path.splitn(3, '/').skip(1);
    let (service, method) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let speaks = call.app.config.speaks;
    let handled = match service {
        "clarion.v1.Clarion" if speaks.grpc => match method {
            "Subscribe" => Ok(subscribe::subscribe(call).await),
            _ => native::call(method, call).await,
        },
        "message_pusher.MessagePusher" | "message_pusher.Message_pusher" if speaks.mikudos => {
            mikudos::call(method, call).await
        }
        "message_deliver.MessageDeliver" if speaks.mikudos => {
            mikudos::deliver_call(method, call).await
        }
        "MessageSync" if speaks.message_sync => message_sync::call(method, call).await,
        _ => {
            let Call { app, request, stop, .. } = call;
            match app.described.call(&app.node, service, request, stop).await {
                Some(response) => return response,
                None => return unimplemented(&format!("unknown service {service}")),
            }
        }
    };
    handled.unwrap_or_else(|Unknown| {
        unimplemented(&format!("unknown method {method} for service {service}"))
    })
}

/// A service has no such method.
#[derive(Debug)]
pub(crate) struct Unknown;

fn unimplemented(text: &str) -> Response<Body> {
    named(Status::unimplemented(text), Code::MethodNotAllowed).into_http()
}
