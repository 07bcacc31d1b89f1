//! it

mod tidy;
