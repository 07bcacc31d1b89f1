use super::*;

#[test]
fn a_stamp_is_found_again() {
    let stamp = Stamp { lane: 7, number: 123_456, micros: 9_876_543_210 };
    let finder = memchr::memmem::Finder::new(MARK);
    for (size, live) in [(0, false), (200, true)] {
        let mut out = Vec::new();
        put_message(&mut out, "user:u", stamp, size, live);
        assert_eq!(find_stamp(&finder, &out), Some(stamp));
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["address"], "user:u");
        assert_eq!(value["expire"].as_i64(), live.then_some(0));
        let text = value["text"].as_str().unwrap();
        assert!(size == 0 || text.len() == size, "{text}");
    }
    for odd in ["", "\"text\":\"clb.1.2", "\"text\":\"clb.1.x.3.", "\"text\":\"hi\""] {
        assert_eq!(find_stamp(&finder, odd.as_bytes()), None, "{odd}");
    }
}
