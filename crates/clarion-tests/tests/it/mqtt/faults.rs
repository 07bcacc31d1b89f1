//! Clients that are slow, half-open or gone; a server that is killed; a disk that fails; ten thousand at once.
//!
//! `slow`: who stops reading · `half_open`: who stops speaking · `retained`: crash rounds, and the race of SUBSCRIBE with a
//! retained publish · `disk`: a failing fsync · `burst`: ten thousand connections.

mod burst;
mod disk;
mod half_open;
mod retained;
mod slow;
