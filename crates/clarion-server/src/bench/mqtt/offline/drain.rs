//! The phase `drain`: every session returns, gets what is there for it and acks it.
//!
//! Invariants: it is over when each session that the broker still had has shown for every message that it has it, or will not get
//! it, and every QoS 2 exchange is finished; or when nothing comes any more. Must not know: how the messages came there.

use std::cell::RefCell;

use memchr::memmem::Finder;
use serde_json::json;

use super::{
    super::{
        super::{
            BenchError,
            histogram::Histogram,
            lanes::Lanes,
            meter::{Faults, Meter, Report},
            payload::{Clock, TEXT_MARK, find_stamp},
            progress::Progress,
            tally::QUIET,
        },
        Ground,
        client::{Heard, Session},
        pool::Pool,
        rounded,
    },
    load::Load,
    wish,
};

/// One session's account.
#[derive(Debug)]
struct Reader {
    lanes: Lanes,
    /// The first lane of its group.
    first_lane: u32,
    /// Messages that it is still to get.
    left: u64,
}

struct Drain<'a> {
    load: &'a Load,
    finder: Finder<'static>,
    clock: Clock,
    readers: Vec<Reader>,
    /// When each began to return.
    begun: &'a RefCell<Vec<u64>>,
    /// Sessions that the broker still had.
    present: u64,
    received: u64,
    settled: u64,
    /// QoS 2 exchanges that the broker has not finished.
    open: u64,
    heard_at: u64,
    latency: Histogram,
}

/// All sessions return and get what is theirs.
pub(super) fn run(ground: &Ground<'_>, load: &Load) -> Result<Report, BenchError> {
    let begun = RefCell::new(Vec::with_capacity(load.sessions as usize));
    let mut pool = Pool::new(&ground.plan)?;
    let meter = Meter::start(ground.server);
    let mut drain = Drain::new(load, &begun);
    let clock = drain.clock;
    let wishes = (0..load.sessions).map(|session| {
        begun.borrow_mut().push(clock.micros());
        wish(ground, session, Session::Kept, None, 0)
    });
    pool.open_hearing(wishes, ground.opening, ground.progress, |place, heard| {
        drain.hear(place, heard);
    })?;
    let complete = drain.settle(&mut pool, ground.progress)?;
    // Acks are work, too: the broker has read them all when it closes the connections.
    pool.leave(ground.progress, |place, heard| drain.hear(place, heard))?;
    let latency = std::mem::replace(&mut drain.latency, Histogram::new());
    let (name, server) = ("mqtt-offline-drain", ground.server);
    let mut report = meter.finish(server, name, drain.received, latency, drain.faults());
    if !complete {
        // The time in which nothing came is not the broker's.
        report.seconds = drain.heard_at as f64 / 1e6;
    }
    let cpu = report.server.as_ref().map(|server| server.cpu_seconds * 1000.0);
    let each = cpu.map(|cpu| rounded(cpu / f64::from(load.sessions)));
    report.more.push(("cpu_ms_per_session", json!(each)));
    report.more.push(("sessions_present", json!(drain.present)));
    Ok(report)
}

impl<'a> Drain<'a> {
    fn new(load: &'a Load, begun: &'a RefCell<Vec<u64>>) -> Self {
        let reader = |session| Reader {
            lanes: Lanes::new(load.lanes() as usize),
            first_lane: load.group_of(session) * load.lanes(),
            left: u64::from(load.messages),
        };
        Self {
            load,
            finder: Finder::new(TEXT_MARK),
            clock: Clock::new(),
            readers: (0..load.sessions).map(reader).collect(),
            begun,
            present: 0,
            received: 0,
            settled: 0,
            open: 0,
            heard_at: 0,
            latency: Histogram::new(),
        }
    }

    /// Whether everything came; else nothing comes any more.
    fn settle(&mut self, pool: &mut Pool, progress: &Progress) -> Result<bool, BenchError> {
        let total = self.present * u64::from(self.load.messages);
        while self.settled < total || self.open > 0 {
            if !pool.wake(Some(QUIET), |place, heard| self.hear(place, heard))? {
                return Ok(false);
            }
            progress.show("drained", self.settled, total);
        }
        Ok(true)
    }

    fn hear(&mut self, place: usize, heard: Heard<'_>) {
        match heard {
            Heard::Present => self.present += 1,
            Heard::Message(payload) => self.take(place, payload),
            Heard::Held => self.open += 1,
            Heard::Released => self.open = self.open.saturating_sub(1),
            Heard::Ready | Heard::Acked | Heard::Gone => {}
        }
    }

    fn take(&mut self, place: usize, payload: &[u8]) {
        let Some(reader) = self.readers.get_mut(place) else { return };
        let Some(stamp) = find_stamp(&self.finder, payload) else { return };
        let Some(lane) = stamp.lane.checked_sub(reader.first_lane) else { return };
        if lane >= self.load.lanes() {
            return;
        }
        self.received += 1;
        self.heard_at = self.clock.micros();
        let count = reader.lanes.take(lane, stamp.number);
        self.settled += count;
        if count > 0 && reader.left > 0 {
            reader.left = reader.left.saturating_sub(count);
            if reader.left == 0 {
                let begun = self.begun.borrow().get(place).copied().unwrap_or_default();
                self.latency.record_micros(self.heard_at.saturating_sub(begun));
            }
        }
    }

    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        let mut group = (u32::MAX, Vec::new());
        for (session, reader) in (0..self.load.sessions).zip(&self.readers) {
            let wanted = self.load.group_of(session);
            if group.0 != wanted {
                group = (wanted, self.load.lengths(wanted));
            }
            faults.add(reader.lanes.faults(&group.1));
        }
        faults
    }
}
