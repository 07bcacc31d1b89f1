//! Properties of MQTT 5: identifiers, values, and what is looked for among them.

/// The value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the types of the specification, section 1.5")]
pub enum Value {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(String),
    Data(Vec<u8>),
    Pair(String, String),
}

/// A property: its identifier and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property(pub u8, pub Value);

macro_rules! properties {
    ($($name:ident $upper:ident $id:literal $kind:ident $type:ty;)*) => {
        /// Identifiers of properties.
        #[expect(missing_docs, reason = "the names of the specification, section 2.2.2.2")]
        pub mod id {
            $(pub const $upper: u8 = $id;)*
            pub const USER_PROPERTY: u8 = 0x26;
        }

        /// Properties by their names.
        #[expect(missing_docs, reason = "the names of the specification, section 2.2.2.2")]
        pub mod prop {
            use super::{Property, Value};
            $(pub fn $name(value: impl Into<$type>) -> Property {
                Property($id, Value::$kind(value.into()))
            })*
            pub fn user(name: &str, value: &str) -> Property {
                Property(0x26, Value::Pair(name.to_owned(), value.to_owned()))
            }
        }

        /// What stands behind an identifier, by an example of it.
        pub(super) fn kind(id: u8) -> Option<Value> {
            match id {
                $($id => Some(Value::$kind(<$type>::default())),)*
                0x26 => Some(Value::Pair(String::new(), String::new())),
                _ => None,
            }
        }
    };
}

properties! {
    payload_format PAYLOAD_FORMAT 0x01 Byte u8;
    message_expiry MESSAGE_EXPIRY 0x02 Four u32;
    content_type CONTENT_TYPE 0x03 Text String;
    response_topic RESPONSE_TOPIC 0x08 Text String;
    correlation CORRELATION 0x09 Data Vec<u8>;
    subscription_id SUBSCRIPTION_ID 0x0B Variable u32;
    session_expiry SESSION_EXPIRY 0x11 Four u32;
    assigned_client_id ASSIGNED_CLIENT_ID 0x12 Text String;
    server_keep_alive SERVER_KEEP_ALIVE 0x13 Two u16;
    auth_method AUTH_METHOD 0x15 Text String;
    auth_data AUTH_DATA 0x16 Data Vec<u8>;
    request_problem_info REQUEST_PROBLEM_INFO 0x17 Byte u8;
    will_delay WILL_DELAY 0x18 Four u32;
    request_response_info REQUEST_RESPONSE_INFO 0x19 Byte u8;
    response_info RESPONSE_INFO 0x1A Text String;
    server_reference SERVER_REFERENCE 0x1C Text String;
    reason_string REASON_STRING 0x1F Text String;
    receive_maximum RECEIVE_MAXIMUM 0x21 Two u16;
    topic_alias_maximum TOPIC_ALIAS_MAXIMUM 0x22 Two u16;
    topic_alias TOPIC_ALIAS 0x23 Two u16;
    maximum_qos MAXIMUM_QOS 0x24 Byte u8;
    retain_available RETAIN_AVAILABLE 0x25 Byte u8;
    maximum_packet_size MAXIMUM_PACKET_SIZE 0x27 Four u32;
    wildcard_available WILDCARD_AVAILABLE 0x28 Byte u8;
    subscription_ids_available SUBSCRIPTION_IDS_AVAILABLE 0x29 Byte u8;
    shared_available SHARED_AVAILABLE 0x2A Byte u8;
}

/// The number that a property has.
pub fn number(properties: &[Property], id: u8) -> Option<u32> {
    properties.iter().filter(|property| property.0 == id).find_map(|property| match property.1 {
        Value::Byte(value) => Some(value.into()),
        Value::Two(value) => Some(value.into()),
        Value::Four(value) | Value::Variable(value) => Some(value),
        _ => None,
    })
}

/// The text that a property has.
pub fn text(properties: &[Property], id: u8) -> Option<&str> {
    properties.iter().filter(|property| property.0 == id).find_map(|property| match &property.1 {
        Value::Text(text) => Some(text.as_str()),
        _ => None,
    })
}

/// The user properties, in order.
pub fn pairs(properties: &[Property]) -> Vec<(&str, &str)> {
    properties
        .iter()
        .filter_map(|property| match &property.1 {
            Value::Pair(name, value) => Some((name.as_str(), value.as_str())),
            _ => None,
        })
        .collect()
}
