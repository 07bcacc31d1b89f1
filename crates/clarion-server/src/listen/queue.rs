//! `clarion listen queue:…`: one of the queue's consumers, which takes a few messages at a time.
//!
//! Invariants: what was not printed is never acked; what was printed is acked before more is taken; what was taken and
//! could not be printed is given back. Must not know: streams.

use std::{io, process::ExitCode, time::Duration};

use clarion_client::{Client, ClientError, Leased, NextQuery, Shared};
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};

use super::{LAST_ACK, Stop, print, tell};
use crate::publish::{complain, fail};

/// How long one request waits for a message.
const WAIT: Duration = Duration::from_secs(20);
/// Messages taken at once: few, since what is printed slowly would be missing elsewhere.
const COUNT: u64 = 16;
/// First and longest pause before a server that was lost is asked again.
const PAUSE: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

/// A consumer and what it knows of its server.
struct Consumer {
    client: Client,
    queue: Shared,
    /// The server answered, the last time.
    open: bool,
    /// It answered at some time.
    opened: bool,
    /// Failures in a row.
    failures: u32,
}

/// How the printing of what was taken ended.
struct Printed {
    leases: Vec<String>,
    left: Vec<String>,
    error: Option<io::Error>,
}

/// Takes, prints and acks up to `count` messages.
pub(super) async fn consume(
    client: Client,
    name: String,
    count: Option<u64>,
    mut stop: Stop,
) -> ExitCode {
    let queue = Shared::Queue(name);
    let mut consumer = Consumer { client, queue, open: false, opened: false, failures: 0 };
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 && !stop.told {
        let taken = tokio::select! {
            // What came together with the signal is printed; dropped it would be missing until its lease lapses.
            biased;
            taken = consumer.take(left) => taken,
            () = stop.told() => return ExitCode::SUCCESS,
        };
        let taken = match taken {
            Ok(taken) if taken.is_empty() => continue,
            Ok(taken) => taken,
            Err(error) => return fail(&error),
        };
        let Printed { leases, left: unprinted, error } = print_all(&taken);
        left -= leases.len() as u64;
        let last = left == 0 || error.is_some();
        if let Err(code) = consumer.settle(&leases, &unprinted, last, &mut stop).await {
            return code;
        }
        match error {
            None => {}
            // Nobody reads any more.
            Some(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Some(error) => return complain(&format!("standard output: {error}"), 1),
        }
    }
    ExitCode::SUCCESS
}

fn print_all(taken: &[Leased]) -> Printed {
    let mut printed = Printed { leases: Vec::new(), left: Vec::new(), error: None };
    for message in taken {
        if printed.error.is_none() {
            printed.error = print(message.json.get()).err();
        }
        let list = if printed.error.is_none() { &mut printed.leases } else { &mut printed.left };
        list.push(message.lease.clone());
    }
    printed
}

impl Consumer {
    /// The next messages; none when none came in time. An error is final.
    async fn take(&mut self, left: u64) -> Result<Vec<Leased>, ClientError> {
        loop {
            // The first answer tells that the server is there: it does not wait for a message.
            let wait = if self.open { WAIT } else { Duration::ZERO };
            let count = u32::try_from(left.min(COUNT)).ok();
            let query = NextQuery { wait, count, ..NextQuery::default() };
            match self.client.next(&self.queue, &query).await {
                Ok(taken) => {
                    if !self.open {
                        tell(&json!({ "event": "open" }));
                    }
                    (self.open, self.opened, self.failures) = (true, true, 0);
                    return Ok(taken);
                }
                Err(error) if error.is_passing() && (self.opened || !error.is_unreachable()) => {
                    self.lost(&error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Says so, then waits before the server is asked again.
    async fn lost(&mut self, error: &ClientError) {
        let [first, longest] = PAUSE;
        let pause = first.saturating_mul(1 << self.failures.min(10)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.open = false;
        let retry_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tell(&json!({ "event": "lost", "cause": error.to_string(), "retry_ms": retry_ms }));
        sleep_until(Instant::now() + pause).await;
    }

    /// Acks what was printed and gives the rest back. At the end, or when told to stop, only for a while.
    async fn settle(
        &mut self,
        printed: &[String],
        unprinted: &[String],
        last: bool,
        stop: &mut Stop,
    ) -> Result<(), ExitCode> {
        if !unprinted.is_empty() {
            // Else their leases lapse.
            let back = self.client.nack_leases(&self.queue, unprinted, Duration::ZERO);
            let _ = timeout(LAST_ACK, back).await;
        }
        let mut acked = None;
        if !last {
            tokio::select! {
                done = self.ack(printed) => acked = Some(done),
                () = stop.told() => {}
            }
        }
        let acked = match acked {
            Some(acked) => acked.map_err(|error| error.to_string()),
            None => match timeout(LAST_ACK, self.ack(printed)).await {
                Ok(acked) => acked.map_err(|error| error.to_string()),
                Err(_) => Err("no answer".into()),
            },
        };
        acked.map_err(|refused| super::not_acked(&refused))
    }

    /// Acks; while the server is away it is tried again.
    async fn ack(&mut self, leases: &[String]) -> Result<(), ClientError> {
        if leases.is_empty() {
            return Ok(());
        }
        loop {
            match self.client.ack_leases(&self.queue, leases).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_passing() => self.lost(&error).await,
                Err(error) => return Err(error),
            }
        }
    }
}
