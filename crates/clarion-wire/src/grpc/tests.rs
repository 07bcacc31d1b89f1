//! Every encoder against prost, and against bytes that other implementations wrote.

use super::*;
use crate::proto::{clarion_v1 as v1, message_deliver, message_pusher as pusher, push};
use bytes::Bytes;
use clarion_core::subscription::GapReason;
use proptest::prelude::*;
use prost::Message as Prost;
use std::{fmt::Debug, sync::Arc};

/// The message of the only frame.
#[track_caller]
fn unframed(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0, "not compressed");
    let len = u32::from_be_bytes(frame[1..FRAME_HEAD_BYTES].try_into().unwrap());
    assert_eq!(len as usize, frame.len() - FRAME_HEAD_BYTES);
    &frame[FRAME_HEAD_BYTES..]
}

fn response(frame: &[u8]) -> v1::subscribe_response::Response {
    let body = unframed(frame);
    let decoded = v1::SubscribeResponse::decode(body).unwrap();
    decoded.response.expect("a response is set")
}

/// The same bytes as prost's.
#[track_caller]
fn assert_response(frame: &[u8], expected: v1::subscribe_response::Response) {
    let expected = v1::SubscribeResponse { response: Some(expected) };
    assert_eq!(unframed(frame), expected.encode_to_vec());
}

fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

/// The same message in prost's words.
fn generated(message: &Message) -> v1::Message {
    let content = &*message.content;
    let header = |(name, value): &(Box<str>, Box<str>)| v1::Header {
        name: (&**name).into(),
        value: (&**value).into(),
    };
    let sender = |sender: &Sender| v1::Sender {
        user: (&*sender.user).into(),
        device: text(sender.device.as_deref()),
    };
    v1::Message {
        id: message.id.to_string(),
        channel: message.channel.as_str().into(),
        seq: message.seq,
        epoch: message.epoch,
        payload: content.payload.clone(),
        json: content.json,
        content_type: text(content.content_type.as_deref()),
        kind: text(content.kind.as_deref()),
        headers: content.headers.iter().map(header).collect(),
        sender: content.sender.as_ref().map(sender),
        created_at: message.created_at,
        expires_at: content.expires_at,
        reply_to: text(content.reply_to.as_deref()),
        correlation: content.correlation.clone().unwrap_or_default(),
    }
}

fn any_text() -> impl Strategy<Value = Box<str>> {
    prop_oneof![Just(String::new()), ".{1,3}", "[a-z]{120,140}"].prop_map(String::into_boxed_str)
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(127), Just(128), Just(u64::MAX), any::<u64>()]
}

fn any_bytes() -> impl Strategy<Value = Bytes> {
    let sizes = prop_oneof![Just(0), 1..5_usize, 120..140_usize, 16_380..16_390_usize];
    sizes.prop_flat_map(|size| prop::collection::vec(any::<u8>(), size)).prop_map(Bytes::from)
}

fn any_content() -> impl Strategy<Value = Content> {
    let texts = prop::array::uniform3(prop::option::of(any_text()));
    let sender = prop::option::of((any_text(), prop::option::of(any_text())));
    let headers = prop::collection::vec((any_text(), any_text()), 0..4);
    let rest = (prop::option::of(any_bytes()), prop::option::of(any_number()));
    (any_bytes(), any::<bool>(), texts, sender, headers, rest).prop_map(
        |(payload, json, [content_type, kind, reply_to], sender, headers, rest)| Content {
            payload,
            json,
            content_type,
            kind,
            reply_to,
            sender: sender.map(|(user, device)| Sender { user, device }),
            headers,
            correlation: rest.0,
            expires_at: rest.1,
            ..Content::default()
        },
    )
}

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        Just(Address::all()),
        Just(Address::all().dead_list()),
        "\\w{1,9}".prop_map(|id| Address::user(&id).unwrap()),
        "[a-z]{200}".prop_map(|name| Address::topic(&name).unwrap()),
    ]
}

fn any_message() -> impl Strategy<Value = Message> {
    let numbers = (any_number(), any::<u32>(), any_number());
    (any_address(), numbers, any_content()).prop_map(|(channel, (seq, epoch, at), content)| {
        let id = MessageId::stored(at, epoch, seq);
        Message { id, channel, epoch, seq, created_at: at, content: Arc::new(content) }
    })
}

proptest! {
    #[test]
    fn varints(value in prop_oneof![any_number(), (0..64_u32).prop_map(|bits| 1 << bits)]) {
        for value in [value, value.wrapping_sub(1)] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_varint(value, &mut ours);
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(varint_len(value), theirs.len());
        }
    }

    #[test]
    fn tags(field in prop_oneof![1..40_u32, Just((1 << 29) - 1)], bytes in any_bytes()) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        put_tag(field, VARINT, &mut ours);
        prost::encoding::encode_key(field, prost::encoding::WireType::Varint, &mut theirs);
        put_bytes_field(field, &bytes, &mut ours);
        prost::encoding::bytes::encode(field, &bytes, &mut theirs);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn messages_and_their_deliveries(given in any_message(), attempt in any::<u32>()) {
        let expected = generated(&given);
        let mut bytes = Vec::new();
        message(&given, &mut bytes);
        prop_assert_eq!(&bytes, &expected.encode_to_vec());
        prop_assert_eq!(length(&given), bytes.len());
        for attempt in [0, 1, attempt] {
            let mut frame = Vec::new();
            delivery_head(attempt, bytes.len(), &mut frame);
            frame.extend_from_slice(&bytes);
            let delivery = v1::Delivery { message: Some(expected.clone()), attempt };
            prop_assert_eq!(response(&frame), v1::subscribe_response::Response::Delivery(delivery));
        }
    }

    #[test]
    fn gaps(
        channel in any_address(), epoch in any::<u32>(), from in any_number(), to in any_number(), lost in any::<bool>()
    ) {
        let reason = if lost { GapReason::Epoch } else { GapReason::Retention };
        let mut frame = Vec::new();
        gap(&channel, epoch, Gap { from, to, reason }, &mut frame);
        let (channel, reason) = (channel.as_str().into(), reason.name().into());
        let expected = v1::Gap { channel, epoch, from, to, reason };
        assert_response(&frame, v1::subscribe_response::Response::Gap(expected));
    }

    #[test]
    fn control_frames(reason in any_text(), number in any_number()) {
        use v1::subscribe_response::Response;
        let mut frame = Vec::new();
        ack_stored(number, &mut frame);
        assert_response(&frame, Response::AckStored(v1::AckStored { confirm: number }));
        frame.clear();
        close(&reason, number, &mut frame);
        let expected = v1::Close { reason: reason.into(), retry_ms: number };
        assert_response(&frame, Response::Close(expected));
    }

    #[test]
    fn gate_messages(
        msg in any_text(), channel_id in any_text(), msg_id in any::<u32>(), expire in any::<i32>(), kind in -1..5_i32
    ) {
        for (msg_id, expire) in [(msg_id, expire), (0, 0), (u32::MAX, i32::MIN)] {
            let mut bytes = Vec::new();
            gate_message(msg.as_bytes(), &channel_id, msg_id, &mut bytes);
            let at = bytes.len();
            gate_message_tail(expire, kind, &mut bytes);
            prop_assert_eq!(gate_message_tail_len(expire, kind), bytes.len() - at);
            let expected = pusher::Message {
                msg: (&*msg).into(),
                channel_id: (&*channel_id).into(),
                msg_id: msg_id.into(),
                expire,
                message_type: kind,
            };
            prop_assert_eq!(bytes, expected.encode_to_vec());
        }
    }

    #[test]
    fn message_replies(given in any_text()) {
        let mut frame = Vec::new();
        message_reply(given.as_bytes(), &mut frame);
        let expected = push::MessageReply { message: given.into() };
        prop_assert_eq!(unframed(&frame), expected.encode_to_vec());
    }
}

#[test]
fn a_welcome_is_seven_bytes() {
    let mut frame = Vec::new();
    welcome(&mut frame);
    assert_eq!(frame, [0, 0, 0, 0, 2, 0x0a, 0]);
    assert_response(&frame, v1::subscribe_response::Response::Welcome(v1::Welcome {}));
    frame.clear();
    message_reply(b"", &mut frame);
    assert_eq!(frame, [0; FRAME_HEAD_BYTES], "an empty message has no bytes");
}

#[test]
fn frames_are_appended() {
    let mut out = vec![7];
    welcome(&mut out);
    ack_stored(1, &mut out);
    assert_eq!((out[0], out.len()), (7, 1 + 7 + 5 + 4));
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

/// The bytes hold this message, and prost writes the same.
#[track_caller]
fn golden<T: Prost + Default + PartialEq + Debug>(text: &str, expected: &T) {
    assert_eq!(&T::decode(&*hex(text)).unwrap(), expected, "{text}");
    assert_eq!(expected.encode_to_vec(), hex(text), "{text}");
}

const MSG: &str = r#"{"a":1}"#;

#[test]
fn pushes_as_protoc_and_protobufjs_write_them() {
    let pushed = pusher::PushMessage { msg: MSG.into(), channel_id: "21".into(), expire: 600 };
    golden("12077b2261223a317d1a02323128d804", &pushed);
    let answer =
        pusher::Response { msg_id: 8, channel_id: "21".into(), ..pusher::Response::default() };
    golden("080812023231", &answer);
    for (msg_id, golden) in
        [(7, "12077b2261223a317d1a023231200728d804"), (0, "12077b2261223a317d1a02323128d804")]
    {
        let mut bytes = Vec::new();
        gate_message(MSG.as_bytes(), "21", msg_id, &mut bytes);
        gate_message_tail(600, pusher::MessageType::Request.into(), &mut bytes);
        assert_eq!(bytes, hex(golden));
    }
}

#[test]
fn answers_of_gates_as_protobufjs_writes_them() {
    // It writes the type also when that is the default.
    let login = pusher::Response::decode(&*hex("120232313800")).unwrap();
    let none = pusher::Response::default();
    assert_eq!(login, pusher::Response { channel_id: "21".into(), ..none });
    for (kind, text) in [
        (3, "0807120232311a077b2261223a317d20d8043803"),
        (2, "0807120232311a077b2261223a317d20d8043802"),
    ] {
        let answer = pusher::Response {
            msg_id: 7,
            channel_id: "21".into(),
            msg: MSG.into(),
            expire: 600,
            message_type: kind,
        };
        golden(text, &answer);
    }
    assert_eq!(pusher::MessageType::try_from(2), Ok(pusher::MessageType::Received));
    let removed = pusher::DeliverRemoveRequest { channel_id: "21".into(), msg_id: 7 };
    golden("0a0232311007", &removed);
    // The companion's request has the same fields.
    let received = message_deliver::MessageReceivedRequest { channel_id: "21".into(), msg_id: 7 };
    golden("0a0232311007", &received);
}

#[test]
fn the_push_channel_as_protoc_writes_it() {
    let submitted = push::SubmitRequest { channel: "aaaa".into(), message: "1526700000.5".into() };
    golden("0a0461616161120c313532363730303030302e35", &submitted);
    let mut frame = Vec::new();
    message_reply(b"1526700000.5", &mut frame);
    assert_eq!(unframed(&frame), hex("0a0c313532363730303030302e35"));
}
