//! A shard: one thread with everything that its sessions own.
//!
//! Owns: sessions, live lists, devices' cursors in memory, catch-up, timers. Invariants: plain single-threaded data,
//! borrowed only between awaits; one tick = drain the mailbox, ask for pages, flush what is dirty. Must not know:
//! protocols, drivers.

mod ahead;
mod bury;
mod catch_up;
mod confirm;
mod deliver;
mod device;
mod gates;
mod input;
mod link;
mod live;
mod mailbox;
mod members;
mod outbox;
mod peer;
mod session;
mod slab;
mod takers;
mod timers;
mod voice;
mod written;

pub(crate) use mailbox::{Hinted, Job, LiveDone, Mail, Mailbox};
pub(crate) use peer::PeerReply;
pub(crate) use session::SessionView;
pub(crate) use slab::SessionKey;
pub(crate) use takers::{Taken, Taker};

use crate::attach::SharedPlan;
use crate::clients::Clients;
use crate::committer::CommitQueue;
use crate::config::NodeConfig;
use crate::interest::Interest;
use crate::metrics::ShardCounters;
use crate::planner::Planner;
use crate::retained::Retained;
use crate::sessions::Sessions;
use crate::sweeper::Trimmable;
use crate::sys::{Connected, Sys};
use bytes::Bytes;
use catch_up::Waiter;
use clarion_core::catch_up::CatchUp;
use clarion_core::port::store::Store;
use clarion_core::topic_tree::TopicTree;
use clarion_core::{Message, Millis, Seq};
use deliver::Frames;
use device::Device;
use gates::Gates;
use live::{LiveLists, TopicEntry};
use members::{Shared, SharedKey};
use peer::{HandOut, News, Publishing, Wills};
use session::Session;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use timers::Timers;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Loads (heads and cursors of a new session) under way at once.
const LOADS_MAX: usize = 32;

/// What is read from a connection before others have their turn.
const INPUT_BYTES: usize = 64 << 10;

/// What a shard shares with the rest of the node.
pub(crate) struct ShardContext {
    pub(crate) index: usize,
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) interest: Arc<Interest>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) queue: Arc<CommitQueue>,
    pub(crate) trimmable: Arc<Trimmable>,
    pub(crate) planner: Arc<Planner>,
    pub(crate) retained: Arc<Retained>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) connected: Arc<Connected>,
    pub(crate) sys: Arc<Sys>,
    pub(crate) mailboxes: Arc<[Arc<Mailbox>]>,
}

impl ShardContext {
    /// Runs something on another shard; nothing, when that has ended.
    fn post_job(&self, shard: usize, body: impl FnOnce(&Rc<Shard>) + Send + 'static) {
        self.mailboxes[shard].post(Mail::Job(Box::new(body)));
    }
}

struct State {
    sessions: Slab<Session>,
    /// Sessions that lists leave out.
    hidden: usize,
    live: LiveLists,
    /// Peers' subscriptions to filters with wildcards.
    filters: TopicTree<Vec<TopicEntry>>,
    /// What matches the message that is being delivered; empty in between.
    matched: Vec<TopicEntry>,
    publishing: Publishing,
    wills: Wills,
    /// Peers whose packets wait and may be heard.
    peers_waiting: Vec<SessionKey>,
    /// Shared cursors that are in use.
    shared: Slab<Shared>,
    shared_by_plan: HashMap<SharedPlan, SharedKey>,
    /// Shared cursors that may hand out.
    ready: Vec<SharedKey>,
    /// When leases lapse and delays end.
    due: BinaryHeap<Reverse<(Millis, SharedKey)>>,
    /// Shared cursors with unwritten acks.
    dirty_shared: Vec<SharedKey>,
    /// Pages that shared cursors wait for.
    shared_reads: Vec<(SharedKey, Seq)>,
    /// Shared cursors whose page could not be read, tried again with the next timer tick.
    shared_retry: Vec<SharedKey>,
    /// What is handed to members of groups here, and what members here tell the owners of their groups.
    share_handed: Vec<HandOut>,
    share_news: Vec<News>,
    /// Messages on their way to a dead list.
    dying: Vec<(SharedKey, Seq)>,
    /// Sessions whose clients said something before they were open.
    early: Vec<SessionKey>,
    gates: Gates,
    /// Sessions with bytes that are not certainly written, where that matters.
    writing: Vec<SessionKey>,
    users: HashMap<Arc<str>, Vec<SessionKey>>,
    devices: HashMap<u64, Device>,
    dirty_devices: Vec<u64>,
    catch_up: CatchUp<Waiter>,
    /// Sessions with bytes to flush.
    dirty: Vec<SessionKey>,
    timers: Timers,
    frames: Frames,
    /// Stored sessions with something that must be written with this tick, or soon.
    stored_now: Vec<SessionKey>,
    stored_acks: Vec<SessionKey>,
    /// Empty in between.
    stored_touched: Vec<SessionKey>,
    /// Tails of stored sessions' subscriptions that may go.
    tails_spent: Vec<(SessionKey, Vec<u32>)>,
    /// Sessions that still may get a page after a failed read, tried again with the next timer tick.
    retry: Vec<SessionKey>,
}

/// See the module.
pub(crate) struct Shard {
    context: ShardContext,
    state: RefCell<State>,
    loads: Semaphore,
    /// What is read from connections.
    input: RefCell<Box<[u8]>>,
    /// What their layers make of it.
    plain: RefCell<Vec<u8>>,
    /// Retained messages that sessions hold, by record: its version and its message.
    retained_shared: RefCell<HashMap<Bytes, (u64, Weak<Message>)>>,
    closing: Cell<bool>,
    /// All that was committed up to this time has been handled here.
    seen: Cell<Millis>,
    /// Ends of stored sessions that are being committed.
    endings: Cell<usize>,
    /// When it began.
    started: Millis,
    /// What leases and delays are measured by, since the clock may jump.
    mono: Instant,
}

impl Shard {
    /// Runs a shard on this thread until it is told to stop.
    pub(crate) fn run(context: ShardContext) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime, Rc::new(Self::new(context)).serve());
        Ok(())
    }

    fn new(context: ShardContext) -> Self {
        let started = crate::clock::now().max(context.planner.durable.hinted());
        let state = State {
            sessions: Slab::new(),
            hidden: 0,
            live: LiveLists::default(),
            filters: TopicTree::default(),
            matched: Vec::new(),
            publishing: Publishing::default(),
            wills: Wills::default(),
            peers_waiting: Vec::new(),
            shared: Slab::new(),
            shared_by_plan: HashMap::new(),
            ready: Vec::new(),
            due: BinaryHeap::new(),
            dirty_shared: Vec::new(),
            shared_reads: Vec::new(),
            shared_retry: Vec::new(),
            share_handed: Vec::new(),
            share_news: Vec::new(),
            dying: Vec::new(),
            early: Vec::new(),
            gates: Gates::default(),
            writing: Vec::new(),
            users: HashMap::new(),
            devices: HashMap::new(),
            dirty_devices: Vec::new(),
            catch_up: CatchUp::new(context.config.catch_up_reads),
            dirty: Vec::new(),
            timers: Timers::new(context.config.heartbeat, context.config.ack_flush),
            frames: Frames::default(),
            stored_now: Vec::new(),
            stored_acks: Vec::new(),
            stored_touched: Vec::new(),
            tails_spent: Vec::new(),
            retry: Vec::new(),
        };
        Self {
            context,
            state: RefCell::new(state),
            loads: Semaphore::new(LOADS_MAX),
            input: RefCell::new(vec![0; INPUT_BYTES].into()),
            plain: RefCell::default(),
            retained_shared: RefCell::default(),
            closing: Cell::new(false),
            seen: Cell::new(0),
            endings: Cell::new(0),
            // What was stored before lies below, also when the time ran ahead of the clock.
            started,
            mono: Instant::now(),
        }
    }

    /// The loop: one turn is one tick.
    async fn serve(self: Rc<Self>) {
        let mut mails = Vec::new();
        while !(self.closing.get() && self.is_done()) {
            let deadline = self.state.borrow().timers.deadline();
            // Either way the tick below does what is due.
            let _ = tokio::time::timeout_at(deadline, self.context.mailbox.arrived()).await;
            // Read first: what was committed by then is in the mailbox already.
            let hinted = self.context.planner.durable.hinted();
            let heads = self.context.mailbox.drain(&mut mails);
            for mail in mails.drain(..) {
                self.handle(mail);
            }
            for (channel, dropped) in heads {
                self.raise_head(&channel, dropped);
            }
            self.seen.set(hinted);
            self.run_timers();
            self.run_wills();
            self.hear_waiting();
            self.flush_publishes();
            self.drop_tails();
            self.flush_windows();
            self.hear_early();
            self.begin_replays();
            self.run_shares();
            self.begin_shared_reads();
            self.begin_burials();
            self.begin_pages();
            self.flush_dirty();
        }
        self.context.mailbox.close();
    }

    fn handle(self: &Rc<Self>, mail: Mail) {
        match mail {
            Mail::Records(records) => {
                for record in &records {
                    self.deliver_stored(record);
                }
            }
            Mail::Live(records, done) => {
                let delivered = records.iter().map(|record| self.deliver_live(record)).sum();
                done.done(delivered);
            }
            Mail::Flushed(flushers) => self.flushed(&flushers),
            Mail::Inputs(key, batch) => self.hear(key, batch),
            Mail::Gate(key, batch) => self.gate_says(key, batch),
            Mail::Attach(attach, reply) => {
                // The connection may have gone while this waited; the session then ends by its link.
                let _ = reply.send(self.attach(*attach));
            }
            Mail::AttachPeer(attach, reply) => {
                // As above.
                let _ = reply.send(self.attach_peer(*attach));
            }
            Mail::Published(who, answer) => self.publishes_committed(who, &answer),
            Mail::Share(message, picked) => self.deliver_share(&message, &picked),
            Mail::Job(job) => job(self),
        }
    }

    /// Everything that must happen before the thread may end has happened.
    fn is_done(&self) -> bool {
        let state = self.state.borrow();
        let clean = |shared: &Shared| {
            shared.cursor.as_ref().is_none_or(|c| !c.is_dirty() && !c.is_flushing())
        };
        state.sessions.is_empty()
            && state.devices.values().all(|d| d.set.is_clean())
            && state.shared.iter().all(|(_, shared)| clean(shared))
            && state.gates.is_clean()
            && state.wills.is_empty()
            && state.publishing.is_empty()
            && state.share_news.is_empty()
            && self.endings.get() == 0
    }

    /// Milliseconds since the shard began.
    fn mono(&self) -> Millis {
        self.mono.elapsed().as_millis() as Millis
    }

    /// Hands all unwritten acks to the committer.
    fn flush_acks(&self) {
        self.flush_devices();
        self.flush_stored_acks();
        self.flush_shared();
        self.flush_gates();
    }

    /// Reads and drops what a stream's client sends. Returns whether the connection has ended.
    fn drop_input(&self, stream: &TcpStream) -> bool {
        let mut buffer = self.input.borrow_mut();
        match stream.try_read(&mut buffer) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }

    /// Begins the end: closes every session; the loop ends when all acks are written.
    pub(crate) fn shut_down(self: &Rc<Self>) {
        self.closing.set(true);
        self.close_all(clarion_core::port::outlet::CloseReason::Shutdown);
        self.stop_takers();
        self.flush_acks();
        self.context.mailbox.nudge();
    }
}
