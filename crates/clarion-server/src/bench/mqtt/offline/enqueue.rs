//! The phase `enqueue`: a few clients publish for sessions that are away, and each publish is acked.
//!
//! Invariant: no publisher has more than its window unacked; it is over when every publish is acked, so whatever is missing
//! afterwards was promised. Must not know: who will read it.

use std::collections::VecDeque;

use clarion_wire::mqtt::Qos;
use serde_json::json;

use super::{
    super::{
        super::{
            BenchError,
            histogram::Histogram,
            meter::{Faults, Meter, Report},
            payload::{Clock, Stamp, put_text},
            progress::Progress,
            tally::QUIET,
        },
        Ground,
        client::Heard,
        pool::Pool,
    },
    load::Load,
    open,
};

/// One client that publishes.
#[derive(Debug, Default)]
struct Publisher {
    /// Where in the order of all messages it looks for its next one.
    place: u64,
    /// When those went that are not acked yet.
    under_way: VecDeque<u64>,
}

struct Enqueue<'a> {
    load: &'a Load,
    qos: Qos,
    size: usize,
    in_flight: usize,
    clock: Clock,
    publishers: Vec<Publisher>,
    /// Publishers that may publish.
    dirty: Vec<usize>,
    acked: u64,
    latency: Histogram,
    topic: String,
    payload: Vec<u8>,
}

/// Publishes everything.
pub(super) fn run(ground: &Ground<'_>, load: &Load, in_flight: u32) -> Result<Report, BenchError> {
    let mut pool = open(ground, load.sessions..load.sessions + load.publishers)?;
    let mut enqueue = Enqueue {
        load,
        qos: ground.qos,
        size: ground.size,
        in_flight: in_flight as usize,
        clock: Clock::new(),
        publishers: (0..load.publishers).map(|_| Publisher::default()).collect(),
        dirty: (0..load.publishers as usize).collect(),
        acked: 0,
        latency: Histogram::new(),
        topic: String::new(),
        payload: Vec::new(),
    };
    let meter = Meter::start(ground.server);
    enqueue.drive(&mut pool, ground.progress)?;
    let Enqueue { acked, latency, .. } = enqueue;
    let name = "mqtt-offline-enqueue";
    let mut report = meter.finish(ground.server, name, acked, latency, Faults::default());
    report.more.push(("publishers", json!(load.publishers)));
    report.more.push(("in_flight", json!(in_flight)));
    pool.leave(ground.progress, |_, _| {})?;
    Ok(report)
}

impl Enqueue<'_> {
    fn drive(&mut self, pool: &mut Pool, progress: &Progress) -> Result<(), BenchError> {
        let total = self.load.published();
        loop {
            self.publish(pool)?;
            if self.acked >= total {
                return Ok(());
            }
            // One look at the clock for all that a client has read at once.
            let (clock, mut last) = (self.clock, (usize::MAX, 0));
            let woken = pool.wake(Some(QUIET), |place, heard| {
                if last.0 != place {
                    last = (place, clock.micros());
                }
                if heard == Heard::Acked {
                    self.acked(place, last.1);
                }
            })?;
            if !woken {
                let quiet = format!(
                    "the broker has acked {} of {total} publishes and says nothing for {} s",
                    self.acked,
                    QUIET.as_secs()
                );
                return Err(BenchError::Other(quiet));
            }
            progress.show("acked", self.acked, total);
        }
    }

    /// Acks come in the order of the publishes.
    fn acked(&mut self, place: usize, micros: u64) {
        let sent = self.publishers.get_mut(place).and_then(|p| p.under_way.pop_front());
        let Some(sent) = sent else { return };
        self.acked += 1;
        self.latency.record_micros(micros.saturating_sub(sent));
        if self.dirty.last() != Some(&place) {
            self.dirty.push(place);
        }
    }

    /// Fills the windows in which something has changed.
    fn publish(&mut self, pool: &mut Pool) -> Result<(), BenchError> {
        let Self { load, qos, size, in_flight, clock, topic, payload, .. } = self;
        let total = load.published();
        for place in self.dirty.drain(..) {
            let publisher = &mut self.publishers[place];
            pool.send_from(place, |client, out| {
                while publisher.under_way.len() < *in_flight && client.may_publish(*qos) {
                    let mut left = (publisher.place..total).map(|at| (at, load.message(at)));
                    let mine = left.find(|(_, message)| message.publisher as usize == place);
                    let Some((at, message)) = mine else {
                        publisher.place = total;
                        return;
                    };
                    publisher.place = at + 1;
                    let micros = clock.micros();
                    payload.clear();
                    let (lane, number) = (load.lane(message), message.number);
                    put_text(payload, Stamp { lane, number, micros }, *size);
                    load.put_topic(topic, message);
                    client.put_publish(out, topic, *qos, payload);
                    publisher.under_way.push_back(micros);
                }
            })?;
        }
        Ok(())
    }
}
