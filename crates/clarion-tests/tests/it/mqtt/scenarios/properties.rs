//! What travels with a message in 5, and what a client asks not to be told.

use crate::mqtt::broker::Broker;
use clarion_tests::{
    mqtt::{
        Client, Filter, Message, Options, Packet, Property, Version, id, number, pairs, prop, text,
    },
    wait_for,
};
use std::time::{Duration, Instant};

const V5: Version = Version::V5;

fn pair(broker: &Broker) -> (Client, Client) {
    let mut reader = broker.client(V5, "reader");
    reader.subscribe(&[("p/#", 2)]);
    (reader, broker.client(V5, "writer"))
}

#[test]
fn user_properties_keep_their_order_and_repeat() {
    let broker = Broker::start();
    let (mut reader, mut writer) = pair(&broker);
    let long = "v".repeat(10_000);
    let all = [("b", "1"), ("a", ""), ("", ""), ("b", "1"), ("ä", "𝄞"), ("long", &*long)];
    let mut message = Message::new("p/u", "x").qos(1);
    message.properties = all.iter().map(|(name, value)| prop::user(name, value)).collect();
    writer.publish_as(message);
    assert_eq!(pairs(&reader.message().properties), all, "MQTT-3.3.2-18");
    writer.publish("p/u", "none", 1);
    assert_eq!(reader.message().properties, []);
}

#[test]
fn format_and_type_of_the_payload() {
    let broker = Broker::start();
    let (mut reader, mut writer) = pair(&broker);
    for (format, content_type) in
        [(Some(0), None), (Some(1), Some("text/plain")), (None, Some("x"))]
    {
        let mut message = Message::new("p/f", "ä").qos(1);
        message.properties.extend(format.map(|format: u8| prop::payload_format(format)));
        message.properties.extend(content_type.map(|name: &str| prop::content_type(name)));
        writer.publish_as(message);
        let got = reader.message();
        // 0 says what its absence says.
        let expected = format.filter(|format| *format > 0).map(u32::from);
        let told = number(&got.properties, id::PAYLOAD_FORMAT).filter(|format| *format > 0);
        assert_eq!(told, expected, "MQTT-3.3.2-4");
        assert_eq!(text(&got.properties, id::CONTENT_TYPE), content_type, "MQTT-3.3.2-20");
    }
}

#[test]
fn a_request_and_its_response() {
    let broker = Broker::start();
    let mut asks = broker.client(V5, "asks");
    let mut answers = broker.client(V5, "answers");
    asks.subscribe(&[("p/answers/asks", 1)]);
    answers.subscribe(&[("p/questions", 1)]);
    for correlation in [vec![], vec![0], vec![0, 159, 146, 150], vec![7; 5000]] {
        let question = Message::new("p/questions", "?")
            .qos(1)
            .with(prop::response_topic("p/answers/asks"))
            .with(prop::correlation(correlation.clone()));
        asks.publish_as(question);
        let got = answers.message();
        let to = text(&got.properties, id::RESPONSE_TOPIC).expect("MQTT-3.3.2-15");
        let with = got.properties.iter().find(|property| property.0 == id::CORRELATION);
        let with = with.expect("MQTT-3.3.2-16").clone();
        answers.publish_as(Message::new(to, "!").qos(1).with(with));
        let got = asks.message();
        assert_eq!(got.text(), "!");
        assert_eq!(got.properties, [prop::correlation(correlation)]);
    }
}

#[test]
fn response_information_is_given_only_if_it_is_asked_for() {
    let broker = Broker::start();
    for asks in [None, Some(0), Some(1)] {
        let mut options = Options::new(V5, "c");
        options.properties.extend(asks.map(|asks: u8| prop::request_response_info(asks)));
        let (_client, connack) = options.attempt(broker.at());
        // MQTT-3.1.2-28: not if it is 0; if it is 1, perhaps.
        assert!(asks == Some(1) || connack.text(id::RESPONSE_INFO).is_none(), "{connack:?}");
    }
}

#[test]
fn a_message_tells_how_long_it_still_lives() {
    let broker = Broker::start();
    let (mut reader, mut writer) = pair(&broker);
    for expiry in [1000, u32::MAX] {
        writer.publish_as(Message::new("p/e", "x").qos(1).with(prop::message_expiry(expiry)));
        let left = number(&reader.message().properties, id::MESSAGE_EXPIRY).expect("it expires");
        assert!((expiry - 60..=expiry).contains(&left), "{left} of {expiry}");
    }
    writer.publish("p/e", "for ever", 1);
    assert_eq!(number(&reader.message().properties, id::MESSAGE_EXPIRY), None);
}

/// MQTT-3.3.2-5: one that waited longer than it lives is not delivered.
#[test]
fn a_message_that_waited_too_long_is_not_delivered() {
    let broker = Broker::start();
    let mut writer = broker.client(V5, "writer");
    let mut reader =
        Options::new(V5, "reader").with(prop::receive_maximum(1u16)).connect(broker.at());
    reader.subscribe(&[("p/#", 1)]);
    writer.publish("p/1", "holds the window", 1);
    let first = reader.unacked();
    let published = Instant::now();
    writer.publish_as(Message::new("p/2", "short").qos(1).with(prop::message_expiry(1u32)));
    writer.publish_as(Message::new("p/3", "long").qos(1).with(prop::message_expiry(1000u32)));
    wait_for("the expiry", || published.elapsed() > Duration::from_millis(2100));
    reader.ack(4, first.id, 0);
    let got = reader.message();
    assert_eq!(got.text(), "long");
    let left = number(&got.properties, id::MESSAGE_EXPIRY).expect("it expires");
    assert!((900..=998).contains(&left), "MQTT-3.3.2-6: {left}");
    reader.quiet();
}

/// Explanations are for who wants them (3.1.2.11.7), save in CONNACK, PUBLISH and DISCONNECT.
#[test]
fn problem_information_is_left_out_where_it_is_not_wanted() {
    let broker = Broker::start();
    let explains = |properties: &[Property]| {
        properties.iter().any(|p| p.0 == id::REASON_STRING || p.0 == id::USER_PROPERTY)
    };
    let mut client = Options::new(V5, "c").with(prop::request_problem_info(0)).connect(broker.at());
    client.subscribe_as(&[Filter::new("p/a", 1)], &[]);
    let id = client.next_id();
    let denied = Message { id, ..Message::new("$internal/x", "x").qos(1) };
    client.send(&clarion_tests::mqtt::publish(V5, &denied));
    match client.packet() {
        Packet::Ack { kind: 4, reason: 0x80.., properties, .. } => {
            assert!(!explains(&properties), "MQTT-3.1.2-29: {properties:?}");
        }
        other => panic!("{other:?}"),
    }
    client.send(&clarion_tests::mqtt::unsubscribe(V5, 77, &["p/none"]));
    match client.packet() {
        Packet::Suback { kind: 11, codes, properties, .. } => {
            assert_eq!(codes, [0x11]);
            assert!(!explains(&properties), "MQTT-3.1.2-29: {properties:?}");
        }
        other => panic!("{other:?}"),
    }
    // User properties of a message are no explanation.
    client.publish_as(Message::new("p/a", "x").qos(1).with(prop::user("k", "v")));
    assert_eq!(pairs(&client.message().properties), [("k", "v")]);
}

/// 3.10.3, 3.11.3 and 3.4.2.1: what was not there is told.
#[test]
fn reason_codes_tell_what_happened() {
    let broker = Broker::start();
    let mut client = broker.client(V5, "c");
    // A server that knows may say that nobody reads; one that does not says 0.
    assert_eq!(client.publish("p/nobody", "x", 1), 0x10);
    assert_eq!(client.publish("p/nobody", "x", 2), 0);
    let mut reader = broker.client(V5, "reader");
    reader.subscribe(&[("p/#", 0)]);
    assert_eq!(client.publish("p/somebody", "x", 1), 0);
    // Of QoS 2 a server may say it in PUBREC.
    let message = Message { id: 9, ..Message::new("q/nobody", "x").qos(2) };
    client.send(&clarion_tests::mqtt::publish(V5, &message));
    let received = client.packet();
    assert!(
        matches!(received, Packet::Ack { kind: 5, id: 9, reason: 0 | 0x10, .. }),
        "{received:?}"
    );
    client.ack(6, 9, 0);
    assert!(matches!(client.packet(), Packet::Ack { kind: 7, id: 9, reason: 0, .. }));
    // An id that is not known (3.6.2.1, 3.7.2.1).
    client.ack(6, 1234, 0);
    let completed = client.packet();
    assert!(
        matches!(completed, Packet::Ack { kind: 7, id: 1234, reason: 0x92, .. }),
        "{completed:?}"
    );
    // What was never sent may be acknowledged without harm.
    for kind in [4, 5, 7] {
        client.ack(kind, 4321, if kind == 5 { 0x80 } else { 0 });
    }
    client.quiet();
}
