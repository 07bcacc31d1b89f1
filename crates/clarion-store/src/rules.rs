//! What every engine does alike: merging cursors, bounding pages, limits of keys.
//!
//! Pure. Must not know: where anything is kept.

use clarion_core::port::store::{Head, INLINE_MAX, Move, Page, ReadRange, Reader, StoredCursor};
use clarion_core::{
    Address, AddressKind, Code, Content, Cursor, Epoch, Message, Millis, Seq, topic,
};

/// How long an idempotency key is remembered.
pub(crate) const IDEMPOTENCY_MS: u64 = 24 * HOUR_MS;
/// One hour.
pub(crate) const HOUR_MS: u64 = 3_600_000;
/// An empty channel without readers keeps its name this long after its last message, so that a late repeat of an
/// idempotency key still finds its answer.
pub(crate) const NAME_KEPT_MS: u64 = IDEMPOTENCY_MS + HOUR_MS;
/// Most records that one range of a read looks at.
pub(crate) const LOOKED_AT_MAX: usize = 4096;
/// Earlier writes that a cursor remembers.
pub(crate) const MARKS_MAX: usize = 8;
/// Longest key of a record or a claim, and longest name of a reader.
pub(crate) const KEY_BYTES_MAX: usize = 1024;
/// Longest idempotency key.
pub(crate) const IDEMPOTENCY_BYTES_MAX: usize = 256;
/// Largest value of a small record.
pub(crate) const RECORD_BYTES_MAX: usize = 4 << 20;
/// What a bare reference counts in a log's bytes.
const REFERENCE_WEIGHT: u64 = 64;

/// Whether references to this message hold a copy. Only topics are matched by filters, and what does not match is not
/// found when the message is erased.
pub(crate) fn is_inline(channel: &Address, content: &Content) -> bool {
    channel.kind() == AddressKind::Topic && content.weight() <= INLINE_MAX
}

/// What a reference to this message counts in a log's bytes.
pub(crate) fn reference_weight(channel: &Address, content: &Content) -> u64 {
    if !is_inline(channel, content) {
        return REFERENCE_WEIGHT;
    }
    (content.weight() + channel.as_str().len()) as u64
}

/// Whether this is a filter's log that has the references to what is published on `channel`.
pub(crate) fn refers_to(filter: &Address, channel: &Address) -> bool {
    filter.kind() == AddressKind::Filter
        && channel.kind() == AddressKind::Topic
        && topic::matches(filter.id(), channel.id())
}

/// Whether a key of a record, claim or reader can be stored.
pub(crate) fn check_key(key: &[u8]) -> Result<(), Code> {
    if key.len() > KEY_BYTES_MAX { Err(Code::BadRequest) } else { Ok(()) }
}

/// A log that trims by bytes gives up this much more than it must, so that not every publish has to search.
pub(crate) fn bytes_slack(limit: u64) -> u64 {
    limit / 64
}

/// The cursor as it is after a move, or `None` when there is nothing to write.
pub(crate) fn merge_move(
    stored: Option<&StoredCursor>,
    reader: &Reader,
    of: &Move,
    epoch: Epoch,
    now: Millis,
) -> Option<StoredCursor> {
    if of.epoch != 0 && of.epoch != epoch {
        return None;
    }
    let fresh = || StoredCursor {
        channel: of.channel.clone(),
        reader: reader.clone(),
        epoch,
        cursor: Cursor::default(),
        updated_at: now,
        marks: Vec::new(),
    };
    let Some(stored) = stored.filter(|s| s.epoch == epoch) else {
        let mut new = fresh();
        new.cursor.merge(&of.cursor);
        return Some(new);
    };
    let mut new = stored.clone();
    if !new.cursor.merge(&of.cursor) {
        return None;
    }
    if stored.cursor.floor() < new.cursor.floor() && stored.cursor.floor() > 0 {
        new.marks.push((stored.cursor.floor(), stored.updated_at));
        thin_marks(&mut new.marks, now);
    }
    new.updated_at = new.updated_at.max(now);
    Some(new)
}

/// The cursor as it is after a start at the head `last`, or `None` when there is nothing to write.
pub(crate) fn start(
    stored: Option<&StoredCursor>,
    reader: &Reader,
    channel: &Address,
    (epoch, last): (Epoch, Seq),
    now: Millis,
) -> Option<StoredCursor> {
    if stored.is_some_and(|stored| stored.epoch == epoch) {
        return None;
    }
    Some(StoredCursor {
        channel: channel.clone(),
        reader: reader.clone(),
        epoch,
        cursor: Cursor::at(last),
        updated_at: now,
        marks: Vec::new(),
    })
}

/// Drops the mark whose loss falsifies a time the least, relative to how long ago it was: recent acks keep exact
/// times, old ones a time of the right order.
fn thin_marks(marks: &mut Vec<(Seq, Millis)>, now: Millis) {
    while marks.len() > MARKS_MAX {
        let error = |i: usize| {
            let next = marks.get(i + 1).map_or(now, |(_, at)| *at);
            let age = now.saturating_sub(marks[i].1).max(1);
            next.saturating_sub(marks[i].1).saturating_mul(1_000_000) / age
        };
        let least = (0..marks.len()).min_by_key(|i| error(*i)).unwrap_or(0);
        marks.remove(least);
    }
}

/// Fills one page within its bounds.
pub(crate) struct PageBuilder {
    page: Page,
    lo: Seq,
    hi: Seq,
    end: Seq,
    backwards: bool,
    count: usize,
    bytes: usize,
    looked: usize,
    stopped: bool,
}

impl PageBuilder {
    /// For this range over a log in this state.
    pub(crate) fn new(range: &ReadRange, head: Head) -> Self {
        let lo = range.from.max(head.first).max(1);
        let hi = range.to.min(head.last);
        let end = if range.backwards { range.from.max(1).min(head.last) } else { hi };
        let through = if range.backwards { hi.saturating_add(1) } else { lo.saturating_sub(1) };
        Self {
            page: Page { head, messages: Vec::new(), through },
            lo,
            hi,
            end,
            backwards: range.backwards,
            count: range.count,
            bytes: range.bytes,
            looked: 0,
            stopped: range.count == 0,
        }
    }

    /// The seqs to look at, ascending; `None` = none.
    pub(crate) fn span(&self) -> Option<(Seq, Seq)> {
        (self.lo <= self.hi && !self.stopped).then_some((self.lo, self.hi))
    }

    /// Passes one seq, with its message unless it is expired, erased or missing. Returns whether to go on.
    pub(crate) fn pass(&mut self, seq: Seq, message: Option<Message>) -> bool {
        if self.looked >= LOOKED_AT_MAX {
            self.stopped = true;
            return false;
        }
        self.looked += 1;
        if let Some(message) = message {
            let weight = message.content.weight();
            if weight > self.bytes && !self.page.messages.is_empty() {
                self.stopped = true;
                return false;
            }
            self.bytes = self.bytes.saturating_sub(weight);
            self.page.messages.push(message);
        }
        self.page.through = seq;
        if self.page.messages.len() >= self.count {
            self.stopped = true;
        }
        !self.stopped
    }

    /// What lies below `first` has left the log since the head was read.
    pub(crate) fn lost_below(&mut self, first: Seq) {
        self.page.head.first = self.page.head.first.max(first);
    }

    /// The page.
    pub(crate) fn finish(mut self) -> Page {
        if !self.stopped {
            self.page.through = self.end;
        }
        debug_assert!(self.backwards || self.page.through <= self.hi.max(self.lo));
        self.page
    }
}

#[cfg(test)]
mod tests;
