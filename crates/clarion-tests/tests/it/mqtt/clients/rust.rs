//! rumqttc: its client of 3.1.1 and its client of 5.

use crate::mqtt::broker::Broker;
use clarion_tests::DEADLINE;
use tokio::time::timeout;

mod three {
    pub(super) use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};

    pub(super) fn will() -> LastWill {
        LastWill::new("rust/will", "gone", QoS::AtLeastOnce, false)
    }
}

mod five {
    pub(super) use rumqttc::v5::{
        AsyncClient, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{LastWill, Packet},
        },
    };

    pub(super) fn will() -> LastWill {
        LastWill::new("rust/will", "gone", QoS::AtLeastOnce, false, None)
    }
}

/// Both clients have the same shape, in types of their own.
macro_rules! client {
    ($name:ident, $version:literal, $of:ident) => {
        #[tokio::test]
        async fn $name() {
            use $of::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};

            /// The next packet of this kind.
            async fn next<T>(events: &mut EventLoop, wanted: impl Fn(Packet) -> Option<T>) -> T {
                loop {
                    let event = timeout(DEADLINE, events.poll()).await.expect("an event");
                    if let Event::Incoming(packet) = event.expect("the connection holds")
                        && let Some(found) = wanted(packet)
                    {
                        return found;
                    }
                }
            }
            let message = |packet| match packet {
                Packet::Publish(message) => Some(message),
                _ => None,
            };
            let answer = |packet| matches!(packet, Packet::SubAck(_)).then_some(());

            let broker = Broker::start();
            let (host, port) = (broker.at().ip().to_string(), broker.at().port());
            let options = |id: &str| MqttOptions::new(id, host.clone(), port);
            let (client, mut events) = AsyncClient::new(options("rust"), 10);
            client.subscribe("rust/#", QoS::ExactlyOnce).await.unwrap();
            next(&mut events, answer).await;
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                client.publish("rust/a", qos, false, "x".repeat(5000)).await.unwrap();
                let got = next(&mut events, message).await;
                assert_eq!((got.payload.len(), got.qos, got.retain), (5000, qos, false));
            }
            client.publish("rust/r", QoS::AtLeastOnce, true, "kept").await.unwrap();
            next(&mut events, message).await;
            let (late, mut late_events) = AsyncClient::new(options("rust-late"), 10);
            late.subscribe("rust/r", QoS::AtLeastOnce).await.unwrap();
            let got = next(&mut late_events, message).await;
            assert_eq!((&got.payload[..], got.retain), (&b"kept"[..], true));

            let mut with_will = options("rust-dying");
            with_will.set_last_will($of::will());
            let (dying, mut dying_events) = AsyncClient::new(with_will, 10);
            dying.subscribe("rust/none", QoS::AtMostOnce).await.unwrap();
            next(&mut dying_events, answer).await;
            drop((dying, dying_events));
            let got = next(&mut events, message).await;
            assert_eq!(&got.payload[..], b"gone");
            println!(concat!("rumqttc 0.25.1: ", $version, ": each QoS, retained, will"));
        }
    };
}

client!(client_of_3_1_1, "3.1.1", three);
client!(client_of_5, "5", five);
