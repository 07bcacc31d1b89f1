use super::*;
use clarion_core::{Address, Content, MessageId};

fn message(topic: &str, text: &str) -> Option<Arc<Message>> {
    let content = Content { payload: text.to_owned().into(), retain: true, ..Content::default() };
    Some(Arc::new(Message {
        id: MessageId::live(0, 0, 0),
        channel: Address::topic(topic).unwrap(),
        epoch: 0,
        seq: 0,
        created_at: 0,
        content: Arc::new(content),
    }))
}

fn change(of: &Retained, topic: &str, text: &str) -> u64 {
    let message = if text.is_empty() { None } else { message(topic, text) };
    let mut told = 0;
    let submit = |number| {
        told = number;
        Ok::<(), ()>(())
    };
    of.change(topic, message, submit).unwrap();
    told
}

#[test]
fn a_read_knows_what_changed_before_and_what_after() {
    let of = Arc::new(Retained::new(10));
    assert!(!of.may_have("#") && !of.may_have("a"));
    let first = change(&of, "a", "1");
    change(&of, "b/c", "2");
    assert!(of.may_have("+/c") && of.may_have("a") && !of.may_have("c"));
    let reading = of.read("#");
    assert_eq!(reading.overlay.len(), 2);
    assert_eq!(of.read("b/#").overlay.len(), 1);
    assert_eq!(reading.changed("a"), Some(false));
    change(&of, "a", "3");
    assert_eq!((reading.changed("a"), reading.changed("b/c")), (Some(true), Some(false)));
    let later = of.read("a");
    assert_eq!(later.changed("a"), Some(false));
    drop(reading);
    // An older change that is committed leaves the newer one.
    of.committed("a", first, true);
    assert_eq!(of.read("a").overlay.len(), 1);
    drop(later);
    let inner = of.lock();
    assert!(inner.reads.is_empty() && inner.recent.is_empty(), "nobody needs to know any more");
}

#[test]
fn what_is_cleared_is_forgotten_when_that_is_committed() {
    let of = Arc::new(Retained::new(1));
    let set = change(&of, "a", "1");
    of.committed("a", set, true);
    assert_eq!(of.change("b", message("b", "x"), |_| Ok::<(), ()>(())), Err(Refused::Full));
    let clear = change(&of, "a", "");
    assert!(of.may_have("a"), "the store still has it");
    of.committed("a", clear, true);
    assert!(!of.may_have("a"));
    assert_eq!(of.change("b", message("b", "x"), |_| Err(3)), Err(Refused::Committer(3)));
    assert!(!of.may_have("b"));
}

#[test]
fn a_failed_change_leaves_what_was() {
    let of = Arc::new(Retained::new(9));
    of.found("a");
    let clear = change(&of, "a", "");
    of.committed("a", clear, false);
    assert!(of.may_have("a") && of.read("a").overlay.is_empty());
}

#[test]
fn what_is_told_of_changes_is_bounded() {
    let of = Arc::new(Retained::new(RECENT_MAX * 2));
    let reading = of.read("a");
    for n in 0..=RECENT_MAX {
        change(&of, &format!("b/{n}"), "x");
    }
    assert!(of.lock().recent.len() <= RECENT_MAX);
    assert_eq!(reading.changed("a"), None);
    assert_eq!(of.read("a").changed("a"), Some(false));
}

#[test]
fn what_could_not_be_stored_takes_no_place() {
    let of = Arc::new(Retained::new(1));
    let set = change(&of, "a", "1");
    of.committed("a", set, false);
    assert!(!of.may_have("a"));
    change(&of, "b", "1");
}
