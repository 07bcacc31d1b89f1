//! Each rule with packets that break it.

use super::super::rules::{self, Rule};
use super::*;
use Side::{Client, Server};
use Version::{V5, V31, V311};
use std::collections::BTreeSet;

type Case = (&'static Rule, &'static [Version], Side, u8, &'static str);

const ALL: &[Version] = &VERSIONS;
const OLD: &[Version] = &[V31, V311];
const OASIS: &[Version] = &[V311, V5];
const FIVE: &[Version] = &[V5];

/// Whole packets: rule, versions, who sends, first byte, body.
const CASES: &[Case] = &[
    // Header.
    (&rules::KIND, ALL, Client, 0x00, ""),
    (&rules::KIND, ALL, Client, 0x0f, "00"),
    (&rules::KIND, ALL, Client, 0x20, "0000"),
    (&rules::KIND, ALL, Client, 0x29, "0001"),
    (&rules::KIND, ALL, Client, 0x90, "0001 00"),
    (&rules::KIND, ALL, Client, 0xb0, "0001"),
    (&rules::KIND, ALL, Client, 0xd0, ""),
    (&rules::KIND, ALL, Client, 0xd1, ""),
    (&rules::KIND, OLD, Client, 0xf0, ""),
    (&rules::KIND, ALL, Server, 0x00, ""),
    (&rules::KIND, ALL, Server, 0x10, ""),
    (&rules::KIND, ALL, Server, 0x82, "0001 'a' 00"),
    (&rules::KIND, ALL, Server, 0xa2, "0001 'a'"),
    (&rules::KIND, ALL, Server, 0xc0, ""),
    (&rules::KIND, OLD, Server, 0xe0, ""),
    (&rules::KIND, OLD, Server, 0xf0, ""),
    (&rules::SECOND_CONNECT, ALL, Client, 0x10, "'MQTT' 04 02 000a 'p'"),
    (&rules::FLAGS, OASIS, Client, 0x41, "0001"),
    (&rules::FLAGS, OASIS, Client, 0x48, "0001"),
    (&rules::FLAGS, OASIS, Client, 0x52, "0001"),
    (&rules::FLAGS, OASIS, Client, 0x60, "0001"),
    (&rules::FLAGS, OASIS, Client, 0x6a, "0001"),
    (&rules::FLAGS, OASIS, Client, 0x63, "0001"),
    (&rules::FLAGS, OASIS, Client, 0x74, "0001"),
    (&rules::FLAGS, OASIS, Client, 0x80, "0001 'p' 00"),
    (&rules::FLAGS, OASIS, Client, 0x83, "0001 'p' 00"),
    (&rules::FLAGS, OASIS, Client, 0x86, "0001 'p' 00"),
    (&rules::FLAGS, OASIS, Client, 0x8a, "0001 'p' 00"),
    (&rules::FLAGS, OASIS, Client, 0xa0, "0001 'p'"),
    (&rules::FLAGS, OASIS, Client, 0xaa, "0001 'p'"),
    (&rules::FLAGS, OASIS, Client, 0xc1, ""),
    (&rules::FLAGS, OASIS, Client, 0xc8, ""),
    (&rules::FLAGS, OASIS, Client, 0xe1, ""),
    (&rules::FLAGS, OASIS, Client, 0xe8, ""),
    (&rules::FLAGS, FIVE, Client, 0xf1, ""),
    (&rules::FLAGS, OASIS, Server, 0x21, "0000"),
    (&rules::FLAGS, OASIS, Server, 0x92, "0001 00"),
    (&rules::FLAGS, OASIS, Server, 0xb2, "0001"),
    (&rules::FLAGS, OASIS, Server, 0xd4, ""),
    (&rules::FLAGS, &[V31], Client, 0x80, "0001 'p' 00"),
    (&rules::FLAGS, &[V31], Client, 0x84, "0001 'p' 00"),
    (&rules::FLAGS, &[V31], Client, 0x60, "0001"),
    (&rules::FLAGS, &[V31], Client, 0x86, "0001 'p' 00"),
    (&rules::FLAGS, &[V31], Client, 0xae, "0001 'p'"),
    (&rules::QOS, ALL, Client, 0x36, "'t' 0001"),
    (&rules::QOS, ALL, Client, 0x3e, "'t' 0001"),
    (&rules::QOS, ALL, Server, 0x37, "'t' 0001"),
    (&rules::DUP, ALL, Client, 0x38, "'t'"),
    (&rules::DUP, ALL, Server, 0x39, "'t'"),
    // Lengths.
    (&rules::TRAILING, ALL, Client, 0xc0, "00"),
    (&rules::TRAILING, ALL, Server, 0xd0, "00"),
    (&rules::TRAILING, OLD, Client, 0xe0, "00"),
    (&rules::TRAILING, OLD, Client, 0x40, "0001 00"),
    (&rules::TRAILING, OLD, Client, 0x62, "0001 00"),
    (&rules::TRAILING, OLD, Server, 0x20, "0000 00"),
    (&rules::TRAILING, OLD, Server, 0xb0, "0001 00"),
    (&rules::TRAILING, FIVE, Client, 0x40, "0001 00 00 00"),
    (&rules::TRAILING, FIVE, Client, 0xe0, "00 00 00"),
    (&rules::TRAILING, FIVE, Client, 0xf0, "18 04 15 'a' 00"),
    (&rules::TRAILING, FIVE, Server, 0x20, "0000 00 00"),
    (&rules::SHORT, ALL, Client, 0x40, ""),
    (&rules::SHORT, ALL, Client, 0x40, "00"),
    (&rules::SHORT, ALL, Client, 0x30, ""),
    (&rules::SHORT, ALL, Client, 0x30, "00"),
    (&rules::SHORT, ALL, Client, 0x30, "0002 61"),
    (&rules::SHORT, ALL, Client, 0x32, "'t'"),
    (&rules::SHORT, ALL, Client, 0x32, "'t' 00"),
    (&rules::SHORT, FIVE, Client, 0x32, "'t' 0001"),
    (&rules::SHORT, ALL, Client, 0x82, ""),
    (&rules::SHORT, ALL, Client, 0x82, "12"),
    (&rules::SHORT, OLD, Client, 0x82, "1234 00"),
    (&rules::SHORT, OLD, Client, 0x82, "1234 'p'"),
    (&rules::SHORT, FIVE, Client, 0x82, "1234"),
    (&rules::SHORT, FIVE, Client, 0x82, "1234 00 'p'"),
    (&rules::SHORT, OLD, Client, 0xa2, "1234 0002 61"),
    (&rules::SHORT, FIVE, Client, 0xa2, "1234 00 0002 61"),
    (&rules::SHORT, ALL, Server, 0x20, "00"),
    (&rules::SHORT, FIVE, Server, 0x20, "0000"),
    (&rules::SHORT, FIVE, Server, 0xb0, "0001"),
    (&rules::SHORT, FIVE, Client, 0xf0, "18"),
    (&rules::SHORT, FIVE, Client, 0x30, "'t' 01 01"),
    (&rules::SHORT, FIVE, Client, 0x30, "'t' 01 02"),
    (&rules::SHORT, FIVE, Client, 0x30, "'t' 04 26 'p'"),
    (&rules::SHORT, FIVE, Client, 0x30, "'t' 01 0b"),
    (&rules::SHORT, FIVE, Client, 0x30, "'t' 80"),
    (&rules::LENGTH_LONG, FIVE, Client, 0x30, "'t' 80 00"),
    (&rules::NUMBER, FIVE, Client, 0x30, "'t' 80 80 80 80 01"),
    (&rules::LENGTH_LONG, FIVE, Client, 0x82, "0001 03 0b 80 00 'p' 00"),
    (&rules::NUMBER, FIVE, Client, 0x82, "0001 06 0b 80 80 80 80 01 'p' 00"),
    (&rules::PROPERTY_LENGTH, FIVE, Client, 0x30, "'t' 05 01 00"),
    (&rules::PROPERTY_LENGTH, FIVE, Client, 0x40, "0001 00 01"),
    // Packet ids.
    (&rules::PACKET_ID, ALL, Client, 0x32, "'t' 0000 00"),
    (&rules::PACKET_ID, ALL, Client, 0x34, "'t' 0000 00"),
    (&rules::PACKET_ID, ALL, Client, 0x40, "0000"),
    (&rules::PACKET_ID, ALL, Client, 0x50, "0000"),
    (&rules::PACKET_ID, ALL, Client, 0x62, "0000"),
    (&rules::PACKET_ID, ALL, Client, 0x70, "0000"),
    (&rules::PACKET_ID, ALL, Client, 0x82, "0000 'p' 00"),
    (&rules::PACKET_ID, ALL, Client, 0xa2, "0000 'p'"),
    (&rules::PACKET_ID, ALL, Server, 0x90, "0000 00"),
    (&rules::PACKET_ID, ALL, Server, 0xb0, "0000"),
    // Strings.
    (&rules::UTF8, ALL, Client, 0x30, "0001 ff 00"),
    (&rules::UTF8, ALL, Client, 0x30, "0003 eda080 00"),
    (&rules::UTF8, ALL, Client, 0x30, "0002 c080 00"),
    (&rules::UTF8, ALL, Client, 0x30, "0004 f4908080 00"),
    (&rules::NUL, ALL, Client, 0x30, "0003 610062 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 610162 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 611f62 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 617f62 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 61c280 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 61c29f 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 efb790 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 efb7af 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 efbfbe 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0003 efbfbf 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0004 f09fbfbe 00"),
    (&rules::CONTROL, ALL, Client, 0x30, "0004 f48fbfbf 00"),
    (&rules::NUL, OLD, Client, 0x82, "0001 0001 00 00"),
    (&rules::NUL, FIVE, Client, 0x82, "0001 00 0001 00 00"),
    (&rules::CONTROL, OLD, Client, 0xa2, "0001 0001 01"),
    (&rules::UTF8, FIVE, Client, 0xe0, "00 04 1f 0001 ff"),
    (&rules::NUL, FIVE, Client, 0x40, "0001 00 07 26 0001 00 'v'"),
    (&rules::CONTROL, FIVE, Client, 0x30, "'t' 04 03 0001 09"),
    // Topics and filters.
    (&rules::TOPIC_WILDCARD, ALL, Client, 0x30, "'a/+' 00"),
    (&rules::TOPIC_WILDCARD, ALL, Client, 0x30, "'#' 00"),
    (&rules::TOPIC_WILDCARD, ALL, Client, 0x32, "'a+b' 0001 00"),
    (&rules::TOPIC_WILDCARD, ALL, Server, 0x30, "'a/#' 00"),
    (&rules::NO_TOPIC, ALL, Client, 0x30, "'' 00"),
    (&rules::NO_TOPIC, ALL, Server, 0x32, "'' 0001 00"),
    (&rules::TOPIC_EMPTY, OLD, Client, 0x82, "0001 '' 00"),
    (&rules::TOPIC_EMPTY, OLD, Client, 0x82, "0001 'a' 00 '' 00"),
    (&rules::TOPIC_EMPTY, FIVE, Client, 0x82, "0001 00 '' 00"),
    (&rules::TOPIC_EMPTY, OLD, Client, 0xa2, "0001 ''"),
    (&rules::FILTER_HASH, OLD, Client, 0x82, "0001 'a/#/b' 00"),
    (&rules::FILTER_HASH, OLD, Client, 0x82, "0001 'a#' 00"),
    (&rules::FILTER_HASH, FIVE, Client, 0x82, "0001 00 '##' 00"),
    (&rules::FILTER_HASH, OLD, Client, 0xa2, "0001 'a/#b'"),
    (&rules::FILTER_PLUS, OLD, Client, 0x82, "0001 'a+' 00"),
    (&rules::FILTER_PLUS, FIVE, Client, 0x82, "0001 00 'a/++' 00"),
    (&rules::FILTER_PLUS, FIVE, Client, 0xa2, "0001 00 'a/+b/c'"),
    (&rules::FILTER_SHARE, FIVE, Client, 0x82, "0001 00 '$share/p' 00"),
    (&rules::FILTER_SHARE, FIVE, Client, 0x82, "0001 00 '$share/p/' 00"),
    (&rules::FILTER_SHARE, FIVE, Client, 0x82, "0001 00 '$share//p' 00"),
    (&rules::FILTER_SHARE, FIVE, Client, 0x82, "0001 00 '$share/+/p' 00"),
    (&rules::FILTER_SHARE, OLD, Client, 0xa2, "0001 '$share/p'"),
    (&rules::NO_FILTERS, OLD, Client, 0x82, "0001"),
    (&rules::NO_FILTERS, FIVE, Client, 0x82, "0001 00"),
    (&rules::NO_FILTERS_LEFT, OLD, Client, 0xa2, "0001"),
    (&rules::NO_FILTERS_LEFT, FIVE, Client, 0xa2, "0001 00"),
    (&rules::OPTIONS_QOS, OLD, Client, 0x82, "0001 'p' 03"),
    (&rules::OPTIONS_QOS, FIVE, Client, 0x82, "0001 00 'p' 03"),
    (&rules::OPTIONS, &[V311], Client, 0x82, "0001 'p' 04"),
    (&rules::OPTIONS, &[V311], Client, 0x82, "0001 'p' 80"),
    (&rules::OPTIONS, FIVE, Client, 0x82, "0001 00 'p' 40"),
    (&rules::OPTIONS, FIVE, Client, 0x82, "0001 00 'p' 80"),
    (&rules::RETAIN_HANDLING, FIVE, Client, 0x82, "0001 00 'p' 30"),
    (&rules::SHARED_NO_LOCAL, FIVE, Client, 0x82, "0001 00 '$share/g/p' 04"),
    // Answers.
    (&rules::REASON, FIVE, Client, 0x40, "0001 ff"),
    (&rules::REASON, FIVE, Client, 0x40, "0001 92 00"),
    (&rules::REASON, FIVE, Client, 0x50, "0001 01"),
    (&rules::REASON, FIVE, Client, 0x62, "0001 10"),
    (&rules::REASON, FIVE, Client, 0x70, "0001 80"),
    (&rules::REASON, FIVE, Client, 0xe0, "01"),
    (&rules::REASON, FIVE, Client, 0xe0, "05 00"),
    (&rules::REASON, FIVE, Client, 0xf0, "01 00"),
    (&rules::RETURN_CODE, OLD, Server, 0x20, "00 06"),
    (&rules::RETURN_CODE, FIVE, Server, 0x20, "00 01 00"),
    (&rules::CONNACK_FLAGS, OASIS, Server, 0x20, "02 00"),
    (&rules::SESSION_PRESENT, &[V311], Server, 0x20, "01 02"),
    (&rules::SESSION_PRESENT, FIVE, Server, 0x20, "01 85 00"),
    (&rules::SUBACK_CODE, &[V31], Server, 0x90, "0001 80"),
    (&rules::SUBACK_CODE, &[V311], Server, 0x90, "0001 03"),
    (&rules::SUBACK_CODE, FIVE, Server, 0x90, "0001 00 03"),
    (&rules::SUBACK_CODE, FIVE, Server, 0xb0, "0001 00 01"),
    (&rules::NO_CODES, OLD, Server, 0x90, "0001"),
    (&rules::NO_CODES, FIVE, Server, 0x90, "0001 00"),
    (&rules::NO_CODES, FIVE, Server, 0xb0, "0001 00"),
    // Properties.
    (&rules::PROPERTY_UNKNOWN, FIVE, Client, 0x30, "'t' 02 00 01"),
    (&rules::PROPERTY_UNKNOWN, FIVE, Client, 0x30, "'t' 02 7f 01"),
    (&rules::PROPERTY_UNKNOWN, FIVE, Client, 0x30, "'t' 03 80 01 01"),
    (&rules::PROPERTY_UNKNOWN, FIVE, Client, 0x30, "'t' 03 81 00 01"),
    (&rules::PROPERTY_PLACE, FIVE, Client, 0x30, "'t' 05 11 00000001"),
    (&rules::PROPERTY_PLACE, FIVE, Client, 0x82, "0001 02 01 00 'p' 00"),
    (&rules::PROPERTY_PLACE, FIVE, Client, 0xa2, "0001 02 0b 01 'p'"),
    (&rules::PROPERTY_PLACE, FIVE, Client, 0x40, "0001 00 03 23 0001"),
    (&rules::PROPERTY_PLACE, FIVE, Client, 0xe0, "00 04 15 'p'"),
    (&rules::PROPERTY_PLACE, FIVE, Client, 0xf0, "18 05 11 00000001"),
    (&rules::PROPERTY_PLACE, FIVE, Server, 0x20, "00 00 02 01 00"),
    (&rules::PROPERTY_PLACE, FIVE, Server, 0x90, "0001 02 0b 01 00"),
    (&rules::PROPERTY_TWICE, FIVE, Client, 0x30, "'t' 04 01 00 01 00"),
    (&rules::PROPERTY_TWICE, FIVE, Client, 0x30, "'t' 06 23 0001 23 0001"),
    (&rules::PROPERTY_TWICE, FIVE, Client, 0x82, "0001 04 0b 01 0b 01 'p' 00"),
    (&rules::PROPERTY_TWICE, FIVE, Client, 0xe0, "00 0a 11 00000000 11 00000000"),
    (&rules::PROPERTY_TWICE, FIVE, Server, 0x20, "00 00 04 24 00 24 00"),
    (&rules::PROPERTY_BOOL, FIVE, Client, 0x30, "'t' 02 01 02"),
    (&rules::PROPERTY_BOOL, FIVE, Server, 0x20, "00 00 02 24 02"),
    (&rules::PROPERTY_BOOL, FIVE, Server, 0x20, "00 00 02 25 02"),
    (&rules::PROPERTY_BOOL, FIVE, Server, 0x20, "00 00 02 28 ff"),
    (&rules::PROPERTY_BOOL, FIVE, Server, 0x20, "00 00 02 29 02"),
    (&rules::PROPERTY_BOOL, FIVE, Server, 0x20, "00 00 02 2a 02"),
    (&rules::TOPIC_ALIAS, FIVE, Client, 0x30, "'t' 03 23 0000"),
    (&rules::TOPIC_ALIAS, FIVE, Server, 0x30, "'t' 03 23 0000"),
    (&rules::SUBSCRIPTION_ID, FIVE, Client, 0x82, "0001 02 0b 00 'p' 00"),
    (&rules::SUBSCRIPTION_ID, FIVE, Server, 0x30, "'t' 02 0b 00"),
    (&rules::SUBSCRIPTION_ID_CLIENT, FIVE, Client, 0x30, "'t' 02 0b 01"),
    (&rules::RESPONSE_TOPIC, FIVE, Client, 0x30, "'t' 04 08 '#'"),
    (&rules::RESPONSE_TOPIC, FIVE, Client, 0x30, "'t' 06 08 'a/+'"),
    (&rules::RESPONSE_TOPIC, FIVE, Client, 0x30, "'t' 03 08 ''"),
    (&rules::RECEIVE_MAXIMUM, FIVE, Server, 0x20, "00 00 03 21 0000"),
    (&rules::MAXIMUM_PACKET, FIVE, Server, 0x20, "00 00 05 27 00000000"),
    (&rules::AUTH_METHOD, FIVE, Client, 0xf0, "18 00"),
    (&rules::AUTH_METHOD, FIVE, Server, 0xf0, "18 04 16 'd'"),
    (&rules::EXPIRY_FROM_SERVER, FIVE, Server, 0xe0, "00 05 11 00000000"),
];

/// CONNECTs: rule, by whose statements, first byte, body.
const CONNECTS: &[(&Rule, Version, u8, &str)] = &[
    (&rules::NOT_CONNECT, V5, 0x00, ""),
    (&rules::NOT_CONNECT, V5, 0x30, "'t' 00"),
    (&rules::NOT_CONNECT, V5, 0xc0, ""),
    (&rules::NOT_CONNECT, V5, 0xe0, ""),
    (&rules::NOT_CONNECT, V5, 0xf0, ""),
    (&rules::FLAGS, V5, 0x11, "'MQTT' 04 02 000a 'p'"),
    (&rules::FLAGS, V5, 0x12, "'MQTT' 04 02 000a 'p'"),
    (&rules::FLAGS, V5, 0x18, "'MQTT' 05 02 000a 00 'p'"),
    (&rules::FLAGS, V5, 0x14, "'MQIsdp' 04 02 000a 'p'"),
    (&rules::PROTOCOL_NAME, V5, 0x10, "'MQT' 04 02 000a 'p'"),
    (&rules::PROTOCOL_NAME, V5, 0x10, "'' 04 02 000a 'p'"),
    (&rules::PROTOCOL_NAME, V5, 0x10, "'MQTTT' 04 02 000a 'p'"),
    (&rules::PROTOCOL_NAME, V5, 0x10, "'mqtt' 04 02 000a 'p'"),
    (&rules::PROTOCOL_LEVEL, V5, 0x10, "'MQTT' 02 02 000a 'p'"),
    (&rules::PROTOCOL_LEVEL, V5, 0x10, "'MQTT' 03 02 000a 'p'"),
    (&rules::PROTOCOL_LEVEL, V5, 0x10, "'MQTT' 06 02 000a 'p'"),
    (&rules::PROTOCOL_LEVEL, V5, 0x10, "'MQTT' 84 02 000a 'p'"),
    (&rules::PROTOCOL_LEVEL, V5, 0x10, "'MQIsdp' 04 02 000a 'p'"),
    (&rules::PROTOCOL_LEVEL, V5, 0x10, "'MQIsdp' 02 02 000a 'p'"),
    (&rules::SHORT, V5, 0x10, ""),
    (&rules::SHORT, V5, 0x10, "00"),
    (&rules::SHORT, V5, 0x10, "0004 4d51"),
    (&rules::SHORT, V5, 0x10, "'MQTT'"),
    (&rules::SHORT, V31, 0x10, "'MQIsdp' 03 02 000a"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04 02"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04 02 00"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04 02 000a"),
    (&rules::SHORT, V5, 0x10, "'MQTT' 05 02 000a"),
    (&rules::SHORT, V5, 0x10, "'MQTT' 05 02 000a 00"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04 06 000a 'p'"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04 06 000a 'p' 't'"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04 82 000a 'p'"),
    (&rules::SHORT, V311, 0x10, "'MQTT' 04 c2 000a 'p' 'u'"),
    (&rules::SHORT, V31, 0x10, "'MQIsdp' 03 82 000a 'p' 00"),
    (&rules::TRAILING, V31, 0x10, "'MQIsdp' 03 02 000a 'p' 00"),
    (&rules::TRAILING, V311, 0x10, "'MQTT' 04 02 000a 'p' 'x'"),
    (&rules::TRAILING, V311, 0x10, "'MQTT' 04 82 000a 'p' 'x' 'y'"),
    (&rules::TRAILING, V5, 0x10, "'MQTT' 05 02 000a 00 'p' 00"),
    (&rules::CONNECT_RESERVED, V311, 0x10, "'MQTT' 04 03 000a 'p'"),
    (&rules::CONNECT_RESERVED, V5, 0x10, "'MQTT' 05 03 000a 00 'p'"),
    (&rules::WILL_QOS_UNSET, V311, 0x10, "'MQTT' 04 0a 000a 'p'"),
    (&rules::WILL_QOS_UNSET, V5, 0x10, "'MQTT' 05 12 000a 00 'p'"),
    (&rules::WILL_RETAIN_UNSET, V311, 0x10, "'MQTT' 04 22 000a 'p'"),
    (&rules::WILL_RETAIN_UNSET, V5, 0x10, "'MQTT' 05 22 000a 00 'p'"),
    (&rules::WILL_QOS, V31, 0x10, "'MQIsdp' 03 1e 000a 'p' 't' 'm'"),
    (&rules::WILL_QOS, V311, 0x10, "'MQTT' 04 1e 000a 'p' 't' 'm'"),
    (&rules::WILL_QOS, V5, 0x10, "'MQTT' 05 1e 000a 00 'p' 00 't' 'm'"),
    (&rules::PASSWORD_ALONE, V31, 0x10, "'MQIsdp' 03 42 000a 'p' 's'"),
    (&rules::PASSWORD_ALONE, V311, 0x10, "'MQTT' 04 42 000a 'p' 's'"),
    (&rules::CLIENT_ID_EMPTY, V31, 0x10, "'MQIsdp' 03 02 000a ''"),
    (&rules::CLIENT_ID_EMPTY, V31, 0x10, "'MQIsdp' 03 00 000a ''"),
    (&rules::CLIENT_ID_EMPTY, V311, 0x10, "'MQTT' 04 00 000a ''"),
    (&rules::UTF8, V311, 0x10, "'MQTT' 04 02 000a 0003 eda080"),
    (&rules::NUL, V311, 0x10, "'MQTT' 04 02 000a 0001 00"),
    (&rules::CONTROL, V5, 0x10, "'MQTT' 05 02 000a 00 0002 6101"),
    (&rules::CONTROL, V311, 0x10, "'MQTT' 04 82 000a 'p' 0001 7f"),
    (&rules::NUL, V5, 0x10, "'MQTT' 05 82 000a 00 'p' 0001 00"),
    (&rules::TOPIC_EMPTY, V311, 0x10, "'MQTT' 04 06 000a 'p' '' 'm'"),
    (&rules::TOPIC_WILDCARD, V311, 0x10, "'MQTT' 04 06 000a 'p' 'a/#' 'm'"),
    (&rules::TOPIC_WILDCARD, V5, 0x10, "'MQTT' 05 06 000a 00 'p' 00 '+' 'm'"),
    (&rules::CONTROL, V311, 0x10, "'MQTT' 04 06 000a 'p' 0001 1f 'm'"),
    (&rules::PROPERTY_PLACE, V5, 0x10, "'MQTT' 05 02 000a 03 23 0001 'p'"),
    (&rules::PROPERTY_PLACE, V5, 0x10, "'MQTT' 05 02 000a 05 18 00000001 'p'"),
    (&rules::PROPERTY_PLACE, V5, 0x10, "'MQTT' 05 06 000a 00 'p' 05 11 00000001 't' 'm'"),
    (&rules::PROPERTY_TWICE, V5, 0x10, "'MQTT' 05 02 000a 06 21 0001 21 0001 'p'"),
    (&rules::PROPERTY_TWICE, V5, 0x10, "'MQTT' 05 06 000a 00 'p' 04 01 00 01 00 't' 'm'"),
    (&rules::PROPERTY_UNKNOWN, V5, 0x10, "'MQTT' 05 02 000a 02 04 00 'p'"),
    (&rules::PROPERTY_BOOL, V5, 0x10, "'MQTT' 05 02 000a 02 17 02 'p'"),
    (&rules::PROPERTY_BOOL, V5, 0x10, "'MQTT' 05 02 000a 02 19 02 'p'"),
    (&rules::PROPERTY_LENGTH, V5, 0x10, "'MQTT' 05 02 000a 7f 'p'"),
    (&rules::RECEIVE_MAXIMUM, V5, 0x10, "'MQTT' 05 02 000a 03 21 0000 'p'"),
    (&rules::MAXIMUM_PACKET, V5, 0x10, "'MQTT' 05 02 000a 05 27 00000000 'p'"),
    (&rules::AUTH_DATA_ALONE, V5, 0x10, "'MQTT' 05 02 000a 04 16 'd' 'p'"),
    (&rules::RESPONSE_TOPIC, V5, 0x10, "'MQTT' 05 06 000a 00 'p' 04 08 '+' 't' 'm'"),
];

fn assert_broken(rule: &Rule, version: Version, got: Result<Decoded<'_>, Malformed>, case: &str) {
    assert_eq!(got, Err(rule.broken(version)), "{version:?} {case}");
}

#[test]
fn packets_that_break_a_rule() {
    for (rule, versions, from, first, body) in CASES {
        for version in *versions {
            let bytes = packet(*first, body);
            let got = decode(&bytes, *version, *from, &STRICT);
            assert_broken(rule, *version, got, &format!("{from:?} {first:02x} {body}"));
        }
    }
    for (rule, version, first, body) in CONNECTS {
        let bytes = packet(*first, body);
        let got = decode_connect(&bytes, &STRICT);
        assert_broken(rule, *version, got, &format!("{first:02x} {body}"));
    }
}

#[test]
fn every_rule_is_broken_somewhere() {
    // Those that only a bare header breaks have their own test.
    let elsewhere = [&rules::LENGTH, &rules::TOO_LARGE];
    let of_cases = CASES.iter().map(|case| case.0);
    let tried: Vec<&Rule> =
        of_cases.chain(CONNECTS.iter().map(|case| case.0)).chain(elsewhere).collect();
    let missing: BTreeSet<&str> = rules::ALL
        .iter()
        .filter(|(_, rule)| !tried.contains(&rule))
        .map(|(name, _)| *name)
        .collect();
    assert_eq!(missing, BTreeSet::new());
}

/// What the header shows is told before anything else has come.
#[test]
fn headers_that_break_a_rule() {
    let small = Profile { packet_bytes_max: 100, free_topics: false };
    for (rule, versions, from, header) in [
        (&rules::LENGTH, ALL, Client, "30 ff ff ff ff"),
        (&rules::LENGTH, ALL, Client, "30 80 80 80 80"),
        (&rules::LENGTH_LONG, FIVE, Client, "30 80 00"),
        (&rules::LENGTH_LONG, FIVE, Client, "c0 80 00"),
        (&rules::LENGTH_LONG, FIVE, Client, "30 ff 80 00"),
        (&rules::TOO_LARGE, ALL, Client, "30 63"),
        (&rules::TOO_LARGE, ALL, Client, "30 ff ff ff 7f"),
        (&rules::TOO_LARGE, ALL, Server, "30 80 01"),
        (&rules::KIND, ALL, Client, "00"),
        (&rules::KIND, ALL, Client, "d0"),
        (&rules::SECOND_CONNECT, ALL, Client, "10"),
        (&rules::FLAGS, OASIS, Client, "c1"),
        (&rules::FLAGS, OASIS, Client, "80"),
        (&rules::QOS, ALL, Client, "36"),
        (&rules::DUP, ALL, Client, "38"),
        (&rules::TRAILING, ALL, Client, "c0 01"),
        (&rules::TRAILING, OLD, Client, "40 03"),
        (&rules::SHORT, ALL, Client, "40 01"),
    ] {
        for version in versions {
            let got = decode(&bytes(header), *version, from, &small).map(|_| ());
            assert_eq!(got, Err(rule.broken(*version)), "{version:?} {header}");
        }
    }
    for (rule, header) in [
        (&rules::NOT_CONNECT, "c0"),
        (&rules::LENGTH, "10 ff ff ff ff"),
        (&rules::TOO_LARGE, "10 63"),
        (&rules::FLAGS, "14 20 0004"),
        (&rules::FLAGS, "14 20 0006 4d5149736470 04"),
    ] {
        let got = decode_connect(&bytes(header), &small).map(|_| ());
        assert_eq!(got, Err(rule.broken(V5)), "{header}");
    }
    // What stands behind a packet has no say in it.
    for bytes in [&[0x12, 0][..], &[0x12, 0, 0, 0, 0x74, 0, 1]] {
        let got = decode_connect(bytes, &STRICT).map(|_| ());
        assert_eq!(got, Err(rules::SHORT.broken(V5)), "{}", hex(bytes));
    }
    let got = decode_connect(&bytes("10 8e 00 'MQTT' 05 02 000a 00 'p'"), &STRICT).map(|_| ());
    assert_eq!(got, Err(rules::LENGTH_LONG.broken(V5)));
}

/// With free topics these are taken, and nothing else is.
#[test]
fn free_topics() {
    let free = [
        (&rules::UTF8, "0001 ff"),
        (&rules::NUL, "0003 610062"),
        (&rules::CONTROL, "0003 610162"),
        (&rules::TOPIC_WILDCARD, "'a/+'"),
    ];
    for (rule, topic) in free {
        let bytes = packet(0x30, topic);
        assert_broken(rule, V311, decode(&bytes, V311, Client, &STRICT), topic);
        let Packet::Publish(publish) = whole(&bytes, V311, Client, &FREE) else { unreachable!() };
        assert_eq!(publish.topic.bytes, &super::bytes(topic)[2..], "{topic}");
        assert_eq!(publish.topic.text.is_some(), topic != "0001 ff");
    }
    for filter in ["0001 ff", "'a/#/b'", "'a+'", "'$share/g'", "''", "0001 00"] {
        let bytes = packet(0x82, &format!("0001 {filter} 01"));
        let Packet::Subscribe(subscribe) = whole(&bytes, V311, Client, &FREE) else {
            unreachable!()
        };
        let filters: Vec<_> = subscribe.filters().collect();
        assert_eq!(filters.len(), 1, "{filter}");
        assert_eq!(filters[0].filter.bytes, &super::bytes(filter)[2..], "{filter}");
    }
    let bytes = packet(0x30, "''");
    assert_broken(&rules::NO_TOPIC, V311, decode(&bytes, V311, Client, &FREE), "empty");
    let bytes = packet(0x82, "0001 'a' 03");
    assert_broken(&rules::OPTIONS_QOS, V311, decode(&bytes, V311, Client, &FREE), "options");
}
