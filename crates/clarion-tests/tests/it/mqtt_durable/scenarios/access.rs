//! Rules that change while a session is away: what it may not read any more does not come, and counts as acked.

use crate::{
    mqtt::versions,
    mqtt_durable::{assert_again, away, begin, client, nothing_more, resume},
};
use clarion_tests::{
    Server,
    mqtt::{Client, Version},
    target_dir, wait_for,
};
use rustix::process::Signal;
use std::{collections::BTreeSet, fs};
use tempfile::TempDir;

versions! {
    what_is_forbidden_meanwhile_does_not_come: v311 v5;
    what_was_under_way_is_not_sent_again: v311 v5;
    what_is_forbidden_for_a_while_is_passed_over: v311 v5;
}

const ALL: &str = "
- {allow: [publish], on: '#'}
- {allow: [subscribe], on: '#'}
";

/// Everything may be published; these may not be read.
fn but(topics: &[&str]) -> String {
    let denied: Vec<String> = topics.iter().map(|topic| format!("'topic:{topic}'")).collect();
    format!("- {{deny: [subscribe], on: [{}]}}{ALL}", denied.join(", "))
}

struct Guarded {
    server: Server,
    dir: TempDir,
    reloads: usize,
}

impl Guarded {
    fn start() -> Self {
        let tmp = target_dir().join("tmp");
        fs::create_dir_all(&tmp).expect("the target directory is writable");
        let dir = tempfile::Builder::new().prefix("rules-").tempdir_in(&tmp);
        let dir = dir.expect("the target directory is writable");
        let file = dir.path().join("rules.yaml");
        fs::write(&file, ALL).expect("writable");
        let server = Server::builder().set("auth.acl_file", file.to_str().expect("text")).start();
        Self { server, dir, reloads: 0 }
    }

    /// These rules hold from now on.
    fn rules(&mut self, rules: &str) {
        fs::write(self.dir.path().join("rules.yaml"), rules).expect("writable");
        self.reloads += 1;
        self.server.signal(Signal::HUP);
        wait_for("the server's word about its files", || {
            self.server.stderr().matches("were read again").count() == self.reloads
        });
    }
}

fn publish_to(guarded: &Guarded, version: Version, topics: &[&str], qos: u8) {
    let mut writer = client(&guarded.server, version, "writer");
    for topic in topics {
        assert!(writer.publish(topic, topic, qos) < 0x80);
    }
}

fn texts(session: &mut Client, count: usize) -> BTreeSet<String> {
    session.texts(count).into_iter().collect()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn what_is_forbidden_meanwhile_does_not_come(version: Version) {
    let mut guarded = Guarded::start();
    away(&guarded.server, version, "s", &[("x/exact", 1), ("y/+", 2), ("z", 1)]);
    publish_to(&guarded, version, &["x/exact", "y/1", "y/2", "z"], 2);
    guarded.rules(&but(&["x/exact", "y/2"]));
    publish_to(&guarded, version, &["y/2", "x/exact"], 1);
    let mut session = resume(&guarded.server, version, "s");
    assert_eq!(texts(&mut session, 2), set(&["y/1", "z"]));
    nothing_more(&guarded.server, version, &mut session, &["y/1", "z"]);
    session.disconnect();
    // Allowed again, it does not come late; what is published now does.
    guarded.rules(ALL);
    let mut session = resume(&guarded.server, version, "s");
    nothing_more(&guarded.server, version, &mut session, &["y/2", "z"]);
    assert_eq!(session.subscribe(&[("x/exact", 1)]), [1]);
    publish_to(&guarded, version, &["x/exact"], 1);
    let mut got = session.message();
    while got.text() != "x/exact" {
        got = session.message();
    }
    session.quiet();
}

fn what_was_under_way_is_not_sent_again(version: Version) {
    let mut guarded = Guarded::start();
    let mut session = begin(&guarded.server, version, "s");
    session.subscribe(&[("a", 1), ("b/+", 1), ("c", 1)]);
    publish_to(&guarded, version, &["a", "b/1", "b/2", "c"], 1);
    let sent: Vec<_> = (0..4).map(|_| session.unacked()).collect();
    session.disconnect();
    guarded.rules(&but(&["a", "b/1"]));
    let mut session = resume(&guarded.server, version, "s");
    for before in sent.iter().filter(|message| matches!(message.topic.as_str(), "b/2" | "c")) {
        let got = session.message();
        assert_again(&got, before.id, &before.text());
    }
    nothing_more(&guarded.server, version, &mut session, &["b/2", "c"]);
    session.disconnect();
    guarded.rules(ALL);
    let mut session = resume(&guarded.server, version, "s");
    nothing_more(&guarded.server, version, &mut session, &["b/1", "c"]);
}

fn what_is_forbidden_for_a_while_is_passed_over(version: Version) {
    let mut guarded = Guarded::start();
    let mut session = begin(&guarded.server, version, "s");
    session.subscribe(&[("w/+", 1)]);
    guarded.rules(&but(&["w/secret"]));
    publish_to(&guarded, version, &["w/secret", "w/open"], 1);
    assert_eq!(session.message().text(), "w/open");
    guarded.rules(ALL);
    nothing_more(&guarded.server, version, &mut session, &["w/open"]);
    session.disconnect();
    let mut session = resume(&guarded.server, version, "s");
    nothing_more(&guarded.server, version, &mut session, &["w/secret"]);
}
