//! The one thread that writes: plans a batch against committed state, writes it at once, then shows it.
//!
//! Invariants: nothing that others see changes before fjall's commit came back; a batch that failed leaves no trace in
//! memory; after a failed write the latch is set and nothing is written again. Units see the effects of the units
//! before them in the batch through the plan.

use super::channels::{Channel, State};
use super::codec::ChannelRecord;
use super::cursors::CursorChange;
use super::engine::{Engine, Fault};
use super::idempotency::Key;
use super::space::Space;
use super::sweep::Visit;
use super::{Durable, keys, open};
use crate::random;
use bytes::Bytes;
use clarion_core::port::store::{
    Batch, Committed, Done, Durability, Referred, StoreError, Stored, Unit,
};
use clarion_core::{Address, Code, Millis, Seq};
use fjall::{OwnedWriteBatch, PersistMode, Slice};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Numbers of channels are set aside so many at a time.
const NUMBERS_AT_ONCE: u32 = 1024;
/// Numbers have 31 bits in a message id.
const NUMBERS_END: u32 = 1 << 31;

type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked for.
pub(super) enum Job {
    Commit(Batch, Answer<Committed>),
    Claim {
        now: Millis,
        key: Bytes,
        owner: Bytes,
        ttl_ms: u64,
        answer: Answer<Option<u64>>,
    },
    /// Channels that are due; answered with the number of seqs that left.
    Sweep(Millis, Vec<Visit>, std::sync::mpsc::SyncSender<Result<u64, StoreError>>),
    /// Sync, say that the end was clean, and end.
    Close(std::sync::mpsc::SyncSender<Result<(), StoreError>>),
}

/// A channel that the present batch touched.
pub(super) struct Touched {
    pub(super) channel: Arc<Channel>,
    /// As it will be after the batch.
    pub(super) state: State,
    /// The last seq before the batch: what lies above is in `staged`.
    pub(super) committed: Seq,
    /// Bound by bytes, when something was appended that may be over it.
    pub(super) bytes_bound: u64,
    /// Created by this batch.
    pub(super) fresh: bool,
    /// The channel record must be written.
    pub(super) dirty: bool,
    /// Where the sweeper's entry stood before, if it moved.
    pub(super) due_before: u32,
    /// Gives back its name.
    pub(super) ends: bool,
}

/// A record that the present batch appends.
pub(super) struct Staged {
    pub(super) touched: usize,
    pub(super) seq: Seq,
    pub(super) value: Slice,
}

/// What the present batch will do.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) now: Millis,
    pub(super) touched: Vec<Touched>,
    pub(super) fresh: HashMap<Address, usize>,
    pub(super) staged: Vec<Staged>,
    pub(super) refs: Vec<Referred>,
    pub(super) cursors: BTreeMap<Vec<u8>, CursorChange>,
    pub(super) records: HashMap<Bytes, Option<(u64, Bytes)>>,
    pub(super) remembered: HashMap<Key, Stored>,
}

impl Plan {
    fn clear(&mut self) {
        self.touched.clear();
        self.fresh.clear();
        self.staged.clear();
        self.refs.clear();
        self.cursors.clear();
        self.records.clear();
        self.remembered.clear();
    }
}

pub(super) struct Writer {
    pub(super) engine: Arc<Engine>,
    pub(super) plan: Plan,
    pub(super) scratch: Vec<u8>,
    pub(super) space: Space,
    batch_number: u64,
    next_number: u32,
    numbers_end: u32,
    /// The store says that something was answered with durability `memory`.
    memory_flagged: bool,
    epochs_drawn: u64,
}

impl Writer {
    pub(super) fn new(engine: Arc<Engine>, next_number: u32, memory_flagged: bool) -> Self {
        let space = Space::new(&engine);
        Self {
            engine,
            plan: Plan::default(),
            scratch: Vec::new(),
            space,
            batch_number: 0,
            next_number,
            numbers_end: next_number,
            memory_flagged,
            epochs_drawn: 0,
        }
    }

    /// Serves until the queue is closed and empty.
    pub(super) fn run(mut self, jobs: &super::queue::Queue<Job>) {
        while let Some(job) = jobs.pop() {
            let served = catch_unwind(AssertUnwindSafe(|| self.serve(job)));
            if served.is_err() {
                // Who waited sees its answer channel closed. The plan may be half made, so nothing more is written.
                self.engine.latch("the store's writer stopped on an internal error".into());
            }
        }
    }

    fn serve(&mut self, job: Job) {
        match job {
            Job::Commit(batch, answer) => {
                let result = self.commit(batch);
                let _ = answer.send(result);
            }
            Job::Claim { now, key, owner, ttl_ms, answer } => {
                let result = self.claim(now, &key, owner, ttl_ms);
                let _ = answer.send(result);
            }
            Job::Sweep(now, visits, answer) => {
                let result = self.sweep(now, &visits);
                let _ = answer.send(result);
            }
            Job::Close(answer) => {
                let _ = answer.send(self.close());
            }
        }
    }

    fn commit(&mut self, batch: Batch) -> Result<Committed, StoreError> {
        self.writable()?;
        if let Some((key, fence)) = &batch.fence {
            self.check_fence(batch.now, key, *fence)?;
        }
        self.begin(batch.now);
        let mut out = self.new_batch(batch.units.len());
        let mut results = Vec::with_capacity(batch.units.len());
        for (place, unit) in batch.units.into_iter().enumerate() {
            match self.unit(&mut out, place, unit) {
                Ok(done) => results.push(done),
                Err(Fault::Refused(code)) => results.push(Done::Refused(code)),
                Err(fault) => return Err(self.give_up(fault)),
            }
        }
        let refs = std::mem::take(&mut self.plan.refs);
        self.finish(out)?;
        let durability = match self.engine.config.durability {
            Durable::Disk => Durability::Disk,
            Durable::Memory => Durability::Memory,
        };
        Ok(Committed { durability, results, refs })
    }

    /// Whether anything may be written at all.
    pub(super) fn writable(&self) -> Result<(), StoreError> {
        match self.engine.failure() {
            Some(detail) => Err(StoreError::Refused { code: Code::StoreUnavailable, detail }),
            None => Ok(()),
        }
    }

    pub(super) fn begin(&mut self, now: Millis) {
        self.plan.clear();
        self.plan.now = now;
        self.engine.floors.tick(now);
        self.space.begin();
        self.batch_number += 1;
    }

    pub(super) fn new_batch(&self, units: usize) -> OwnedWriteBatch {
        let mode = match self.engine.config.durability {
            Durable::Disk => PersistMode::SyncData,
            Durable::Memory => PersistMode::Buffer,
        };
        OwnedWriteBatch::with_capacity(self.engine.db.clone(), units + 8).durability(Some(mode))
    }

    /// The batch is abandoned before anything of it was written.
    pub(super) fn give_up(&mut self, fault: Fault) -> StoreError {
        self.plan.clear();
        if let Fault::Engine(fjall::Error::Poisoned) = fault {
            self.engine.latch("a thread of the storage engine failed".into());
        }
        fault.into()
    }

    fn unit(&mut self, out: &mut OwnedWriteBatch, place: usize, unit: Unit) -> Result<Done, Fault> {
        match unit {
            Unit::Publish(publish) => self.publish(out, place, &publish).map(Done::Published),
            Unit::Ack { reader, moves } => self.ack(&reader, &moves).map(|()| Done::Acked),
            Unit::Start { reader, channel } => self.start(&reader, &channel),
            Unit::Forget { reader, channel } => {
                self.forget(&reader, channel.as_ref()).map(|()| Done::Acked)
            }
            Unit::Record { key, expect, change } => {
                self.record(key, expect, change).map(Done::Recorded)
            }
            Unit::Trim { channel, below } => self.trim(&channel, below).map(Done::Trimmed),
            Unit::Erase { channel, seq } => self.erase(out, &channel, seq).map(Done::Erased),
        }
    }

    /// The index of this channel among the touched; creates the channel if asked to.
    pub(super) fn touch(
        &mut self,
        address: &Address,
        create: bool,
    ) -> Result<Option<usize>, Fault> {
        if !self.plan.fresh.is_empty()
            && let Some(index) = self.plan.fresh.get(address)
        {
            return Ok(Some(*index));
        }
        if let Some(channel) = self.engine.channel_to_write(address)? {
            if let Some(index) = channel.touched(self.batch_number) {
                return Ok(Some(index));
            }
            return Ok(Some(self.add_touched(channel, false)));
        }
        if !create {
            return Ok(None);
        }
        let number = self.new_number()?;
        let record =
            ChannelRecord { base_epoch: self.draw_epoch(), floor: 1, ..ChannelRecord::default() };
        let state = State::new(record, self.engine.generation);
        let channel = Arc::new(Channel::new(address.clone(), number, state));
        let index = self.add_touched(channel, true);
        self.plan.fresh.insert(address.clone(), index);
        self.reschedule(index);
        Ok(Some(index))
    }

    /// The same for a channel that is created when it is not there.
    pub(super) fn touch_or_create(&mut self, address: &Address) -> Result<usize, Fault> {
        self.touch(address, true)?.ok_or(Fault::Refused(Code::Internal))
    }

    fn add_touched(&mut self, channel: Arc<Channel>, fresh: bool) -> usize {
        let index = self.plan.touched.len();
        let state = channel.state();
        channel.touch(self.batch_number, index);
        self.plan.touched.push(Touched {
            committed: state.record.last,
            due_before: state.record.due,
            channel,
            state,
            bytes_bound: 0,
            fresh,
            dirty: fresh,
            ends: false,
        });
        index
    }

    fn new_number(&mut self) -> Result<u32, Fault> {
        if self.next_number >= NUMBERS_END {
            return Err(Fault::Refused(Code::StoreFull));
        }
        let number = self.next_number;
        self.next_number += 1;
        Ok(number)
    }

    fn draw_epoch(&mut self) -> u32 {
        loop {
            self.epochs_drawn += 1;
            let drawn = match self.engine.config.epoch_seed {
                Some(seed) => random::mix(seed.wrapping_add(self.epochs_drawn)) as u32,
                None => random::u32(),
            };
            if drawn != 0 {
                return drawn;
            }
        }
    }

    /// Writes what the plan says, then shows it.
    pub(super) fn finish(&mut self, mut out: OwnedWriteBatch) -> Result<(), StoreError> {
        for index in 0..self.plan.touched.len() {
            if let Err(fault) = self.retain(index) {
                return Err(self.give_up(fault));
            }
        }
        if let Err(fault) = self.write_small(&mut out) {
            return Err(self.give_up(fault));
        }
        if out.is_empty() {
            return Ok(());
        }
        self.wait_for_room()?;
        self.flag_memory()?;
        if let Err(error) = out.commit() {
            return Err(self.lost(error));
        }
        self.show();
        Ok(())
    }

    /// The write failed: nobody knows what of it a restart will find.
    fn lost(&mut self, error: fjall::Error) -> StoreError {
        self.plan.clear();
        let poisoned = matches!(error, fjall::Error::Poisoned);
        let detail = error.to_string();
        self.engine.latch(detail.clone());
        if poisoned {
            // Found before anything was written.
            return StoreError::Refused { code: Code::StoreUnavailable, detail };
        }
        StoreError::Unknown { detail }
    }

    fn write_small(&mut self, out: &mut OwnedWriteBatch) -> Result<(), Fault> {
        let ks = &self.engine.ks;
        if self.next_number > self.numbers_end {
            self.numbers_end = self.next_number.saturating_add(NUMBERS_AT_ONCE);
            out.insert(&ks.meta, keys::NEXT_NUMBER, self.numbers_end.to_be_bytes());
        }
        for touched in &self.plan.touched {
            let number = touched.channel.number;
            let address = &touched.channel.address;
            if touched.ends {
                out.remove(&ks.names, keys::name(address));
                out.remove(&ks.names, keys::address(number));
                out.remove(&ks.channels, keys::channel(number));
                out.remove(&ks.due, keys::due(touched.due_before, number));
                continue;
            }
            if touched.fresh {
                let text = [&[keys::TENANT], address.as_str().as_bytes()].concat();
                out.insert(&ks.names, keys::name(address), keys::channel(number));
                out.insert(&ks.names, keys::address(number), text);
            }
            let due = touched.state.record.due;
            if due != touched.due_before {
                if touched.due_before != 0 {
                    out.remove(&ks.due, keys::due(touched.due_before, number));
                }
                out.insert(&ks.due, keys::due(due, number), []);
            }
            if touched.dirty || due != touched.due_before {
                self.scratch.clear();
                touched.state.record.put(&mut self.scratch);
                out.insert(&ks.channels, keys::channel(number), self.scratch.as_slice());
            }
        }
        self.write_cursors(out);
        self.write_records(out);
        self.write_remembered(out)
    }

    /// Says on disk that answers with durability `memory` were given, before the first of them.
    fn flag_memory(&mut self) -> Result<(), StoreError> {
        if self.memory_flagged || self.engine.config.durability == Durable::Disk {
            return Ok(());
        }
        let mut flag = self.new_batch(1).durability(Some(PersistMode::SyncData));
        flag.insert(&self.engine.ks.meta, keys::MEMORY, [1]);
        flag.commit().map_err(|error| self.lost(error))?;
        self.memory_flagged = true;
        Ok(())
    }

    /// What was committed becomes what others see.
    fn show(&mut self) {
        for touched in &self.plan.touched {
            if touched.ends {
                self.engine.channels.forget(&touched.channel.address);
                continue;
            }
            touched.channel.set_state(touched.state);
            if touched.fresh {
                self.engine.channels.publish_new(&touched.channel);
            }
        }
        let staged = self.plan.staged.iter().map(|staged| staged.value.len());
        let records = self.plan.records.values().flatten().map(|(_, value)| value.len());
        let bytes: usize = staged.chain(records).sum();
        self.space.appended(bytes as u64);
        self.plan.clear();
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.writable()?;
        let number = u64::from(random::u32()) << 32 | u64::from(random::u32());
        let mut last = self.new_batch(2).durability(Some(PersistMode::SyncAll));
        last.remove(&self.engine.ks.meta, keys::MEMORY);
        last.insert(&self.engine.ks.meta, keys::CLOSED, number.to_be_bytes());
        last.commit().map_err(|error| self.lost(error))?;
        self.memory_flagged = false;
        open::mark_clean(&self.engine.dir, number).map_err(|error| {
            let detail = format!("{}: {error}", self.engine.dir.display());
            StoreError::Refused { code: Code::StoreUnavailable, detail }
        })
    }
}
