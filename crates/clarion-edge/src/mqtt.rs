//! The dialect MQTT: 3.1, 3.1.1 and 5.
//!
//! Must not know: how anything is matched or stored; other dialects.

mod peer;

pub use peer::{
    ConnectRefusal, Hello, MqttPeer, MqttPeerConfig, PeerCounters, PeerSetup, SessionTerms,
    TemplateError, UserTopics, check_connect,
};
