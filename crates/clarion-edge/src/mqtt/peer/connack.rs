//! CONNACK: what the server tells of itself.

use super::MqttPeer;
use super::setup::{Hello, SessionTerms};
use clarion_wire::mqtt::{self, Property, Version};

/// What only CONNACK needs to know, until it is written.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) hello: Hello,
    pub(super) assigned: bool,
    pub(super) keep_alive: u16,
    pub(super) session: SessionTerms,
    /// The session was there.
    pub(super) present: bool,
}

impl MqttPeer {
    pub(super) fn greet(&mut self, out: &mut Vec<u8>) {
        let Some(greeting) = self.greeting.take() else { return };
        let present = greeting.present;
        if self.version != Version::V5 {
            mqtt::connack(out, self.version, present, 0, std::iter::empty());
            return;
        }
        let start = out.len();
        let needed = self.needed(&greeting);
        let helpful = self.helpful(&greeting);
        let all = needed.into_iter().chain(helpful).flatten();
        mqtt::connack(out, self.version, present, 0, all);
        if out.len() - start > self.packet_bytes {
            // A client that takes small packets only is told no more than it has to know; then it may set no alias.
            out.truncate(start);
            mqtt::connack(out, self.version, present, 0, needed.into_iter().flatten());
            self.topic_aliases = 0;
        }
    }

    /// What a client does wrong if it does not know it. Everything else is left at its default: QoS 2, retained messages,
    /// wildcards, subscription identifiers and shared subscriptions are there.
    fn needed<'a>(&'a self, greeting: &Greeting) -> [Option<Property<'a>>; 5] {
        let config = &*self.config;
        let hello = &greeting.hello;
        let expiry = greeting.session.expiry_s;
        [
            (expiry != hello.session_expiry_s).then_some(Property::SessionExpiry(expiry)),
            (config.receive_maximum < u16::MAX)
                .then_some(Property::ReceiveMaximum(config.receive_maximum)),
            Some(Property::MaximumPacketSize(config.profile.packet_bytes_max)),
            greeting.assigned.then_some(Property::AssignedClientId(&self.client_id)),
            (greeting.keep_alive != hello.keep_alive)
                .then_some(Property::ServerKeepAlive(greeting.keep_alive)),
        ]
    }

    fn helpful<'a>(&'a self, greeting: &Greeting) -> [Option<Property<'a>>; 2] {
        let wanted = greeting.hello.response_information;
        [
            (self.topic_aliases > 0).then_some(Property::TopicAliasMaximum(self.topic_aliases)),
            self.config
                .response_information
                .as_deref()
                .filter(|_| wanted)
                .map(Property::ResponseInfo),
        ]
    }
}
