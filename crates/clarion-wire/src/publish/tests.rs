//! Tables of requests and their answers.

use super::*;

const LIMITS: PublishLimits =
    PublishLimits { payload_bytes: 10, headers_count: 2, headers_bytes: 8, json_depth: 3 };

fn parse(body: &str) -> Result<Checked, Refusal> {
    let request: PublishRequest<'_> =
        serde_json::from_str(body).map_err(|e| Refusal::new(Code::BadRequest, e.to_string()))?;
    request.check(&LIMITS)
}

#[track_caller]
fn refused(body: &str, code: Code) {
    assert_eq!(parse(body).map_err(|r| r.code), Err(code), "{body}");
}

#[test]
fn payload_forms() {
    let text = parse(r#"{"address":"user:1","text":"h\u00e9"}"#).unwrap();
    assert_eq!((&text.content.payload[..], text.content.json), ("hé".as_bytes(), false));
    let json =
        parse("{\"address\":\"user:1\",\"json\": { \"a\" : [ 1,\n\" \\\" \" ] } }").unwrap_err();
    assert_eq!(json.code, Code::PayloadTooLarge);
    let json = parse("{\"address\":\"user:1\",\"json\": [ 1,\n\" \\\" \"\t] }").unwrap();
    assert_eq!((&json.content.payload[..], json.content.json), (&b"[1,\" \\\" \"]"[..], true));
    let null = parse(r#"{"address":"user:1","json":null}"#).unwrap();
    assert_eq!(&null.content.payload[..], b"null");
    let binary = parse(r#"{"address":"all","base64":"/wA="}"#).unwrap();
    assert_eq!(&binary.content.payload[..], b"\xff\x00");
}

#[test]
fn one_byte_over_the_limit_is_too_large() {
    assert!(parse(r#"{"address":"all","text":"0123456789"}"#).is_ok());
    refused(r#"{"address":"all","text":"0123456789a"}"#, Code::PayloadTooLarge);
    assert!(parse(r#"{"address":"all","base64":"MDEyMzQ1Njc4OQ=="}"#).is_ok());
    refused(r#"{"address":"all","base64":"MDEyMzQ1Njc4OWE="}"#, Code::PayloadTooLarge);
    refused(
        &format!(r#"{{"address":"all","base64":"{}"}}"#, "A".repeat(4000)),
        Code::PayloadTooLarge,
    );
}

#[test]
fn refusals() {
    refused(r#"{"address":"all"}"#, Code::BadPayload);
    refused(r#"{"address":"all","text":"a","json":1}"#, Code::BadPayload);
    refused(r#"{"address":"all","base64":"*"}"#, Code::BadPayload);
    refused(r#"{"address":"all","json":[[[[1]]]]}"#, Code::BadPayload);
    refused(r#"{"address":"nobody","text":"a"}"#, Code::BadAddress);
    refused(r#"{"address":"user:","text":"a"}"#, Code::BadAddress);
    refused(&format!(r#"{{"address":"user:{}","text":"a"}}"#, "x".repeat(257)), Code::BadAddress);
    for expire in ["-1", "1.5", "1e30", "-0.0"] {
        refused(&format!(r#"{{"address":"all","text":"a","expire":{expire}}}"#), Code::BadExpire);
    }
    refused(r#"{"address":"all","text":"a","color":1}"#, Code::BadRequest);
    refused(r#"{"address":"all","text":1}"#, Code::BadRequest);
    refused(r#"{"address":"all","text":"a","kind":""}"#, Code::BadRequest);
    refused(
        r#"{"address":"all","text":"a","headers":[["a","b"],["c","d"],["e","f"]]}"#,
        Code::BadRequest,
    );
    refused(r#"{"address":"all","text":"a","headers":[["abcd","12345"]]}"#, Code::BadRequest);
    refused(r#"{"address":"all","text":"a","headers":[["","1"]]}"#, Code::BadRequest);
    let key = "k".repeat(257);
    refused(
        &format!(r#"{{"address":"all","text":"a","idempotency_key":"{key}"}}"#),
        Code::BadRequest,
    );
    refused(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)), Code::BadRequest);
}

#[test]
fn expire_is_absent_live_or_seconds() {
    let expire =
        |text: &str| parse(&format!(r#"{{"address":"all","text":"a"{text}}}"#)).unwrap().expire;
    assert_eq!(expire(""), ExpireField::Absent);
    assert_eq!(expire(r#","expire":0"#), ExpireField::Live);
    assert_eq!(expire(r#","expire":18446744073709551615"#), ExpireField::Seconds(u64::MAX));
}
