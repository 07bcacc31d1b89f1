//! What the fuzz targets check, over the inputs that they found to be worth keeping.

#[path = "../../../../../fuzz/checks.rs"]
mod checks;

use std::path::Path;

fn over_inputs(name: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/inputs");
    let text = std::fs::read_to_string(folder.join(name).with_extension("hex")).unwrap();
    let inputs: Vec<_> = text.lines().map(super::bytes).collect();
    assert!(inputs.len() > 100, "{name} has few inputs");
    inputs.iter().for_each(|input| check(input));
}

#[test]
fn bytes_of_clients() {
    over_inputs("mqtt_decode_client", checks::client);
}

#[test]
fn bytes_of_servers() {
    over_inputs("mqtt_decode_server", checks::server);
}

#[test]
fn round_trips() {
    over_inputs("mqtt_roundtrip", checks::round_trip);
}
