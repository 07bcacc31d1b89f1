//! Filters that overlap, with SUBSCRIBE and UNSUBSCRIBE in between while the backlog waits: random walks beside a model.

use crate::mqtt_durable::{assert_again, begin, client, ids, resume, start, traps::Random};
use clarion_tests::{
    Server,
    mqtt::{Client, Filter, Message, Packet, Version, prop},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, Hasher, RandomState},
};

const FILTERS: [&str; 7] = ["a/b", "a/+", "#", "+/b", "a/#", "x", "x/b"];
const TOPICS: [&str; 4] = ["a/b", "a/c", "x", "x/b"];
const STEPS: usize = 40;

fn matches(filter: &str, topic: &str) -> bool {
    match filter {
        "#" => true,
        "a/+" | "a/#" => topic.starts_with("a/"),
        "+/b" => topic.ends_with("/b"),
        exact => exact == topic,
    }
}

/// A subscription as the session has it.
#[derive(Debug, Clone)]
struct Sub {
    qos: u8,
    /// Grows when the filter is subscribed anew, not when it is changed.
    life: u32,
    /// All identifiers that it had in this life.
    ids: BTreeSet<u32>,
}

/// A message that was published, and what waited for it then: filter and life.
#[derive(Debug)]
struct Published {
    topic: &'static str,
    wanted: Vec<(&'static str, u32)>,
}

struct Walk {
    version: Version,
    random: Random,
    subs: BTreeMap<&'static str, Sub>,
    published: Vec<Published>,
    /// Seen and not acked: id by number.
    under_way: BTreeMap<usize, u16>,
    /// Acked.
    done: BTreeSet<usize>,
    last_id: u32,
}

impl Walk {
    fn new(version: Version, seed: u64) -> Self {
        Self {
            version,
            random: Random(seed),
            subs: BTreeMap::new(),
            published: Vec::new(),
            under_way: BTreeMap::new(),
            done: BTreeSet::new(),
            last_id: 0,
        }
    }

    /// Whether a subscription that wanted it is still there.
    fn must_come(&self, n: usize) -> bool {
        let wanted = &self.published[n].wanted;
        wanted.iter().any(|(filter, life)| self.subs.get(filter).is_some_and(|s| s.life == *life))
    }

    fn publish(&mut self, writer: &mut Client) {
        for _ in 0..1 + self.random.below(4) {
            let topic = TOPICS[self.random.below(TOPICS.len())];
            let qos = 1 + self.random.below(2) as u8;
            let found = self.subs.iter().filter(|(f, sub)| sub.qos > 0 && matches(f, topic));
            let wanted = found.map(|(filter, sub)| (*filter, sub.life)).collect();
            assert!(writer.publish(topic, self.published.len().to_string(), qos) < 0x80);
            self.published.push(Published { topic, wanted });
        }
    }

    fn change(&mut self, session: &mut Client) {
        let filter = FILTERS[self.random.below(FILTERS.len())];
        if self.random.below(3) == 0 {
            session.unsubscribe(&[filter]);
            self.subs.remove(filter);
            return;
        }
        let qos = self.random.below(3) as u8;
        self.last_id += 1;
        let id = self.last_id;
        let properties = [prop::subscription_id(id)];
        let properties = if self.version == Version::V5 { &properties[..] } else { &[] };
        assert_eq!(session.subscribe_as(&[Filter::new(filter, qos)], properties), [qos]);
        let sub = self.subs.entry(filter).or_insert(Sub { qos, life: id, ids: BTreeSet::new() });
        sub.qos = qos;
        sub.ids.insert(id);
    }

    /// A message came: it is one that may, and not one that was acked.
    fn check(&self, got: &Message) -> usize {
        let n: usize = got.text().parse().expect("a number");
        let message = &self.published[n];
        assert_eq!(got.topic, message.topic);
        assert!(!message.wanted.is_empty(), "nobody had asked for it: {got:?}, {message:?}");
        assert!(!self.done.contains(&n), "a second copy: {got:?}, {message:?}");
        if let Some(id) = self.under_way.get(&n) {
            assert_again(got, *id, &n.to_string());
        }
        if self.version == Version::V5 {
            let told = ids(got);
            for (filter, life) in &message.wanted {
                if let Some(sub) = self.subs.get(filter)
                    && sub.life == *life
                {
                    let any = sub.ids.iter().any(|id| told.contains(id));
                    assert!(any, "{got:?} does not tell {filter} of {:?}", self.subs);
                }
            }
        }
        n
    }

    /// Reads what is there; acks the first so many.
    fn read(&mut self, session: &mut Client, acks: usize) {
        session.send(&[0xC0, 0]);
        let mut came = Vec::new();
        loop {
            match session.packet() {
                Packet::Pingresp => break,
                Packet::Publish(got) => {
                    let n = self.check(&got);
                    self.under_way.insert(n, got.id);
                    came.push((n, got));
                }
                other => panic!("{other:?}"),
            }
        }
        for (n, got) in came.into_iter().take(acks) {
            self.finish(session, n, &got);
        }
        session.ping();
    }

    fn finish(&mut self, session: &mut Client, n: usize, got: &Message) {
        if got.qos == 1 {
            session.ack(4, got.id, 0);
        } else {
            session.ack(5, got.id, 0);
            assert_eq!(session.wait_ack(6, got.id), 0);
            session.ack(7, got.id, 0);
        }
        self.under_way.remove(&n);
        self.done.insert(n);
    }

    /// Reads all that is left, up to marks on every topic.
    fn drain(&mut self, session: &mut Client, writer: &mut Client) {
        while (0..self.published.len()).any(|n| self.must_come(n) && !self.done.contains(&n)) {
            let got = session.unacked();
            let n = self.check(&got);
            self.finish(session, n, &got);
        }
        session.subscribe(&[("end", 1)]);
        writer.publish("end", "end", 1);
        loop {
            let got = session.unacked();
            if got.topic == "end" {
                return;
            }
            // Of a subscription that was given up: may come, once.
            let n = self.check(&got);
            self.finish(session, n, &got);
        }
    }

    fn walk(&mut self, server: &Server) {
        begin(server, self.version, "s").disconnect();
        let mut writer = client(server, self.version, "writer");
        for _ in 0..STEPS {
            let mut session = resume(server, self.version, "s");
            let acks = self.random.below(3);
            self.read(&mut session, acks);
            for _ in 0..1 + self.random.below(2) {
                self.change(&mut session);
            }
            if self.random.below(2) == 0 {
                session.disconnect()
            } else {
                session.vanish()
            }
            self.publish(&mut writer);
        }
        let mut session = resume(server, self.version, "s");
        self.drain(&mut session, &mut writer);
    }
}

fn walks(version: Version) {
    for _ in 0..6 {
        let seed = RandomState::new().build_hasher().finish() | 1;
        println!("seed {seed}");
        let server = start(&[("mqtt.max_inflight", "3")]);
        Walk::new(version, seed).walk(&server);
    }
}

#[test]
fn each_comes_once_whatever_is_subscribed_in_between() {
    walks(Version::V311);
}

#[test]
fn each_comes_once_and_names_its_subscriptions() {
    walks(Version::V5);
}

/// The story that the walks are about, told once: by hand and in order.
#[test]
fn one_copy_with_all_identifiers() {
    let server = start(&[("mqtt.max_inflight", "1")]);
    let version = Version::V5;
    let subscribe = |session: &mut Client, filter: &str, qos: u8, id: u32| {
        let filter = Filter::new(filter, qos);
        assert_eq!(session.subscribe_as(&[filter], &[prop::subscription_id(id)]), [qos]);
    };
    let mut writer = client(&server, version, "writer");
    let mut publish = |n: u32| writer.publish("a/b", n.to_string(), 2);
    let mut session = begin(&server, version, "s");
    subscribe(&mut session, "a/b", 1, 1);
    session.disconnect();
    publish(0);
    let mut session = resume(&server, version, "s");
    assert_eq!(session.unacked().text(), "0");
    subscribe(&mut session, "a/+", 2, 2);
    session.disconnect();
    publish(1);
    let mut session = resume(&server, version, "s");
    subscribe(&mut session, "#", 1, 3);
    session.disconnect();
    publish(2);
    let mut session = resume(&server, version, "s");
    session.unsubscribe(&["a/+"]);
    session.disconnect();
    publish(3);
    let mut session = resume(&server, version, "s");
    subscribe(&mut session, "a/+", 1, 4);
    session.unsubscribe(&["a/b"]);
    session.disconnect();
    publish(4);
    let mut session = resume(&server, version, "s");
    let mut got = BTreeMap::new();
    // 0 was under way; 1 was wanted by filters that are both given up, and may be gone.
    while ![0, 2, 3, 4].iter().all(|n| got.contains_key(n)) {
        let message = session.message();
        let n: u32 = message.text().parse().expect("a number");
        assert_eq!(got.insert(n, ids(&message)), None, "a second copy of {n}");
    }
    for (n, wanted) in [(2, vec![3]), (3, vec![3]), (4, vec![3, 4])] {
        let told = &got[&n];
        assert!(wanted.iter().all(|id| told.contains(id)), "{n}: {told:?}");
    }
}
