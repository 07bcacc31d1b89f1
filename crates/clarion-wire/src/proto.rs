//! The wire protos: their files, their descriptors and the messages that are generated from them.
//!
//! The files stand in proto/ at the root of the repository, what is generated in the folder of this module. After a
//! change of a proto file, `UPDATE_GENERATED=1 cargo test -p clarion-tests --test it generated_code_is_current` writes
//! it anew; a new file has to be named in [`FILES`], a new package below. Invariant: messages only; services are routed
//! by hand. Must not know: which of them a listener serves.

/// The native API.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod clarion_v1;
/// The companion of mikudos-message-pusher.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod message_deliver;
/// What producers and gates of mikudos-message-pusher speak.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod message_pusher;
/// The gRPC push channel.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod push;

/// An encoded `google.protobuf.FileDescriptorSet` of all files, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!("proto/descriptors.bin");

/// Every proto file: the name that it is imported by, and its text.
pub const FILES: &[(&str, &str)] = &[
    ("clarion/v1/clarion.proto", include_str!("../../../proto/clarion/v1/clarion.proto")),
    ("message_deliver.proto", include_str!("../../../proto/message_deliver.proto")),
    ("message_pusher.proto", include_str!("../../../proto/message_pusher.proto")),
    ("message_pusher_old.proto", include_str!("../../../proto/message_pusher_old.proto")),
    ("push.proto", include_str!("../../../proto/push.proto")),
];
