//! Erasing a message: its body, and the copies that references to it hold.
//!
//! Nothing is kept for this while messages are appended. A message and its references are appended in one batch with one
//! time, times never fall within a log, and a filter's name tells whether its log may hold a copy: so a copy is found by
//! halving. What a log no longer keeps is told no time; then the logs are read up to when it can have been.
//!
//! Invariant: no body is blanked without its copies, so of a blanked one there are none.

use super::codec::{self, Body, Header};
use super::engine::{Engine, Fault};
use super::keys;
use super::writer::{Staged, Writer};
use crate::rules;
use clarion_core::port::store::INLINE_MAX;
use clarion_core::{Address, Millis, Seq};
use fjall::{OwnedWriteBatch, Readable, Slice};

/// A message whose copies are looked for.
#[derive(Clone, Copy)]
struct Sought {
    number: u32,
    seq: Seq,
    /// When it was created, at the earliest and at the latest.
    from: Millis,
    to: Millis,
}

impl Sought {
    /// Whether this record holds a copy of it.
    fn is_in(&self, body: &Body<'_>) -> bool {
        matches!(body, Body::Copy(copied) if (copied.number, copied.seq) == (self.number, self.seq))
    }
}

impl Writer {
    pub(super) fn erase(
        &mut self,
        out: &mut OwnedWriteBatch,
        channel: &Address,
        seq: Seq,
    ) -> Result<bool, Fault> {
        let Some(index) = self.touch(channel, false)? else { return Ok(false) };
        let touched = &self.plan.touched[index];
        let (number, state) = (touched.channel.number, touched.state);
        if seq == 0 || seq > state.record.last {
            return Ok(false);
        }
        let mut sought = Sought { number, seq, from: 0, to: state.record.last_at };
        let mut erased = false;
        if let Some(value) = self.record_at(index, seq)? {
            let (header, body) = codec::record(&value).ok_or_else(|| Fault::damaged("a record"))?;
            if body == Body::Erased {
                return Ok(false);
            }
            (sought.from, sought.to) = (header.created_at, header.created_at);
            if seq >= state.first() {
                self.blank(out, index, seq, &header);
                erased = true;
            }
            if header.weight > INLINE_MAX as u64 {
                return Ok(erased);
            }
        }
        Ok(self.erase_copies(out, channel, sought)? || erased)
    }

    /// What stands at `seq` of a touched log as the batch has it so far. The last one staged wins: it may be an erasure.
    fn record_at(&self, index: usize, seq: Seq) -> Result<Option<Slice>, Fault> {
        let staged = self.plan.staged.iter().rfind(|s| s.touched == index && s.seq == seq);
        if let Some(staged) = staged {
            return Ok(Some(staged.value.clone()));
        }
        let key = keys::log(self.plan.touched[index].channel.number, seq);
        Ok(self.engine.db.snapshot().get(&self.engine.ks.log, key)?)
    }

    fn blank(&mut self, out: &mut OwnedWriteBatch, index: usize, seq: Seq, header: &Header) {
        self.scratch.clear();
        codec::put_erased(&mut self.scratch, header);
        let value = Slice::from(self.scratch.as_slice());
        let key = keys::log(self.plan.touched[index].channel.number, seq);
        out.insert(&self.engine.ks.log, key, value.clone());
        self.plan.staged.push(Staged { touched: index, seq, value });
    }

    fn erase_copies(
        &mut self,
        out: &mut OwnedWriteBatch,
        channel: &Address,
        sought: Sought,
    ) -> Result<bool, Fault> {
        let mut places = Vec::new();
        for staged in &self.plan.staged {
            if codec::record(&staged.value).is_some_and(|(_, body)| sought.is_in(&body)) {
                places.push((staged.touched, staged.seq));
            }
        }
        for filter in self.engine.filters_of(channel)? {
            let Some(index) = self.touch(&filter, false)? else { continue };
            let touched = &self.plan.touched[index];
            let span = (touched.state.first(), touched.committed);
            let found = self.engine.find_copy(touched.channel.number, span, sought)?;
            places.extend(found.map(|seq| (index, seq)));
        }
        let mut erased = false;
        for (index, seq) in places {
            let Some(value) = self.record_at(index, seq)? else { continue };
            let (header, body) = codec::record(&value).ok_or_else(|| Fault::damaged("a record"))?;
            if sought.is_in(&body) {
                self.blank(out, index, seq, &header);
                erased = true;
            }
        }
        Ok(erased)
    }
}

impl Engine {
    /// The filters whose logs may refer to messages of this channel.
    fn filters_of(&self, channel: &Address) -> Result<Vec<Address>, Fault> {
        let mut found = Vec::new();
        let snapshot = self.db.snapshot();
        for item in snapshot.prefix(&self.ks.names, keys::filter_names()) {
            let key = item.key()?;
            let text = keys::name_text(&key).and_then(|text| Address::parse_any(text).ok());
            found.push(text.ok_or_else(|| Fault::damaged("a name"))?);
        }
        for item in snapshot.prefix(&self.ks.names, keys::long_names()) {
            let number = keys::trailing_number(&item.value()?);
            let number = number.ok_or_else(|| Fault::damaged("a name"))?;
            found.extend(self.address(number)?);
        }
        found.retain(|filter| rules::refers_to(filter, channel));
        Ok(found)
    }

    /// The seq of the copy within a span of a filter's log.
    fn find_copy(
        &self,
        number: u32,
        (first, last): (Seq, Seq),
        sought: Sought,
    ) -> Result<Option<Seq>, Fault> {
        let from = self.first_since(number, (first, last), sought.from)?;
        if from > last {
            return Ok(None);
        }
        let span = keys::log(number, from)..=keys::log(number, last);
        for item in self.db.snapshot().range(&self.ks.log, span) {
            let (key, value) = item.into_inner()?;
            let record = codec::record(&value).zip(keys::parse_log(&key));
            let ((header, body), (_, seq)) = record.ok_or_else(|| Fault::damaged("a record"))?;
            if header.created_at > sought.to {
                break;
            }
            if sought.is_in(&body) {
                return Ok(Some(seq));
            }
        }
        Ok(None)
    }
}
