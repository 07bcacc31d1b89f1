//! Reflection and health: every service of the listener, the dialects' too.
//!
//! Invariants: the two lists name the same services; streams of these services end when the listener stops. Must not
//! know: what the services do.

use super::config::Speaks;
use crate::stop::{Stop, reached};
use bytes::Bytes;
use clarion_node::Node;
use clarion_wire::proto::DESCRIPTORS;
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper::{Request, Response};
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::pb;
use tonic_reflection::server::Builder;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

/// Any service of these.
type Any = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// See the module.
pub(super) struct Described {
    health: Any,
    reporter: HealthReporter,
    /// Every name that has a health.
    names: Vec<String>,
    /// What was reported last.
    serving: AtomicBool,
    reflection: Any,
    reflection_alpha: Any,
}

/// Whether a listener has the services of a proto file.
fn is_spoken(file: &FileDescriptorProto, speaks: Speaks) -> bool {
    match file.package() {
        "clarion.v1" => speaks.grpc,
        "message_pusher" | "message_deliver" => speaks.mikudos,
        _ => speaks.message_sync,
    }
}

/// The full names of a file's services.
fn services(file: &FileDescriptorProto) -> impl Iterator<Item = String> + '_ {
    file.service.iter().map(|service| match file.package() {
        "" => service.name().to_owned(),
        package => format!("{package}.{}", service.name()),
    })
}

async fn report(reporter: &HealthReporter, names: &[String], serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for name in names {
        reporter.set_service_status(name, status).await;
    }
}

impl Described {
    pub(super) async fn new(speaks: Speaks) -> Result<Self, String> {
        let mut files = FileDescriptorSet::decode(DESCRIPTORS).map_err(|e| e.to_string())?;
        files.file.retain(|file| is_spoken(file, speaks));
        let reporter = HealthReporter::new();
        let own = ["", HEALTH, REFLECTION, REFLECTION_ALPHA].map(str::to_owned);
        let names: Vec<String> = files.file.iter().flat_map(services).chain(own).collect();
        report(&reporter, &names, true).await;
        let describe = || {
            Builder::configure()
                .register_file_descriptor_set(files.clone())
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // Each knows itself; a client of one is to find the other, too.
                .register_encoded_file_descriptor_set(pb::v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(pb::v1alpha::FILE_DESCRIPTOR_SET)
                .include_reflection_service(false)
        };
        let told = |error: tonic_reflection::server::Error| error.to_string();
        let v1 = describe().build_v1().map_err(told)?;
        let alpha = describe().build_v1alpha().map_err(told)?;
        let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        Ok(Self {
            health: BoxCloneSyncService::new(health),
            reporter,
            names,
            serving: AtomicBool::new(true),
            reflection: BoxCloneSyncService::new(v1),
            reflection_alpha: BoxCloneSyncService::new(alpha),
        })
    }

    /// Health is asked for rarely and costs little: it is looked at when somebody asks, as `/readyz` does.
    async fn look(&self, node: &Node) {
        let ready = node.check_ready().is_ok() && node.store_health().await.failed.is_none();
        if self.serving.swap(ready, Ordering::SeqCst) != ready {
            report(&self.reporter, &self.names, ready).await;
        }
    }

    /// Serves a call of these services; `None` = of none of them.
    pub(super) async fn call(
        &self,
        node: &Node,
        service: &str,
        request: Request<Incoming>,
        stop: watch::Receiver<Stop>,
    ) -> Option<Response<Body>> {
        let service = match service {
            HEALTH => {
                self.look(node).await;
                self.health.clone()
            }
            REFLECTION => self.reflection.clone(),
            REFLECTION_ALPHA => self.reflection_alpha.clone(),
            _ => return None,
        };
        let response = match service.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        Some(response.map(|body| {
            let stop = Box::pin(reached(stop, Stop::Finish));
            Body::new(UntilStop { body, stop, ended: false })
        }))
    }
}

/// A body that ends when the listener stops.
struct UntilStop {
    body: Body,
    stop: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
}

impl HttpBody for UntilStop {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        std::task::ready!(self.stop.as_mut().poll(context));
        self.ended = true;
        let mut trailers = hyper::HeaderMap::new();
        match Status::unavailable("the node is going down").add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.body.is_end_stream()
    }
}
