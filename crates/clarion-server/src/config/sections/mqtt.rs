//! The keys of MQTT, on every listener that speaks it.

use super::{GIB, KIB, MIB, YEAR};
use crate::config::{
    At,
    kinds::{HOUR, Kind, ListOf, Optional, OrNone, SECOND, count, plain::Flag, size, span},
    reader::{Reader, Section},
    tree::{Node, Value},
};
use clarion_edge::mqtt::UserTopics;
use std::time::Duration;

/// Longest remaining length of a packet (MQTT 5 §2.1.4), and its head.
const PACKET_BYTES_MAX: u64 = 268_435_455 + 5;

section! {
    /// MQTT 3.1, 3.1.1 and 5, on every listener that speaks it.
    Mqtt {
        /// Topics on which a user's feed comes (his own channel, his groups, `all`): templates with `{user}` for the
        /// user's name. A session gets it on the first one that it subscribes. A publish to such a topic is a publish to
        /// that user.
        user_topics: Vec<String> = "['user/{user}']", ListOf { what: "topics with {user}", max: 16, item: user_topic };
        /// Time from the start of a connection in which its CONNECT must be there, the TLS handshake and the WebSocket
        /// request in front of it included.
        connect_timeout: Duration = "10s", span(100, HOUR);
        /// Longest CONNECT. One with a larger will or password is refused.
        connect_bytes: u32 = "72KiB", size(KIB, MIB);
        /// Longest packet; a longer one ends the connection. Told to clients of 5. Topic and properties come on top of
        /// `limits.payload_bytes`.
        max_packet_bytes: u32 = "1088KiB", size(KIB, PACKET_BYTES_MAX);
        /// Longest WebSocket message; it may hold several packets. A longer one ends the connection.
        websocket_message_bytes: u64 = "16MiB", size(KIB, 4 * GIB);
        /// Origins of web pages that may connect where a listener says `auth: none` or `tls.user_from_cert: true`, besides
        /// those at `localhost`, a loopback address or the very host and port that they connect to:
        /// `https://app.example.com`, `null` for pages from files, `*` for all.
        allow_origins: Vec<String> = "[]", ListOf { what: "origins", max: 1000, item: origin };
        /// Longest client id.
        client_id_bytes: usize = "256", count(23, 65_535);
        /// Longest keep-alive interval. One that is longer, or none, becomes this one, which clients of 5 are told; others
        /// are closed after 1.5 times this. 0 = what the client says.
        max_keep_alive: Duration = "0", span(0, 65_535 * SECOND);
        /// QoS 1 and 2 messages that a client may have unanswered. Told to clients of 5.
        receive_maximum: u16 = "1024", count(1, 65_535);
        /// QoS 1 and 2 messages that one client has not acked; further ones wait.
        max_inflight: u16 = "1000", count(1, 65_535);
        /// Messages that wait for one client because of that; further ones are dropped and counted. The feed waits in the
        /// store instead.
        queue_messages: usize = "1000", count(0, 10_000_000);
        /// Bytes of them, likewise.
        queue_bytes: usize = "1MiB", size(0, 4 * GIB);
        /// Topic aliases that a client of 5 may set.
        topic_aliases: u16 = "16", count(0, 65_535);
        /// Bytes of the topics behind them, of one client; more end the connection.
        topic_alias_bytes: usize = "16KiB", size(0, 64 * MIB);
        /// Topic aliases that are used towards a client of 5, if it takes as many.
        topic_aliases_out: u16 = "16", count(0, 65_535);
        /// Subscriptions of one session; further ones are refused.
        subscriptions_max: usize = "1000", count(1, 1_000_000);
        /// Levels of a topic or filter; deeper ones are refused.
        topic_levels_max: usize = "128", count(1, 65_535);
        /// What a SUBSCRIBE that may not be is answered in 5; in 3.1.1 it is 0x80.
        subscribe_denied_code: u8 = "0x87", ReasonCode(&[0x80, 0x83, 0x87, 0x8f, 0x97]);
        /// Longest time for which a client may ask its session, and so its will, to be kept after its connection has
        /// ended.
        max_session_expiry: Duration = "1d", span(0, 100 * YEAR);
        /// The time for which the session of a client of 3.1 or 3.1.1 without a clean session is kept after its connection has
        /// ended; `none`: as long as `max_session_expiry` allows.
        session_expiry_3x: Option<Duration> = "none", OrNone(span(0, 100 * YEAR));
        /// After a start the wills of clients that were connected when the server ended without a word wait at least so long
        /// before they are published: who is back within it has not died.
        will_grace: Duration = "5s", span(0, HOUR);
        /// Retained messages; a further topic is refused.
        retained_messages: usize = "1000000", count(0, 100_000_000);
        /// Messages with QoS 0 are stored like the others where somebody may need them later.
        store_qos0: bool = "false", Flag;
        /// Time between what the server tells of itself on `$SYS/…` (docs/mqtt.md names the topics). 0 = it tells nothing.
        sys_interval: Duration = "0", span(0, HOUR);
        /// Where clients of 5 are sent when this server stops: one or several `host:port`, with spaces between them.
        server_reference: Option<String> = "none", Optional { what: "servers", item: short_text };
        /// What a client of 5 that asks for it is told to put in front of its response topics.
        response_information: Option<String> = "none", Optional { what: "beginning of topics", item: short_text };
    }
}

/// A topic of each user.
fn user_topic(text: &str) -> Result<String, String> {
    match UserTopics::parse([text]) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a browser sends as `Origin`.
fn origin(text: &str) -> Result<String, String> {
    let is_origin = |text: &str| {
        text.split_once("://").is_some_and(|(scheme, host)| {
            !scheme.is_empty() && !host.is_empty() && !host.contains('/')
        })
    };
    if text == "*" || text == "null" || is_origin(text) {
        Ok(text.to_owned())
    } else {
        Err("an origin is scheme://host or scheme://host:port, without a path; or null; or *"
            .into())
    }
}

fn short_text(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 4096 || text.chars().any(char::is_control) {
        return Err("has 1 to 4096 bytes, none a control character".to_owned());
    }
    Ok(text.to_owned())
}

/// One of some reason codes of 5, as people write them: `0x87`.
struct ReasonCode(&'static [u8]);

impl ReasonCode {
    fn names(&self) -> String {
        self.0.iter().map(|code| format!("{code:#04x}")).collect::<Vec<_>>().join(", ")
    }
}

impl Kind for ReasonCode {
    type Out = u8;

    fn parse(&self, node: &Node, at: &mut At<'_>) -> Option<u8> {
        let number = match &node.value {
            Value::Whole(number) => u8::try_from(*number).ok(),
            Value::Text(text) => match text.trim().strip_prefix("0x") {
                Some(hex) => u8::from_str_radix(hex, 16).ok(),
                None => text.trim().parse().ok(),
            },
            _ => None,
        };
        match number.filter(|number| self.0.contains(number)) {
            Some(number) => Some(number),
            None => {
                let found = node.value.describe();
                at.problem(format!("expected one of {}, found {found}", self.names()))
            }
        }
    }

    fn describe(&self) -> String {
        format!("one of {}", self.names())
    }
}
