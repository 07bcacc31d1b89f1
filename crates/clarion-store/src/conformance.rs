//! The suite that every engine must pass. One function per promise of the port; each makes its own fresh stores.
//!
//! An engine joins with a [`Factory`] and one line, `clarion_store::conformance!(factory)`, in a module of tests.
//! Where something survives the process, every promise is also checked after reopening without a clean end.

#![allow(clippy::unwrap_used, reason = "a failed check panics")]

mod copies;
mod cursors;
mod limits;
mod publish;
mod read;
mod records;
mod references;
mod retention;
mod starts;
mod sweep;

pub use self::{
    copies::*, cursors::*, limits::*, publish::*, read::*, records::*, references::*, retention::*,
    starts::*, sweep::*,
};

use bytes::Bytes;
use clarion_core::port::BoxFuture;
use clarion_core::port::store::{
    Batch, Done, Head, Move, Page, Publish, ReadRange, Reader, Store, Stored, Unit,
};
use clarion_core::{Address, Code, Content, Cursor, Millis, Overflow, Retention, Seq};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// One store under test.
pub trait Subject {
    /// The open store. Whoever took it gives it back (drops it) before [`Self::reopen`].
    fn store(&self) -> Arc<dyn Store>;
    /// Ends the store without a clean end and opens it again. `false` = nothing survives, and nothing happened.
    fn reopen(&mut self) -> bool;
}

/// Makes stores.
pub trait Factory {
    /// An empty one with the engine's defaults.
    fn fresh(&self) -> Box<dyn Subject>;
    /// An empty one that holds at most about so many bytes.
    fn bounded(&self, max_bytes: u64) -> Box<dyn Subject>;
}

/// A moment in 2026.
pub const NOW: Millis = 1_790_000_000_000;
/// One hour.
pub const HOUR: Millis = 3_600_000;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub fn wait<T>(mut future: BoxFuture<T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Bounds that bound nothing.
pub fn unbounded() -> Retention {
    Retention { age_ms: 0, count: 0, bytes: 0, overflow: Overflow::TrimOldest }
}

/// `user:<id>`.
pub fn user(id: &str) -> Address {
    Address::user(id).unwrap()
}

/// A message with this body.
pub fn text(body: impl AsRef<[u8]>) -> Content {
    Content { payload: Bytes::copy_from_slice(body.as_ref()), counted: true, ..Content::default() }
}

/// A publish that nothing bounds.
pub fn publish_to(channel: &Address, content: Content) -> Publish {
    let content = Arc::new(content);
    Publish { channel: channel.clone(), content, refs: Vec::new(), retention: unbounded() }
}

/// Commits units at `now`; the batch must take effect.
pub fn commit_at(store: &Arc<dyn Store>, now: Millis, units: Vec<Unit>) -> Vec<Done> {
    let batch = Batch { now, fence: None, units };
    wait(store.commit(batch)).unwrap().results
}

/// Commits units.
pub fn commit(store: &Arc<dyn Store>, units: Vec<Unit>) -> Vec<Done> {
    commit_at(store, NOW, units)
}

/// Commits one unit.
pub fn commit_one(store: &Arc<dyn Store>, unit: Unit) -> Done {
    commit(store, vec![unit]).remove(0)
}

/// Publishes; it must be taken.
pub fn put(store: &Arc<dyn Store>, publish: Publish) -> Stored {
    stored(&commit_one(store, Unit::Publish(publish)))
}

/// Publishes so many short messages, with their number as the body.
pub fn put_many(store: &Arc<dyn Store>, channel: &Address, count: u64) {
    let units = (0..count).map(|n| Unit::Publish(publish_to(channel, text(n.to_string()))));
    for done in commit(store, units.collect()) {
        stored(&done);
    }
}

/// What a publish was answered.
pub fn stored(done: &Done) -> Stored {
    match done {
        Done::Published(stored) => *stored,
        other => panic!("not published: {other:?}"),
    }
}

/// Why a unit was refused.
pub fn refusal(done: &Done) -> Code {
    match done {
        Done::Refused(code) => *code,
        other => panic!("not refused: {other:?}"),
    }
}

/// One channel's head.
pub fn head(store: &Arc<dyn Store>, channel: &Address) -> Head {
    wait(store.heads(vec![channel.clone()])).unwrap()[0]
}

/// A range without bounds.
pub fn range(channel: &Address, from: Seq, to: Seq) -> ReadRange {
    ReadRange {
        channel: channel.clone(),
        from,
        to,
        backwards: false,
        count: usize::MAX,
        bytes: usize::MAX,
    }
}

/// Reads one range.
pub fn read_at(store: &Arc<dyn Store>, now: Millis, range: ReadRange) -> Page {
    wait(store.read(now, vec![range])).unwrap().remove(0)
}

/// Reads one range now.
pub fn page(store: &Arc<dyn Store>, range: ReadRange) -> Page {
    read_at(store, NOW, range)
}

/// Everything that a channel holds, page by page, as a reader would that knows nothing of sizes.
pub fn all(store: &Arc<dyn Store>, channel: &Address) -> Vec<(Seq, Bytes)> {
    let mut found = Vec::new();
    let mut from = 1;
    loop {
        let page = page(store, range(channel, from, Seq::MAX));
        let bodies = page.messages.iter().map(|m| (m.seq, m.content.payload.clone()));
        found.extend(bodies);
        if page.through >= page.head.last {
            return found;
        }
        assert!(page.through >= from, "a page that is not complete makes progress");
        from = page.through + 1;
    }
}

/// The seqs of a page.
pub fn seqs(page: &Page) -> Vec<Seq> {
    page.messages.iter().map(|m| m.seq).collect()
}

/// An ack of everything up to `floor`, in whatever history there is.
pub fn ack(reader: &Reader, channel: &Address, floor: Seq) -> Unit {
    let of = Move { channel: channel.clone(), epoch: 0, cursor: Cursor::at(floor) };
    Unit::Ack { reader: reader.clone(), moves: vec![of] }
}

/// Runs a check on the store, then once more after reopening it, if that is possible.
pub fn also_reopened(subject: &mut Box<dyn Subject>, check: impl Fn(&Arc<dyn Store>)) {
    check(&subject.store());
    if subject.reopen() {
        check(&subject.store());
    }
}

/// Makes one test of every check of the suite.
#[macro_export]
macro_rules! conformance {
    ($factory:expr) => {
        $crate::conformance!(@each $factory;
            dense_seqs_under_64_writers, what_is_visible_is_committed, refused_commits_burn_no_seq,
            one_record_for_one_key, a_key_is_forgotten_after_a_day, time_never_falls_in_a_log,
            odd_contents_and_names, dropped_futures_cancel_nothing, ids_lead_to_positions,
            acks_merge_in_any_order, cursors_are_listed_both_ways, epochs_guard_cursors,
            starts_begin_at_the_head, starts_among_writers, one_cursor_is_forgotten,
            readers_of_every_byte_do_not_mix, the_time_of_an_ack_is_kept,
            trimming_is_logical_at_once, bounds_by_count, bounds_by_bytes, a_queue_refuses_and_keeps,
            pages_are_bounded, an_oversized_message_comes_alone, holes_are_passed,
            reading_backwards, several_ranges_at_once,
            references_lead_to_bodies, references_do_not_outlive_bodies, no_reference_before_its_body,
            references_tell_their_places, copies_outlive_bodies, references_weigh_what_they_hold,
            an_erased_message_shows_nowhere, an_erasure_sees_its_own_batch, a_full_filter_refuses_the_publish,
            one_winner_of_many, units_see_those_before_them, scans_complete_under_writes,
            keys_of_every_byte, an_old_fence_is_refused,
            age_is_swept_within_the_budget, age_is_counted_to_the_millisecond, empty_channels_give_back_their_names,
            names_of_one_off_topics_come_back,
            a_full_engine_refuses_publishes_only, oversized_keys_are_refused
        );
    };
    (@each $factory:expr; $($check:ident),*) => {
        $(#[test] fn $check() { $crate::conformance::$check(&$factory); })*
    };
}
