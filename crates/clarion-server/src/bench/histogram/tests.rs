use super::*;

#[test]
fn buckets_follow_each_other_without_a_hole() {
    let mut last = 0;
    for micros in 0..200_000u64 {
        let b = bucket(micros);
        assert!(b == last || b == last + 1, "{micros}: {last} then {b}");
        assert!(upper(b) >= micros, "{micros}");
        assert!(upper(b) - micros <= micros / 128, "{micros}: {}", upper(b));
        last = b;
    }
}

#[test]
fn percentiles_are_of_the_values() {
    let mut h = Histogram::new();
    assert_eq!((h.percentile_ms(0.5), h.max_ms()), (0.0, 0.0));
    for micros in 1..=200 {
        h.record_micros(micros);
    }
    assert_eq!(h.percentile_ms(0.5), 0.1);
    assert_eq!(h.percentile_ms(0.99), 0.198);
    assert_eq!(h.percentile_ms(1.0), 0.2);
    h.record(Duration::from_secs(3));
    assert_eq!((h.percentile_ms(1.0), h.max_ms()), (3000.0, 3000.0));
    h.record_micros(u64::MAX);
    assert_eq!(h.percentile_ms(0.5), 0.101);
}
