//! The one place where the store draws random numbers. Everything else takes them as arguments.

/// A number from the operating system; from a counter when it gives none, which only weakens how surely two histories
/// differ.
pub(crate) fn u32() -> u32 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static FALLBACK: AtomicU64 = AtomicU64::new(1);
    getrandom::u32().unwrap_or_else(|_| {
        let count = FALLBACK.fetch_add(1, Ordering::Relaxed);
        mix(count ^ u64::from(std::process::id()) << 32) as u32
    })
}

/// SplitMix64: a fixed scrambling of a number.
pub(crate) fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
