//! Reader groups of any channel: each has one place, its members share it.

use super::{JOBS, Taken, ack, nack, next, one};
use crate::api::{Api, Stream};
use clarion_tests::Server;

const TOPIC: &str = "topic:news/today";

fn group(address: &str, name: &str) -> String {
    format!("/api/v1/channels/{}/groups/{name}", address.replace('/', "%2F"))
}

#[test]
fn a_group_makes_a_topic_stored_also_after_a_restart() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    assert_eq!(api.publish(TOPIC, "nobody reads").durability, "none");
    let readers = group(TOPIC, "readers");
    assert_eq!(next(&mut api, &readers, "wait=0"), []);
    let first = api.publish(TOPIC, "1");
    assert_eq!((first.durability.as_str(), first.seq), ("disk", 1));
    server.kill9();
    server.restart();
    let mut api = Api::of(&server);
    assert_eq!(api.publish(TOPIC, "2").durability, "disk");
    let taken = next(&mut api, &readers, "count=9");
    assert_eq!(taken.iter().map(Taken::number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(ack(&mut api, &readers, &taken), 2);
}

#[test]
fn groups_read_apart_from_each_other_and_from_consumers() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:jobs", 1, 3);
    let (a, b) = (group("queue:jobs", "a"), group("queue:jobs", "b"));
    for place in [&a, &b, JOBS] {
        let taken = next(&mut api, place, "count=2");
        assert_eq!(taken.iter().map(Taken::number).collect::<Vec<_>>(), [1, 2], "{place}");
        assert_eq!(ack(&mut api, place, &taken[..1]), 1);
        assert_eq!(nack(&mut api, place, &taken[1], 0.0), 1);
        assert_eq!(one(&mut api, place).attempt, 2);
    }
    let mut stream = Stream::open(&server, "address=queue:jobs&user=u&device=d", None);
    stream.numbers(1, 3);
}

#[test]
fn a_new_group_starts_where_its_first_member_says() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish_numbers("user:u", 1, 5);
    let mut first = |name: &str, query: &str| {
        let place = group("user:u", name);
        let taken = next(&mut api, &place, query);
        taken.first().map(Taken::number)
    };
    assert_eq!(first("default", ""), Some(1));
    assert_eq!(first("early", "from=earliest"), Some(1));
    assert_eq!(first("third", "from=3"), Some(3));
    assert_eq!(first("third", "from=earliest"), Some(4), "it exists, and goes on");
    assert_eq!(first("late", "from=latest"), None);
    api.publish("user:u", "6");
    assert_eq!(one(&mut api, &group("user:u", "late")).number(), 6);
}

#[test]
fn a_lease_belongs_to_the_group_that_gave_it() {
    let server = Server::start();
    let mut api = Api::of(&server);
    api.publish("all", "1");
    let (a, b) = (group("all", "a"), group("all", "b"));
    let taken = one(&mut api, &a);
    let mine = one(&mut api, &b);
    for (place, taken) in [(&a, &mine), (&b, &taken)] {
        for verb in ["ack", "nack"] {
            let body = serde_json::json!({ "leases": [taken.lease] });
            let refused = api.refused("POST", &format!("{place}/{verb}"), Some(&body));
            assert_eq!(refused, (400, "bad_token".to_owned(), false));
        }
    }
    assert_eq!((ack(&mut api, &a, [&taken]), ack(&mut api, &b, [&mine])), (1, 1));
}
