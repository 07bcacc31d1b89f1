//! What is easily lost, doubled or mixed up: each of these was thought of before it happened.
//!
//! `suback`: publishes right behind it · `retained`: a replay that is cut off · `overlap`: filters that overlap, and change
//! while a backlog waits · `exactly_once`: QoS 2 both ways, over ends of messages, subscriptions and servers · `names`:
//! many topics that are used once.

mod exactly_once;
mod names;
mod overlap;
mod retained;
mod suback;

/// A small generator (xorshift).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}
