//! The other system's file in; our configuration, or the whole list of problems out.

use super::*;
use crate::config::{Config, Sources, listeners::Dialect, sections::StoreKind};

/// As that system ships it, but for the store's secrets.
const SHIPPED: &str = "port: 50051\nmode: \"group\"\nstorageType: \"redis\"\nredisSource:\n  \
                       \"node1:1\": \"tcp@localhost:6379\"\nmySQLSource:\n  \"node1:1\": \"root:x@(127.0.0.1:3306)/m\"\n";

fn sources(text: &str) -> Sources {
    let file = FileSource { name: "m.yaml".into(), text: text.into() };
    Sources { mikudos_file: Some(file), ..Sources::default() }
}

fn with_sets(text: &str, sets: &[&str]) -> Sources {
    Sources { sets: sets.iter().map(ToString::to_string).collect(), ..sources(text) }
}

fn with_env(text: &str, env: &[(&str, &str)]) -> Sources {
    let env = env.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Sources { env, ..sources(text) }
}

fn with_config(text: &str, config: &str) -> Sources {
    let file = FileSource { name: "c.yaml".into(), text: config.into() };
    Sources { file: Some(file), ..sources(text) }
}

fn good(sources: &Sources) -> Config {
    Config::load(sources).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn bind(sources: &Sources, name: ListenerName) -> String {
    let config = good(sources);
    config.listeners.iter().find(|listener| listener.name == name).unwrap().bind.to_string()
}

fn check_port(sources: &Sources, expected: u16) {
    assert_eq!(bind(sources, ListenerName::Grpc), format!("127.0.0.1:{expected}"));
}

fn check_mode(sources: &Sources, expected: MikudosMode) {
    assert_eq!(good(sources).mikudos.mode, expected);
}

/// All problems, one a line, exactly.
fn check_refused(sources: &Sources, expected: &[&str]) {
    let problems = Config::load(sources).expect_err("this configuration must be refused");
    let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

const NO_REDIS: &str = "storageType: 'redis': stores that servers share do not exist yet; to keep the messages in \
                        the data directory, and to start with this file as it is: --set store.kind=embedded (m.yaml:3)";

#[test]
fn it_opens_its_port_and_http_and_nothing_else() {
    let config = "listeners: {message-sync: {speaks: [message-sync]}, http: {speaks: []}}\n";
    for sources in [sources(""), sources("port: 50051\n"), with_config("", config)] {
        let config = good(&sources);
        let open = config.listeners.iter().filter(|listener| listener.is_open());
        let open: Vec<_> = open.map(|l| (l.name, l.bind.to_string(), l.speaks.clone())).collect();
        let expected = [
            (ListenerName::Http, "127.0.0.1:8080".to_owned(), vec![Dialect::Http]),
            (
                ListenerName::Grpc,
                "127.0.0.1:50051".to_owned(),
                vec![Dialect::Mikudos, Dialect::Grpc],
            ),
        ];
        assert_eq!(open, expected);
    }
    // What is asked for besides is opened.
    let speaking = Sources { speak: vec!["message-sync".to_owned()], ..sources("") };
    assert_eq!(good(&speaking).listeners.iter().filter(|listener| listener.is_open()).count(), 3);
}

#[test]
fn keys_in_any_case() {
    for text in ["port: 7\nmode: every\n", "PORT: 7\nMODE: every\n", "Port: '7'\nmOdE: every\n"] {
        check_port(&sources(text), 7);
        check_mode(&sources(text), MikudosMode::Every);
    }
    for name in ["storagetype", "STORAGETYPE", "storageType"] {
        check_refused(
            &sources(&format!("{name}: memcached\n")),
            &["storageType: expected one of redis, mysql, found 'memcached' (m.yaml:1)"],
        );
    }
    check_refused(
        &sources("port: 7\nPort: 8\n"),
        &["Port: is port again; upper and lower case are the same here (m.yaml:2)"],
    );
}

#[test]
fn the_variable_of_the_port_is_stronger_than_the_file() {
    check_port(&sources(""), 50051);
    check_port(&sources("port:\n"), 50051);
    check_port(&sources("port: 0\n"), 0);
    check_port(&with_env("port: 7\n", &[("SERVICE_PORT", "8")]), 8);
    check_port(&with_env("", &[("SERVICE_PORT", "8")]), 8);
    check_port(&with_env("port: 7\n", &[("SERVICE_PORT", "")]), 7);
    // It means nothing without such a file.
    let without = Sources { mikudos_file: None, ..with_env("", &[("SERVICE_PORT", "eight")]) };
    assert_eq!(good(&without), Config::defaults().0);
    check_refused(
        &with_env("port: many\n", &[("SERVICE_PORT", "70000")]),
        &[
            "port: expected a whole number, found 'many' (m.yaml:1)",
            "SERVICE_PORT: 70000 is above the largest, 65535",
        ],
    );
    check_refused(
        &sources("port: 8080\n"),
        &["listeners.grpc.bind: 127.0.0.1:8080 is the bind of listeners.http too (m.yaml:1)"],
    );
}

#[test]
fn a_mode_that_is_not_said_is_unify() {
    for text in ["", "mode:\n", "mode: ''\n", "mode: unify\n"] {
        check_mode(&sources(text), MikudosMode::Unify);
    }
    check_mode(&sources("mode: group\n"), MikudosMode::Group);
    check_mode(&sources("mode: every\n"), MikudosMode::Every);
    let told = "mode: expected one of unify, group, every, found 'all' (m.yaml:2)";
    check_refused(&sources("port: 1\nmode: all\n"), &[told]);
    check_refused(
        &sources("mode: 5\n"),
        &[
            "mode: expected one of unify, group, every, found the number 5 (put it in quotes) (m.yaml:1)",
        ],
    );
}

#[test]
fn stronger_sources_win_and_weaker_lose() {
    let weaker = "mikudos: {mode: every}\nlisteners: {grpc: {bind: \"127.0.0.1:1\"}}\n";
    check_mode(&with_config("mode: group\n", weaker), MikudosMode::Group);
    check_port(&with_config("port: 2\n", weaker), 2);
    // What the file does not say stays.
    check_mode(&with_config("", weaker), MikudosMode::Every);
    check_port(&with_config("", weaker), 1);
    let text = "port: 2\nmode: group\n";
    let env =
        [("CLARION_MIKUDOS__MODE", "every"), ("CLARION_LISTENERS__GRPC__BIND", "127.0.0.1:3")];
    let mut sources = with_env(text, &[env[0], env[1], ("SERVICE_PORT", "4")]);
    check_mode(&sources, MikudosMode::Every);
    check_port(&sources, 3);
    sources.sets = vec!["mikudos.mode=unify".into(), "listeners.grpc.bind=127.0.0.1:5".into()];
    sources.sets.push("listeners.http.bind=127.0.0.1:6".into());
    check_mode(&sources, MikudosMode::Unify);
    check_port(&sources, 5);
    assert_eq!(bind(&sources, ListenerName::Http), "127.0.0.1:6");
}

#[test]
fn stores_that_servers_share_need_a_word() {
    check_refused(&sources(SHIPPED), &[NO_REDIS]);
    let mysql = NO_REDIS.replace("redis", "mysql").replace(":3)", ":1)");
    check_refused(&sources("storageType: mysql\n"), &[&mysql]);
    // A weaker source knows nothing of the file.
    check_refused(&with_config(SHIPPED, "store: {kind: embedded}\n"), &[NO_REDIS]);
    for sources in [
        with_sets(SHIPPED, &["store.kind=embedded"]),
        with_env(SHIPPED, &[("CLARION_STORE__KIND", "embedded")]),
    ] {
        let config = good(&sources);
        assert_eq!(config.store.kind, StoreKind::Embedded);
        let told = config.mikudos_file.unwrap().ignored;
        let ignored = |at, key| {
            format!("m.yaml:{at}: {key} is ignored: store.kind says where messages are kept")
        };
        // A map stands where its first entry does.
        let expected =
            [ignored(3, "storageType redis"), ignored(5, "redisSource"), ignored(7, "mySQLSource")];
        assert_eq!(told, expected);
    }
    // Without a word about it the store is ours.
    let config = good(&sources("redisSource: {}\nstorageType:\n"));
    assert_eq!(
        (config.store.kind, config.mikudos_file.unwrap().ignored.len()),
        (StoreKind::Embedded, 1)
    );
    // Another word is wrong whoever says what.
    check_refused(
        &with_sets("storageType: disk\n", &["store.kind=embedded"]),
        &["storageType: expected one of redis, mysql, found 'disk' (m.yaml:1)"],
    );
}

#[test]
fn every_problem_is_told_at_once() {
    let mut several = with_sets(
        "prot: 1\nmode: al\nstorageType: redis\nredis_source: {}\nzookeeper: {}\nport: -1\n",
        &["limits.streams=many"],
    );
    several.file = Some(FileSource { name: "c.yaml".into(), text: "logs: {}\n".into() });
    check_refused(
        &several,
        &[
            "logs: unknown key; did you mean log? (c.yaml:1)",
            "prot: unknown key; did you mean port? (m.yaml:1)",
            "redis_source: unknown key; did you mean redisSource? (m.yaml:4)",
            "zookeeper: unknown key; a mikudos configuration has port, mode, storageType, redisSource, mySQLSource \
             (m.yaml:5)",
            "mode: expected one of unify, group, every, found 'al' (m.yaml:2)",
            "port: expected a whole number, found the number -1 (m.yaml:6)",
            NO_REDIS,
            "limits.streams: expected a whole number, found 'many' (--set)",
        ],
    );
    check_refused(&sources("just text"), &["m.yaml:1: expected a map of keys, found 'just text'"]);
    let problems = Config::load(&sources("port: [1\n")).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn what_opens_the_port_further_is_accepted() {
    for text in ["", "port: 7000\n"] {
        let config = good(&sources(text));
        let grpc = config.listeners.iter().find(|l| l.name == ListenerName::Grpc).unwrap();
        let line = open_further(grpc);
        assert!(!line.contains('\n'));
        let sets: Vec<&str> =
            line.split("--set ").skip(1).map(|set| set.trim().trim_matches('\'')).collect();
        assert_eq!(sets.len(), 2, "{line}");
        let port = grpc.bind.port();
        assert_eq!(bind(&with_sets(text, &sets), ListenerName::Grpc), format!("0.0.0.0:{port}"));
        check_refused_alone(text, sets[0]);
    }
}

/// The bind alone would trust strangers.
fn check_refused_alone(text: &str, bind: &str) {
    let problems = Config::load(&with_sets(text, &[bind])).unwrap_err();
    assert!(problems[0].to_string().contains("allow_from"), "{problems:?}");
}
