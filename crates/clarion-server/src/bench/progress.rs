//! The progress line on standard error. Must not know: what makes progress.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    time::Instant,
};

/// See the module.
#[derive(Debug)]
pub(super) struct Progress {
    shown: bool,
    dirty: Cell<bool>,
    last: Cell<(Instant, u64)>,
}

impl Progress {
    /// On a terminal, or when it is asked for.
    pub(super) fn new(asked: bool) -> Self {
        let last = Cell::new((Instant::now(), 0));
        Self { shown: asked || io::stderr().is_terminal(), dirty: Cell::new(false), last }
    }

    /// Shows how far it is, at most once a second.
    pub(super) fn show(&self, what: &str, done: u64, of: u64) {
        let (at, before) = self.last.get();
        let passed = at.elapsed().as_secs_f64();
        if !self.shown || passed < 1.0 {
            return;
        }
        let rate = done.saturating_sub(before) as f64 / passed;
        self.last.set((Instant::now(), done));
        self.dirty.set(true);
        let percent = done * 100 / of.max(1);
        let _ =
            write!(io::stderr(), "\r{what}: {done} of {of} ({percent} %), {rate:.0} per s\x1b[K");
    }

    /// Takes the line away.
    pub(super) fn clear(&self) {
        if self.dirty.replace(false) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        self.last.set((Instant::now(), 0));
    }
}
