//! "Did you mean …?": the nearest of the names that exist.

/// The candidate nearest to `wrong`, if one is near enough to be meant.
pub(crate) fn nearest<'a>(wrong: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let wrong: String = wrong.chars().take(128).collect::<String>().to_lowercase();
    let leaf = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let limit = 2.max(leaf(&wrong).chars().count() / 3);
    let by_whole = candidates
        .iter()
        .map(|candidate| (distance(&wrong, candidate), *candidate))
        .min()
        .filter(|(distance, _)| *distance <= limit);
    let same_leaf = || {
        let mut found = candidates.iter().filter(|candidate| leaf(candidate) == leaf(&wrong));
        found.next().filter(|_| found.next().is_none()).map(|candidate| (0, *candidate))
    };
    by_whole.or_else(same_leaf).map(|(_, candidate)| candidate)
}

/// Edits (insert, remove, replace, swap of neighbours) between two texts.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before_last[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typos_are_found_and_strangers_are_not() {
        let keys = ["limits.payload_bytes", "limits.body_bytes", "store.kind", "log.level"];
        let check = |wrong, right| assert_eq!(nearest(wrong, &keys), right, "{wrong}");
        check("limits.paylod_bytes", Some("limits.payload_bytes"));
        check("limit.payload_bytes", Some("limits.payload_bytes"));
        check("log.levle", Some("log.level"));
        check("LOG.LEVEL", Some("log.level"));
        check("payload_bytes", Some("limits.payload_bytes"));
        check("http.port", None);
        check("", None);
    }

    #[test]
    fn distances() {
        let check = |a, b, expected| assert_eq!(distance(a, b), expected, "{a} {b}");
        check("", "", 0);
        check("", "abc", 3);
        check("abc", "acb", 1);
        check("kitten", "sitting", 3);
    }
}
