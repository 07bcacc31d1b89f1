//! The clients of a measurement on one thread: opening them some at a time, waiting for whichever is ready.
//!
//! Invariants: a client's place never changes; each socket is registered once (edge-triggered) and read until it is empty.
//! Must not know: what is published.

use std::{cell::RefCell, io, time::Duration};

use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::OwnedFd,
    io::Errno,
};

use super::{
    super::{BenchError, histogram::Histogram, payload::Clock, progress::Progress, tally::QUIET},
    client::{Client, Desk, Heard, Plan, Wish},
};

/// Events taken at once.
const EVENTS: usize = 1024;

/// See the module.
pub(super) struct Pool {
    plan: Plan,
    epoll: OwnedFd,
    events: Vec<Event>,
    clients: Vec<Client>,
    desk: Desk,
    out: Vec<u8>,
}

impl Pool {
    /// Without clients.
    pub(super) fn new(plan: &Plan) -> Result<Self, BenchError> {
        Ok(Self {
            plan: plan.clone(),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS),
            clients: Vec::new(),
            desk: Desk::new(),
            out: Vec::new(),
        })
    }

    /// Opens these, at most `at_once` at a time; each is ready afterwards. How long each took goes to `latency`.
    pub(super) fn open(
        &mut self,
        wishes: impl ExactSizeIterator<Item = Wish>,
        at_once: usize,
        latency: &mut Histogram,
        progress: &Progress,
    ) -> Result<(), BenchError> {
        let clock = Clock::new();
        let first = self.clients.len();
        let started: RefCell<Vec<u64>> = RefCell::new(Vec::with_capacity(wishes.len()));
        let wishes = wishes.inspect(|_| started.borrow_mut().push(clock.micros()));
        self.open_hearing(wishes, at_once, progress, |place, heard| {
            if heard == Heard::Ready {
                let since = place.checked_sub(first).and_then(|n| started.borrow().get(n).copied());
                let micros = clock.micros().saturating_sub(since.unwrap_or_default());
                latency.record_micros(micros);
            }
        })
    }

    /// The same for clients that hear something at once. A wish is taken when its client begins to connect.
    pub(super) fn open_hearing(
        &mut self,
        wishes: impl ExactSizeIterator<Item = Wish>,
        at_once: usize,
        progress: &Progress,
        mut hear: impl FnMut(usize, Heard<'_>),
    ) -> Result<(), BenchError> {
        let total = wishes.len();
        let mut wishes = wishes.fuse();
        let (mut started, mut ready) = (0, 0);
        while ready < total {
            while started - ready < at_once {
                let Some(wish) = wishes.next() else { break };
                started += 1;
                self.start(wish)?;
            }
            let before = ready;
            let woken = self.wake(Some(QUIET), |place, heard| {
                ready += usize::from(heard == Heard::Ready);
                hear(place, heard);
            });
            let open = |error| format!("{error}; {ready} of {total} clients were open");
            let woken = woken.map_err(|error| BenchError::Other(open(error)))?;
            if !woken && ready == before {
                let quiet = format!("the broker says nothing for {} s", QUIET.as_secs());
                return Err(BenchError::Other(open(BenchError::Other(quiet))));
            }
            progress.show("open", ready as u64, total as u64);
        }
        Ok(())
    }

    fn start(&mut self, wish: Wish) -> Result<(), BenchError> {
        let client = Client::start(&self.plan, wish)?;
        let data = EventData::new_u64(self.clients.len() as u64);
        let events = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, client.socket(), data, events)?;
        self.clients.push(client);
        Ok(())
    }

    /// Waits until something is ready, at most so long, and serves it; `false` = nothing was.
    pub(super) fn wake(
        &mut self,
        at_most: Option<Duration>,
        mut hear: impl FnMut(usize, Heard<'_>),
    ) -> Result<bool, BenchError> {
        let at_most = at_most.and_then(|time| Timespec::try_from(time).ok());
        self.events.clear();
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut self.events), at_most.as_ref());
        match waited {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        for event in &self.events {
            let place = event.data.u64() as usize;
            let Some(client) = self.clients.get_mut(place) else { continue };
            client
                .wake(&self.plan, &mut self.desk, event.flags, &mut |heard| hear(place, heard))
                .map_err(|error| ended(place, error))?;
        }
        Ok(!self.events.is_empty())
    }

    /// Everybody takes leave, and the broker has closed every connection afterwards, so it has seen all that they sent. One
    /// that says nothing any more is not waited for.
    pub(super) fn leave(
        mut self,
        progress: &Progress,
        mut hear: impl FnMut(usize, Heard<'_>),
    ) -> Result<(), BenchError> {
        for (place, client) in self.clients.iter_mut().enumerate() {
            client.leave(&mut self.desk).map_err(|error| ended(place, error.into()))?;
        }
        let total = self.clients.len();
        let mut gone = 0;
        while gone < total {
            let woken = self.wake(Some(QUIET), |place, heard| {
                gone += usize::from(heard == Heard::Gone);
                hear(place, heard);
            })?;
            if !woken {
                break;
            }
            progress.show("leave", gone as u64, total as u64);
        }
        Ok(())
    }

    /// The client at this place, and what is put into the buffer is sent by it.
    pub(super) fn send_from(
        &mut self,
        place: usize,
        put: impl FnOnce(&mut Client, &mut Vec<u8>),
    ) -> Result<(), BenchError> {
        let Some(client) = self.clients.get_mut(place) else { return Ok(()) };
        self.out.clear();
        put(client, &mut self.out);
        if !self.out.is_empty() {
            client.send(&mut self.desk, &self.out).map_err(|error| ended(place, error.into()))?;
        }
        Ok(())
    }
}

/// Says whose connection it was.
fn ended(place: usize, error: BenchError) -> BenchError {
    let text = match error {
        BenchError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the broker closed the connection".into()
        }
        error => error.to_string(),
    };
    BenchError::Other(format!("client {place}: {text}"))
}

#[cfg(test)]
mod tests;
