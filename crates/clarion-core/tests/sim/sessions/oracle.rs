//! What must hold for sessions, over plain sets.

use super::committer::Told;
use super::node::Session;
use super::packets::ToClient;
use super::store::Store;
use super::{BodyId, Cid, Msg};
use crate::invariant;
use clarion_core::Address;
use clarion_core::durable::record;
use clarion_core::port::peer::OutState;
use std::collections::{BTreeMap, BTreeSet};

/// Which filters of which sessions a message was published to.
pub(crate) type Entitled = BTreeMap<u64, BTreeSet<Box<str>>>;

/// What comes in order: publisher, topic, QoS (of the publish and of the delivery) and filter.
type Line = (Cid, &'static str, (u8, u8), Box<str>);

/// What was sent under a number and is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    id: u16,
    body: BodyId,
    twice: bool,
    /// The node has its PUBREC.
    received: bool,
}

#[derive(Default)]
struct Model {
    /// Published to it: the filters that were not unsubscribed since.
    entitled: BTreeMap<BodyId, BTreeSet<Box<str>>>,
    /// Of these filters what became QoS 0 and runs out.
    lowered: BTreeSet<(Box<str>, BodyId)>,
    /// Through which filter it goes.
    through: BTreeMap<BodyId, Box<str>>,
    /// With which QoS it was given; some with both, when that of its subscription changed: they lose their place in the order.
    qos: BTreeMap<BodyId, u8>,
    mixed: BTreeSet<BodyId>,
    got: BTreeSet<BodyId>,
    accepted: BTreeSet<BodyId>,
    refused: BTreeSet<BodyId>,
    /// The last message of each line; and all messages that it had.
    last: BTreeMap<Line, u64>,
    messages: BTreeSet<(Cid, u64)>,
    sent: Vec<Sent>,
    /// The node died since: what QoS 1 was out is not known.
    crashed: bool,
}

#[derive(Default)]
pub(crate) struct Oracle {
    sessions: BTreeMap<u64, Model>,
    /// The first body of each publish.
    first: BTreeMap<(Cid, u64), BodyId>,
    /// What nobody had to have later when it came: a second copy of it comes late.
    live: BTreeSet<(Cid, u64)>,
    /// Sessions with a stored end.
    ended: BTreeSet<u64>,
}

impl Oracle {
    pub(crate) fn appended(&mut self, store: &Store, body: BodyId, entitled: &Entitled) {
        let msg = store.bodies[body].msg;
        let first = *self.first.entry((msg.publisher, msg.number)).or_insert(body);
        let once = msg.qos == 1 || first == body;
        invariant!(once, "a QoS 2 publish is appended once", "{msg:?}, body {body}");
        for (number, filters) in entitled {
            if let Some(model) = self.sessions.get_mut(number) {
                model.entitled.insert(body, filters.clone());
            }
        }
    }

    pub(crate) fn lived(&mut self, msg: Msg) {
        self.live.insert((msg.publisher, msg.number));
    }

    pub(crate) fn told(&mut self, told: &Told) {
        match told {
            Told::Began(number) => {
                self.sessions.insert(*number, Model::default());
            }
            Told::Gone(number) => {
                self.sessions.remove(number);
            }
            Told::Lowered(number, filter) => {
                let Some(model) = self.sessions.get_mut(number) else { return };
                for (body, filters) in &model.entitled {
                    if filters.contains(*filter) {
                        model.lowered.insert(((*filter).into(), *body));
                    }
                }
            }
            Told::Raised(number, filter) => {
                if let Some(model) = self.sessions.get_mut(number) {
                    model.lowered.retain(|(other, _)| **other != **filter);
                }
            }
            Told::Unsubscribed(number, filter) => {
                let Some(model) = self.sessions.get_mut(number) else { return };
                for (body, filters) in &mut model.entitled {
                    if !model.lowered.contains(&((*filter).into(), *body)) {
                        filters.remove(*filter);
                    }
                }
            }
        }
    }

    /// A session's record is stored.
    pub(crate) fn recorded(&mut self, number: u64, ended: bool) {
        if ended {
            self.ended.insert(number);
        } else {
            let was = self.ended.remove(&number);
            if let Some(model) = self.sessions.get_mut(&number) {
                model.crashed = !was;
            }
        }
    }

    pub(crate) fn given(&mut self, number: u64, body: BodyId, filter: &str, qos: u8) {
        let Some(model) = self.sessions.get_mut(&number) else { return };
        let mine = model.entitled.contains_key(&body);
        invariant!(mine, "nobody gets what was not published to them", "{number}: body {body}");
        if *model.qos.entry(body).or_insert(qos) != qos {
            model.mixed.insert(body);
        }
        let through = model.through.entry(body).or_insert_with(|| filter.into());
        invariant!(
            **through == *filter,
            "a message goes through one subscription",
            "{number}: body {body} through {through} and {filter}"
        );
    }

    /// Something goes to a client: what must be stored before is stored.
    pub(crate) fn sent(&mut self, store: &Store, session: &Session, packet: &ToClient) {
        let number = session.number;
        let Some(model) = self.sessions.get_mut(&number) else { return };
        let inbound = |pid| store.records.get(&record::inbound_key(number, pid));
        match *packet {
            ToClient::Publish { id, qos, dup, body } => {
                if qos == 2 {
                    let window = store.window(number);
                    let committed = window.outs.iter().any(|out| {
                        let log = &window.logs[out.place.log as usize];
                        out.number == id
                            && out.state == OutState::ExactlyOnce
                            && store.bodies[body].places.iter().any(|(channel, seq)| {
                                channel.as_str() == &**log && *seq == out.place.seq
                            })
                    });
                    invariant!(
                        committed,
                        "a QoS 2 number is stored before it is shown",
                        "{number}: {id}, body {body}"
                    );
                }
                if !model.sent.iter().any(|sent| sent.id == id && sent.body == body) {
                    let used = model.sent.iter().any(|sent| sent.id == id);
                    invariant!(
                        !used,
                        "a number that is out is given to nothing else",
                        "{number}: {id}, body {body}"
                    );
                    model.sent.push(Sent { id, body, twice: qos == 2, received: false });
                } else {
                    invariant!(dup, "what comes again says so", "{number}: {id}, body {body}");
                }
            }
            ToClient::Pubrel(id) => {
                let window = store.window(number);
                let out = window.outs.iter().find(|out| out.number == id);
                // What cannot be given any more is closed.
                let closed = out.is_some_and(|out| {
                    let log = &window.logs[out.place.log as usize];
                    let log = Address::parse_any(log).expect("an address");
                    let body = store.body_at(&log, out.place.seq).expect("it was appended");
                    store.bodies[body].erased
                });
                let stored = closed || out.is_some_and(|out| out.state == OutState::Released);
                invariant!(stored, "PUBREL is sent after the PUBREC is stored", "{number}: {id}");
            }
            ToClient::Pubrec(pid) => {
                invariant!(
                    inbound(pid).is_some(),
                    "PUBREC is sent after its record is stored",
                    "{number}: {pid}"
                );
            }
            ToClient::Pubcomp(pid) => {
                invariant!(
                    inbound(pid).is_none(),
                    "PUBCOMP is sent after its record is gone",
                    "{number}: {pid}"
                );
            }
            ToClient::Suback(filter, options) => {
                let subs = store.subs(number);
                let slot = subs.find(filter, None).and_then(|slot| subs.get(slot));
                let stored = slot.is_some_and(|sub| sub.options == options);
                invariant!(stored, "SUBACK is sent after it is stored", "{number}: {filter}");
            }
            ToClient::Connack { .. } | ToClient::Puback(_) | ToClient::Unsuback => {}
        }
    }

    /// The node has PUBREC.
    pub(crate) fn received(&mut self, number: u64, id: u16) {
        let sent = self.sessions.get_mut(&number).map(|model| &mut model.sent);
        if let Some(sent) = sent.into_iter().flatten().find(|sent| sent.id == id) {
            sent.received = true;
        }
    }

    /// The node has the last ack.
    pub(crate) fn over(&mut self, number: u64, id: u16) {
        if let Some(model) = self.sessions.get_mut(&number) {
            model.sent.retain(|sent| sent.id != id);
        }
    }

    /// What a session is given before anything else: after an orderly end all that was out, in the order of sending; after a crash
    /// what was out of QoS 2.
    pub(crate) fn comes_again(&mut self, store: &Store, number: u64, packets: &[ToClient]) {
        let Some(model) = self.sessions.get_mut(&number) else { return };
        let crashed = std::mem::take(&mut model.crashed);
        if crashed {
            model.sent.retain(|sent| sent.twice);
        }
        // QoS 1 whose body was erased is passed.
        model.sent.retain(|sent| sent.twice || !store.bodies[sent.body].erased);
        let release = |sent: &Sent| sent.received || store.bodies[sent.body].erased;
        let mut expected = model.sent.iter();
        for packet in packets {
            let fits = |sent: &Sent| match *packet {
                ToClient::Publish { id, body, dup, .. } => {
                    dup && (id, body) == (sent.id, sent.body) && (crashed || !release(sent))
                }
                ToClient::Pubrel(id) => id == sent.id && (crashed || release(sent)),
                _ => false,
            };
            let found = if crashed {
                expected.find(|sent| fits(sent)).is_some()
            } else {
                expected.next().is_some_and(fits)
            };
            // After a crash the record may know more: what was stored but not sent, and what was over.
            invariant!(
                found || crashed,
                "what is out comes again under its number and in its order",
                "{number}: {packet:?} of {packets:?}, out {:?}",
                model.sent
            );
            if !found {
                expected = model.sent.iter();
            }
        }
        for sent in &model.sent {
            let again = packets.iter().any(|packet| match *packet {
                ToClient::Publish { id, .. } | ToClient::Pubrel(id) => id == sent.id,
                _ => false,
            });
            invariant!(again, "what is out comes again", "{number}: {sent:?} not in {packets:?}");
        }
        if crashed {
            // What is out now is what the record knew; those that PUBCOMP was lost of are out again.
            let known = std::mem::take(&mut model.sent);
            let out = |packet: &ToClient| match *packet {
                ToClient::Publish { id, body, .. } => {
                    Some(Sent { id, body, twice: true, received: false })
                }
                ToClient::Pubrel(id) => {
                    let body = known.iter().find(|sent| sent.id == id).map(|sent| sent.body);
                    let body = body.unwrap_or(usize::MAX);
                    Some(Sent { id, body, twice: true, received: true })
                }
                _ => None,
            };
            model.sent = packets.iter().filter_map(out).collect();
        }
    }

    /// A client has a message that it did not hold already.
    pub(crate) fn delivered(
        &mut self,
        store: &Store,
        number: u64,
        body: BodyId,
        qos: u8,
        accepted: bool,
    ) {
        let Some(model) = self.sessions.get_mut(&number) else { return };
        let once = !model.accepted.contains(&body);
        invariant!(once, "QoS 2 is exactly once", "{number}: body {body} with QoS {qos}");
        let msg = store.bodies[body].msg;
        let message = (msg.publisher, msg.number);
        if !accepted {
            // It had its turn.
            model.messages.insert(message);
            return;
        }
        model.got.insert(body);
        if qos == 2 {
            model.accepted.insert(body);
        }
        let first = self.first[&message] == body && !self.live.contains(&message);
        if first && model.messages.insert(message) && !model.mixed.contains(&body) {
            let through = model.through.get(&body).cloned().unwrap_or_default();
            let last =
                model.last.entry((msg.publisher, msg.topic, (msg.qos, qos), through)).or_default();
            invariant!(
                *last < msg.number,
                "each publisher's messages come in order",
                "{number}: {msg:?} after {last}"
            );
            *last = msg.number;
        }
    }

    pub(crate) fn refused(&mut self, number: u64, body: BodyId) {
        if let Some(model) = self.sessions.get_mut(&number) {
            model.refused.insert(body);
        }
    }

    pub(crate) fn missing(&self, store: &Store, number: u64) -> Option<String> {
        let model = self.sessions.get(&number)?;
        let owed = model.entitled.iter().filter(|(_, filters)| !filters.is_empty());
        let mut missing = owed.map(|(body, _)| *body).filter(|body| {
            !store.bodies[*body].erased
                && !model.got.contains(body)
                && !model.refused.contains(body)
        });
        missing.next().map(|body| {
            let entitled = &model.entitled[&body];
            format!("session {number} never got body {body}, published to {entitled:?}")
        })
    }
}
