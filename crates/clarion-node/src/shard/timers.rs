//! A shard's timers: one wheel of 250 ms ticks for sessions, and the deadline of unwritten acks.
//!
//! Invariant: a session has at most a few entries; an entry that fires for a session that has ended, or too early
//! since it was re-armed lazily, does nothing or arms anew.

use super::deliver::Flushed;
use super::session::Role;
use super::{SessionKey, Shard, deliver};
use clarion_core::port::outlet::CloseReason;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;

/// Milliseconds of a tick.
pub(super) const TICK_MS: u64 = 250;
const TICK: Duration = Duration::from_millis(TICK_MS);
const BUCKETS: usize = 256;
/// Ticks between two looks for shared cursors that rest: a minute.
const ROUND: u64 = 240;
/// Pause after acks that could not be written.
const ACKS_AGAIN: Duration = Duration::from_secs(1);

/// How many ticks a span has, at least one.
pub(super) fn ticks(span: Duration) -> u64 {
    (span.as_millis() as u64).div_ceil(TICK_MS).max(1)
}

/// See the module.
pub(super) struct Timers {
    start: Instant,
    /// Ticks that have been handled.
    tick: u64,
    buckets: Vec<Vec<SessionKey>>,
    heartbeat_ticks: u64,
    ack_flush: Duration,
    acks_at: Option<Instant>,
}

impl Timers {
    pub(super) fn new(heartbeat: Duration, ack_flush: Duration) -> Self {
        Self {
            start: Instant::now(),
            tick: 0,
            buckets: vec![Vec::new(); BUCKETS],
            heartbeat_ticks: (heartbeat.as_millis() / TICK.as_millis()).max(1) as u64,
            ack_flush,
            acks_at: None,
        }
    }

    /// The present tick.
    pub(super) fn now(&self) -> u64 {
        self.tick
    }

    /// When a session that wrote last at `last_write` needs a heartbeat.
    pub(super) fn heartbeat_at(&self, last_write: u64) -> u64 {
        last_write + self.heartbeat_ticks
    }

    /// The tick so many seconds from now.
    pub(super) fn after_seconds(&self, seconds: u64) -> u64 {
        self.tick + seconds * 1000 / TICK.as_millis() as u64
    }

    /// Fires for this session at that tick, or earlier if it lies beyond the wheel.
    pub(super) fn arm(&mut self, key: SessionKey, at: u64) {
        let at = at.clamp(self.tick + 1, self.tick + BUCKETS as u64 - 1);
        self.buckets[at as usize % BUCKETS].push(key);
    }

    /// Unwritten acks wait from now on.
    pub(super) fn acks_wait(&mut self) {
        if self.acks_at.is_none() {
            self.acks_at = Some(Instant::now() + self.ack_flush);
        }
    }

    /// Somebody waits for them: they are written with the present tick.
    pub(super) fn acks_now(&mut self) {
        self.acks_at = Some(Instant::now());
    }

    /// They could not be written: not again before a while.
    pub(super) fn acks_failed(&mut self) {
        self.acks_at = Some(Instant::now() + self.ack_flush.max(ACKS_AGAIN));
    }

    /// When something is due next.
    pub(super) fn deadline(&self) -> Instant {
        let next_tick = self.start + TICK * (self.tick + 1) as u32;
        self.acks_at.map_or(next_tick, |at| at.min(next_tick))
    }
}

impl Shard {
    /// Does what is due.
    pub(super) fn run_timers(self: &Rc<Self>) {
        let now = Instant::now();
        let acks_due = {
            let mut state = self.state.borrow_mut();
            let due = state.timers.acks_at.is_some_and(|at| at <= now);
            if due {
                state.timers.acks_at = None;
            }
            due
        };
        if acks_due {
            self.flush_acks();
        }
        self.run_shared_timers();
        loop {
            let mut state = self.state.borrow_mut();
            if state.timers.start + TICK * (state.timers.tick + 1) as u32 > now {
                return;
            }
            state.timers.tick += 1;
            let bucket = state.timers.tick as usize % BUCKETS;
            let fired = std::mem::take(&mut state.timers.buckets[bucket]);
            let retry = std::mem::take(&mut state.retry);
            for key in retry {
                self.mark_dirty(&mut state, key);
            }
            drop(state);
            for key in fired {
                self.fired(key);
            }
            self.check_all_written();
            self.retry_shared();
            self.retry_gate_loads();
            if self.state.borrow().timers.tick.is_multiple_of(ROUND) {
                self.rest_shared();
            }
            self.measure();
        }
    }

    fn fired(&self, key: SessionKey) {
        let mut guard = self.state.borrow_mut();
        let state = &mut *guard;
        let now = state.timers.now();
        let Some(session) = state.sessions.get_mut(key) else { return };
        if let Some(deadline) = session.closing {
            if deadline <= now {
                // It has not taken its last bytes.
                session.doubtful = true;
                return self.remove(state, key);
            }
            return state.timers.arm(key, deadline);
        }
        let mut look = u64::MAX;
        if matches!(session.role, Role::Peer(_)) {
            let Some(at) = self.look_at_peer(state, key) else { return };
            look = at;
        }
        let Some(session) = state.sessions.get_mut(key) else { return };
        let heartbeat = state.timers.heartbeat_at(session.last_write);
        if heartbeat > now {
            return state.timers.arm(key, heartbeat.min(look));
        }
        let timeout = self.context.config.write_timeout.as_millis() / TICK.as_millis();
        let waits = session.outbox.len() > 0 || session.link.holds();
        if waits && now - session.last_write > timeout as u64 {
            // Not that it would read it; but the outlet knows now why.
            session.doubtful = true;
            let retry_ms = self.context.config.retry_ms;
            session.outlet.close(CloseReason::TooSlow, retry_ms, session.outbox.control());
            return self.remove(state, key);
        }
        // A connection that takes no bytes gets no heartbeat on top; one that is idle learns here that it is dead.
        if session.opened && session.outbox.len() == 0 {
            session.outlet.heartbeat(session.outbox.control());
            if deliver::flush(session, &self.context.counters, now) == Flushed::Lost {
                return self.remove(state, key);
            }
        }
        let next = state.timers.heartbeat_at(now).min(look);
        state.timers.arm(key, next);
    }

    fn measure(&self) {
        let state = self.state.borrow();
        if state.timers.tick.is_multiple_of(4) {
            let bytes: usize = state.sessions.iter().map(|(_, s)| s.outbox.len()).sum();
            self.context.counters.outbox_bytes.set(bytes as u64);
            self.measure_gates(&state);
        }
    }
}
