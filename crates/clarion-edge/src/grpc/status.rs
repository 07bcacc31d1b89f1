//! Refusals as gRPC statuses, from the one code table.

use clarion_core::{Code, Refusal};
use tonic::metadata::MetadataValue;
use tonic::{Code as GrpcCode, Status};

/// The stable number and name of a refusal, as metadata.
const NUMBER: &str = "clarion-code";
const NAME: &str = "clarion-name";

/// The gRPC code of a row of the table.
pub(crate) fn code(code: Code) -> GrpcCode {
    GrpcCode::from_i32(i32::from(code.row().grpc))
}

/// A refusal as its client sees it.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    named(Status::new(code(refusal.code), refusal.detail.clone()), refusal.code)
}

/// A status whose code and text are somebody else's custom, with the number and name of a row of the table.
pub(crate) fn named(mut status: Status, code: Code) -> Status {
    let metadata = status.metadata_mut();
    metadata.insert(NUMBER, code.number().into());
    metadata.insert(NAME, MetadataValue::from_static(code.name()));
    status
}

/// A message of so many bytes is too long, as the originals say it and their clients know it.
pub(super) fn too_long_by(found: usize, limit: usize) -> Status {
    let text = format!("grpc: received message larger than max ({found} vs. {limit})");
    named(Status::resource_exhausted(text), Code::RequestTooLarge)
}

/// What tonic says of a message that is too long: its length and the limit.
fn too_long(message: &str) -> Option<(usize, usize)> {
    let rest = message.strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    Some((found.parse().ok()?, rest.strip_suffix(" bytes")?.parse().ok()?))
}

/// What tonic says of a message that unpacks to more than the limit: the limit.
fn unpacks_too_long(message: &str) -> Option<usize> {
    let rest = message.strip_prefix("Error decompressing: size limit, of ")?;
    rest.split(' ').next()?.parse().ok()
}

/// A status that tonic may have made, as our clients see it.
pub(crate) fn told(status: Status) -> Status {
    match too_long(status.message()) {
        Some((found, limit)) if status.code() == GrpcCode::OutOfRange => too_long_by(found, limit),
        None if status.code() == GrpcCode::ResourceExhausted => {
            match unpacks_too_long(status.message()) {
                Some(limit) => {
                    let text = format!(
                        "grpc: received message after decompression larger than max {limit}"
                    );
                    named(Status::resource_exhausted(text), Code::RequestTooLarge)
                }
                None => status,
            }
        }
        // Bytes that do not decode.
        None if status.code() == GrpcCode::Internal && status.metadata().get(NAME).is_none() => {
            named(status, Code::BadRequest)
        }
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_long_is_told_as_the_originals_do() {
        let text = "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes";
        let status = told(Status::out_of_range(text));
        assert_eq!(status.code(), GrpcCode::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (5 vs. 4)");
        assert_eq!(told(Status::out_of_range("x")).code(), GrpcCode::OutOfRange);
        let text =
            "Error decompressing: size limit, of 4 bytes, exceeded while decompressing message";
        let expected = "grpc: received message after decompression larger than max 4";
        assert_eq!(told(Status::resource_exhausted(text)).message(), expected);
    }

    #[test]
    fn a_refusal_names_its_row() {
        let status = refused(&Refusal::new(Code::QueueFull, "full"));
        assert_eq!((status.code(), status.message()), (GrpcCode::ResourceExhausted, "full"));
        assert_eq!(status.metadata().get(NAME).unwrap(), "queue_full");
        assert_eq!(status.metadata().get(NUMBER).unwrap(), "1404");
    }
}
