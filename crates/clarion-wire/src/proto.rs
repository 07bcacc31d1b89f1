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

/// The file of this name; the folder in front and `.proto` at the end may be left out as long as one file is meant.
pub fn find(name: &str) -> Option<&'static (&'static str, &'static str)> {
    let stem = |name: &'static str| name.strip_suffix(".proto").unwrap_or(name);
    let base = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
    let exact = |file: &&(&'static str, &'static str)| file.0 == name || stem(file.0) == name;
    let short =
        |file: &&(&'static str, &'static str)| base(file.0) == name || stem(base(file.0)) == name;
    FILES.iter().find(exact).or_else(|| {
        let mut found = FILES.iter().filter(short);
        found.next().filter(|_| found.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn a_file_is_found_by_its_name_and_shorter_ones() {
        for (name, text) in FILES {
            let stem = name.strip_suffix(".proto").expect("all end so");
            let base = name.rsplit('/').next().expect("a part");
            for given in [name, stem, base, base.strip_suffix(".proto").expect("all end so")] {
                assert_eq!(find(given), Some(&(*name, *text)), "{given}");
            }
        }
        for unknown in ["", "x", "/", "v1/clarion.proto", "pus", "push.proto/", "message", ".proto"]
        {
            assert_eq!(find(unknown), None, "{unknown}");
        }
    }

    /// A FileDescriptorSet as far as names go.
    #[derive(Clone, PartialEq, Message)]
    struct Names {
        #[prost(message, repeated, tag = "1")]
        file: Vec<Name>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Name {
        #[prost(string, tag = "1")]
        name: String,
    }

    #[test]
    fn every_file_is_described() {
        let described = Names::decode(DESCRIPTORS).expect("a descriptor set");
        let mut described: Vec<String> = described.file.into_iter().map(|f| f.name).collect();
        described.sort();
        let names: Vec<&str> = FILES.iter().map(|(name, _)| *name).collect();
        assert_eq!(described, names);
    }
}
