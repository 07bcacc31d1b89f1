//! The payload that every workload publishes: who numbered it, its number, when it was sent, padding. Plain ASCII, so it
//! stands in JSON as it is and one search finds it in a delivery. Must not know: how it travels.

use std::{io::Write, time::Instant};

/// What a payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Who numbered it.
    pub(super) lane: u32,
    /// Its number there, from 0.
    pub(super) number: u32,
    /// Microseconds since the bench began.
    pub(super) micros: u64,
}

/// What a delivered payload is found by in JSON.
pub(super) const MARK: &[u8] = b"\"text\":\"clb.";
/// What it is found by elsewhere.
pub(super) const TEXT_MARK: &[u8] = b"clb.";

/// Appends `{"address":…,"text":…}`; the text has `size` bytes, or as many as the stamp takes.
pub(super) fn put_message(out: &mut Vec<u8>, address: &str, stamp: Stamp, size: usize, live: bool) {
    out.extend_from_slice(b"{\"address\":\"");
    out.extend_from_slice(address.as_bytes());
    out.extend_from_slice(b"\",\"text\":\"");
    put_text(out, stamp, size);
    out.extend_from_slice(if live { b"\",\"expire\":0}" } else { b"\"}" });
}

/// Appends the text alone: `size` bytes, or as many as the stamp takes.
pub(super) fn put_text(out: &mut Vec<u8>, stamp: Stamp, size: usize) {
    let start = out.len();
    let Stamp { lane, number, micros } = stamp;
    // Writing to a Vec cannot fail.
    let _ = write!(out, "clb.{lane}.{number}.{micros}.");
    if out.len() < start + size {
        out.resize(start + size, b'x');
    }
}

/// Finds the stamp in an event; `None` when it is none of ours.
pub(super) fn find_stamp(finder: &memchr::memmem::Finder<'_>, event: &[u8]) -> Option<Stamp> {
    let mut rest = event.get(finder.find(event)? + finder.needle().len()..)?;
    let mut next = || {
        let mut value = 0u64;
        loop {
            let (digit, tail) = rest.split_first()?;
            rest = tail;
            match digit {
                b'0'..=b'9' => {
                    value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?
                }
                b'.' => return Some(value),
                _ => return None,
            }
        }
    };
    let lane = u32::try_from(next()?).ok()?;
    let number = u32::try_from(next()?).ok()?;
    Some(Stamp { lane, number, micros: next()? })
}

/// The bench's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    pub(super) fn micros(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
