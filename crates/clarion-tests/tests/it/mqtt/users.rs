//! Users and the other transports: feeds on user topics, cursors that all transports share, topics as addresses.
//!
//! `feed`: what comes to a user · `cursors`: what one transport acked, another does not give again · `topics`: `topic:` by
//! HTTP and gRPC, and the reverse.

mod cursors;
mod feed;
mod topics;

use clarion_tests::{
    Server,
    mqtt::{Client, Options, Version, prop},
};

/// A clean session of a user.
fn user(server: &Server, version: Version, id: &str, user: &str) -> Client {
    Options::new(version, id).user(user).connect(server.listener("mqtt"))
}

/// A session whose state is kept: a device of its user.
fn device(server: &Server, version: Version, id: &str, user: &str) -> Client {
    let mut options = Options::new(version, id).user(user).clean(false);
    if version == Version::V5 {
        options = options.with(prop::session_expiry(1000u32));
    }
    options.connect(server.listener("mqtt"))
}

/// Subscribes a user's feed.
fn feed(client: &mut Client, user: &str, qos: u8) {
    assert_eq!(client.subscribe(&[(&*format!("user/{user}"), qos)]), [qos]);
}
