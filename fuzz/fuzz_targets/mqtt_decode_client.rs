//! What a client may send, decoded in all versions, with strict and with free topics.

#![no_main]

use clarion_wire::mqtt;
use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
mod checks;

fuzz_target!(|data: &[u8]| checks::client(data));
