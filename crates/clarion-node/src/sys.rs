//! `$SYS/…`: what the node tells of itself to MQTT clients, under the names that Mosquitto gave.
//!
//! Owns: the last value of each topic, in memory only, and the task that makes them while `sys_interval` is not 0. Invariants:
//! a value is here before it is live, so whoever looks it up after a live one came finds none that is older; nothing of it
//! reaches the store; without an interval nothing runs and nothing is held. Must not know: sessions.

use crate::clock;
use crate::metrics::ShardTotals;
use crate::node::Node;
use clarion_core::address::SERVER_TOPICS;
use clarion_core::{Address, Content, Message, topic};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Minutes that a load is the average of.
const MINUTES: [u32; 3] = [1, 5, 15];

/// How many talking connections there are, and were at the same time.
#[derive(Debug, Default)]
pub(crate) struct Connected {
    now: AtomicU64,
    most: AtomicU64,
}

/// One of them; it counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Connected>);

impl Connected {
    /// One more.
    pub(crate) fn enter(self: &Arc<Self>) -> Counted {
        let now = self.now.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(now, Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Relaxed);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Sys {
    values: RwLock<BTreeMap<Box<str>, Arc<Message>>>,
}

impl Sys {
    /// Whether a filter may find any.
    pub(crate) fn may_have(&self, filter: &str) -> bool {
        filter.starts_with(SERVER_TOPICS) && !self.read().is_empty()
    }

    /// The topics that a filter matches.
    pub(crate) fn matching(&self, filter: &str) -> Vec<Box<str>> {
        let values = self.read();
        values.keys().filter(|name| topic::matches(filter, name)).cloned().collect()
    }

    /// What a topic has.
    pub(crate) fn get(&self, topic: &str) -> Option<Arc<Message>> {
        self.read().get(topic).cloned()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Box<str>, Arc<Message>>> {
        self.values.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has changed.
    fn put(&self, changed: &[Arc<Message>]) {
        let mut values = self.values.write().unwrap_or_else(PoisonError::into_inner);
        for message in changed {
            values.insert(message.channel.id().into(), message.clone());
        }
    }
}

/// What grows and is told as a rate, too: the name of its load, and its sum.
type Growing = [(&'static str, u64); 6];

/// Averages of what grew, by minute.
#[derive(Debug)]
struct Loads {
    sums: Growing,
    at: Instant,
    averages: [[f64; MINUTES.len()]; 6],
}

impl Loads {
    fn new(sums: Growing, at: Instant) -> Self {
        Self { sums, at, averages: [[0.0; MINUTES.len()]; 6] }
    }

    /// The sums are these now: the averages decay as Mosquitto's do.
    fn grow(&mut self, sums: Growing, at: Instant) {
        let passed = at.saturating_duration_since(self.at).as_secs_f64();
        if passed <= 0.0 {
            return;
        }
        let before = std::mem::replace(&mut self.sums, sums);
        self.at = at;
        for (averages, (after, before)) in self.averages.iter_mut().zip(sums.iter().zip(before)) {
            let a_minute = after.1.wrapping_sub(before.1) as f64 * 60.0 / passed;
            for (average, minutes) in averages.iter_mut().zip(MINUTES) {
                let kept = (-passed / (60.0 * f64::from(minutes))).exp();
                *average = a_minute + kept * (*average - a_minute);
            }
        }
    }

    fn tell(&self, out: &mut Vec<(String, String)>) {
        for (averages, (name, _)) in self.averages.iter().zip(self.sums) {
            for (average, minutes) in averages.iter().zip(MINUTES) {
                out.push((format!("load/{name}/{minutes}min"), format!("{average:.2}")));
            }
        }
    }
}

fn growing(totals: &ShardTotals, dropped: u64) -> Growing {
    [
        ("messages/received", totals.peer_packets),
        ("publish/received", totals.peer_publishes),
        ("publish/sent", totals.peer_messages),
        ("publish/dropped", dropped),
        ("bytes/received", totals.peer_bytes_in),
        ("bytes/sent", totals.peer_bytes_out),
    ]
}

impl Node {
    /// What was meant for talking sessions and found no room.
    fn dropped_for_peers(&self, totals: &ShardTotals) -> u64 {
        totals.peer_dropped + self.dropped_live()
    }

    /// Names behind `$SYS/broker/`, and their values.
    fn sys_values(&self, totals: &ShardTotals, uptime: Duration) -> Vec<(String, String)> {
        let connected = &self.inner.connected;
        let numbers = [
            ("clients/connected", connected.now.load(Relaxed)),
            ("clients/maximum", connected.most.load(Relaxed)),
            ("messages/received", totals.peer_packets),
            ("publish/messages/received", totals.peer_publishes),
            ("publish/messages/sent", totals.peer_messages),
            ("publish/messages/dropped", self.dropped_for_peers(totals)),
            ("bytes/received", totals.peer_bytes_in),
            ("bytes/sent", totals.peer_bytes_out),
            ("subscriptions/count", totals.peer_subscriptions),
            ("retained messages/count", self.retained_topics() as u64),
        ];
        let mut values: Vec<(String, String)> =
            numbers.iter().map(|(name, n)| ((*name).to_owned(), n.to_string())).collect();
        let sessions = self.session_numbers();
        values.push(("clients/expired".into(), sessions.expired.to_string()));
        if let Some(stored) = sessions.stored {
            // They are counted one after the other: one that comes meanwhile is in one of them only.
            let away = stored.saturating_sub(sessions.attached);
            let total = away + connected.now.load(Relaxed);
            values.push(("clients/disconnected".into(), away.to_string()));
            values.push(("clients/total".into(), total.to_string()));
        }
        values.push((
            "version".into(),
            concat!("clarion version ", env!("CARGO_PKG_VERSION")).into(),
        ));
        values.push(("uptime".into(), format!("{} seconds", uptime.as_secs())));
        values
    }

    /// Puts values that differ from what is there, then hands them to who is there.
    fn tell_sys(&self, values: Vec<(String, String)>) {
        let (sys, now) = (&self.inner.sys, clock::now());
        let changed = values.into_iter().filter_map(|(name, value)| {
            let name = format!("{SERVER_TOPICS}broker/{name}");
            if sys.get(&name).is_some_and(|known| known.content.payload == value.as_bytes()) {
                return None;
            }
            let address = Address::server_topic(&name).ok()?;
            let content = Content { payload: value.into(), retain: true, ..Content::default() };
            Some(self.inner.planner.live(address, content, now))
        });
        let changed: Vec<Arc<Message>> = changed.collect();
        sys.put(&changed);
        // Nobody waits for what becomes of them.
        drop(self.post_live(changed));
    }
}

/// Starts telling, if it is wanted.
pub(crate) fn spawn(node: Node) -> Option<tokio::task::JoinHandle<()>> {
    let interval = node.config().sys_interval;
    if interval.is_zero() {
        return None;
    }
    Some(tokio::spawn(async move {
        let began = Instant::now();
        let mut rounds = tokio::time::interval(interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let totals = node.shard_totals();
        let sums = growing(&totals, node.dropped_for_peers(&totals));
        let mut loads = Loads::new(sums, began);
        loop {
            rounds.tick().await;
            let (totals, now) = (node.shard_totals(), Instant::now());
            loads.grow(growing(&totals, node.dropped_for_peers(&totals)), now);
            let mut values = node.sys_values(&totals, now.saturating_duration_since(began));
            loads.tell(&mut values);
            node.tell_sys(values);
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_there_and_how_many_were() {
        let connected = Arc::new(Connected::default());
        let one = connected.enter();
        drop([connected.enter(), connected.enter()]);
        assert_eq!((connected.now.load(Relaxed), connected.most.load(Relaxed)), (1, 3));
        drop(one);
        assert_eq!((connected.now.load(Relaxed), connected.most.load(Relaxed)), (0, 3));
    }

    #[test]
    fn loads_go_to_what_is_steady_and_the_short_one_goes_faster() {
        let began = Instant::now();
        let sums = |n| ["a", "b", "c", "d", "e", "f"].map(|name| (name, n));
        let mut loads = Loads::new(sums(0), began);
        loads.grow(sums(9), began);
        assert_eq!(loads.averages[0], [0.0; 3], "no time has passed");
        for round in 1..=6 {
            // 10 in 10 s are 60 a minute.
            loads.grow(sums(round * 10), began + Duration::from_secs(round * 10));
        }
        let [one, five, fifteen] = loads.averages[0];
        let part = |minutes: f64| 60.0 * (1.0 - (-1.0 / minutes).exp());
        for (found, expected) in [(one, part(1.0)), (five, part(5.0)), (fifteen, part(15.0))] {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
        let mut told = Vec::new();
        loads.tell(&mut told);
        assert_eq!(told[0], ("load/a/1min".to_owned(), "37.93".to_owned()));
        assert_eq!(told.len(), 18);
    }
}
