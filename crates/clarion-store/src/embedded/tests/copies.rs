//! Copies that references hold, as they are on disk.

use super::*;

fn topic(name: &str) -> Address {
    Address::topic(name).unwrap()
}

fn everything() -> Address {
    Address::parse_any("filter:#").unwrap()
}

fn referred(channel: &Address, content: Content) -> Unit {
    Unit::Publish(Publish { refs: vec![everything()], ..publish_to(channel, content) })
}

fn trim_all(channel: &Address) -> Unit {
    Unit::Trim { channel: channel.clone(), below: u64::MAX }
}

#[test]
fn a_copy_is_read_and_erased_when_its_body_has_left_the_disk() {
    let mut directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    let (a, b) = (topic("a"), topic("b"));
    for n in 0..20u64 {
        let unit = referred(if n % 2 == 0 { &a } else { &b }, text(n.to_string()));
        stored(&commit_at(&store, NOW + n, vec![unit])[0]);
    }
    commit(&store, vec![trim_all(&a), trim_all(&b)]);
    wait(embedded.compact()).unwrap();
    assert_eq!(wait(embedded.physical_records()).unwrap(), 20, "the copies alone");
    drop((store, embedded));
    directory.reopen();
    let store = directory.store();
    assert_eq!(all(&store, &everything()).len(), 20);
    let erase = |channel: &Address, seq| Unit::Erase { channel: channel.clone(), seq };
    let units = vec![erase(&a, 4), erase(&b, 10), erase(&b, 10), erase(&b, 11)];
    let erased = commit_at(&store, NOW + 99, units);
    assert_eq!(erased, [true, true, false, false].map(Done::Erased));
    drop(store);
    directory.reopen();
    let page = page(&directory.store(), range(&everything(), 1, 99));
    let expected: Vec<u64> = (1..20).filter(|seq| *seq != 7).collect();
    assert_eq!((seqs(&page), page.through), (expected, 20));
}

#[test]
fn a_page_of_copies_looks_at_no_other_log() {
    let mut directory = fresh(EmbeddedConfig::default());
    let store = directory.store();
    let topics: Vec<Address> = (0..100).map(|n| topic(&n.to_string())).collect();
    commit(&store, topics.iter().map(|topic| referred(topic, text("x"))).collect());
    drop(store);
    directory.reopen();
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    let page = page(&store, range(&everything(), 1, 999));
    assert!(page.messages.iter().map(|message| &message.channel).eq(&topics));
    assert_eq!(wait(embedded.loads()).unwrap(), 1, "the filter's own state");
}

#[test]
fn what_expired_is_blanked_in_the_copies_too() {
    let directory = fresh(EmbeddedConfig::default());
    let embedded = directory.store.clone().unwrap();
    let store = directory.store();
    for n in 0..500u32 {
        // Nothing that compresses.
        let body: Vec<u8> =
            (0..1_000).map(|i| ((n * 1_000 + i).wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let content = Content { expires_at: Some(NOW + 10), ..text(&body) };
        stored(&commit_one(&store, referred(&topic("a"), content)));
    }
    wait(embedded.compact()).unwrap();
    let full = wait(embedded.read_with(|engine| Ok(engine.ks.log.disk_space()))).unwrap();
    for n in 1..=3 {
        let late = referred(&topic("b"), text("b"));
        stored(&commit_at(&store, NOW + n * 60_000, vec![late])[0]);
    }
    wait(embedded.compact()).unwrap();
    let blank = wait(embedded.read_with(|engine| Ok(engine.ks.log.disk_space()))).unwrap();
    assert!(blank < full / 10, "{full} bytes became {blank}");
    let page = page(&store, range(&everything(), 1, 999));
    assert_eq!((seqs(&page), page.head.first), (vec![501, 502, 503], 1));
}

#[test]
fn a_start_after_a_loss_of_history_begins_anew() {
    let config = EmbeddedConfig { durability: Durable::Memory, ..EmbeddedConfig::default() };
    let mut directory = fresh(config);
    let store = directory.store();
    start_replaces_a_cursor_of_another_history(store, |store| {
        drop(store);
        directory.reopen();
        directory.store()
    });
}
