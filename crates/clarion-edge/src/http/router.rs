//! The routes, and the document that is generated from them.

use super::auth::check_host;
use super::config::HttpConfig;
use super::problem::{Failure, Problem};
use super::{
    channels, dead, groups, messages, ops, proto, publish, queues, retained, sessions,
    stored_sessions, stream,
};
use crate::bodies::Bodies;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use clarion_core::{Code, Principal};
use clarion_node::Node;
use clarion_wire::token::Secret;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Semaphore;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the handlers share.
pub struct App {
    pub(super) node: Node,
    pub(super) config: HttpConfig,
    pub(super) secret: Arc<Secret>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) bodies: Bodies,
    pub(super) open_principal: Principal,
    pub(super) openapi: String,
}

impl App {
    /// Ready for [`super::serve`].
    pub fn new(node: Node, config: HttpConfig) -> Arc<Self> {
        Arc::new(Self {
            secret: Arc::new(node.secret()),
            streams: Arc::new(Semaphore::new(config.streams)),
            bodies: Bodies::new(config.bodies_bytes),
            open_principal: config.auth.open(None, None).principal,
            openapi: openapi_json(),
            node,
            config,
        })
    }
}

// Refusals name their schema, but do not bring it along.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Clarion",
        description = "Publish messages to users, queues, topics and everyone; read them as streams; share the work of queues; ask what became of them."
    ),
    components(schemas(Problem))
)]
struct Document;

fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(publish::publish))
        .routes(routes!(publish::publish_batch))
        .routes(routes!(channels::read, channels::trim))
        .routes(routes!(queues::next))
        .routes(routes!(queues::ack))
        .routes(routes!(queues::nack))
        .routes(routes!(groups::next))
        .routes(routes!(groups::ack))
        .routes(routes!(groups::nack))
        .routes(routes!(dead::read))
        .routes(routes!(dead::put_back))
        .routes(routes!(messages::status, messages::erase))
        .routes(routes!(stream::stream))
        .routes(routes!(stream::ack))
        .routes(routes!(retained::list, retained::delete_by_query))
        .routes(routes!(retained::delete))
        .routes(routes!(stored_sessions::list))
        .routes(routes!(stored_sessions::show, stored_sessions::delete))
        .routes(routes!(stored_sessions::move_cursor))
        .routes(routes!(sessions::presence))
        .routes(routes!(sessions::list))
        .routes(routes!(sessions::kick))
        .routes(routes!(sessions::kick_user))
        .routes(routes!(ops::healthz))
        .routes(routes!(ops::readyz))
        .routes(routes!(ops::metrics))
        .routes(routes!(ops::openapi))
        .routes(routes!(proto::file))
        .routes(routes!(proto::file_of_package))
}

/// The OpenAPI document.
pub fn openapi_json() -> String {
    routes().to_openapi().to_json().unwrap_or_default()
}

pub(super) fn router(app: Arc<App>) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), admit))
        .with_state(app)
}

/// What every request must satisfy.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match check_host(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(refusal) => Failure(refusal).into_response(),
    }
}

async fn not_found() -> Failure {
    Failure(Code::NotFound.into())
}

async fn method_not_allowed() -> Failure {
    Failure(Code::MethodNotAllowed.into())
}

/// A JSON answer.
pub(super) fn json_response(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => json_bytes(bytes),
        Err(_) => Failure(Code::Internal.into()).into_response(),
    }
}

/// A JSON answer that is written already.
pub(super) fn json_bytes(bytes: Vec<u8>) -> Response {
    let mut response = Response::new(bytes.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
