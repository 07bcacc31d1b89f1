use super::*;
use clap::Parser;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &str) -> Result<Args, clap::Error> {
    Line::try_parse_from(std::iter::once("grpc").chain(line.split(' '))).map(|line| line.args)
}

#[test]
fn every_workload_has_defaults() {
    for workload in ["publish", "fanout", "queue", "gates", "idle"] {
        assert_eq!(parse(workload).unwrap().grpc, "127.0.0.1:50051", "{workload}");
    }
    let args = parse("queue --producers 8 --consumers 8 --dialect message-sync --grpc h:1");
    assert_eq!(args.unwrap().grpc, "h:1");
    parse("gates --gates 1 --producers 4 --live").unwrap();
    parse("idle --streams 10000 --connections 20").unwrap();
}

#[test]
fn what_cannot_be_is_refused() {
    for line in
        ["", "publish --batch 0", "publish --batch 1001", "gates --expire 0", "queue --dialect x"]
    {
        parse(line).unwrap_err();
    }
}

#[test]
fn a_payload_is_text_with_its_stamp() {
    let stamp = payload::Stamp { lane: 3, number: 7, micros: 11 };
    let text = text(stamp, 200);
    assert_eq!(text.len(), 200);
    let finder = memchr::memmem::Finder::new(payload::TEXT_MARK);
    assert_eq!(payload::find_stamp(&finder, text.as_bytes()), Some(stamp));
}
