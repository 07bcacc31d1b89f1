//! Properties of 5 and the parts of a message: what stands in a PUBLISH or a will, and what of a message goes into one.
//!
//! Must not know: topics, packet ids.

use super::aliases::Alias;
use super::config::MqttPeerConfig;
use bytes::Bytes;
use clarion_core::{Code, Content, Millis, Refusal};
use clarion_wire::mqtt::{Properties, Property, Qos};

/// Longest text or binary value.
const VALUE_MAX: usize = 65_535;

/// Fills in the content of a PUBLISH or a will, but for sender and end of life: how long it lives is in `asked_s`. In place, since
/// contents are large to move.
pub(super) fn fill(
    content: &mut Content,
    properties: &Properties<'_>,
    payload: &[u8],
    qos: Qos,
    retain: bool,
    config: &MqttPeerConfig,
) -> Result<(), Refusal> {
    if payload.len() > config.payload_bytes {
        let detail = format!(
            "the payload has {} bytes, the limit is {}",
            payload.len(),
            config.payload_bytes
        );
        return Err(Refusal::new(Code::PayloadTooLarge, detail));
    }
    content.retain = retain;
    content.qos = qos as u8;
    content.counted = true;
    if !properties.is_empty() {
        read(properties, content, config)?;
    }
    if content.utf8 && std::str::from_utf8(payload).is_err() {
        return Err(Refusal::new(Code::BadPayload, "the payload is declared UTF-8 and is not"));
    }
    content.payload = Bytes::copy_from_slice(payload);
    Ok(())
}

fn read(
    properties: &Properties<'_>,
    content: &mut Content,
    config: &MqttPeerConfig,
) -> Result<(), Refusal> {
    let mut bytes = 0;
    for property in properties.iter() {
        match property {
            Property::PayloadFormat(format) => content.utf8 = format == 1,
            Property::MessageExpiry(seconds) => content.asked_s = Some(seconds.into()),
            Property::ContentType(text) => content.content_type = Some(text.into()),
            Property::ResponseTopic(topic) => content.reply_to = Some(topic.into()),
            Property::CorrelationData(data) => {
                content.correlation = Some(Bytes::copy_from_slice(data));
            }
            Property::UserProperty(name, value) => {
                bytes += name.len() + value.len();
                if content.headers.len() >= config.headers_count || bytes > config.headers_bytes {
                    let detail = format!(
                        "more user properties than {} or than {} bytes of them",
                        config.headers_count, config.headers_bytes
                    );
                    return Err(Refusal::new(Code::PayloadTooLarge, detail));
                }
                content.headers.push((name.into(), value.into()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a delivery adds to its message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extra<'a> {
    pub(super) ids: &'a [u32],
    pub(super) alias: Alias,
    pub(super) now: Millis,
}

/// Whether a message has no properties of its own, which is the most common case.
pub(super) fn is_plain(content: &Content) -> bool {
    !content.utf8
        && !content.json
        && content.expires_at.is_none()
        && content.content_type.is_none()
        && content.reply_to.is_none()
        && content.correlation.is_none()
        && content.headers.is_empty()
}

/// The properties of a delivery whose message has none.
pub(super) fn of_plain<'a>(
    extra: &Extra<'a>,
) -> impl Iterator<Item = Property<'a>> + Clone + use<'a> {
    alias(extra.alias).into_iter().chain(extra.ids.iter().copied().map(Property::SubscriptionId))
}

fn alias(alias: Alias) -> Option<Property<'static>> {
    match alias {
        Alias::None => None,
        Alias::New(alias) | Alias::Known(alias) => Some(Property::TopicAlias(alias)),
    }
}

/// The properties of a delivery. Messages of other protocols may have parts that MQTT has no form for; these are left out.
pub(super) fn of_delivery<'a>(
    content: &'a Content,
    extra: Extra<'a>,
) -> impl Iterator<Item = Property<'a>> + Clone + use<'a> {
    let format = (content.utf8 || content.json).then_some(Property::PayloadFormat(1));
    let life = remaining(content, extra.now).map(Property::MessageExpiry);
    let content_type = content.content_type.as_deref().filter(|text| is_text(text));
    let reply_to = content.reply_to.as_deref().filter(|text| is_text(text));
    let correlation = content.correlation.as_deref().filter(|data| data.len() <= VALUE_MAX);
    let headers = content.headers.iter().filter(|(name, value)| is_text(name) && is_text(value));
    alias(extra.alias)
        .into_iter()
        .chain(format)
        .chain(life)
        .chain(content_type.map(Property::ContentType))
        .chain(reply_to.map(Property::ResponseTopic))
        .chain(correlation.map(Property::CorrelationData))
        .chain(extra.ids.iter().copied().map(Property::SubscriptionId))
        .chain(headers.map(|(name, value)| Property::UserProperty(name, value)))
}

/// What is left of a message's life, in seconds begun.
fn remaining(content: &Content, now: Millis) -> Option<u32> {
    let left = content.expires_at?.saturating_sub(now).div_ceil(1000);
    let left = u32::try_from(left).unwrap_or(u32::MAX);
    Some(if content.asked_s == Some(0) { 0 } else { left })
}

fn is_text(text: &str) -> bool {
    text.len() <= VALUE_MAX && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_told_in_seconds_begun() {
        let of = |asked_s, now: Millis, later: Millis| {
            let content = Content {
                asked_s,
                expires_at: Content::end_of_life(asked_s, now),
                ..Content::default()
            };
            remaining(&content, now + later)
        };
        assert_eq!(of(None, 1000, 0), None);
        assert_eq!(of(Some(1), 1000, 0), Some(1));
        assert_eq!(of(Some(60), 1000, 999), Some(60));
        assert_eq!(of(Some(60), 1000, 1000), Some(59));
        assert_eq!(of(Some(0), 1000, 500), Some(0));
        assert_eq!(of(Some(i64::from(u32::MAX)), 1000, 0), Some(u32::MAX));
    }

    #[test]
    fn what_mqtt_has_no_form_for_is_left_out() {
        let long: Box<str> = "x".repeat(65_536).into();
        let content = Content {
            content_type: Some(long.clone()),
            json: true,
            headers: vec![
                ("a".into(), "b\0".into()),
                ("name".into(), "value".into()),
                (long, "".into()),
            ],
            ..Content::default()
        };
        let extra = Extra { ids: &[7, 8], alias: Alias::None, now: 0 };
        let properties: Vec<Property<'_>> = of_delivery(&content, extra).collect();
        assert_eq!(
            properties,
            [
                Property::PayloadFormat(1),
                Property::SubscriptionId(7),
                Property::SubscriptionId(8),
                Property::UserProperty("name", "value"),
            ]
        );
        assert!(!is_plain(&content));
        assert!(is_plain(&Content::default()));
    }
}
