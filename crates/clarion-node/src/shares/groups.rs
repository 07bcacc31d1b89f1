//! Groups of `$share` with members who may come back later: such a group reads by a cursor of its own.
//!
//! The records `share/<channel>\0<mark>` are the truth, one for each group and stored session; this is their image, complete before a
//! listener accepts. It changes in the committer, where a SUBSCRIBE or UNSUBSCRIBE stands between two publishes, and when a
//! session has ended. Invariants: a group is here exactly while it has such a member; its cursor begins with its first one, at
//! the head, whatever an earlier group of that name has left. Must not know: who is online, how messages are handed out.

use super::ShareName;
use crate::attach::SharedPlan;
use crate::durable;
use crate::node::store_refusal;
use crate::sessions::{delete, put};
use bytes::Bytes;
use clarion_core::durable::record;
use clarion_core::port::store::{Record, Store, Unit};
use clarion_core::{Address, Millis, Refusal};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

const PREFIX: &[u8] = b"share/";
/// Records that are read at once.
const PAGE: usize = 1000;

/// One group.
#[derive(Debug)]
struct Group {
    /// Stamp of the SUBSCRIBE that made it; 0 = an earlier run did.
    since: Millis,
    /// Numbers of stored sessions.
    members: HashSet<u64>,
}

#[derive(Debug, Default)]
struct Table {
    groups: HashMap<Arc<SharedPlan>, Group>,
    of: HashMap<u64, Vec<Arc<SharedPlan>>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    table: RwLock<Table>,
    /// How many there are.
    count: AtomicUsize,
    /// Numbers of members that are online.
    next_member: AtomicU64,
}

impl Table {
    fn leave(&mut self, plan: &SharedPlan, number: u64) {
        if let Some(group) = self.groups.get_mut(plan) {
            group.members.remove(&number);
            if group.members.is_empty() {
                self.groups.remove(plan);
            }
        }
    }
}

impl Groups {
    /// All groups, but for the members whose sessions have ended.
    pub(crate) async fn load(store: &Arc<dyn Store>) -> Result<Self, Refusal> {
        let groups = Self::default();
        let members = all(store, PREFIX).await?;
        if members.is_empty() {
            return Ok(groups);
        }
        let gone = all(store, record::GONE).await?;
        let gone: HashSet<u64> =
            gone.iter().filter_map(|gone| record::parse_gone_key(&gone.key)).collect();
        for member in members {
            if let Some((plan, number)) = parse(&member)
                && !gone.contains(&number)
            {
                groups.enter(&plan, number, 0);
            }
        }
        Ok(groups)
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let mut table: RwLockWriteGuard<'_, Table> =
            self.table.write().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&mut table);
        self.count.store(table.groups.len(), Ordering::Release);
        changed
    }

    /// A stored session is a member from this stamp on. Returns whether it is the first one.
    pub(crate) fn enter(&self, plan: &Arc<SharedPlan>, number: u64, at: Millis) -> bool {
        self.change(|table| {
            let first = !table.groups.contains_key(plan);
            let new = || Group { since: at, members: HashSet::new() };
            let group = table.groups.entry(plan.clone()).or_insert_with(new);
            if group.members.insert(number) {
                table.of.entry(number).or_default().push(plan.clone());
            }
            first
        })
    }

    /// It is none any more.
    pub(crate) fn leave(&self, plan: &SharedPlan, number: u64) {
        self.change(|table| {
            table.leave(plan, number);
            if let Some(of) = table.of.get_mut(&number) {
                of.retain(|other| **other != *plan);
                if of.is_empty() {
                    table.of.remove(&number);
                }
            }
        });
    }

    /// That a session has ended is committed.
    pub(crate) fn is_gone(&self, number: u64) {
        if self.is_empty() {
            return;
        }
        self.change(|table| {
            for plan in table.of.remove(&number).unwrap_or_default() {
                table.leave(&plan, number);
            }
        });
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// When the group began; `None` = it has only members that end with their connections, or none.
    pub(crate) fn since(&self, plan: &SharedPlan) -> Option<Millis> {
        if self.is_empty() {
            return None;
        }
        self.read().groups.get(plan).map(|group| group.since)
    }

    /// Whether a group reads what was stored with this stamp by its cursor.
    pub(crate) fn reads(&self, name: &ShareName, at: Millis) -> bool {
        let plan = name.plan.as_ref();
        plan.and_then(|plan| self.since(plan)).is_some_and(|since| since <= at)
    }

    /// A number for a member that is online, never used before.
    pub(crate) fn next_member(&self) -> u64 {
        self.next_member.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The units by which a stored session becomes a member; run in the committer.
    pub(crate) fn begin(&self, name: &ShareName, number: u64, at: Millis) -> Vec<Unit> {
        let Some(plan) = &name.plan else { return Vec::new() };
        let mark = mark_of(name, number);
        let value = [&number.to_be_bytes(), name.group.as_bytes()].concat();
        let mut units =
            vec![put(key(&plan.channel, mark), value.into()), durable::entry(&plan.channel, mark)];
        if self.enter(plan, number, at) {
            units.push(forget(plan));
        }
        let SharedPlan { channel, reader } = (**plan).clone();
        units.push(Unit::Start { reader, channel });
        units
    }

    /// Those by which it ends to be one, and with the last one the group does; run in the committer.
    pub(crate) fn end(&self, name: &ShareName, number: u64) -> Vec<Unit> {
        let Some(plan) = &name.plan else { return Vec::new() };
        self.leave(plan, number);
        let mark = mark_of(name, number);
        let mut units =
            vec![delete(key(&plan.channel, mark)), delete(durable::key(&plan.channel, mark))];
        if self.since(plan).is_none() {
            units.push(forget(plan));
        }
        units
    }

    /// Acks of groups that have ended are left out: they would be cursors of nobody.
    pub(crate) fn filter(&self, unit: &mut Unit) {
        if let Unit::Ack { reader, moves } = unit
            && reader.is_share()
        {
            moves.retain(|of| {
                let plan = SharedPlan { channel: of.channel.clone(), reader: reader.clone() };
                self.since(&plan).is_some()
            });
        }
    }
}

fn forget(plan: &SharedPlan) -> Unit {
    Unit::Forget { reader: plan.reader.clone(), channel: Some(plan.channel.clone()) }
}

/// Tells members of all groups of one channel apart.
fn mark_of(name: &ShareName, number: u64) -> u64 {
    let bytes = number.to_be_bytes().into_iter().chain(name.group.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn key(channel: &Address, mark: u64) -> Bytes {
    [PREFIX, channel.as_str().as_bytes(), b"\0", &mark.to_be_bytes()].concat().into()
}

fn parse(record: &Record) -> Option<(Arc<SharedPlan>, u64)> {
    let rest = record.key.strip_prefix(PREFIX)?;
    let (channel, _) = rest.split_at_checked(rest.len().checked_sub(9)?)?;
    let channel = Address::parse_any(std::str::from_utf8(channel).ok()?).ok()?;
    let (number, group) = record.value.split_first_chunk()?;
    let name = ShareName::new(channel.id(), std::str::from_utf8(group).ok()?);
    Some((name.plan.clone()?, u64::from_be_bytes(*number)))
}

async fn all(store: &Arc<dyn Store>, prefix: &'static [u8]) -> Result<Vec<Record>, Refusal> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let after = all.last().map(|record| record.key.clone());
        let page = store.records(Bytes::from_static(prefix), after, PAGE).await;
        let page = page.map_err(store_refusal)?;
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            return Ok(all);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forgets(units: &[Unit]) -> bool {
        units.iter().any(|unit| matches!(unit, Unit::Forget { .. }))
    }

    #[test]
    fn a_group_begins_with_its_first_member_and_ends_with_its_last() {
        let (groups, name) = (Groups::default(), ShareName::new("a/+", "g"));
        let plan = name.plan.clone().unwrap();
        assert!(forgets(&groups.begin(&name, 1, 5)), "what an earlier one left");
        assert!(!forgets(&groups.begin(&name, 2, 6)));
        assert_eq!(groups.since(&plan), Some(5));
        assert!(groups.reads(&name, 5) && !groups.reads(&name, 4));
        assert!(!forgets(&groups.end(&name, 1)));
        groups.is_gone(2);
        assert_eq!(groups.since(&plan), None);
        assert!(forgets(&groups.begin(&name, 3, 9)));
        assert!(!forgets(&groups.end(&name, 2)), "the cleaner comes after the next group began");
        assert!(forgets(&groups.end(&name, 3)));
        assert!(groups.read().of.is_empty());
    }

    #[test]
    fn acks_of_a_group_that_has_ended_are_left_out() {
        let (groups, name) = (Groups::default(), ShareName::new("a", "g"));
        let SharedPlan { channel, reader } = (**name.plan.as_ref().unwrap()).clone();
        let of = clarion_core::port::store::Move { channel, epoch: 1, cursor: Default::default() };
        let mut unit = Unit::Ack { reader, moves: vec![of] };
        groups.begin(&name, 1, 1);
        groups.filter(&mut unit);
        assert!(matches!(&unit, Unit::Ack { moves, .. } if moves.len() == 1));
        groups.is_gone(1);
        groups.filter(&mut unit);
        assert!(matches!(&unit, Unit::Ack { moves, .. } if moves.is_empty()));
    }

    #[test]
    fn records_round_trip() {
        for (filter, group) in [("a/\u{fc}", "g"), ("a/+/#", "h/\u{1}")] {
            let name = ShareName::new(filter, group);
            let units = Groups::default().begin(&name, u64::MAX, 1);
            let Some(Unit::Record { key, change, .. }) = units.first() else { panic!("no record") };
            let clarion_core::port::store::Change::Put(value) = change.clone() else { panic!() };
            let found = parse(&Record { key: key.clone(), version: 1, value });
            assert_eq!(found, Some((name.plan.clone().unwrap(), u64::MAX)));
        }
        assert_eq!(ShareName::new("$SYS/x", "g").plan, None);
    }
}
