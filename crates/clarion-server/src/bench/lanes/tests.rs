use super::*;

fn check(numbers: &[u32], sent: u32, expected: (u64, u64, u64), settled: u64) {
    let mut lanes = Lanes::new(1);
    let sum: u64 = numbers.iter().map(|n| lanes.take(0, *n)).sum();
    let faults = lanes.faults(&[sent]);
    assert_eq!((faults.lost, faults.repeated, faults.reordered), expected, "{numbers:?}");
    assert_eq!(sum, settled, "{numbers:?}");
}

#[test]
fn what_came_and_what_it_means() {
    check(&[], 0, (0, 0, 0), 0);
    check(&[0, 1, 2], 3, (0, 0, 0), 3);
    check(&[0, 1], 3, (1, 0, 0), 2);
    check(&[0, 2], 3, (1, 0, 0), 3);
    check(&[0, 0, 1], 2, (0, 1, 0), 2);
    check(&[0, 2, 1], 3, (0, 0, 1), 3);
    check(&[0, 2, 1, 1], 3, (0, 1, 1), 3);
    check(&[5], 6, (5, 0, 0), 6);
    check(&[5, 0, 4, 2], 6, (2, 0, 3), 6);
    check(&[5, 0, 4, 2, 3, 1], 6, (0, 0, 5), 6);
}

#[test]
fn a_lane_that_does_not_exist_is_passed_over() {
    assert_eq!(Lanes::new(1).take(1, 0), 0);
}
