//! Streams of server-sent events: where they start, how they go on, what is told about what is missing.

mod control;
mod gaps;
mod load;
mod resume;
mod start;
