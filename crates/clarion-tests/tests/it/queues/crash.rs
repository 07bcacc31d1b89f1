//! A crash with leases out: what was not acked comes again, what was acked and written does not.

use super::{JOBS, Taken, ack, nack, next, wait_first};
use crate::api::Api;
use clarion_tests::Server;
use std::collections::BTreeSet;

fn seqs(taken: &[Taken]) -> Vec<u64> {
    taken.iter().map(|taken| taken.seq).collect()
}

fn server() -> Server {
    Server::builder().set("store.sweep_interval", "50ms").start()
}

#[test]
fn after_a_kill_all_that_was_not_acked_comes_again_and_nothing_else() {
    let mut server = server();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:jobs", 1, 60);
    let taken = next(&mut api, JOBS, "wait=20&count=50");
    assert_eq!(seqs(&taken), (1..=50).collect::<Vec<_>>());
    let alone = [29, 31, 49].map(|i| taken[i].clone());
    assert_eq!(ack(&mut api, JOBS, &alone), 3);
    assert_eq!(ack(&mut api, JOBS, &taken[..20]), 20);
    // The trim follows what is stored of the cursor, which is written whole.
    wait_first(&mut api, "queue:jobs", 21);
    server.kill9();
    server.restart();
    let mut api = Api::of(&server);
    let again = next(&mut api, JOBS, "wait=20&count=100");
    let expected: Vec<u64> = (21..=60).filter(|seq| ![30, 32, 50].contains(seq)).collect();
    assert_eq!(seqs(&again), expected);
    assert!(again.iter().all(|taken| taken.attempt == 1), "what was counted was lost");
    assert_eq!(ack(&mut api, JOBS, &again), expected.len() as u64);
    assert_eq!(next(&mut api, JOBS, "wait=0"), []);
}

#[test]
fn leases_from_before_a_restart_still_ack_but_give_nothing_back() {
    let mut server = server();
    let mut api = Api::of(&server);
    api.publish_numbers("queue:jobs", 1, 30);
    let taken = next(&mut api, JOBS, "wait=20&count=30");
    server.kill9();
    server.restart();
    let mut api = Api::of(&server);
    // Nobody uses the cursor yet: these are written before they are answered.
    assert_eq!(nack(&mut api, JOBS, &taken[0], 0.0), 0);
    assert_eq!(ack(&mut api, JOBS, &taken[..5]), 5);
    assert_eq!(ack(&mut api, JOBS, &taken[..6]), 1);
    server.kill9();
    server.restart();
    let mut api = Api::of(&server);
    let again = next(&mut api, JOBS, "wait=20&count=2");
    assert_eq!(seqs(&again), [7, 8]);
    // Somebody uses it now: of these two are out again, the rest is still to come.
    assert_eq!(nack(&mut api, JOBS, &taken[6], 0.0), 0, "another has it now");
    assert_eq!(ack(&mut api, JOBS, &taken[6..20]), 14);
    assert_eq!(ack(&mut api, JOBS, &again), 0);
    assert_eq!(ack(&mut api, JOBS, [&taken[24]]), 1);
    let rest = next(&mut api, JOBS, "wait=20&count=100");
    let expected: Vec<u64> = (21..=30).filter(|seq| *seq != 25).collect();
    assert_eq!(seqs(&rest), expected);
}

#[test]
fn a_clean_stop_writes_every_ack() {
    let mut server = Server::start();
    let mut api = Api::of(&server);
    let mut acked = BTreeSet::new();
    for round in 0..3 {
        api.publish_numbers("queue:jobs", round * 20 + 1, round * 20 + 20);
        let taken = next(&mut api, JOBS, "wait=20&count=10");
        assert!(taken.iter().all(|taken| acked.insert(taken.seq)), "acked and there again");
        assert_eq!(ack(&mut api, JOBS, &taken), 10);
        assert!(server.terminate().success());
        server.restart();
        api = Api::of(&server);
    }
    let rest = next(&mut api, JOBS, "wait=20&count=100");
    let left: Vec<u64> = (1..=60).filter(|seq| !acked.contains(seq)).collect();
    assert_eq!(seqs(&rest), left);
}
