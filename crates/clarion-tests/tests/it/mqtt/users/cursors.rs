//! A client id with a stored session is a device of its user: what one transport of it acked, no other gives again.

use super::{device, feed, user};
use crate::{
    api::{Api, Stream},
    grpc,
    mqtt::versions,
};
use clarion_tests::{Server, mqtt::Version};

versions! {
    puback_moves_the_cursor_that_sse_reads: v31 v311 v5;
    what_sse_acked_mqtt_does_not_give: v31 v311 v5;
    acks_in_any_order: v31 v311 v5;
    a_kept_session_gets_the_feed_with_qos_1: v31 v311 v5;
    both_at_once_get_everything_live: v31 v311 v5;
}

fn puback_moves_the_cursor_that_sse_reads(version: Version) {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, 9);
    let mut phone = device(&server, version, "phone", "ann");
    feed(&mut phone, "ann", 1);
    for n in 1..=5 {
        assert_eq!(phone.message().text(), n.to_string());
    }
    phone.ping();
    phone.vanish();
    // The device of that name, over SSE.
    let mut stream = Stream::feed(&server, "ann", "phone");
    stream.numbers(6, 9);
    api.ack(stream.token());
    drop(stream);
    // And back, also after a restart.
    api.publish_numbers("user:ann", 10, 12);
    for _ in 0..2 {
        let mut phone = device(&server, version, "phone", "ann");
        feed(&mut phone, "ann", 1);
        assert_eq!(phone.unacked().text(), "10");
        phone.vanish();
        server.terminate();
        server.restart();
    }
    // Another device has its own place.
    let mut other = device(&server, version, "tablet", "ann");
    feed(&mut other, "ann", 1);
    assert_eq!(other.message().text(), "10", "where the most advanced of her devices was");
}

fn what_sse_acked_mqtt_does_not_give(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, 6);
    let mut stream = Stream::feed(&server, "ann", "phone");
    stream.numbers(1, 4);
    api.ack(stream.token());
    drop(stream);
    let mut phone = device(&server, version, "phone", "ann");
    feed(&mut phone, "ann", 1);
    assert_eq!(phone.texts(2), ["5", "6"]);
    phone.quiet();
}

fn acks_in_any_order(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, 6);
    let mut phone = device(&server, version, "phone", "ann");
    feed(&mut phone, "ann", 1);
    let ids: Vec<u16> = (0..6).map(|_| phone.unacked().id).collect();
    for n in [5, 1, 3] {
        phone.ack(4, ids[n], 0);
    }
    phone.ping();
    phone.vanish();
    let mut stream = Stream::feed(&server, "ann", "phone");
    assert_eq!(stream.texts(3), ["1", "3", "5"]);
}

fn a_kept_session_gets_the_feed_with_qos_1(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, 2);
    let mut phone = device(&server, version, "phone", "ann");
    assert_eq!(phone.subscribe(&[("user/ann", 2)]), [1], "its numbers are not kept");
    let qos = [phone.message(), phone.message()].map(|message| message.qos);
    assert_eq!(qos, [1, 1]);
    // One that is not kept gets what it asks for.
    let mut guest = user(&server, version, "guest", "ann");
    feed(&mut guest, "ann", 2);
    api.publish_numbers("user:ann", 3, 3);
    assert_eq!(guest.message().qos, 2);
}

fn both_at_once_get_everything_live(version: Version) {
    let server = Server::start();
    let mut api = Api::of(&server);
    let mut phone = device(&server, version, "phone", "ann");
    feed(&mut phone, "ann", 1);
    let mut stream = Stream::feed(&server, "ann", "phone");
    for n in 1..=20 {
        api.publish_numbers("user:ann", n, n);
        assert_eq!(phone.message().text(), n.to_string());
        assert_eq!(stream.text(), n.to_string());
    }
    phone.quiet();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_grpc_is_the_same_device() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, 6);
    let grpc = grpc::connect(&server).await;
    let mut stream = grpc::Stream::open(&grpc, grpc::feed("ann", "phone")).await;
    assert_eq!(stream.texts(6).await, ["1", "2", "3", "4", "5", "6"]);
    stream.ack("user:ann", 1, 4, 1);
    stream.stored(1).await;
    stream.finish().await;
    let mut phone = device(&server, Version::V311, "phone", "ann");
    feed(&mut phone, "ann", 1);
    assert_eq!(phone.texts(1), ["5"]);
    phone.ping();
    phone.vanish();
    let mut stream = grpc::Stream::open(&grpc, grpc::feed("ann", "phone")).await;
    assert_eq!(stream.texts(1).await, ["6"]);
}

#[test]
fn a_user_has_a_bounded_number_of_devices() {
    let server = Server::builder().set("limits.max_devices", "3").start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:ann", 1, 3);
    for n in 0..3 {
        let mut phone = device(&server, Version::V5, &format!("phone {n}"), "ann");
        feed(&mut phone, "ann", 1);
        phone.disconnect();
    }
    api.wait_gone("ann");
    // The oldest unattached one makes room.
    let mut phone = device(&server, Version::V5, "phone 3", "ann");
    feed(&mut phone, "ann", 1);
    phone.disconnect();
    let page = api.read("user:ann", "?limit=1");
    let status = api.status(page["messages"][0]["id"].as_str().expect("an id"));
    let devices = status["devices"].as_array().expect("devices").clone();
    let mut names: Vec<&str> = devices.iter().filter_map(|d| d["device"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["phone 1", "phone 2", "phone 3"]);
}
