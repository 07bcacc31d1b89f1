//! `/proto/NAME`: the proto files that clients are generated from.

use super::problem::{Failure, Refusals};
use super::query::Part;
use axum::response::{IntoResponse, Response};
use clarion_core::{Code, Refusal};
use clarion_wire::proto::{FILES, find};
use hyper::header::CONTENT_TYPE;

/// A proto file of the gRPC services.
#[utoipa::path(
    get,
    path = "/proto/{name}",
    tag = "operations",
    params((
        "name" = String, Path, example = "push.proto",
        description = "The file's name; its folder and `.proto` may be left out"
    )),
    responses((status = 200, description = "The file", body = String, content_type = "text/plain"), Refusals)
)]
pub(super) async fn file(Part(name): Part) -> Result<Response, Failure> {
    answer(&name)
}

/// A proto file of the gRPC services, by the path that it is imported by.
#[utoipa::path(
    get,
    path = "/proto/{package}/{version}/{name}",
    tag = "operations",
    params(
        ("package" = String, Path, example = "clarion", description = "The first part of its package"),
        ("version" = String, Path, example = "v1", description = "The version of its package"),
        ("name" = String, Path, example = "clarion.proto", description = "The file's name")
    ),
    responses((status = 200, description = "The file", body = String, content_type = "text/plain"), Refusals)
)]
pub(super) async fn file_of_package(
    Part((package, version, name)): Part<(String, String, String)>,
) -> Result<Response, Failure> {
    answer(&format!("{package}/{version}/{name}"))
}

fn answer(name: &str) -> Result<Response, Failure> {
    match find(name) {
        Some((_, text)) => {
            Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], *text).into_response())
        }
        None => {
            let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
            let detail = format!("no such proto file; there are {}", names.join(", "));
            Err(Refusal::new(Code::NotFound, detail).into())
        }
    }
}
