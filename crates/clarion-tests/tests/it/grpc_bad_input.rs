//! Bad input on the gRPC listener: each kind with the exact answer that docs/grpc-errors.md names, and a healthy server
//! behind it.
//!
//! `table`: what calls say · `wire`: how they travel, how many, from whom.

mod table;
mod wire;

use clarion_tests::Server;

use crate::grpc::no_session_is_left;

/// It answers, stores, and nothing of what was there is left.
async fn assert_well(server: &Server) {
    no_session_is_left(server).await;
    crate::bad_input::assert_healthy(server);
}
