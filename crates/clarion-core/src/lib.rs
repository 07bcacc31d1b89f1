//! The domain of Clarion, pure.
//!
//! Owns: addresses, messages, positions, cursors, subscriptions, delivery modes, leases, gates, numbered windows, retention, limits,
//! the table of error codes, and the ports through which the shell reaches the world.
//!
//! Invariant: nothing here reads a clock, draws a random number, spawns, blocks or does I/O; time, randomness and ids
//! are arguments. `seq` orders, never the clock.
//!
//! Must not know: runtimes, protocols, drivers, serialization formats of the wire.

pub mod acl;
pub mod address;
pub mod catch_up;
pub mod codes;
pub mod cursor;
pub mod cursor_set;
pub mod durable;
pub mod gate_channel;
pub mod id;
pub mod inflight;
pub mod message;
pub mod mode;
pub mod mutant;
pub mod port;
pub mod principal;
pub mod retention;
pub mod shared_cursor;
pub mod start;
pub mod subscription;
pub mod topic;
pub mod topic_tree;
pub mod window;

pub use acl::{Acl, AclCell, Action, Cover, Who};
pub use address::{Address, AddressError, AddressKind};
pub use codes::{Code, Refusal};
pub use cursor::Cursor;
pub use id::{Epoch, MessageId, Millis, Position, Seq};
pub use message::{Content, Message, Sender};
pub use principal::{Principal, Verb};
pub use retention::{Overflow, Retention};
