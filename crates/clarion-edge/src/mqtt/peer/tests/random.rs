//! Random valid packets of a client, with a shard that answers late and in order: nothing panics, nothing is answered twice, and
//! both count the same places in the window.

use super::subscribe::filter;
use super::*;
use clarion_core::port::outlet::Given;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};

const TOPICS: [&str; 7] = ["a/b", "long/topic", "user/bob", "u-bob", "user/eve", "$x", "secret"];
const WINDOW: usize = 8;

#[derive(Debug, Clone)]
enum Step {
    Publish { topic: usize, qos: u8, id: u16, alias: u16, life: Option<u32> },
    Answer { code: Option<usize>, readers: bool },
    Pubrel(usize),
    Give { topic: usize, qos: u8, ids: usize },
    GiveFeed(u64),
    Ack { nth: usize, refused: bool },
    Subscribe { topics: Vec<usize>, qos: u8 },
    Unsubscribe(Vec<usize>),
    Ping,
    Bytes(Vec<u8>),
}

fn step() -> impl Strategy<Value = Step> {
    let topic = || 0..TOPICS.len();
    prop_oneof![
        6 => (topic(), 0..3_u8, 1..8_u16, 0..3_u16, proptest::option::of(0..5_u32))
            .prop_map(|(topic, qos, id, alias, life)| Step::Publish { topic, qos, id, alias, life }),
        5 => (proptest::option::of(0..3_usize), any::<bool>())
            .prop_map(|(code, readers)| Step::Answer { code, readers }),
        2 => (0..8_usize).prop_map(Step::Pubrel),
        5 => (0..2_usize, 0..3_u8, 0..3_usize)
            .prop_map(|(topic, qos, ids)| Step::Give { topic, qos, ids }),
        3 => (0..9_u64).prop_map(Step::GiveFeed),
        6 => (0..8_usize, any::<bool>()).prop_map(|(nth, refused)| Step::Ack { nth, refused }),
        2 => (prop::collection::vec(topic(), 1..4), 0..3_u8)
            .prop_map(|(topics, qos)| Step::Subscribe { topics, qos }),
        1 => prop::collection::vec(topic(), 1..4).prop_map(Step::Unsubscribe),
        1 => Just(Step::Ping),
        1 => prop::collection::vec(any::<u8>(), 1..12).prop_map(Step::Bytes),
    ]
}

/// What a client and a shard know.
struct World {
    session: Session,
    /// Publishes whose answer is awaited, in order; QoS 0 has none.
    awaited: VecDeque<(u8, u16)>,
    /// Tokens that the shard has.
    tokens: VecDeque<u32>,
    /// Ids of QoS 2 with PUBREC.
    received: Vec<u16>,
    /// Deliveries in flight: QoS, and whether PUBREL came.
    inflight: BTreeMap<u16, (u8, bool)>,
    feed: bool,
    over: bool,
}

impl World {
    fn outstanding(&self) -> usize {
        self.awaited.len() + self.received.len()
    }

    /// Reads what was written.
    fn read(&mut self, payload_follows: &[u8]) {
        self.session.out.extend_from_slice(payload_follows);
        let bytes = self.session.said();
        let mut seen = Vec::new();
        packets(self.session.version, &bytes, |packet| {
            seen.push(match packet {
                Packet::Puback(ack) => (1, ack.packet_id, ack.reason),
                Packet::Pubrec(ack) => (2, ack.packet_id, ack.reason),
                Packet::Publish(publish) if publish.qos != Qos::AtMostOnce => {
                    let qos = publish.qos as u8;
                    let before = self.inflight.insert(publish.packet_id, (qos, false));
                    assert_eq!(before, None, "an id that is in use");
                    return;
                }
                Packet::Pubrel(ack) => {
                    if let Some(entry) = self.inflight.get_mut(&ack.packet_id) {
                        entry.1 = true;
                    }
                    return;
                }
                _ => return,
            });
        });
        for (qos, id, reason) in seen {
            assert_eq!(self.awaited.pop_front(), Some((qos, id)), "answers keep the order");
            if qos == 2 && reason < 0x80 {
                self.received.push(id);
            }
        }
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Publish(publish) if publish.token != 0 => self.tokens.push_back(publish.token),
            Ask::Publish(_) | Ask::Nothing => {}
            Ask::Subscribe { token, list } => {
                self.feed |= list.iter().any(|one| one.feed);
                self.session.peer.subscribed(token, true, &mut self.session.out);
            }
            Ask::Unsubscribe { token, list } => {
                self.feed &= !list.iter().any(|one| one.feed);
                let existed = vec![true; list.len()];
                self.session.peer.unsubscribed(token, &existed, &mut self.session.out);
            }
            Ask::Freed { .. } | Ask::Received { .. } | Ask::Complete { .. } => {
                panic!("nothing was acked")
            }
            Ask::More => {}
            Ask::End { .. } => self.over = true,
        }
    }

    fn run(&mut self, step: Step) {
        let version = self.session.version;
        match step {
            Step::Publish { topic, qos, id, alias, life } => {
                let used = self.awaited.iter().any(|(_, other)| *other == id)
                    || self.received.contains(&id);
                if qos > 0 && (used || self.outstanding() >= 5) {
                    return;
                }
                let (qos, id) = if qos == 0 { (0, 0) } else { (qos, id) };
                let mut properties = Vec::new();
                properties.extend(life.map(Property::MessageExpiry));
                properties.extend((alias > 0).then_some(Property::TopicAlias(alias)));
                let kind = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)];
                let topic = TOPICS[topic];
                let bytes = publish_bytes(version, topic, kind, id, &properties, b"hi");
                if qos > 0 {
                    self.awaited.push_back((qos, id));
                }
                let ask = self.session.hear(&bytes);
                self.asked(ask);
            }
            Step::Answer { code, readers } => {
                let Some(token) = self.tokens.pop_front() else { return };
                let codes = [Code::Forbidden, Code::Overloaded, Code::StoreUnavailable];
                let result = code.map_or(Ok(readers), |code| Err(codes[code]));
                self.over |= self.session.published(token, result) == Goes::End;
            }
            Step::Pubrel(nth) => {
                if self.received.is_empty() {
                    return;
                }
                let id = self.received.remove(nth % self.received.len());
                let ask = self.session.ack(AckKind::Pubrel, id, 0);
                self.asked(ask);
            }
            Step::Give { topic, qos, ids } => self.give(topic, qos, ids),
            Step::GiveFeed(seq) => self.give_feed(seq),
            Step::Ack { nth, refused } => self.ack(nth, refused),
            Step::Subscribe { topics, qos } => {
                let qos = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(qos)];
                let filters: Vec<_> = topics.iter().map(|&at| filter(TOPICS[at], qos)).collect();
                let ask = self.session.subscribe_with(&filters, &[]);
                self.asked(ask);
            }
            Step::Unsubscribe(topics) => {
                let mut bytes = Vec::new();
                let topics = topics.iter().map(|&at| Topic::from(TOPICS[at]));
                mqtt::unsubscribe(&mut bytes, version, 4, topics, std::iter::empty());
                let ask = self.session.hear(&bytes);
                self.asked(ask);
            }
            Step::Ping => {
                self.session.hear(&[0xC0, 0]);
            }
            Step::Bytes(bytes) => self.noise(&bytes),
        }
        self.read(b"");
    }

    fn give(&mut self, topic: usize, qos: u8, ids: usize) {
        if qos > 0 && self.inflight.len() >= WINDOW {
            return;
        }
        let message = on_topic(TOPICS[topic], b"hi");
        let ids = &[1, 200][..ids];
        let delivery = Delivery {
            message: &message,
            qos,
            retain: false,
            ids,
            check: true,
            place: None,
            number: None,
            dup: false,
            now: NOW,
        };
        if self.session.peer.give(delivery, &mut self.session.out) == Gave::Head {
            self.read(b"hi");
        }
    }

    fn give_feed(&mut self, seq: u64) {
        let numbered = self.session.peer.feed_is_numbered();
        if !self.feed || numbered && self.inflight.len() >= WINDOW {
            return;
        }
        let content = Content { payload: b"yo"[..].into(), ..Content::default() };
        let message = Message { epoch: 1, seq, ..message(Address::user("bob").unwrap(), content) };
        let given = Given { message: &message, start: seq, attempt: 1, replayed: false, now: NOW };
        assert_eq!(self.session.peer.takes(given, 2), Taking::Yes);
        self.session.peer.before(given, 2, &mut self.session.out);
        self.read(b"yo");
    }

    fn ack(&mut self, nth: usize, refused: bool) {
        let Some((&id, &(qos, released))) = self.inflight.iter().nth(nth) else { return };
        let refused = refused && self.session.version == Version::V5 && !released;
        let code = if refused { 0x80 } else { 0 };
        let (kind, frees) = match (qos, released) {
            (1, _) => (AckKind::Puback, true),
            (_, false) => (AckKind::Pubrec, refused),
            (_, true) => (AckKind::Pubcomp, true),
        };
        let ask = self.session.ack(kind, id, code);
        assert_eq!(matches!(ask, Ask::Freed { .. }), frees, "{ask:?}");
        if frees {
            self.inflight.remove(&id);
        }
    }

    /// Whatever a client writes; then all bets are off, but for panics.
    fn noise(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let heard = self.session.peer.hear(rest, NOW, &mut self.session.out);
            match heard.ask {
                Ask::More => break,
                Ask::Subscribe { token, .. } => {
                    self.session.peer.subscribed(token, true, &mut self.session.out);
                }
                Ask::Unsubscribe { token, .. } => {
                    self.session.peer.unsubscribed(token, &[], &mut self.session.out);
                }
                _ => {}
            }
            assert!(heard.consumed > 0);
            rest = &rest[heard.consumed..];
        }
        self.session.said();
        self.over = true;
    }
}

proptest! {
    #[test]
    fn a_client_and_its_peer_agree(
        version in prop::sample::select(VERSIONS.to_vec()),
        aliases in 0..4_u16,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let say = Say::new(version).with([Property::TopicAliasMaximum(aliases)]);
        let mut setup = say.setup(config());
        setup.principal = setup.principal.under(Some(&AclCell::new(all_but("topic:secret"))));
        let mut world = World {
            session: Session::of(setup),
            awaited: VecDeque::new(),
            tokens: VecDeque::new(),
            received: Vec::new(),
            inflight: BTreeMap::new(),
            feed: false,
            over: false,
        };
        for step in steps {
            world.run(step);
            if world.over {
                break;
            }
            prop_assert_eq!(world.session.peer.inflight.len(), world.inflight.len());
            prop_assert_eq!(world.session.peer.inbound.len(), world.outstanding());
        }
    }
}
