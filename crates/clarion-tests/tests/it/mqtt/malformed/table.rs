//! The packets, in bytes.

mod first;
mod five;
mod three;

use super::Row;

/// All of them.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    [first::ROWS, three::ROWS, five::ROWS].into_iter().flatten().copied()
}
