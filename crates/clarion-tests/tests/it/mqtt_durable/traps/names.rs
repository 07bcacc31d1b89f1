//! A durable `#` beside topics that are used once: each is a log of its own for as long as something of it waits.

use crate::{
    mqtt::versions,
    mqtt_durable::{assert_no_panic, away, client, nothing_more, resume, start},
};
use clarion_tests::mqtt::{Message, Version};

versions! {
    topics_that_are_used_once: v311 v5;
}

const TOPICS: u32 = 2000;

fn topics_that_are_used_once(version: Version) {
    // Fewer channels stay in memory than there are topics.
    let mut server = start(&[("store.cached_channels", "100"), ("store.sweep_interval", "50ms")]);
    away(&server, version, "s", &[("#", 1)]);
    away(&server, version, "exact", &[("once/7", 2)]);
    // The names come back: the second time they are the same topics, and new logs.
    for round in 0..3 {
        let mut writer = client(&server, version, "writer");
        let message =
            |n: u32| Message::new(&format!("once/{n}"), format!("{round} {n}")).qos(1 + round % 2);
        writer.publish_all((0..TOPICS / 2).map(message));
        match round {
            1 => assert_eq!(server.terminate().code(), Some(0)),
            2 => server.kill9(),
            _ => {}
        }
        if round > 0 {
            server.restart();
            writer = client(&server, version, "writer");
        }
        writer.publish_all((TOPICS / 2..TOPICS).map(message));
        let mut session = resume(&server, version, "s");
        for n in 0..TOPICS {
            let got = session.message();
            assert_eq!((got.topic, got.dup), (format!("once/{n}"), false));
            assert_eq!(String::from_utf8_lossy(&got.payload), format!("{round} {n}"));
        }
        nothing_more(&server, version, &mut session, &["once/3", "never/before"]);
        session.disconnect();
    }
    let mut exact = resume(&server, version, "exact");
    // In no order, since their QoS differ.
    let mut texts = exact.texts(3);
    texts.sort();
    assert_eq!(texts, ["0 7", "1 7", "2 7"]);
    nothing_more(&server, version, &mut exact, &["once/7"]);
    assert_no_panic(&server);
}
