//! The codec against two others, on valid packets and what chance makes of them: what the others take and refuse, and what
//! they find in it, must be the same but for what [`allowed::ALLOWED`] lists.

mod allowed;
mod inputs;
mod naive;
mod oracles;

use super::*;
use allowed::ALLOWED;
use inputs::{Chance, SELDOM, mutated, valid};
use oracles::Verdict;

const ROUNDS: usize = 60_000;

/// 3.1 is seldom, since only one of the others has it.
const OFTEN: [Version; 7] = [
    Version::V31,
    Version::V311,
    Version::V5,
    Version::V311,
    Version::V5,
    Version::V311,
    Version::V5,
];

/// Which of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Rmqtt,
    Core,
    Both,
}

/// What both made of an input.
struct Case<'a> {
    bytes: &'a [u8],
    /// What stands behind the header, if all of it does.
    body: Option<&'a [u8]>,
    /// Of the connection, and for a CONNECT what it says.
    version: Version,
    from: Side,
    ours: Result<Decoded<'a>, Malformed>,
    theirs: Verdict,
}

impl Case<'_> {
    fn kind(&self) -> u8 {
        self.bytes[0] >> 4
    }

    fn is_connect_31(&self) -> bool {
        self.kind() == 1 && self.body.is_some_and(|body| body.starts_with(b"\0\x06MQIsdp\x03"))
    }

    /// What the other wrote, read with topics of any form.
    fn reading(&self) -> Option<Packet<'_>> {
        let Verdict::Taken(again) = &self.theirs else { return None };
        let read = |from| match decode_any(again, self.version, from, &FREE) {
            Ok(Decoded::Packet { packet, .. }) => Some(packet),
            _ => None,
        };
        read(Side::Client).or_else(|| read(Side::Server))
    }

    /// We take `bytes` and find what the other found in the input, apart from properties with their default values.
    fn agrees_on(&self, bytes: &[u8]) -> bool {
        match (decode_any(bytes, self.version, self.from, &STRICT), self.reading()) {
            (Ok(Decoded::Packet { packet, .. }), Some(theirs)) => {
                facts(&packet, true) == facts(&theirs, true)
            }
            _ => false,
        }
    }

    fn is_same(&self) -> bool {
        match (&self.ours, &self.theirs) {
            (Ok(Decoded::More), theirs) => *theirs == Verdict::More,
            (Err(_), theirs) => matches!(theirs, Verdict::Refused(_)),
            (Ok(Decoded::Packet { packet, .. }), Verdict::Taken(again)) => {
                match decode_any(again, self.version, self.from, &STRICT) {
                    Ok(Decoded::Packet { packet: theirs, len }) => {
                        len == again.len() && facts(packet, false) == facts(&theirs, false)
                    }
                    _ => false,
                }
            }
            (Ok(Decoded::Packet { .. }), _) => false,
        }
    }
}

/// What the property says when it is left out.
fn is_default(property: &Property<'_>) -> bool {
    use Property as P;
    matches!(
        property,
        P::SessionExpiry(0)
            | P::WillDelay(0)
            | P::PayloadFormat(0)
            | P::RequestProblemInfo(true)
            | P::RequestResponseInfo(false)
            | P::ReceiveMaximum(0xffff)
            | P::TopicAliasMaximum(0)
            | P::RetainAvailable(true)
            | P::WildcardAvailable(true)
            | P::SubscriptionIdsAvailable(true)
            | P::SharedAvailable(true)
    )
}

/// User properties and subscription identifiers in their order, the others in any.
fn properties_facts(properties: &Properties<'_>, but_defaults: bool) -> [Vec<String>; 3] {
    let mut facts: [Vec<String>; 3] = Default::default();
    for property in properties.iter().filter(|property| !(but_defaults && is_default(property))) {
        let list = match property {
            Property::UserProperty(..) => 0,
            Property::SubscriptionId(_) => 1,
            _ => 2,
        };
        facts[list].push(format!("{property:?}"));
    }
    facts[2].sort();
    facts
}

/// What a packet says, in one form.
fn facts(packet: &Packet<'_>, but_defaults: bool) -> String {
    let none = Properties::default();
    let of = |properties: &Properties<'_>| properties_facts(properties, but_defaults);
    match packet {
        Packet::Connect(it) => {
            let will = it
                .will
                .as_ref()
                .map(|will| (Will { properties: none, ..will.clone() }, of(&will.properties)));
            let rest = Connect { properties: none, will: None, ..it.clone() };
            format!("{rest:?} {will:?} {:?}", of(&it.properties))
        }
        Packet::Connack(it) => {
            format!("{:?} {:?}", Connack { properties: none, ..*it }, of(&it.properties))
        }
        Packet::Publish(it) => {
            format!("{:?} {:?}", Publish { properties: none, ..*it }, of(&it.properties))
        }
        Packet::Puback(it) | Packet::Pubrec(it) | Packet::Pubrel(it) | Packet::Pubcomp(it) => {
            format!("{:?} {:?}", Ack { properties: none, ..*it }, of(&it.properties))
        }
        Packet::Subscribe(it) => {
            let filters: Vec<_> = it.filters().collect();
            format!("SUBSCRIBE {} {filters:?} {:?}", it.packet_id, of(&it.properties))
        }
        Packet::Unsubscribe(it) => {
            let filters: Vec<_> = it.filters().collect();
            format!("UNSUBSCRIBE {} {filters:?} {:?}", it.packet_id, of(&it.properties))
        }
        Packet::Suback(it) | Packet::Unsuback(it) => {
            format!("{:?} {:?}", Suback { properties: none, ..*it }, of(&it.properties))
        }
        Packet::Disconnect(it) | Packet::Auth(it) => {
            format!("{:?} {:?}", Disconnect { properties: none, ..*it }, of(&it.properties))
        }
        Packet::Pingreq => "PINGREQ".to_owned(),
        Packet::Pingresp => "PINGRESP".to_owned(),
    }
}

/// What stands behind the header, when all of it does.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    match read::varint(&bytes[1..]) {
        read::Varint::Number { value, bytes: length_bytes, .. } => {
            let head = 1 + length_bytes;
            bytes.get(head..head + value as usize)
        }
        _ => None,
    }
}

#[derive(Default)]
struct Tally {
    inputs: usize,
    skipped: usize,
    both_take: usize,
    both_refuse: usize,
    both_wait: usize,
    allowed: Vec<usize>,
    unexplained: Vec<String>,
}

impl Tally {
    fn count(&mut self, by: By, case: &Case<'_>) {
        self.allowed.resize(ALLOWED.len(), 0);
        if case.is_same() {
            match &case.ours {
                Ok(Decoded::Packet { .. }) => self.both_take += 1,
                Ok(Decoded::More) => self.both_wait += 1,
                Err(_) => self.both_refuse += 1,
            }
            return;
        }
        let index =
            ALLOWED.iter().position(|it| (it.by == by || it.by == By::Both) && (it.applies)(case));
        match index {
            Some(index) => self.allowed[index] += 1,
            None => self.unexplained.push(format!(
                "{by:?} {:?} {:?} {}\n  ours {:?}\n  theirs {:?}",
                case.version,
                case.from,
                hex(case.bytes),
                case.ours,
                case.theirs
            )),
        }
    }
}

/// Compares on one input; counts what cannot be asked.
fn compare(tally: &mut Tally, bytes: &[u8], version: Version, from: Side) {
    let is_connect = bytes[0] >> 4 == 1;
    let version = if is_connect { connect_version(bytes).unwrap_or(version) } else { version };
    let five = version == Version::V5;
    let body = body(bytes);
    let case = |theirs| Case {
        bytes,
        body,
        version,
        from,
        ours: decode_any(bytes, version, from, &STRICT),
        theirs,
    };
    tally.inputs += 2;
    tally.count(By::Rmqtt, &case(oracles::rmqtt(bytes, five)));
    match body {
        Some(body) if version != Version::V31 => {
            tally.count(By::Core, &case(oracles::core(bytes[0], body, five)));
        }
        _ => tally.skipped += 1,
    }
}

#[test]
fn others_agree() {
    let mut chance = Chance::new(1);
    let mut tally = Tally::default();
    for (version, from, first, body) in SELDOM {
        compare(&mut tally, &packet(*first, body), *version, *from);
    }
    for round in 0..ROUNDS {
        let kind = 1 + (round % 15) as u8;
        let version = if kind == 15 { Version::V5 } else { OFTEN[round / 15 % OFTEN.len()] };
        let (from, packet) = valid(&mut chance, kind, version);
        whole(&packet, version, from, &STRICT);
        compare(&mut tally, &mutated(&mut chance, &packet), version, from);
    }
    let Tally { inputs, skipped, both_take, both_refuse, both_wait, allowed, unexplained } = tally;
    println!(
        "{inputs} inputs, {skipped} skipped: both take {both_take}, both refuse {both_refuse}, both wait {both_wait}"
    );
    for (difference, count) in ALLOWED.iter().zip(&allowed) {
        println!("{count:7} {:?}: {} ({})", difference.by, difference.name, difference.section);
    }
    let some: Vec<_> = unexplained.iter().take(10).map(String::as_str).collect();
    assert!(unexplained.is_empty(), "{}: {}", unexplained.len(), some.join("\n"));
    let stale: Vec<_> = ALLOWED.iter().zip(&allowed).filter(|(_, count)| **count == 0).collect();
    assert!(
        stale.is_empty(),
        "not seen: {:?}",
        stale.iter().map(|it| it.0.name).collect::<Vec<_>>()
    );
    // Half of the inputs are for the one that is asked less.
    assert!(skipped * 5 < inputs / 2, "{skipped} of {inputs} are skipped");
    assert!(both_take * 4 > inputs && both_refuse * 10 > inputs, "too much of one kind");
}
