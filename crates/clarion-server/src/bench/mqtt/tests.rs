use super::*;
use clap::Parser;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parse(line: &str) -> Result<Args, clap::Error> {
    Line::try_parse_from(std::iter::once("mqtt").chain(line.split(' '))).map(|line| line.args)
}

#[test]
fn every_workload_has_defaults() {
    for workload in ["fanout", "pairs", "idle", "connect", "offline"] {
        let common = parse(workload).unwrap().common;
        assert_eq!((common.host.as_str(), common.port), ("127.0.0.1", None), "{workload}");
        assert_eq!((common.version, common.qos), (None, None), "{workload}");
        assert_eq!((common.payload, common.rounds, common.compare), (200, 1, None), "{workload}");
    }
}

#[test]
fn options_stand_before_and_behind_the_workload() {
    for line in [
        "fanout --version 5 --qos 1 --tls --websocket --compare mosquitto --rounds 3 --port 7",
        "--version 5 --qos 1 --tls --websocket --compare mosquitto --rounds 3 --port 7 fanout",
    ] {
        let common = parse(line).unwrap().common;
        assert_eq!((common.version, common.qos), (Some(Version::V5), Some(Qos::AtLeastOnce)));
        assert!(common.tls && common.websocket && common.compare == Some(Rival::Mosquitto));
        assert_eq!((common.rounds, common.port), (3, Some(7)));
    }
}

#[test]
fn the_pace_is_a_window_or_a_rate() {
    let pace = |line| match parse(line).unwrap().workload {
        Workload::Fanout { pace, .. } | Workload::Pairs { pace, .. } => pace.pace(),
        other => panic!("{other:?}"),
    };
    assert_eq!(pace("fanout"), Pace::InFlight(1));
    assert_eq!(pace("pairs --in-flight 64"), Pace::InFlight(64));
    assert_eq!(pace("fanout --rate 0.5"), Pace::Rate(0.5));
}

#[test]
fn what_cannot_be_is_refused() {
    for line in [
        "",
        "fanout --subscribers 0",
        "fanout --in-flight 0",
        "fanout --rate 0",
        "fanout --rate -1",
        "fanout --rate nan",
        "fanout --rate 10 --in-flight 2",
        "pairs --qos 3",
        "pairs --version 4",
        "idle --compare nats",
        "connect --rounds 0",
    ] {
        parse(line).unwrap_err();
    }
}

#[test]
fn descriptors_are_counted_beforehand() {
    let clients = |line| parse(line).unwrap().workload.clients();
    assert_eq!(clients("fanout --subscribers 1000"), 1001);
    assert_eq!(clients("pairs --pairs 500"), 1000);
    assert_eq!(clients("idle"), 10_000);
    raise_limit(1).unwrap();
    let error = raise_limit(u64::MAX - OWN_FILES).unwrap_err();
    assert!(error.to_string().contains("ulimit -n"), "{error}");
}

#[test]
fn clients_have_short_names_and_addresses_enough() {
    let progress = Progress::new(false);
    let at = |at: &str| Ground {
        plan: Plan { at: at.parse().unwrap(), layers: Layers::default(), version: Version::V31 },
        qos: Qos::AtMostOnce,
        subscribe_qos: Qos::AtMostOnce,
        size: 200,
        opening: 1,
        topic: String::new(),
        server: None,
        progress: &progress,
    };
    let ground = at("127.0.0.1:1883");
    assert!((1..=23).contains(&ground.client_id(u32::MAX).len()));
    let source = |n| ground.source(n).unwrap().to_string();
    assert_eq!((source(0), source(4_999)), ("127.0.0.1".into(), "127.0.0.1".into()));
    assert_eq!((source(5_000), source(10_000)), ("127.0.0.2".into(), "127.0.0.3".into()));
    assert_eq!(at("192.0.2.1:1883").source(0), None);
    assert_eq!(at("[::1]:1883").source(0), None);
}

#[test]
fn what_cannot_wait_or_start_again_is_refused_beforehand() {
    let check = |line: &str| {
        let args = parse(line).unwrap();
        let Workload::Offline(offline) = &args.workload else { panic!("{line}") };
        offline.check(&args.common)
    };
    for line in [
        "offline",
        "offline --qos 2 --filters own-wildcard --topics 10 --beside 10000",
        "offline --kill 2 --compare mosquitto --autosave-interval 1 --autosave-on-changes",
        "offline --kill 1 --restart-command x --port 7 --compare mosquitto",
    ] {
        check(line).unwrap();
    }
    for (line, why) in [
        ("offline --qos 0", "QoS 0"),
        ("offline --qos 1 --subscribe-qos 0", "QoS 0"),
        ("offline --kill 1", "--restart-command"),
        ("offline --kill 1 --port 7 --compare mosquitto", "--restart-command"),
        ("offline --sessions 1000000 --filters own-wildcard --topics 5000", "too many"),
    ] {
        let error = check(line).unwrap_err();
        assert!(error.to_string().contains(why), "{line}: {error}");
    }
}
