//! What is encoded decodes to what was given, for all packets and versions, however the bytes arrive.

use super::*;
use Side::{Client, Server};
use Version::V5;
use proptest::collection::vec;
use proptest::prelude::*;

/// A property whose strings are owned.
#[derive(Debug, Clone)]
enum Given {
    Fixed(Property<'static>),
    Text(fn(&str) -> Property<'_>, String),
    Bytes(fn(&[u8]) -> Property<'_>, Vec<u8>),
    User(String, String),
}

impl Given {
    fn property(&self) -> Property<'_> {
        match self {
            Self::Fixed(property) => *property,
            Self::Text(make, text) => make(text),
            Self::Bytes(make, bytes) => make(bytes),
            Self::User(name, value) => Property::UserProperty(name, value),
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,9}", "[ -~äöü€𝄞]{0,40}", "[a-z]{120,300}"]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{1,9}(/[a-zäö]{0,5}){0,3}", "/", "[$]SYS/[a-z]{1,3}"]
}

fn filter() -> impl Strategy<Value = String> {
    let plain = prop_oneof![topic(), "([+]|[a-z]{1,3})(/([+]|[a-z]{0,3})){0,3}(/#)?", "#"];
    prop_oneof![3 => plain, 1 => "[$]share/[a-z]{1,4}/[+a-z](/#)?"]
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), 100..400)]
}

fn texts(make: fn(&str) -> Property<'_>) -> impl Strategy<Value = Given> {
    text().prop_map(move |text| Given::Text(make, text))
}

/// Any one property with the identifier that stands first.
fn one_property(id: u8) -> BoxedStrategy<Given> {
    use Property as P;
    fn fixed<T: std::fmt::Debug + Clone + 'static>(
        values: impl Strategy<Value = T> + 'static,
        make: fn(T) -> Property<'static>,
    ) -> BoxedStrategy<Given> {
        values.prop_map(move |value| Given::Fixed(make(value))).boxed()
    }
    match id {
        0x01 => fixed(0..=1_u8, P::PayloadFormat),
        0x02 => fixed(any::<u32>(), P::MessageExpiry),
        0x03 => texts(|text| P::ContentType(text)).boxed(),
        0x08 => topic().prop_map(|text| Given::Text(|text| P::ResponseTopic(text), text)).boxed(),
        0x09 => binary().prop_map(|it| Given::Bytes(|it| P::CorrelationData(it), it)).boxed(),
        0x0b => fixed(1..=268_435_455_u32, P::SubscriptionId),
        0x11 => fixed(any::<u32>(), P::SessionExpiry),
        0x12 => texts(|text| P::AssignedClientId(text)).boxed(),
        0x13 => fixed(any::<u16>(), P::ServerKeepAlive),
        0x15 => texts(|text| P::AuthMethod(text)).boxed(),
        0x16 => binary().prop_map(|it| Given::Bytes(|it| P::AuthData(it), it)).boxed(),
        0x17 => fixed(any::<bool>(), P::RequestProblemInfo),
        0x18 => fixed(any::<u32>(), P::WillDelay),
        0x19 => fixed(any::<bool>(), P::RequestResponseInfo),
        0x1a => texts(|text| P::ResponseInfo(text)).boxed(),
        0x1c => texts(|text| P::ServerReference(text)).boxed(),
        0x1f => texts(|text| P::ReasonString(text)).boxed(),
        0x21 => fixed(1..=u16::MAX, P::ReceiveMaximum),
        0x22 => fixed(any::<u16>(), P::TopicAliasMaximum),
        0x23 => fixed(1..=u16::MAX, P::TopicAlias),
        0x24 => fixed(0..=1_u8, P::MaximumQos),
        0x25 => fixed(any::<bool>(), P::RetainAvailable),
        0x26 => (text(), text()).prop_map(|(name, value)| Given::User(name, value)).boxed(),
        0x27 => fixed(1..=u32::MAX, P::MaximumPacketSize),
        0x28 => fixed(any::<bool>(), P::WildcardAvailable),
        0x29 => fixed(any::<bool>(), P::SubscriptionIdsAvailable),
        _ => fixed(any::<bool>(), P::SharedAvailable),
    }
}

/// Some of these, each once, then a few user properties.
fn properties(ids: &'static [u8]) -> impl Strategy<Value = Vec<Given>> {
    let each: Vec<_> =
        ids.iter().map(|id| proptest::option::weighted(0.4, one_property(*id))).collect();
    (each, vec(one_property(0x26), 0..3)).prop_map(|(some, users)| {
        let mut all: Vec<Given> = some.into_iter().flatten().collect();
        all.extend(users);
        all
    })
}

fn given(list: &[Given]) -> impl Iterator<Item = Property<'_>> + Clone {
    list.iter().map(Given::property)
}

/// What a version below 5 has of them.
fn expected(version: Version, list: &[Given]) -> Vec<Property<'_>> {
    if version == V5 { given(list).collect() } else { Vec::new() }
}

fn version() -> impl Strategy<Value = Version> {
    proptest::sample::select(VERSIONS.to_vec())
}

fn qos() -> impl Strategy<Value = Qos> {
    proptest::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

/// The packet, which must not be there before its last byte is, and is taken alone when more follows.
fn taken<'a>(bytes: &'a mut Vec<u8>, version: Version, from: Side) -> Packet<'a> {
    for end in 0..bytes.len() {
        let got = decode_any(&bytes[..end], version, from, &STRICT);
        assert_eq!(got, Ok(Decoded::More), "{end} of {}", hex(bytes));
    }
    let len = bytes.len();
    bytes.extend_from_slice(&[0xff, 0xff]);
    match decode_any(bytes, version, from, &STRICT) {
        Ok(Decoded::Packet { packet, len: taken }) if taken == len => packet,
        other => panic!("{}: {other:?}", hex(bytes)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn publish(
        version in version(), qos in qos(), dup: bool, retain: bool, topic in topic(),
        packet_id in 1..=u16::MAX, payload in binary(), from_client: bool,
        list in properties(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x23]),
    ) {
        let dup = dup && qos != Qos::AtMostOnce;
        let head = PublishHead { dup, qos, retain, topic: topic.as_bytes(), packet_id };
        let mut out = Vec::new();
        let len = publish_head(&mut out, version, &head, given(&list), payload.len());
        out.extend_from_slice(&payload);
        prop_assert_eq!(len, out.len());
        let from = if from_client { Client } else { Server };
        let Packet::Publish(got) = taken(&mut out, version, from) else { panic!("no PUBLISH") };
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
        let packet_id = if qos == Qos::AtMostOnce { 0 } else { packet_id };
        let properties = got.properties;
        let topic = Topic::from(&*topic);
        let payload = &*payload;
        let should = Publish { dup, qos, retain, topic, packet_id, properties, payload };
        prop_assert_eq!(got, should);
    }

    #[test]
    fn connect(
        version in version(), clean: bool, keep_alive: u16, client_id in "[a-z]{1,30}",
        will in proptest::option::of((topic(), binary(), qos(), any::<bool>())),
        user_name in proptest::option::of(text()), password in proptest::option::of(binary()),
        list in properties(&[0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x27]),
        will_list in properties(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18]),
    ) {
        let password = password.filter(|_| version == V5 || user_name.is_some());
        let will = will.as_ref().map(|(topic, payload, qos, retain)| Will {
            topic: Topic::from(&**topic),
            payload,
            qos: *qos,
            retain: *retain,
            properties: Properties::default(),
        });
        let mut should = Connect {
            version,
            clean,
            keep_alive,
            client_id: &client_id,
            will,
            user_name: user_name.as_deref(),
            password: password.as_deref(),
            properties: Properties::default(),
        };
        let mut out = Vec::new();
        super::super::connect(&mut out, &should, given(&list), given(&will_list));
        let Packet::Connect(got) = taken(&mut out, version, Client) else { panic!("no CONNECT") };
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
        should.properties = got.properties;
        if let (Some(is), Some(should)) = (&got.will, &mut should.will) {
            let properties: Vec<_> = is.properties.iter().collect();
            prop_assert_eq!(properties, expected(version, &will_list));
            should.properties = is.properties;
        }
        prop_assert_eq!(got, should);
    }

    #[test]
    fn connack(
        version in version(), present: bool,
        code in proptest::sample::select(vec![0, 0, 0, 1, 5, 0x80, 0x85, 0x9f]),
        list in properties(&[0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25,
            0x27, 0x28, 0x29, 0x2a]),
    ) {
        let code = if (version == V5) == (code >= 0x80) { code } else { 0 };
        let session_present = present && code == 0 && version != Version::V31;
        let mut out = Vec::new();
        super::super::connack(&mut out, version, session_present, code, given(&list));
        let Packet::Connack(got) = taken(&mut out, version, Server) else { panic!("no CONNACK") };
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
        let properties = got.properties;
        prop_assert_eq!(got, Connack { session_present, code, properties });
    }

    #[test]
    fn ack(
        version in version(), from_client: bool, packet_id in 1..=u16::MAX, fails: bool,
        kind in proptest::sample::select(
            vec![AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp]),
        list in properties(&[0x1f]),
    ) {
        let failure = if matches!(kind, AckKind::Puback | AckKind::Pubrec) { 0x87 } else { 0x92 };
        let reason = if fails { failure } else { 0 };
        let mut out = Vec::new();
        super::super::ack(&mut out, version, kind, packet_id, reason, given(&list));
        let from = if from_client { Client } else { Server };
        let got = match (kind, taken(&mut out, version, from)) {
            (AckKind::Puback, Packet::Puback(got))
            | (AckKind::Pubrec, Packet::Pubrec(got))
            | (AckKind::Pubrel, Packet::Pubrel(got))
            | (AckKind::Pubcomp, Packet::Pubcomp(got)) => got,
            (kind, other) => panic!("{kind:?}: {other:?}"),
        };
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
        let reason = if version == V5 { reason } else { 0 };
        prop_assert_eq!(got, Ack { packet_id, reason, properties: got.properties });
    }

    #[test]
    fn subscribe(
        version in version(), packet_id in 1..=u16::MAX,
        filters in vec((filter(), qos(), any::<[bool; 2]>(), 0..3_u8), 1..5),
        list in properties(&[0x0b]),
    ) {
        let five = version == V5;
        let filters: Vec<_> = filters.iter().map(|(filter, qos, [local, kept], handling)| {
            SubscribeFilter {
                filter: Topic::from(&**filter),
                qos: *qos,
                no_local: *local && five && !filter.starts_with("$share/"),
                retain_as_published: *kept && five,
                retain_handling: if five { *handling } else { 0 },
            }
        }).collect();
        let mut out = Vec::new();
        let copies = filters.iter().copied();
        super::super::subscribe(&mut out, version, packet_id, copies, given(&list));
        let Packet::Subscribe(got) = taken(&mut out, version, Client) else {
            panic!("no SUBSCRIBE")
        };
        prop_assert_eq!(got.packet_id, packet_id);
        prop_assert_eq!(got.filters().collect::<Vec<_>>(), filters);
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
    }

    #[test]
    fn unsubscribe(
        version in version(), packet_id in 1..=u16::MAX, filters in vec(filter(), 1..5),
        list in properties(&[]),
    ) {
        let filters: Vec<_> = filters.iter().map(|filter| Topic::from(&**filter)).collect();
        let mut out = Vec::new();
        let copies = filters.iter().copied();
        super::super::unsubscribe(&mut out, version, packet_id, copies, given(&list));
        let Packet::Unsubscribe(got) = taken(&mut out, version, Client) else {
            panic!("no UNSUBSCRIBE")
        };
        prop_assert_eq!(got.packet_id, packet_id);
        prop_assert_eq!(got.filters().collect::<Vec<_>>(), filters);
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
    }

    #[test]
    fn suback_and_unsuback(
        version in version(), packet_id in 1..=u16::MAX,
        codes in vec(proptest::sample::select(vec![0, 1, 2, 0x80, 0x87]), 1..200),
        list in properties(&[0x1f]), un: bool,
    ) {
        let codes: Vec<u8> = codes.into_iter().filter_map(|code| match (version, un) {
            (V5, true) => Some(if code < 0x80 { code / 2 * 0x11 } else { code }),
            (V5, false) => Some(code),
            (_, true) => None,
            (Version::V311, false) => Some(if code == 0x87 { 0x80 } else { code }),
            (Version::V31, false) => Some(code & 1),
        }).collect();
        let mut out = Vec::new();
        let got = if un {
            unsuback(&mut out, version, packet_id, &codes, given(&list));
            let Packet::Unsuback(got) = taken(&mut out, version, Server) else { panic!() };
            got
        } else {
            suback(&mut out, version, packet_id, &codes, given(&list));
            let Packet::Suback(got) = taken(&mut out, version, Server) else { panic!() };
            got
        };
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
        let codes = &*codes;
        prop_assert_eq!(got, Suback { packet_id, properties: got.properties, codes });
    }

    #[test]
    fn disconnect_and_auth(
        version in version(), reason in proptest::sample::select(vec![0, 0x8b, 0x9c]),
        list in properties(&[0x1c, 0x1f]), method in text(), from_client: bool,
    ) {
        let from = if from_client || version != V5 { Client } else { Server };
        let mut out = Vec::new();
        disconnect(&mut out, version, reason, given(&list));
        let Packet::Disconnect(got) = taken(&mut out, version, from) else { panic!() };
        prop_assert_eq!(got.properties.iter().collect::<Vec<_>>(), expected(version, &list));
        prop_assert_eq!(got.reason, if version == V5 { reason } else { 0 });
        let methods = std::iter::once(Property::AuthMethod(&method));
        let mut out = Vec::new();
        auth(&mut out, 0x18, methods.clone());
        let Packet::Auth(got) = taken(&mut out, V5, from) else { panic!() };
        prop_assert_eq!(got.reason, 0x18);
        prop_assert!(got.properties.iter().eq(methods));
    }

    /// Whatever the bytes are: an answer, no panic, and nothing taken that is not there.
    #[test]
    fn anything(bytes in vec(any::<u8>(), 0..60), version in version(), server: bool, free: bool) {
        let profile = if free { FREE } else { STRICT };
        let from = if server { Server } else { Client };
        if let Ok(Decoded::Packet { len, .. }) = decode_any(&bytes, version, from, &profile) {
            prop_assert!(len <= bytes.len());
        }
        let _ = connect_version(&bytes);
    }
}
