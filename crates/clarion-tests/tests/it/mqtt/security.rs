//! Who may come in, publish and subscribe; what is refused gets each version's own answer.

use crate::mqtt::{certificates::Authority, versions};
use clarion_tests::{
    Builder, Command, Server, binary,
    mqtt::{Client, Connack, Filter, Message, Options, Version, prop},
    target_dir, wait_for,
};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{self, Stdio},
};
use tempfile::TempDir;

versions! {
    without_proof_nobody_comes_in: v31 v311 v5;
    tokens_are_passwords: v31 v311 v5;
    publishes_that_rules_forbid: v31 v311 v5;
    subscriptions_that_rules_forbid: v31 v311 v5;
    wildcards_that_rules_allow_in_part: v31 v311 v5;
    rules_that_change_hold_at_once: v31 v311 v5;
    a_token_ends_its_connection: v31 v311 v5;
    a_client_id_belongs_to_its_user: v31 v311 v5;
    client_certificates: v31 v311 v5;
}

/// Files that name users and rules.
struct Files {
    dir: TempDir,
}

const RULES: &str = r##"
- {deny: [publish, subscribe], on: "topic:secret/#", who: ["user:ann"]}
- {allow: [publish, subscribe], on: ["topic:home/%u/#", "topic:dev/%c/+", "user:%u"]}
- {allow: [subscribe], on: "topic:news/#"}
- {allow: [publish, subscribe], on: "#", who: ["user:root"]}
"##;

impl Files {
    fn new() -> Self {
        let tmp = target_dir().join("tmp");
        fs::create_dir_all(&tmp).expect("the target directory is writable");
        let dir = tempfile::Builder::new().prefix("security-").tempdir_in(&tmp);
        let files = Self { dir: dir.expect("the target directory is writable") };
        for (user, password) in [("ann", "ann's"), ("bob", "bob's"), ("root", "root's")] {
            files.passwd(user, password);
        }
        fs::write(files.path("secret"), "0123456789abcdef0123456789abcdef").expect("writable");
        files.rules(RULES);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path").to_owned()
    }

    fn rules(&self, rules: &str) {
        fs::write(self.path("rules"), rules).expect("writable");
    }

    /// `clarion passwd`, told a password on its standard input.
    fn passwd(&self, user: &str, password: &str) {
        let mut command = process::Command::new(binary());
        command.arg("passwd").arg(self.path("passwords")).arg(user);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().expect("the binary runs");
        let mut input = child.stdin.take().expect("piped");
        input.write_all(format!("{password}\n").as_bytes()).expect("it reads");
        drop(input);
        assert!(child.wait().expect("own child").success());
    }

    /// `clarion token`.
    fn token(&self, user: &str, more: &[&str]) -> String {
        let secret = self.text("secret");
        let args = [&["token", "--user", user, "--key", &*secret], more].concat();
        let output = Command::clarion(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn builder(&self) -> Builder {
        Server::builder()
            .set("listeners.mqtt.auth", "required")
            .set("auth.password_file", &self.text("passwords"))
            .set("auth.jwt.secret_file", &self.text("secret"))
            .set("auth.acl_file", &self.text("rules"))
    }

    fn start(&self) -> Server {
        self.builder().start()
    }
}

fn attempt(server: &Server, options: &Options) -> (Client, Connack) {
    options.attempt(server.listener("mqtt"))
}

fn user(server: &Server, version: Version, id: &str, name: &str) -> Client {
    let options = Options::new(version, id).user(name).password(&format!("{name}'s"));
    options.connect(server.listener("mqtt"))
}

/// Refused with this code of 5, in the version's own words.
fn refused(server: &Server, options: &Options, reason: u8) {
    let (mut client, connack) = attempt(server, options);
    let expected = match (options.version, reason) {
        (Version::V5, reason) => reason,
        (_, 0x86) => 4,
        (_, 0x87) => 5,
        (_, 0x85) => 2,
        (_, other) => panic!("{other:#x} has no name in 3.x"),
    };
    assert_eq!((connack.code, connack.present), (expected, false), "{options:?}: {connack:?}");
    assert_eq!(client.ended(), None);
}

fn without_proof_nobody_comes_in(version: Version) {
    let files = Files::new();
    let server = files.start();
    let options = Options::new(version, "c");
    refused(&server, &options, 0x87);
    refused(&server, &options.clone().user("ann"), 0x87);
    refused(&server, &options.clone().user("ann").password("wrong"), 0x86);
    refused(&server, &options.clone().user("ann").password(""), 0x86);
    refused(&server, &options.clone().user("nobody").password("ann's"), 0x86);
    refused(&server, &options.clone().user("").password("ann's"), 0x86);
    for _ in 0..2 {
        user(&server, version, "c", "ann").quiet();
    }
    // No secret is told to anybody.
    let stderr = server.stderr();
    assert!(!stderr.contains("wrong") && !stderr.contains("ann's"), "{stderr}");
}

fn tokens_are_passwords(version: Version) {
    let files = Files::new();
    let server = files.start();
    let ann = files.token("ann", &["--ttl", "1h"]);
    let options = Options::new(version, "c");
    let with = |name: &str, token: &str| options.clone().user(name).password(token);
    attempt(&server, &with("ann", &ann)).0.quiet();
    // A name is not needed beside it, but it must not be another one.
    attempt(&server, &with("", &ann)).0.quiet();
    refused(&server, &with("bob", &ann), 0x86);
    let (begin, end) = ann.split_at(ann.len() - 5);
    let other = if end.starts_with('x') { 'y' } else { 'x' };
    let damaged = format!("{begin}{other}{}", &end[1..]);
    refused(&server, &with("ann", &damaged), 0x86);
    let bound = files.token("ann", &["--ttl", "1h", "--client-id", "hers"]);
    refused(&server, &with("ann", &bound), 0x86);
    Options::new(version, "hers")
        .user("ann")
        .password(&bound)
        .connect(server.listener("mqtt"))
        .quiet();
    // Its owner has her feed, and may publish to it; another may not.
    let mut client = with("ann", &ann).connect(server.listener("mqtt"));
    assert_eq!(client.subscribe(&[("user/ann", 1)]), [1]);
    let mut bob = user(&server, version, "bob's", "bob");
    let refused = if version == Version::V5 { 0x87 } else { 0 };
    assert_eq!(bob.publish("user/ann", "unwanted", 1), refused);
    assert_eq!(client.publish("user/ann", "hers", 1), 0);
    assert_eq!(client.message().text(), "hers");
    client.quiet();
}

fn publishes_that_rules_forbid(version: Version) {
    let files = Files::new();
    let server = files.start();
    let mut root = user(&server, version, "root", "root");
    root.subscribe(&[("#", 2)]);
    let mut ann = user(&server, version, "ann-1", "ann");
    for topic in ["home/bob/x", "home/ann2", "dev/ann-2/x", "dev/ann-1/x/y", "news/x", "secret/a"] {
        for qos in 0..3 {
            let reason = ann.publish_as(Message::new(topic, "no").qos(qos).retained());
            let expected = if version == Version::V5 && qos > 0 { 0x87 } else { 0 };
            assert_eq!(reason, expected, "{topic} with QoS {qos}");
        }
    }
    // The connection goes on, and nothing of all that went anywhere.
    for topic in ["home/ann", "home/ann/x/y", "dev/ann-1/x"] {
        assert!(ann.publish(topic, "yes", 1) < 0x80, "{topic}");
        assert_eq!((root.message().topic, ann.connack().code), (topic.to_owned(), 0));
    }
    root.quiet();
    root.subscribe(&[("#", 1)]);
    root.quiet();
    // A will that may not be published is not.
    let will = Message::new("home/bob/will", "no").qos(1);
    let options = Options::new(version, "ann-3").user("ann").password("ann's").will(will, &[]);
    let (dying, _) = attempt(&server, &options);
    dying.vanish();
    let will = Message::new("home/ann/will", "yes").qos(1);
    let options = Options::new(version, "ann-4").user("ann").password("ann's").will(will, &[]);
    options.connect(server.listener("mqtt")).vanish();
    assert_eq!(root.message().topic, "home/ann/will");
    root.quiet();
}

fn denied(version: Version, qos: u8) -> u8 {
    match version {
        // 3.1 has no code for it: granted, and silent.
        Version::V31 => qos,
        Version::V311 => 0x80,
        Version::V5 => 0x87,
    }
}

fn subscriptions_that_rules_forbid(version: Version) {
    let files = Files::new();
    let server = files.start();
    let mut root = user(&server, version, "root", "root");
    let mut ann = user(&server, version, "ann-1", "ann");
    let filters = [
        ("home/bob/#", false),
        ("home/bob", false),
        ("secret/a", false),
        ("secret/#", false),
        ("other", false),
        ("home/ann/#", true),
        ("news/+", true),
        ("user/ann", true),
        ("user/bob", false),
        ("$share/g/secret/a", false),
        ("$share/g/news/a", true),
        ("$SYS/#", true),
    ];
    let asked: Vec<(&str, u8)> = filters.iter().map(|(filter, _)| (*filter, 1)).collect();
    let codes = ann.subscribe(&asked);
    for ((filter, allowed), code) in filters.iter().zip(codes) {
        let expected = if *allowed { 1 } else { denied(version, 1) };
        assert_eq!(code, expected, "{filter}");
    }
    for topic in ["home/bob/x", "home/bob", "secret/a", "other"] {
        root.publish_as(Message::new(topic, "no").qos(1).retained());
    }
    ann.quiet();
    root.publish("home/ann/x", "yes", 1);
    assert_eq!(ann.message().text(), "yes");
    ann.quiet();
}

#[test]
fn the_code_of_a_refusal_is_configured() {
    let files = Files::new();
    let server = files.builder().set("mqtt.subscribe_denied_code", "0x80").start();
    let mut ann = user(&server, Version::V5, "ann-1", "ann");
    assert_eq!(ann.subscribe(&[("secret/a", 1), ("news/a", 0)]), [0x80, 0]);
}

fn wildcards_that_rules_allow_in_part(version: Version) {
    let files = Files::new();
    let server = files.start();
    let mut root = user(&server, version, "root", "root");
    root.publish_as(Message::new("secret/kept", "no").qos(1).retained());
    root.publish_as(Message::new("news/kept", "yes").qos(1).retained());
    let mut ann = user(&server, version, "ann-1", "ann");
    assert_eq!(ann.subscribe(&[("#", 1), ("+/+", 1)]), [1, 1]);
    for _ in 0..2 {
        assert_eq!(ann.message().topic, "news/kept");
    }
    for topic in ["secret/a", "other/a", "home/bob/x"] {
        root.publish(topic, "no", 1);
    }
    root.publish("news/a", "yes", 1);
    assert_eq!(ann.message().topic, "news/a");
    ann.quiet();
}

fn rules_that_change_hold_at_once(version: Version) {
    let files = Files::new();
    let server = files.start();
    let mut root = user(&server, version, "root", "root");
    let mut ann = user(&server, version, "ann-1", "ann");
    ann.subscribe(&[("news/a", 1), ("home/ann/#", 1)]);
    root.publish("news/a", "one", 1);
    assert_eq!(ann.message().text(), "one");
    files.rules(&RULES.replace("topic:news/#", "topic:olds/#"));
    server.signal(rustix::process::Signal::HUP);
    // It has happened when what is allowed now is.
    wait_for("the new rules", || {
        let mut probe = user(&server, Version::V311, "probe", "ann");
        probe.subscribe(&[("olds/a", 1)]) == [1]
    });
    root.publish("news/a", "two", 1);
    root.publish("home/ann/x", "three", 1);
    assert_eq!(ann.message().text(), "three");
    assert_eq!(ann.subscribe(&[("news/b", 1)]), [denied(version, 1)]);
    ann.quiet();
}

/// What the server tells of itself is for everyone, also for subscriptions from before a change of the rules.
#[test]
fn rules_say_nothing_of_what_the_server_tells() {
    let files = Files::new();
    let server = files.builder().set("mqtt.sys_interval", "20ms").start();
    let mut ann = user(&server, Version::V5, "ann-1", "ann");
    assert_eq!(ann.subscribe(&[("$SYS/broker/uptime", 0)]), [0]);
    ann.message();
    files.rules("- {allow: [subscribe], on: \"topic:olds/#\"}");
    server.signal(rustix::process::Signal::HUP);
    wait_for("the new rules", || {
        let mut probe = user(&server, Version::V311, "probe", "ann");
        probe.subscribe(&[("olds/a", 1)]) == [1]
    });
    ann.ping();
    while ann.arrived().is_some() {}
    assert_eq!(ann.message().topic, "$SYS/broker/uptime");
    assert_eq!(ann.publish("$SYS/broker/uptime", "x", 1), 0x90);
}

fn a_token_ends_its_connection(version: Version) {
    let files = Files::new();
    let server = files.builder().set("auth.jwt.leeway", "0").start();
    let token = files.token("ann", &["--ttl", "2s"]);
    let mut client =
        Options::new(version, "c").user("ann").password(&token).connect(server.listener("mqtt"));
    client.quiet();
    let told = client.ended();
    assert_eq!(told.is_some_and(|reason| reason >= 0x80), version == Version::V5, "{told:?}");
    refused(&server, &Options::new(version, "c").user("ann").password(&token), 0x86);
}

/// Where clients prove who they are, a client id that somebody else uses is not taken from him.
fn a_client_id_belongs_to_its_user(version: Version) {
    let files = Files::new();
    let server = files.start();
    let mut ann = user(&server, version, "same", "ann");
    refused(&server, &Options::new(version, "same").user("bob").password("bob's"), 0x85);
    ann.quiet();
    let mut newer = user(&server, version, "same", "ann");
    assert_eq!(ann.ended(), (version == Version::V5).then_some(0x8E));
    newer.quiet();
}

/// Enhanced authentication is refused as 4.12 says.
#[test]
fn unknown_methods_are_refused() {
    let files = Files::new();
    let server = files.start();
    let options = Options::new(Version::V5, "c")
        .with(prop::auth_method("SCRAM-SHA-256"))
        .with(prop::auth_data(*b"n,,n=ann"));
    refused(&server, &options, 0x8C);
    // Without a method in CONNECT there is no AUTH.
    let mut ann = user(&server, Version::V5, "c", "ann");
    ann.send(&clarion_tests::mqtt::unhex("F0 0D 19 0B 15 0005 534352414D 16 0000"));
    assert_eq!(ann.ended(), Some(0x82));
}

/// The same rules by the other transports.
#[test]
fn tokens_and_rules_hold_for_http_too() {
    let files = Files::new();
    let server = files.builder().set("listeners.http.auth", "required").start();
    let mut reader = user(&server, Version::V5, "ann-1", "ann");
    reader.subscribe_as(&[Filter::new("home/ann/#", 1)], &[]);
    let token = files.token("ann", &["--ttl", "1h"]);
    let publish = |address: &str, token: &str| {
        let body = serde_json::json!({"address": address, "text": "by HTTP"}).to_string();
        let headers =
            format!("content-type: application/json\r\nauthorization: Bearer {token}\r\n");
        let at = server.addr();
        let request =
            clarion_tests::raw::request("POST", "/api/v1/publish", at, &headers, body.as_bytes());
        clarion_tests::raw::exchange(at, &request).expect("an answer").status
    };
    assert_eq!(publish("topic:home/ann/x", &token), 200);
    assert_eq!(reader.message().text(), "by HTTP");
    assert_eq!(publish("topic:home/bob/x", &token), 403);
    assert_eq!(publish("topic:home/ann/x", "none"), 401);
    reader.quiet();
}

/// mosquitto_pub with this certificate; whether it could publish.
fn publishes(
    server: &Server,
    version: Version,
    authority: &str,
    own: Option<&(String, String)>,
) -> bool {
    let at = server.listener("mqtts");
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let name = ["mqttv31", "mqttv311", "mqttv5"][version as usize];
    let mut args = vec!["-h", &host, "-p", &port, "-V", name, "--cafile", authority];
    args.extend(["-t", "home/ann/tls", "-q", "1", "-m", "by TLS"]);
    if let Some((cert, key)) = own {
        args.extend(["--cert", cert, "--key", key]);
    }
    let output = process::Command::new("mosquitto_pub").args(args).output();
    output.expect("mosquitto_pub is there: run ./test.sh").status.success()
}

fn client_certificates(version: Version) {
    let files = Files::new();
    let (ours, others) = (Authority::new(), Authority::new());
    let address = Path::new("127.0.0.1");
    let (cert, key) = ours.sign(address.to_str().expect("text"));
    let server = files
        .builder()
        .set("listeners.mqtts.bind", "127.0.0.1:0")
        .set("listeners.mqtts.speaks", "[mqtt]")
        .set("listeners.mqtts.auth", "required")
        .set("listeners.mqtts.tls.cert", &cert)
        .set("listeners.mqtts.tls.key", &key)
        .set("listeners.mqtts.tls.client_ca", &ours.file())
        .set("listeners.mqtts.tls.require_client_cert", "true")
        .set("listeners.mqtts.tls.user_from_cert", "true")
        .start();
    let mut root = user(&server, version, "root", "root");
    root.subscribe(&[("#", 1)]);
    // ann may publish there, bob may not; the certificate is the proof.
    assert!(publishes(&server, version, &ours.file(), Some(&ours.sign("ann"))));
    assert_eq!(root.message().text(), "by TLS");
    publishes(&server, version, &ours.file(), Some(&ours.sign("bob")));
    assert!(!publishes(&server, version, &ours.file(), None));
    assert!(!publishes(&server, version, &ours.file(), Some(&others.sign("ann"))));
    assert!(!publishes(&server, version, &others.file(), Some(&ours.sign("ann"))));
    root.quiet();
    root.publish("end", "end", 1);
    assert_eq!(root.message().topic, "end");
}
