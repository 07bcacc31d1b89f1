use super::*;
use crate::conformance::{self, Factory, Subject};
use clarion_core::port::store::Unit;
use std::sync::Arc;

struct Memory;

impl Subject for Arc<MemoryStore> {
    fn store(&self) -> Arc<dyn Store> {
        self.clone()
    }

    fn reopen(&mut self) -> bool {
        false
    }
}

impl Factory for Memory {
    fn fresh(&self) -> Box<dyn Subject> {
        self.bounded(0)
    }

    fn bounded(&self, max_bytes: u64) -> Box<dyn Subject> {
        let config = MemoryConfig { max_bytes, ..MemoryConfig::default() };
        Box::new(Arc::new(MemoryStore::new(config)))
    }
}

crate::conformance!(Memory);

#[test]
fn a_failed_one_takes_no_writes_and_reads_go_on() {
    let memory = Arc::new(MemoryStore::default());
    let store: Arc<dyn Store> = memory.clone();
    let a = conformance::user("a");
    conformance::put_many(&store, &a, 2);
    memory.set_failed(Some("disk".into()));
    let unit = Unit::Publish(conformance::publish_to(&a, conformance::text("x")));
    let batch = Batch { units: vec![unit], ..Batch::default() };
    let refused = conformance::wait(store.commit(batch)).unwrap_err();
    assert_eq!(refused.code(), Code::StoreUnavailable);
    assert_eq!(conformance::wait(store.check()).failed.as_deref(), Some("disk"));
    assert_eq!(conformance::all(&store, &a).len(), 2);
    memory.set_failed(None);
    conformance::put_many(&store, &a, 1);
}

#[test]
fn a_fixed_seed_gives_fixed_epochs_and_a_loss_of_history_changes_them() {
    let epoch = || {
        let config = MemoryConfig { epoch_seed: Some(7), ..MemoryConfig::default() };
        let memory = Arc::new(MemoryStore::new(config));
        let store: Arc<dyn Store> = memory.clone();
        let a = conformance::user("a");
        conformance::put_many(&store, &a, 1);
        let before = conformance::head(&store, &a).epoch;
        memory.lose_history();
        (before, conformance::head(&store, &a).epoch)
    };
    assert_eq!(epoch(), epoch());
    assert_ne!(epoch().0, epoch().1);
}

#[test]
fn a_start_after_a_loss_of_history_begins_anew() {
    let memory = Arc::new(MemoryStore::default());
    let store: Arc<dyn Store> = memory.clone();
    conformance::start_replaces_a_cursor_of_another_history(store, |store| {
        memory.lose_history();
        store
    });
}
