//! What is decoded, encoded and decoded again stays the same.

#![no_main]

use clarion_wire::mqtt;
use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::round_trip(data));
