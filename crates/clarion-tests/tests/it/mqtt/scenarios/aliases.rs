//! Topic aliases, both ways.

use crate::mqtt::broker::Broker;
use clarion_tests::mqtt::{Client, Message, Options, Version, id, number, prop, publish};
use std::collections::BTreeMap;

const V5: Version = Version::V5;

fn aliased(topic: &str, alias: u16, payload: &str) -> Message {
    Message::new(topic, payload).qos(1).with(prop::topic_alias(alias))
}

#[test]
fn a_client_uses_them() {
    let broker = Broker::start();
    let mut reader = broker.client(V5, "reader");
    reader.subscribe(&[("alias/#", 1)]);
    let (mut writer, connack) = Options::new(V5, "writer").attempt(broker.at());
    let most = connack.number(id::TOPIC_ALIAS_MAXIMUM).expect("aliases are taken") as u16;
    let mut check = |message: Message, topic: &str| {
        let text = message.text();
        writer.publish_as(message);
        let got = reader.message();
        assert_eq!((got.topic.as_str(), got.text()), (topic, text));
        // An alias is about one connection.
        assert_eq!(number(&got.properties, id::TOPIC_ALIAS), None);
    };
    check(aliased("alias/a", 1, "named"), "alias/a");
    check(aliased("", 1, "by alias"), "alias/a");
    check(aliased("alias/b", most, "the highest"), "alias/b");
    check(aliased("", most, "by the highest"), "alias/b");
    check(aliased("", 1, "still"), "alias/a");
    // Named again it stands for another topic.
    check(aliased("alias/c", 1, "another"), "alias/c");
    check(aliased("", 1, "by alias"), "alias/c");
    check(Message::new("alias/a", "without").qos(1), "alias/a");
    for qos in 0..3 {
        check(Message { qos, ..aliased("", most, "each QoS") }, "alias/b");
    }
}

fn refused(client: &mut Client, message: Message, reasons: &[u8]) {
    client.send(&publish(V5, &Message { id: 1, ..message }));
    let reason = client.ended().expect("it is told why");
    assert!(reasons.contains(&reason), "{reason:#04x}, not {reasons:02x?}");
}

#[test]
fn a_client_uses_them_wrongly() {
    let broker = Broker::start();
    let client = || Options::new(V5, "writer").attempt(broker.at());
    let (mut writer, connack) = client();
    let most = connack.number(id::TOPIC_ALIAS_MAXIMUM).expect("aliases are taken") as u16;
    // 3.3.2.3.4: never 0, never above the maximum.
    refused(&mut writer, aliased("a", most + 1, ""), &[0x94]);
    refused(&mut client().0, aliased("a", 0, ""), &[0x94]);
    refused(&mut client().0, aliased("a", 65_535, ""), &[0x94]);
    // Not said before, on this connection.
    refused(&mut client().0, aliased("", 1, ""), &[0x82]);
    let mut writer = client().0;
    writer.publish_as(aliased("a", 1, ""));
    writer.disconnect();
    refused(&mut client().0, aliased("", 1, ""), &[0x82]);
}

#[test]
fn a_server_uses_as_many_as_it_may() {
    let broker = Broker::start();
    let mut writer = broker.client(V5, "writer");
    for most in [0, 1, 3, 100] {
        let mut reader = Options::new(V5, "reader")
            .with(prop::topic_alias_maximum(most as u16))
            .connect(broker.at());
        reader.subscribe(&[("alias/+", 1)]);
        let mut known: BTreeMap<u32, String> = BTreeMap::new();
        let mut used = 0;
        for round in 0..4 {
            for n in 0..6 {
                let topic = format!("alias/{n}");
                writer.publish(&topic, format!("{round}.{n}"), round % 2);
                let got = reader.message();
                let alias = number(&got.properties, id::TOPIC_ALIAS);
                if let Some(alias) = alias {
                    assert!((1..=most).contains(&alias), "MQTT-3.1.2-26: {alias} of {most}");
                    used += 1;
                }
                let meant = match (alias, got.topic.as_str()) {
                    (Some(alias), "") => known[&alias].clone(),
                    (Some(alias), named) => {
                        known.insert(alias, named.to_owned());
                        named.to_owned()
                    }
                    (None, named) => named.to_owned(),
                };
                assert_eq!((meant, got.text()), (topic, format!("{round}.{n}")));
            }
        }
        if most == 0 {
            assert_eq!(used, 0, "MQTT-3.1.2-27");
        } else {
            println!("{used} of 24 messages with an alias, {most} allowed");
            assert!(used > 0, "it may and does not");
        }
        reader.disconnect();
    }
}
