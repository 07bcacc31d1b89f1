//! docs/golden.md names every scenario.

use super::vectors::{FILES, read};
use std::path::Path;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/golden.md");
    std::fs::read_to_string(path).expect("docs/golden.md is there")
}

#[test]
fn the_page_names_every_scenario_once() {
    let page = page();
    for file in FILES {
        for scenario in read(file) {
            let row = format!("| `{}` |", scenario.name);
            assert_eq!(page.matches(&row).count(), 1, "{row} in docs/golden.md");
        }
    }
}

#[test]
fn what_has_no_counterpart_is_said_so() {
    let page = page();
    for scenario in FILES.iter().flat_map(|file| read(file)) {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", scenario.name)));
        let row = row.expect("named, see above");
        let not_here = matches!(super::table::case(&scenario.name), super::table::Case::NotHere);
        assert_eq!(row.contains("| not here |"), not_here, "{row}");
    }
}
