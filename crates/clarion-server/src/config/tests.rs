//! Sources in, a configuration or the whole list of problems out.

use super::{
    Config, FileSource, Sources, check as checks, env_name,
    listeners::{AuthMode, Dialect, ListenerKind, ListenerName, MqttHabits, Transport},
    reader::{self, Row},
    render,
    sections::{AclDefault, LogFormat, LogLevel, MikudosMode, StoreDurability, StoreKind},
};
use clarion_core::{AddressKind, Retention, Verb};
use std::{path::Path, time::Duration};

fn file(text: &str) -> Sources {
    let file = FileSource { name: "c.yaml".into(), text: text.into() };
    Sources { file: Some(file), ..Sources::default() }
}

fn sets(sets: &[&str]) -> Sources {
    Sources { sets: sets.iter().map(ToString::to_string).collect(), ..Sources::default() }
}

fn env(pairs: &[(&str, &str)]) -> Sources {
    let env = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Sources { env, ..Sources::default() }
}

fn good(sources: &Sources) -> Config {
    Config::load(sources).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

/// All problems, one a line, exactly.
fn check(sources: &Sources, expected: &[&str]) {
    let problems = Config::load(sources).expect_err("this configuration must be refused");
    let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = good(&Sources::default());
    assert_eq!(config, Config::defaults().0);
    assert_eq!(config.data_dir, Path::new("./clarion-data"));
    assert_eq!(config.store.kind, StoreKind::Embedded);
    assert_eq!(config.store.durability, StoreDurability::Disk);
    assert_eq!(config.limits.payload_bytes, 1 << 20);
    assert_eq!(config.cursors.ack_flush, Duration::from_millis(100));
    assert_eq!((config.cursors.max_unacked, config.cursors.max_unacked_device), (1_000, 65_535));
    assert_eq!(config.grpc.request_bytes, 4_194_304);
    assert_eq!(config.mikudos.mode, MikudosMode::Unify);
    assert_eq!(config.mqtt.user_topics, ["user/{user}"]);
    assert_eq!((config.mqtt.subscribe_denied_code, config.mqtt.max_inflight), (0x87, 1000));
    assert_eq!(config.retention.user, Retention::default_of(AddressKind::User));
    assert_eq!(config.retention.queue, Retention::default_of(AddressKind::Queue));
    let open = config.listeners.iter().filter(|listener| listener.is_open());
    let open: Vec<_> = open.map(|l| (l.name, l.bind.to_string(), l.kind())).collect();
    assert_eq!(
        open,
        [
            (ListenerName::Http, "127.0.0.1:8080".into(), ListenerKind::Http),
            (ListenerName::Grpc, "127.0.0.1:50051".into(), ListenerKind::Grpc),
            (ListenerName::Mqtt, "127.0.0.1:1883".into(), ListenerKind::Mqtt),
        ]
    );
    assert!(config.listeners.iter().all(|listener| !listener.is_beyond_loopback()));
}

#[test]
fn the_printed_defaults_parse_back() {
    let yaml = render::defaults_yaml();
    assert_eq!(good(&file(&yaml)), Config::defaults().0);
    let (_, table) = Config::defaults();
    for row in &table.rows {
        if let Row::Key { path, default, doc, .. } = row {
            assert!(!doc.is_empty() && !default.is_empty(), "{path}");
            assert_eq!(
                good(&sets(&[&format!("{path}={default}")])),
                Config::defaults().0,
                "{path}"
            );
            let name = env_name(path);
            assert_eq!(good(&env(&[(&name, default)])), Config::defaults().0, "{name}");
        }
    }
}

#[test]
fn names_of_variables_are_unique() {
    let (_, table) = Config::defaults();
    let mut names: Vec<String> = Vec::new();
    for row in &table.rows {
        if let Row::Key { path, .. } = row {
            names.push(env_name(path));
        }
    }
    let all = names.len();
    names.sort();
    names.dedup();
    assert!(all > 60, "{all} keys");
    assert_eq!(names.len(), all);
}

#[test]
fn the_committed_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(
        committed == render::markdown(),
        "docs/configuration.md is not current: clarion config --markdown > docs/configuration.md"
    );
}

#[test]
fn the_example_of_the_page_is_valid() {
    let page = render::markdown();
    let example = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let config = good(&file(example));
    assert_eq!(config.auth.keys[0].name, "app");
    assert_eq!(config.listeners[0].auth, AuthMode::Required);
    assert!(config.listeners[0].is_beyond_loopback());
}

#[test]
fn a_later_source_wins() {
    let mut sources = file("log: {level: warn, format: json}\nlimits:\n  streams: 5\n");
    assert_eq!(good(&sources).log.level, LogLevel::Warn);
    sources.env = env(&[("CLARION_LOG__LEVEL", "error"), ("CLARION_LIMITS__STREAMS", "6")]).env;
    assert_eq!(good(&sources).log.level, LogLevel::Error);
    sources.sets = vec!["limits.streams=7".into(), "limits.streams=8".into(), "data_dir=/a".into()];
    let config = good(&sources);
    assert_eq!((config.log.level, config.log.format), (LogLevel::Error, LogFormat::Json));
    assert_eq!((config.limits.streams, config.data_dir.as_path()), (8, Path::new("/a")));
    sources.data = Some("/b".into());
    assert_eq!(good(&sources).data_dir, Path::new("/b"));
}

#[test]
fn an_empty_file_and_empty_sections_say_nothing() {
    for text in ["", "# nothing\n", "limits:\n", "listeners:\n  http:\n", "---\n"] {
        assert_eq!(good(&file(text)), Config::defaults().0, "{text:?}");
    }
}

#[test]
fn values_of_every_kind() {
    let config = good(&file(
        "store: {kind: memory, max_bytes: 1GiB, sweep_interval: 5m}\n\
         limits: {payload_bytes: 2048, shutdown_timeout: 0}\n\
         retention: {queue: {age: 7d, count: 5}}\n\
         topics: {stored: [\"alerts/#\", a/+/b]}\n\
         listeners: {http: {bind: \"[::]:0\", allow_from: [10.0.0.0/8, \"::1\"]}}\n\
         auth:\n  keys:\n  - {name: k, allow: [read, publish, read], users: [u, v],\n     \
         sha256: \"000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F\"}\n",
    ));
    assert_eq!((config.store.kind, config.store.max_bytes), (StoreKind::Memory, 1 << 30));
    assert_eq!(config.store.sweep_interval, Duration::from_secs(300));
    assert_eq!(
        (config.limits.payload_bytes, config.limits.shutdown_timeout),
        (2048, Duration::ZERO)
    );
    assert_eq!((config.retention.queue.age_ms, config.retention.queue.count), (7 * 86_400_000, 5));
    assert_eq!(config.retention.queue.bytes, 1 << 30);
    assert_eq!(config.topics.stored, ["alerts/#", "a/+/b"]);
    let http = &config.listeners[0];
    assert!(http.allow_from[0].contains([10, 1, 1, 1].into()));
    let key = &config.auth.keys[0];
    assert_eq!(key.sha256.to_vec(), (0..32).collect::<Vec<u8>>());
    assert_eq!(key.allow, [Verb::Read, Verb::Publish]);
    assert!(key.principal().may_for(Verb::Read, Some("v")));
    assert!(!key.principal().may_for(Verb::Read, Some("w")));
}

#[test]
fn lists_in_options_and_variables() {
    let check = |value: &str, expected: &[&str]| {
        let config = good(&sets(&[&format!("topics.stored={value}")]));
        assert_eq!(config.topics.stored, expected, "{value}");
        let config = good(&env(&[("CLARION_TOPICS__STORED", value)]));
        assert_eq!(config.topics.stored, expected, "{value}");
    };
    check("", &[]);
    check("a/b", &["a/b"]);
    check("a, b/#", &["a", "b/#"]);
    check("[a, 'b,c']", &["a", "b,c"]);
    let sha256 = "ab".repeat(32);
    let key = format!("auth.keys=[{{name: k, sha256: {sha256}, allow: [admin]}}]");
    assert_eq!(good(&sets(&[&key])).auth.keys[0].allow, [Verb::Admin]);
    assert!(good(&sets(&["auth.keys="])).auth.keys.is_empty());
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    check(
        &file(
            "limits:\n  paylod_bytes: 1MiB\n  body_bytes: 1\n  streams: many\n  json_depth: 5000\n\
             \x20 head_timeout: 10\n  headers_count: -1\n\
             store: fast\nlog: {level: loud, format: 7}\nqueues: {}\n\
             cursors: {ack_flush: 5 minutes}\nretention: {user: {bytes: 5MB, count:}}\n",
        ),
        &[
            "limits.paylod_bytes: unknown key; did you mean limits.payload_bytes? (c.yaml:2)",
            "store: is a section of keys, found 'fast' (c.yaml:8)",
            "queues: unknown key (c.yaml:10)",
            "retention.user.count: expected a whole number, found nothing (c.yaml:12)",
            "retention.user.bytes: expected a size such as 64MiB (B, KiB, MiB, GiB, TiB) or a number of bytes, \
             found '5MB' (c.yaml:12)",
            "limits.body_bytes: 1 is below the smallest, 1KiB (c.yaml:3)",
            "limits.headers_count: expected a whole number, found the number -1 (c.yaml:7)",
            "limits.json_depth: 5000 is above the largest, 1000 (c.yaml:5)",
            "limits.streams: expected a whole number, found 'many' (c.yaml:4)",
            "limits.head_timeout: expected a duration such as 10s (ms, s, m, h, d), found the number 10 (c.yaml:6)",
            "cursors.ack_flush: expected a duration such as 10s (ms, s, m, h, d), found '5 minutes' (c.yaml:11)",
            "log.format: expected one of text, json, found the number 7 (put it in quotes) (c.yaml:9)",
            "log.level: expected one of off, error, warn, info, debug, trace, found 'loud' (c.yaml:9)",
        ],
    );
}

#[test]
fn keys_of_auth_are_checked_field_by_field() {
    let sha256 = "0a".repeat(32);
    check(
        &file(&format!(
            "auth:\n  keys:\n  - {{name: a, sha256: {sha256}, allow: [publish]}}\n  \
             - {{name: a, sha256: \"{}\", allow: [publish]}}\n  - {{nam: c, sha256: secret, allow: []}}\n  \
             - {{name: '', allow: [wirte], users: ['']}}\n  - 5\n  \
             - {{name: f, sha256: {sha256}, allow: [read]}}\n",
            "0b".repeat(32)
        )),
        &[
            "auth.keys[1]: the name 'a' stands twice (c.yaml:4)",
            "auth.keys[2].nam: unknown key; did you mean name? (c.yaml:5)",
            "auth.keys[2]: has no name (c.yaml:5)",
            "auth.keys[2].sha256: expected 64 hex digits, found 6 characters (c.yaml:5)",
            "auth.keys[2].allow: allows nothing (c.yaml:5)",
            "auth.keys[3].name: a name has 1 to 64 bytes, none a control character (c.yaml:6)",
            "auth.keys[3]: has no sha256 (c.yaml:6)",
            "auth.keys[3].allow[0]: expected one of publish, subscribe, read, admin, found 'wirte' (c.yaml:6)",
            "auth.keys[3].users[0]: the id is empty (c.yaml:6)",
            "auth.keys[4]: expected {name, sha256, allow, users?}, found the number 5 (c.yaml:7)",
            "auth.keys[5]: another key has the same sha256 (c.yaml:8)",
        ],
    );
}

#[test]
fn a_bind_beyond_loopback_needs_trust() {
    let refused = |bind: &str| {
        format!(
            "listeners.http.bind: {bind} can be reached from other machines, and whoever reaches it would be \
             trusted: set listeners.http.auth to required (with auth.keys, auth.password_file or auth.jwt), or \
             listeners.http.allow_from to the address ranges of those whom you trust (--set)"
        )
    };
    for bind in ["0.0.0.0:80", "192.168.1.1:0", "[::]:8080", "[::ffff:10.0.0.1]:1"] {
        let set = format!("listeners.http.bind={bind}");
        check(&sets(&[&set]), &[&refused(bind)]);
        good(&sets(&[&set, "listeners.http.allow_from=10.0.0.0/8"]));
        // A listener that is not opened needs none.
        good(&sets(&[&set.replace("http", "dino")]));
    }
    for bind in ["127.0.0.1:0", "127.8.8.8:80", "[::1]:80", "[::ffff:127.0.0.1]:1"] {
        good(&sets(&[&format!("listeners.http.bind={bind}")]));
    }
    check(
        &sets(&["listeners.http.bind=0.0.0.0:80", "listeners.http.auth=required"]),
        &[
            "listeners.http.auth: required, but nothing proves who somebody is, so nobody could come in: set \
           auth.keys, auth.password_file or a key of auth.jwt (--set)",
        ],
    );
    let required = ["listeners.http.bind=0.0.0.0:80", "listeners.http.auth=required"];
    for proof in [
        "auth.password_file=passwords",
        "auth.jwt.secret_file=secret",
        "auth.jwt.public_keys=[a.pem]",
        "auth.jwt.jwks_file=keys.json",
    ] {
        good(&sets(&[&required[..], &[proof]].concat()));
    }
}

#[test]
fn listeners_speak_what_this_build_has() {
    check(
        &file(
            "listeners:\n  grpc: {speaks: [http, grpc]}\n  mqtt: {speaks: [mqqt]}\n  http: {speaks: [http, mage]}\n  \
             dino: {speaks: dino}\n  amqp: {bind: 127.0.0.1:5672}\n  mqant: {bind: localhost:1, allow_from: [10.0.0.1/8]}\n",
        ),
        &[
            "listeners.amqp: unknown key (c.yaml:6)",
            "listeners.http.speaks[1]: 'mage': this build does not speak mage (it speaks http, grpc, mikudos, \
             message-sync, mqtt) (c.yaml:4)",
            "listeners.grpc.speaks[0]: 'http': listener grpc cannot speak http (it can speak grpc, mikudos, \
             message-sync) (c.yaml:2)",
            "listeners.mqtt.speaks[0]: 'mqqt': unknown dialect; did you mean mqtt? (c.yaml:3)",
            "listeners.dino.speaks: expected a list of dialects, found 'dino' (c.yaml:5)",
            "listeners.mqant.bind: expected an IP address and a port such as 127.0.0.1:8080 or [::]:8080, found \
             'localhost:1' (c.yaml:7)",
            "listeners.mqant.allow_from[0]: '10.0.0.1/8': has bits behind its prefix; did you mean 10.0.0.0/8? \
             (c.yaml:7)",
        ],
    );
    check(
        &sets(&["listeners.http.speaks=", "listeners.grpc.speaks=", "listeners.mqtt.speaks="]),
        &["listeners: no listener speaks anything, so nobody could connect"],
    );
}

#[test]
fn the_keys_of_mqtt_are_checked() {
    let config = good(&file(
        "mqtt:\n  user_topics: ['{user}', 'u/{user}/in']\n  subscribe_denied_code: 0x80\n  allow_origins: \
         ['https://a.example', 'null']\n  store_qos0: true\n  server_reference: b.example:1883\nlisteners:\n  mqtt: \
         {mqtt_over: [tcp], auto_subscribe: true}\n",
    ));
    assert_eq!(config.mqtt.user_topics, ["{user}", "u/{user}/in"]);
    assert_eq!((config.mqtt.subscribe_denied_code, config.mqtt.store_qos0), (0x80, true));
    assert_eq!(config.mqtt.server_reference.as_deref(), Some("b.example:1883"));
    let mqtt = config.listeners.iter().find(|l| l.name == ListenerName::Mqtt).unwrap();
    let habits = MqttHabits { over: vec![Transport::Tcp], auto_subscribe: true };
    assert_eq!(mqtt.mqtt.as_ref(), Some(&habits));
    assert_eq!(good(&sets(&["mqtt.subscribe_denied_code=135"])), Config::defaults().0);
    check(
        &sets(&["listeners.http.mqtt_over=[]"]),
        &["listeners.http.mqtt_over: is empty, but the listener speaks mqtt (--set)"],
    );
    check(
        &sets(&[
            "mqtt.user_topics=users",
            "mqtt.subscribe_denied_code=0x10",
            "mqtt.allow_origins=a.example,https://a.example/x",
            "mqtt.store_qos0=yes",
            "mqtt.max_packet_bytes=32MiB",
            "listeners.http.mqtt_over=udp",
        ]),
        &[
            "mqtt.user_topics[0]: 'users': a user topic has '{user}' in it, once (--set)",
            "mqtt.allow_origins[0]: 'a.example': an origin is scheme://host or scheme://host:port, without a path; or \
             null; or * (--set)",
            "mqtt.allow_origins[1]: 'https://a.example/x': an origin is scheme://host or scheme://host:port, without a \
             path; or null; or * (--set)",
            "mqtt.subscribe_denied_code: expected one of 0x80, 0x83, 0x87, 0x8f, 0x97, found '0x10' (--set)",
            "mqtt.store_qos0: expected true or false, found 'yes' (--set)",
            "listeners.http.mqtt_over[0]: 'udp': expected tcp or websocket (--set)",
            "mqtt.max_packet_bytes: 33554432 is above mqtt.websocket_message_bytes, 16777216 (--set)",
        ],
    );
}

#[test]
fn speak_names_dialects() {
    let speak = |names: &[&str]| Sources {
        speak: names.iter().map(ToString::to_string).collect(),
        ..Sources::default()
    };
    assert_eq!(good(&speak(&["http"])).listeners[0].speaks, [Dialect::Http, Dialect::Mqtt]);
    // What is on already says nothing new; message-sync has a port of its own besides.
    assert_eq!(good(&speak(&["mikudos"])), Config::defaults().0);
    let config = good(&speak(&["message-sync"]));
    let open = config.listeners.iter().filter(|listener| listener.is_open());
    let open: Vec<_> = open.map(|l| (l.name.name(), l.bind.port(), l.kind())).collect();
    assert_eq!(
        open,
        [
            ("http", 8080, ListenerKind::Http),
            ("grpc", 50051, ListenerKind::Grpc),
            ("mqtt", 1883, ListenerKind::Mqtt),
            ("message-sync", 8081, ListenerKind::Grpc),
        ]
    );
    check(
        &speak(&["dino,mqant", "mqttt", "http"]),
        &[
            "--speak: 'dino': this build does not speak dino (it speaks http, grpc, mikudos, message-sync, mqtt)",
            "--speak: 'mqant': this build does not speak mqant (it speaks http, grpc, mikudos, message-sync, mqtt)",
            "--speak: 'mqttt': unknown dialect; did you mean mqtt?",
        ],
    );
    check(
        &speak(&["all"]),
        &[
            "--speak: 'all': this build does not speak dino, mage, mqant (it speaks http, grpc, mikudos, message-sync, mqtt)",
        ],
    );
}

#[test]
fn contradictions_between_keys() {
    check(
        &sets(&[
            "limits.payload_bytes=16MiB",
            "limits.connections=4",
            "grpc.stream_window_bytes=16MiB",
        ]),
        &[
            "limits.payload_bytes: 16777216 is above limits.body_bytes, 8388608 (--set)",
            "grpc.stream_window_bytes: 16777216 is above grpc.connection_window_bytes, 8388608 (--set)",
        ],
    );
}

#[test]
fn options_and_variables_that_nobody_knows() {
    let mut sources = sets(&["limits=5", "limits.bodybytes=5", "nothing", "=", "log.level = warn"]);
    sources.env = env(&[
        ("CLARION_LIMITS__BODYBYTES", "5"),
        ("CLARION_DATADIR", "/x"),
        ("CLARION_LOG__LEVEL", "loud"),
        // What an orchestrator puts there for a service with our name.
        ("CLARION_PORT", "tcp://10.0.0.1:8080"),
        ("CLARION_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ])
    .env;
    check(
        &sources,
        &[
            "datadir: no key has this variable; did you mean data_dir? (CLARION_DATADIR)",
            "limits.bodybytes: no key has this variable; did you mean limits.body_bytes? \
             (CLARION_LIMITS__BODYBYTES)",
            "limits: is a section of keys; set one of them (--set)",
            "limits.bodybytes: unknown key; did you mean limits.body_bytes? (--set)",
            "--set: expected --set key=value, found 'nothing'",
            "--set: unknown key",
            "log.level: expected one of off, error, warn, info, debug, trace, found ' warn' (--set)",
        ],
    );
}

#[test]
fn bad_yaml_has_line_and_column() {
    let check = |text: &str, expected: &[&str]| {
        let problems = Config::load(&file(text)).unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let problem = problems[0].to_string();
        assert!(problem.starts_with("c.yaml:"), "{problem}");
        for part in expected {
            assert!(problem.contains(part), "{problem} lacks {part}");
        }
    };
    check("log:\n  level: info\n  level: warn\n", &["line 3", "column 3", "level"]);
    check("log:\n  level: [info\n", &["line "]);
    check("log: {level: info}}\n", &["line 1"]);
    check("a: 1\n---\nb: 2\n", &["line "]);
    let deep = format!("log: {}1{}", "[".repeat(100_000), "]".repeat(100_000));
    check(&deep, &[]);
    check("just text", &["expected a map of keys"]);
}

#[test]
fn files_are_read_within_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    let missing = super::read_file(&path).unwrap_err();
    assert!(missing.to_string().contains("cannot be opened"), "{missing}");
    std::fs::write(&path, "#".repeat(1 << 20)).unwrap();
    assert_eq!(super::read_file(&path).unwrap().text.len(), 1 << 20);
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(super::read_file(&path).unwrap_err().text.contains("longer than"));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(super::read_file(&path).unwrap_err().text.contains("cannot be read"));
}

#[test]
fn a_secret_stands_in_the_environment_alone_and_is_shown_nowhere() {
    let config = good(&env(&[("CLARION_AUTH__JWT__SECRET", "hush-hush")]));
    assert_eq!(config.jwt.secret.as_ref().map(|secret| &*secret.0), Some("hush-hush"));
    assert!(!format!("{config:?}").contains("hush"));
    let text = "auth.jwt.secret: may only stand in the environment; or put it in a file";
    check(&sets(&["auth.jwt.secret=hush-hush"]), &[&format!("{text} (--set)")]);
    check(&file("auth: {jwt: {secret: hush-hush}}"), &[&format!("{text} (c.yaml:1)")]);
}

#[test]
fn access_rules_in_a_file_and_in_options() {
    let rules =
        "[{allow: [publish], on: 'topic:a,b/#'}, {deny: [subscribe], on: ['#'], who: anonymous}]";
    for sources in [
        file(&format!("auth:\n  acl: {rules}\n  acl_default: allow")),
        sets(&[&format!("auth.acl={rules}"), "auth.acl_default=allow"]),
    ] {
        let auth = good(&sources).auth;
        assert_eq!((auth.acl.len(), auth.acl_default), (2, AclDefault::Allow));
        assert!(auth.has_acl() && auth.acl[0].publish && !auth.acl[1].allow);
    }
    assert!(!good(&Sources::default()).auth.has_acl());
    assert!(good(&sets(&["auth.acl_file=rules.yaml"])).auth.has_acl());
    check(
        &file(
            "auth:\n  acl:\n    - {allow: [publish], on: 'topic:a+'}\n    - {permit: [publish], on: all}\n",
        ),
        &[
            "auth.acl[0].on[0]: 'topic:a+': '+' stands alone in its level, '#' alone in the last one (c.yaml:3)",
            "auth.acl[1].permit: unknown key (c.yaml:4)",
            "auth.acl[1]: says either allow or deny: publish, subscribe, or both (c.yaml:4)",
        ],
    );
}

#[test]
fn tls_settings_that_do_not_fit_together() {
    let tls = |key: &str| format!("listeners.mqtt.tls.{key}");
    good(&sets(&[
        &tls("cert=c.pem"),
        &tls("key=k.pem"),
        &tls("client_ca=a.pem"),
        &tls("user_from_cert=true"),
    ]));
    let mut config = Config::defaults().0;
    let flat = super::Flat::new();
    let told = |config: &Config| {
        let mut reader = reader::Reader::new(&flat);
        checks::check(config, &mut reader);
        let problems = reader.finish().1;
        problems.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let mqtts = config.listeners.iter_mut().find(|l| l.name == ListenerName::Mqtts).unwrap();
    mqtts.speaks = vec![Dialect::Mqtt];
    let text = "listeners.mqtts: has no certificate: set listeners.mqtts.tls.cert and listeners.mqtts.tls.key";
    assert_eq!(told(&config), [text]);
    let mqtts = config.listeners.iter_mut().find(|l| l.name == ListenerName::Mqtts).unwrap();
    mqtts.tls.cert = Some("c.pem".into());
    mqtts.tls.require_client_cert = true;
    assert_eq!(
        told(&config),
        [
            "listeners.mqtts.tls.key: is missing: a certificate is nothing without its key",
            "listeners.mqtts.tls.require_client_cert: needs client_ca: whose certificates are believed",
        ]
    );
}
