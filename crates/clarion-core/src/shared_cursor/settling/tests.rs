//! Tables, and a property against a list of seqs.

use super::*;
use proptest::prelude::*;

#[test]
fn what_follows_in_seq_and_time_is_one_entry() {
    let mut settling = Settling::default();
    for (seq, due) in [(1, 10), (2, 10), (3, 1_009), (4, 1_010), (6, 1_010), (7, 5)] {
        settling.add(Some(1), (seq, seq), due);
    }
    settling.add(Some(2), (5, 5), 1_010);
    assert_eq!((settling.len, size_of::<Entry>()), (4, 24));
    assert_eq!(settling.take_due(1_008), []);
    assert_eq!(settling.take_due(1_009), [(1, 3)]);
    assert_eq!(settling.take_due(1_010), [(4, 7)]);
    assert_eq!((settling.len, settling.wakes_at(), settling.owners.len()), (0, None, 0));
}

#[test]
fn runs_may_be_long() {
    let mut settling = Settling::default();
    let long = u64::from(u32::MAX) * 2 + 9;
    settling.add(None, (7, long), 0);
    assert_eq!(settling.len, 2 + 1);
    assert_eq!(settling.take_all(), [(7, long)]);
}

#[derive(Debug, Clone)]
struct Written {
    owner: Option<Member>,
    seq: Seq,
    due: Millis,
}

fn seqs(runs: &[Run]) -> Vec<Seq> {
    assert!(runs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{runs:?}");
    runs.iter().flat_map(|&(from, to)| from..=to).collect()
}

/// Checks what was taken out: all that had to, nothing that must not.
fn taken(
    model: &mut Vec<Written>,
    runs: &[Run],
    must: impl Fn(&Written) -> bool,
    may: impl Fn(&Written) -> bool,
) {
    let seqs = seqs(runs);
    for one in model.iter() {
        let out = seqs.contains(&one.seq);
        assert!(!out || may(one), "{one:?} must not be in {runs:?}");
        assert!(out || !must(one), "{one:?} must be in {runs:?}");
    }
    let before = model.len();
    model.retain(|one| !seqs.contains(&one.seq));
    assert_eq!(before - model.len(), seqs.len(), "each once");
}

proptest! {
    #[test]
    fn it_is_a_list_of_seqs(
        steps in prop::collection::vec((0u8..12, 0u64..3, 0u64..400), 1..200),
    ) {
        let (mut settling, mut model) = (Settling { most: 40, ..Settling::default() }, Vec::new());
        let (mut now, mut next) = (0, 1);
        for (step, owner, ms) in steps {
            let owner_of = Some(owner).filter(|owner| *owner > 0);
            match step {
                0..=6 => {
                    let more = if ms % 5 == 0 { ms % 4 } else { 0 };
                    settling.add(owner_of, (next, next + more), now + 500);
                    let all = (next..=next + more).map(|seq| Written { owner: owner_of, seq, due: now + 500 });
                    model.extend(all);
                    next += more + 1 + u64::from(ms % 3 == 0);
                }
                7 | 8 => now += ms,
                9 => {
                    let runs = settling.take_due(now);
                    taken(&mut model, &runs, |one| one.due + 1_000 <= now, |one| one.due <= now);
                    prop_assert!(settling.wakes_at().is_none_or(|at| at > now));
                }
                10 if ms % 4 == 0 => {
                    let (due, young) = settling.take_owner(owner, now);
                    let own = |one: &Written| one.owner == Some(owner);
                    taken(&mut model, &due, |one| own(one) && one.due + 1_000 <= now, |one| own(one) && one.due <= now);
                    taken(&mut model, &young, own, own);
                }
                _ => {
                    let runs = settling.take_excess();
                    prop_assert!(runs.is_empty() || settling.len <= 40);
                    taken(&mut model, &runs, |_| false, |one| one.owner.is_some());
                }
            }
            let entries = settling.owners.values().map(|queue| queue.entries.len()).sum::<usize>();
            prop_assert_eq!((settling.len, settling.order.len()), (entries, settling.owners.len()));
        }
        let all = settling.take_all();
        taken(&mut model, &all, |_| true, |_| true);
    }
}
