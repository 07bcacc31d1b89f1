//! The wire protos: what is generated from them is current.

mod generated;
