//! The visits of a churn: who connects, what it does there and how it leaves, and beside that the publishers.
//!
//! Invariants: a session has one visit at a time (a take-over is the same one's second connection); whatever goes wrong with a visit
//! is counted and ends that one only; publishers have the first places and stay. Must not know: the server's process.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use super::{
    super::{
        super::{
            BenchError,
            histogram::Histogram,
            payload::{Clock, Stamp, put_text},
        },
        Ground,
        client::{Heard, Session, Wish},
        pool::Pool,
    },
    crowd::{Crowd, Kept},
    kind::{Counts, Kind},
    series::Row,
};

const SECOND: u64 = 1_000_000;
/// How long an answer may take, in microseconds.
const PATIENCE: u64 = 30 * SECOND;
/// How long a visit stays, at most.
const STAY: u32 = 2_000_000;
/// The longest of the short expiries, in seconds.
const SHORT: u32 = 60;
/// Clients that publish, and what each has unacked at most.
const PUBLISHERS: usize = 4;
const IN_FLIGHT: usize = 64;
/// How long nothing may have to happen until the clock is looked at again.
const TICK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// So many answers to its SUBSCRIBE and UNSUBSCRIBE are missing.
    Changing(u8),
    Staying,
    /// Somebody else connects as the same client.
    Ousted,
    Leaving,
}

/// One connection.
#[derive(Debug)]
struct Visit {
    session: u32,
    kind: Kind,
    stage: Stage,
    began: u32,
    present: bool,
    expiry: Option<u32>,
    /// When something is to happen to it.
    due: u64,
}

/// What a connection told.
#[derive(Debug)]
enum Note {
    Ready,
    Present,
    Message,
    Acked,
    Changed,
    Gone,
    Failed(String),
}

/// See the module.
pub(super) struct Drive<'a> {
    ground: &'a Ground<'a>,
    pub(super) crowd: Crowd,
    pool: Pool,
    visits: Vec<Option<Visit>>,
    free: Vec<usize>,
    open: usize,
    due: BinaryHeap<Reverse<(u64, usize)>>,
    unacked: [usize; PUBLISHERS],
    pub(super) counts: Counts,
    clock: Clock,
    payload: Vec<u8>,
}

impl<'a> Drive<'a> {
    /// With its publishers.
    pub(super) fn new(ground: &'a Ground<'a>, crowd: Crowd) -> Result<Self, BenchError> {
        let mut pool = Pool::new(&ground.plan)?;
        let wish = |place| wish(ground, crowd.len() + place, Session::Clean);
        let wishes: Vec<Wish> = (0..PUBLISHERS as u32).map(wish).collect();
        let mut latency = Histogram::new();
        pool.open(wishes.into_iter(), PUBLISHERS, &mut latency, ground.progress)?;
        Ok(Self {
            ground,
            crowd,
            pool,
            visits: (0..PUBLISHERS).map(|_| None).collect(),
            free: Vec::new(),
            open: 0,
            due: BinaryHeap::new(),
            unacked: [0; PUBLISHERS],
            counts: Counts::default(),
            clock: Clock::new(),
            payload: Vec::new(),
        })
    }

    /// One visit of each session, so many at a time.
    pub(super) fn each(&mut self, kind: Kind, at_once: usize) -> Result<(), BenchError> {
        let (mut next, total) = (0, self.crowd.len());
        while next < total || self.open > 0 {
            while next < total && self.open < at_once {
                self.begin(next, kind)?;
                next += 1;
            }
            self.turn()?;
            let done = u64::from(next).saturating_sub(self.open as u64);
            self.ground.progress.show(kind.name(), done, total.into());
        }
        Ok(())
    }

    /// Publishes so many messages as fast as they are acked.
    pub(super) fn fill(&mut self, messages: u64) -> Result<(), BenchError> {
        let end = self.counts.acked + messages;
        let mut left = messages;
        while self.counts.acked < end {
            left -= self.publish(left)?;
            self.turn()?;
            self.ground.progress.show("stored", messages + self.counts.acked - end, messages);
        }
        Ok(())
    }

    /// Visits in a random order, as many of each kind as its weight says, and publishes meanwhile.
    pub(super) fn churn(
        &mut self,
        pace: &Pace,
        mut sample: impl FnMut(&Self, f64) -> Result<(), BenchError>,
    ) -> Result<(), BenchError> {
        let (start, mut begun, mut published) = (self.clock.micros(), 0, 0);
        let (mut order, mut sampled) = (VecDeque::new(), 0);
        loop {
            let passed = (self.clock.micros() - start) as f64 / SECOND as f64;
            if passed >= f64::from(sampled) * pace.every {
                sampled += 1;
                sample(self, passed)?;
            }
            if passed >= pace.seconds {
                break;
            }
            let visits = (passed * pace.visits) as u64;
            while begun < visits && self.open < pace.at_once {
                begun += 1;
                let session = self.next(&mut order);
                if !self.crowd.known(session).busy {
                    let kind = Kind::drawn(self.crowd.random.below(Kind::WEIGHTS));
                    self.begin(session, kind)?;
                }
            }
            let messages = (passed * pace.publishes) as u64;
            published += self.publish(messages - published)?;
            self.turn()?;
        }
        while self.open > 0 {
            self.turn()?;
        }
        Ok(())
    }

    /// Everybody's turn comes once before anybody's comes again.
    fn next(&mut self, order: &mut VecDeque<u32>) -> u32 {
        if order.is_empty() {
            let mut numbers: Vec<u32> = (0..self.crowd.len()).collect();
            self.crowd.random.shuffle(&mut numbers);
            *order = numbers.into();
        }
        order.pop_front().unwrap_or_default()
    }

    fn begin(&mut self, session: u32, kind: Kind) -> Result<(), BenchError> {
        let (asked, expiry) = match kind {
            Kind::Remove => (Session::Clean, None),
            Kind::Clean => (Session::Anew, None),
            Kind::Short => {
                let seconds = 1 + self.crowd.random.below(SHORT);
                (Session::For(seconds), Some(seconds))
            }
            _ => (Session::Kept, None),
        };
        let place = self.free.pop().unwrap_or(self.visits.len());
        if place == self.visits.len() {
            self.visits.push(None);
        }
        self.pool.start_at(place, wish(self.ground, session, asked))?;
        let (stage, began) = (Stage::Connecting, self.second());
        let visit = Visit { session, kind, stage, began, present: false, expiry, due: 0 };
        self.visits[place] = Some(visit);
        self.open += 1;
        self.crowd.known(session).busy = true;
        self.wait(place, stage, PATIENCE);
        Ok(())
    }

    fn second(&self) -> u32 {
        (self.clock.micros() / SECOND) as u32
    }

    /// It is in this stage now, for so long at most.
    fn wait(&mut self, place: usize, stage: Stage, micros: u64) {
        let due = self.clock.micros() + micros;
        let Some(visit) = self.visits.get_mut(place).and_then(Option::as_mut) else { return };
        (visit.stage, visit.due) = (stage, due);
        self.due.push(Reverse((due, place)));
    }

    /// Serves what is ready and what is due.
    fn turn(&mut self) -> Result<(), BenchError> {
        let notes = RefCell::new(Vec::new());
        let note = |place, note| notes.borrow_mut().push((place, note));
        let hear = |place, heard: Heard<'_>| match heard {
            Heard::Ready => note(place, Note::Ready),
            Heard::Present => note(place, Note::Present),
            Heard::Message(_) => note(place, Note::Message),
            Heard::Acked => note(place, Note::Acked),
            Heard::Changed => note(place, Note::Changed),
            Heard::Gone => note(place, Note::Gone),
            Heard::Held | Heard::Released => {}
        };
        let failed = |place, error: BenchError| note(place, Note::Failed(error.to_string()));
        self.pool.wake_each(Some(TICK), hear, failed)?;
        for (place, note) in notes.into_inner() {
            self.heard(place, note)?;
        }
        let now = self.clock.micros();
        while self.due.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Some(Reverse((due, place))) = self.due.pop() else { break };
            let visit = self.visits.get(place).and_then(Option::as_ref);
            if visit.is_some_and(|visit| visit.due == due) {
                self.is_due(place)?;
            }
        }
        Ok(())
    }

    fn heard(&mut self, place: usize, note: Note) -> Result<(), BenchError> {
        if let Some(unacked) = self.unacked.get_mut(place) {
            match note {
                Note::Acked => {
                    *unacked = unacked.saturating_sub(1);
                    self.counts.acked += 1;
                }
                Note::Failed(text) => {
                    return Err(BenchError::Other(format!("a publisher: {text}")));
                }
                _ => {}
            }
            return Ok(());
        }
        let Some(visit) = self.visits.get_mut(place).and_then(Option::as_mut) else {
            return Ok(());
        };
        match (note, visit.stage) {
            (Note::Present, _) => visit.present = true,
            (Note::Message, _) => self.counts.received += 1,
            (Note::Ready, _) => self.ready(place)?,
            (Note::Changed, Stage::Changing(2..)) => visit.stage = Stage::Changing(1),
            (Note::Changed, Stage::Changing(_)) => self.stay(place),
            (Note::Gone, _) | (Note::Failed(_), Stage::Ousted) => self.finish(place, None),
            (Note::Failed(text), stage) => {
                let text = format!("{} {stage:?}: {text}", visit.kind.name());
                self.finish(place, Some(text));
            }
            (Note::Acked | Note::Changed, _) => {}
        }
        Ok(())
    }

    /// It is let in.
    fn ready(&mut self, place: usize) -> Result<(), BenchError> {
        let second = self.second();
        let Some(visit) = self.visits.get(place).and_then(Option::as_ref) else { return Ok(()) };
        let (session, kind, present) = (visit.session, visit.kind, visit.present);
        let kept = self.crowd.known(session).kept;
        let anew = matches!(kind, Kind::Clean | Kind::Remove);
        if present && (anew || !kept.may_be(visit.began)) {
            self.counts.fault("a session that should not be there is");
        }
        if !present && !anew && kept.must_be(second) {
            self.counts.fault("a session is not there");
        }
        if !present && matches!(kept, Kept::Until(_)) {
            self.counts.expired += 1;
        }
        if kind == Kind::Remove {
            return self.leave(place);
        }
        let qos = self.ground.subscribe_qos;
        let changes = match (present, kind) {
            (false, _) => {
                let filters = self.crowd.filters(session);
                self.pool
                    .send_from(place, |client, out| client.put_subscribe(out, &filters, qos))?;
                1
            }
            (true, Kind::Change) => {
                let old = self.crowd.passing(session);
                self.crowd.change(session);
                let new = self.crowd.passing(session);
                self.pool.send_from(place, |client, out| {
                    client.put_unsubscribe(out, &old);
                    client.put_subscribe(out, &new, qos);
                })?;
                2
            }
            _ => 0,
        };
        if changes == 0 {
            self.stay(place);
        } else {
            self.wait(place, Stage::Changing(changes), PATIENCE);
        }
        Ok(())
    }

    fn stay(&mut self, place: usize) {
        let kind = self.visits.get(place).and_then(Option::as_ref).map(|visit| visit.kind);
        let stay = if kind == Some(Kind::Create) { 0 } else { self.crowd.random.below(STAY) };
        self.wait(place, Stage::Staying, stay.into());
    }

    fn is_due(&mut self, place: usize) -> Result<(), BenchError> {
        let Some(visit) = self.visits.get(place).and_then(Option::as_ref) else { return Ok(()) };
        match (visit.stage, visit.kind) {
            (Stage::Staying, Kind::Cut) => self.finish(place, None),
            (Stage::Staying, Kind::TakeOver) => {
                let session = visit.session;
                self.wait(place, Stage::Ousted, PATIENCE);
                self.crowd.known(session).kept = Kept::Session;
                self.begin(session, Kind::Second)?;
            }
            (Stage::Staying, _) => self.leave(place)?,
            (stage, kind) => {
                let text = format!("{} {stage:?}: nothing comes", kind.name());
                self.finish(place, Some(text));
            }
        }
        Ok(())
    }

    fn leave(&mut self, place: usize) -> Result<(), BenchError> {
        self.wait(place, Stage::Leaving, PATIENCE);
        if let Err(error) = self.pool.leave_at(place) {
            self.finish(place, Some(error.to_string()));
        }
        Ok(())
    }

    /// The connection is closed.
    fn finish(&mut self, place: usize, error: Option<String>) {
        self.pool.close(place);
        let Some(visit) = self.visits.get_mut(place).and_then(Option::take) else { return };
        self.free.push(place);
        self.open -= 1;
        let second = self.second();
        if visit.stage != Stage::Ousted {
            let known = self.crowd.known(visit.session);
            known.busy = false;
            known.kept = match (&error, visit.kind, visit.expiry) {
                (Some(_), ..) => Kept::Unknown,
                (None, Kind::Remove, _) => Kept::Nothing,
                (None, _, Some(expiry)) => Kept::Until(second + expiry),
                (None, ..) => Kept::Session,
            };
        }
        match error {
            Some(text) => self.counts.fault(&text),
            None => self.counts.done(visit.kind),
        }
    }

    /// Publishes at most so many, as the windows allow; how many.
    fn publish(&mut self, most: u64) -> Result<u64, BenchError> {
        let Self { ground, crowd, pool, unacked, counts, payload, clock, .. } = self;
        let mut sent = 0;
        for (place, unacked) in unacked.iter_mut().enumerate() {
            pool.send_from(place, |client, out| {
                // One after another what there is: small rates do not go to the first one only.
                let share = most.div_ceil(PUBLISHERS as u64).min(most - sent);
                for _ in 0..share.min(IN_FLIGHT.saturating_sub(*unacked) as u64) {
                    let number = counts.published;
                    let stamp =
                        Stamp { lane: place as u32, number: number as u32, micros: clock.micros() };
                    payload.clear();
                    put_text(payload, stamp, ground.size);
                    client.put_publish(out, &crowd.topic(number), ground.qos, payload);
                    *unacked += 1;
                    counts.published += 1;
                    sent += 1;
                }
            })?;
        }
        Ok(sent)
    }

    /// What was done so far, beside what was seen of the server.
    pub(super) fn row(&self, seconds: f64, seen: Row) -> Row {
        let (operations, errors) = (self.counts.operations(), self.counts.errors);
        Row { seconds, open: self.open, operations, errors, ..seen }
    }
}

/// How fast, and how long.
#[derive(Debug)]
pub(super) struct Pace {
    pub(super) seconds: f64,
    /// Between two looks at the server.
    pub(super) every: f64,
    /// In a second.
    pub(super) visits: f64,
    pub(super) publishes: f64,
    pub(super) at_once: usize,
}

fn wish(ground: &Ground<'_>, number: u32, session: Session) -> Wish {
    let (client_id, from) = (ground.client_id(number), ground.source(number));
    Wish { client_id, from, session, subscription: None, beside: 0 }
}
