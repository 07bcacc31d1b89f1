//! The API does what its document says: every operation, its answers and its refusals, field by field.

use crate::api::Stream;
use clarion_tests::{
    Server,
    mqtt::{Client, Message, Options, Version, prop},
    raw::{Answer, Connection, request},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The document, with what it takes to compare answers with it.
struct Document(Value);

impl Document {
    fn of(at: SocketAddr) -> Self {
        Self(call(at, "GET", "/openapi.json", None, &[]).json())
    }

    /// `(method, path)` of every operation.
    fn operations(&self) -> BTreeSet<(String, String)> {
        let paths = self.0["paths"].as_object().expect("paths");
        let operations = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().expect("operations").keys();
            methods.map(|method| (method.clone(), path.clone()))
        });
        operations.collect()
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            None => schema,
            Some(name) => {
                let pointer = name.strip_prefix('#').expect("references stay in the document");
                let found = self.0.pointer(pointer);
                self.resolve(found.unwrap_or_else(|| panic!("{name} is not in the document")))
            }
        }
    }

    /// A schema, its parts (`allOf`) put together.
    fn merged(&self, schema: &Value) -> Value {
        let schema = self.resolve(schema);
        let Some(parts) = schema["allOf"].as_array() else { return schema.clone() };
        let mut whole = json!({ "type": "object", "required": [], "properties": {} });
        for part in parts.iter().map(|part| self.merged(part)) {
            let required = part["required"].as_array().cloned().unwrap_or_default();
            whole["required"].as_array_mut().expect("a list").extend(required);
            let properties = part["properties"].as_object().cloned().unwrap_or_default();
            whole["properties"].as_object_mut().expect("an object").extend(properties);
        }
        whole
    }

    /// What the document does not say about this answer.
    fn complaints(&self, method: &str, path: &str, answer: &Answer) -> Vec<String> {
        let operation = &self.0["paths"][path][method];
        if operation.is_null() {
            return vec!["no such operation".to_owned()];
        }
        let response = &operation["responses"][answer.status.to_string()];
        if response.is_null() {
            return vec![format!("no status {}", answer.status)];
        }
        let media = answer.header("content-type").unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default();
        let content = match response["content"].as_object() {
            None if answer.body.is_empty() && media.is_empty() => return Vec::new(),
            None => return vec![format!("a body of {media:?}")],
            Some(content) => content,
        };
        let Some(content) = content.get(media) else {
            return vec![format!("{}: no content type {media:?}", answer.status)];
        };
        if !media.ends_with("json") {
            return Vec::new();
        }
        let mut complaints = Vec::new();
        self.compare(&content["schema"], &answer.json(), "", &mut complaints);
        complaints
    }

    fn compare(&self, schema: &Value, value: &Value, at: &str, complaints: &mut Vec<String>) {
        let schema = &self.merged(schema);
        if let Some(variants) = schema["oneOf"].as_array() {
            let all: Vec<Vec<String>> = variants
                .iter()
                .map(|variant| {
                    let mut found = Vec::new();
                    self.compare(variant, value, at, &mut found);
                    found
                })
                .collect();
            if all.iter().filter(|found| found.is_empty()).count() != 1 {
                complaints.push(format!("{at}: not exactly one variant fits: {all:?}"));
            }
            return;
        }
        if !is_of_type(&schema["type"], value) {
            complaints.push(format!("{at}: {value} is no {}", schema["type"]));
        }
        match value {
            Value::Object(fields) if schema["properties"].is_object() => {
                for name in schema["required"].as_array().into_iter().flatten() {
                    if fields.get(name.as_str().expect("a name")).is_none() {
                        complaints.push(format!("{at}: {name} is absent"));
                    }
                }
                for (name, field) in fields {
                    match schema["properties"].get(name) {
                        None => complaints.push(format!("{at}.{name} is not documented")),
                        Some(known) => {
                            self.compare(known, field, &format!("{at}.{name}"), complaints);
                        }
                    }
                }
            }
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let known = schema["prefixItems"].get(i).unwrap_or(&schema["items"]);
                    if *known == Value::Bool(false) {
                        complaints.push(format!("{at}[{i}] is one too many"));
                    }
                    self.compare(known, item, &format!("{at}[{i}]"), complaints);
                }
            }
            _ => {}
        }
    }
}

fn is_of_type(types: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    };
    match types {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        // A schema without a type takes anything.
        _ => true,
    }
}

/// One request on a connection of its own. `headers` replace those that every request has.
fn call(
    at: SocketAddr,
    method: &str,
    target: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> Answer {
    let mut lines =
        vec![("host".to_owned(), at.to_string()), ("connection".into(), "close".into())];
    let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
    if body.is_some() {
        lines.push(("content-type".into(), "application/json".into()));
        lines.push(("content-length".into(), bytes.len().to_string()));
    }
    for (name, value) in headers {
        lines.retain(|(known, _)| known != name);
        lines.push(((*name).into(), (*value).into()));
    }
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut connection = Connection::open(at).expect("the server accepts");
    let head = format!("{} {target} HTTP/1.1\r\n{lines}\r\n", method.to_uppercase());
    connection.send(&[head.as_bytes(), &bytes].concat()).expect("the server reads");
    connection.answer().expect("the server answers")
}

/// A request and the status that it must be answered with.
struct Sample {
    method: &'static str,
    path: &'static str,
    target: String,
    body: Option<Value>,
    status: u16,
}

fn sample(
    method: &'static str,
    path: &'static str,
    target: impl Into<String>,
    body: Option<Value>,
    status: u16,
) -> Sample {
    Sample { method, path, target: target.into(), body, status }
}

fn move_to(to: &Value) -> Option<Value> {
    Some(json!({ "filter": "k/#", "to": to }))
}

const PUBLISH: &str = "/api/v1/publish";
const BATCH: &str = "/api/v1/publish/batch";
const ACK: &str = "/api/v1/ack";
const STREAM: &str = "/api/v1/stream";
const CHANNEL: &str = "/api/v1/channels/{address}/messages";
const MESSAGE: &str = "/api/v1/messages/{id}";
const PRESENCE: &str = "/api/v1/users/{user}/presence";
const SESSIONS: &str = "/api/v1/sessions";
const SESSION: &str = "/api/v1/sessions/{id}";
const USER_SESSIONS: &str = "/api/v1/users/{user}/sessions";
const NEXT: &str = "/api/v1/queues/{name}/next";
const QUEUE_ACK: &str = "/api/v1/queues/{name}/ack";
const QUEUE_NACK: &str = "/api/v1/queues/{name}/nack";
const GROUP_NEXT: &str = "/api/v1/channels/{address}/groups/{group}/next";
const GROUP_ACK: &str = "/api/v1/channels/{address}/groups/{group}/ack";
const GROUP_NACK: &str = "/api/v1/channels/{address}/groups/{group}/nack";
const DEAD: &str = "/api/v1/channels/{address}/dead";
const PUT_BACK: &str = "/api/v1/channels/{address}/dead/put-back";
const RETAINED: &str = "/api/v1/retained";
const ONE_RETAINED: &str = "/api/v1/retained/{topic}";
const STORED: &str = "/api/v1/stored-sessions";
const ONE_STORED: &str = "/api/v1/stored-sessions/{client_id}";
const MOVE: &str = "/api/v1/stored-sessions/{client_id}/move";
const PROTO: &str = "/proto/{name}";
const PACKAGE_PROTO: &str = "/proto/{package}/{version}/{name}";

fn rich() -> Value {
    json!({
        "address": "user:u", "json": [1, { "a": null }], "kind": "k", "content_type": "a/b",
        "headers": [["a", "1"], ["a", "2"]], "expire": 3600, "idempotency_key": "key"
    })
}

/// What is asked of a server that has one message of user `u`, acked by his device, and a session of his.
fn samples(message: &str, token: &str, session: &str) -> Vec<Sample> {
    let text = |text: &str| json!({ "address": "user:u", "text": text });
    let mixed =
        json!({ "messages": [rich(), text("x"), { "address": "x", "text": "" }, text("y")] });
    let of = |id: &str| format!("/api/v1/messages/{id}");
    let unknown = of("00000000-0000-8000-8000-000000000000");
    vec![
        sample("post", PUBLISH, PUBLISH, Some(rich()), 200),
        sample("post", PUBLISH, PUBLISH, Some(rich()), 200),
        sample("post", PUBLISH, PUBLISH, Some(json!({ "address": "topic:t", "text": "" })), 200),
        sample("post", PUBLISH, PUBLISH, Some(json!({ "address": "x", "text": "" })), 400),
        sample("post", PUBLISH, PUBLISH, Some(json!({ "address": "group:g", "text": "" })), 404),
        sample("post", PUBLISH, PUBLISH, Some(text(&"x".repeat(2000))), 413),
        sample("post", BATCH, BATCH, Some(mixed), 200),
        sample("post", BATCH, BATCH, Some(json!([])), 400),
        sample("post", BATCH, BATCH, Some(json!({ "messages": vec![0; 9] })), 413),
        sample("post", ACK, ACK, Some(json!({ "token": token })), 200),
        sample("post", ACK, ACK, Some(json!({ "token": "x" })), 400),
        sample("get", STREAM, "/api/v1/stream?user=", None, 400),
        sample("get", STREAM, "/api/v1/stream?address=group:g", None, 404),
        sample("get", CHANNEL, "/api/v1/channels/user:u/messages?limit=2", None, 200),
        sample("get", CHANNEL, "/api/v1/channels/user:nobody/messages", None, 200),
        sample("get", CHANNEL, "/api/v1/channels/x/messages", None, 400),
        sample("get", MESSAGE, of(message), None, 200),
        sample("get", MESSAGE, &*unknown, None, 404),
        sample("get", MESSAGE, of("x"), None, 400),
        sample("get", PRESENCE, "/api/v1/users/u/presence", None, 200),
        sample("get", PRESENCE, "/api/v1/users/%00/presence", None, 400),
        sample("get", SESSIONS, "/api/v1/sessions?limit=1", None, 200),
        sample("get", SESSIONS, "/api/v1/sessions?limit=0", None, 400),
        sample("delete", MESSAGE, of(message), None, 204),
        sample("delete", MESSAGE, unknown, None, 404),
        sample("delete", SESSION, format!("/api/v1/sessions/{session}"), None, 204),
        sample("delete", SESSION, "/api/v1/sessions/x", None, 404),
        sample("delete", USER_SESSIONS, "/api/v1/users/u/sessions", None, 200),
        sample("delete", USER_SESSIONS, "/api/v1/users/%00/sessions", None, 400),
        sample("delete", CHANNEL, "/api/v1/channels/user:u/messages?below=2", None, 200),
        sample("delete", CHANNEL, "/api/v1/channels/user:u/messages", None, 400),
        sample("get", RETAINED, "/api/v1/retained?limit=1", None, 200),
        sample("get", RETAINED, "/api/v1/retained?filter=r/1", None, 200),
        sample("get", RETAINED, "/api/v1/retained?filter=a%23", None, 400),
        sample("delete", RETAINED, "/api/v1/retained?topic=r/1", None, 204),
        sample("delete", RETAINED, "/api/v1/retained?topic=r/1", None, 404),
        sample("delete", ONE_RETAINED, "/api/v1/retained/r%2F2", None, 204),
        sample("delete", ONE_RETAINED, "/api/v1/retained/%2B", None, 400),
        sample("get", STORED, "/api/v1/stored-sessions?limit=1", None, 200),
        sample("get", STORED, "/api/v1/stored-sessions?limit=0", None, 400),
        sample("get", ONE_STORED, "/api/v1/stored-sessions/kept", None, 200),
        sample("get", ONE_STORED, "/api/v1/stored-sessions/none", None, 404),
        sample("post", MOVE, "/api/v1/stored-sessions/kept/move", move_to(&json!("latest")), 200),
        sample("post", MOVE, "/api/v1/stored-sessions/kept/move", move_to(&json!(1)), 200),
        sample("post", MOVE, "/api/v1/stored-sessions/kept/move", move_to(&json!(0)), 400),
        sample("delete", ONE_STORED, "/api/v1/stored-sessions/kept", None, 204),
        sample("delete", ONE_STORED, "/api/v1/stored-sessions/kept", None, 404),
        sample("get", "/healthz", "/healthz", None, 200),
        sample("get", "/readyz", "/readyz", None, 200),
        sample("get", "/metrics", "/metrics", None, 200),
        sample("get", "/openapi.json", "/openapi.json", None, 200),
        sample("get", PROTO, "/proto/push.proto", None, 200),
        sample("get", PROTO, "/proto/x.proto", None, 404),
        sample("get", PACKAGE_PROTO, "/proto/clarion/v1/clarion.proto", None, 200),
        sample("get", PACKAGE_PROTO, "/proto/clarion/v2/clarion.proto", None, 404),
    ]
}

/// What is asked about shared work of a server that has a message of user `u` and one in queue `q`.
fn shared_samples() -> Vec<Sample> {
    let leases = |count: usize| Some(json!({ "leases": vec!["x"; count] }));
    let delayed = Some(json!({ "leases": [], "delay": 0.5 }));
    let group = |verb: &str| format!("/api/v1/channels/user:u/groups/g/{verb}");
    let dead = "/api/v1/channels/queue:q/dead";
    let put_back = || format!("{dead}/put-back");
    vec![
        sample("get", NEXT, "/api/v1/queues/q/next?wait=20", None, 200),
        sample("get", NEXT, "/api/v1/queues/empty/next", None, 200),
        sample("get", NEXT, "/api/v1/queues/q/next?count=0", None, 400),
        sample("post", QUEUE_ACK, "/api/v1/queues/q/ack", leases(0), 200),
        sample("post", QUEUE_ACK, "/api/v1/queues/q/ack", leases(1), 400),
        sample("post", QUEUE_ACK, "/api/v1/queues/q/ack", leases(1001), 413),
        sample("post", QUEUE_ACK, "/api/v1/queues/nobody/ack", leases(0), 404),
        sample("post", QUEUE_NACK, "/api/v1/queues/q/nack", delayed.clone(), 200),
        sample("post", QUEUE_NACK, "/api/v1/queues/q/nack", leases(1), 400),
        sample("get", GROUP_NEXT, group("next?wait=20"), None, 200),
        sample("get", GROUP_NEXT, group("next?from=x"), None, 400),
        sample("post", GROUP_ACK, group("ack"), leases(0), 200),
        sample("post", GROUP_ACK, group("ack"), leases(1), 400),
        sample("post", GROUP_NACK, group("nack"), delayed, 200),
        sample("post", GROUP_NACK, group("nack"), leases(1), 400),
        sample("get", DEAD, dead, None, 200),
        sample("get", DEAD, "/api/v1/channels/x/dead", None, 400),
        sample("post", PUT_BACK, put_back(), Some(json!({ "seqs": [1] })), 200),
        sample("post", PUT_BACK, put_back(), Some(json!({ "seqs": ["1"] })), 400),
    ]
}

#[test]
fn every_operation_answers_as_documented() {
    let server = Server::builder()
        .set("limits.payload_bytes", "1KiB")
        .set("limits.batch_messages", "8")
        .start();
    let at = server.addr();
    let document = Document::of(at);
    let message = call(at, "post", PUBLISH, Some(&rich()), &[]).json();
    let mut feed = Stream::feed(&server, "u", "d");
    let event = feed.message();
    let mut complaints = Vec::new();
    let schema = json!({ "$ref": "#/components/schemas/Message" });
    document.compare(&schema, &event.data, "an event's data", &mut complaints);
    let sessions = call(at, "get", SESSIONS, None, &[]).json();
    let session = sessions["sessions"][0]["id"].as_str().expect("a session").to_owned();
    let _second = Stream::feed(&server, "u", "d");
    let mut writer = Client::connect(server.listener("mqtt"), Version::V5, "writer");
    for topic in ["r/1", "r/2"] {
        let rich = Message::new(topic, "x").qos(1).retained().with(prop::message_expiry(99_u32));
        assert!(writer.publish_as(rich) < 0x80);
    }
    let kept = Options::new(Version::V5, "kept").clean(false).with(prop::session_expiry(99_u32));
    let mut kept = kept.user("u").connect(server.listener("mqtt"));
    assert_eq!(kept.subscribe(&[("k/#", 1), ("k/0", 0)]), [1, 0]);
    kept.disconnect();
    assert_eq!(writer.publish("k/1", "x", 1), 0);
    let id = message["id"].as_str().expect("an id");
    let mut answered: BTreeMap<(String, String), BTreeSet<u16>> = BTreeMap::new();
    let job = json!({ "address": "queue:q", "text": "x" });
    assert_eq!(call(at, "post", PUBLISH, Some(&job), &[]).status, 200);
    let samples = shared_samples().into_iter().chain(samples(id, feed.token(), &session));
    for sample in samples {
        let Sample { method, path, target, body, status } = sample;
        let answer = call(at, method, &target, body.as_ref(), &[]);
        let what = format!("{method} {target}");
        assert_eq!(answer.status, status, "{what}: {}", String::from_utf8_lossy(&answer.body));
        complaints.extend(
            document.complaints(method, path, &answer).iter().map(|c| format!("{what}: {c}")),
        );
        answered.entry((method.into(), path.into())).or_default().insert(status);
    }
    // A stream never ends, so only its head is looked at.
    let mut stream = Connection::open(at).expect("the server accepts");
    stream.send(&request("GET", "/api/v1/stream?user=u", at, "", b"")).expect("the server reads");
    let head = stream.head().expect("an answer");
    complaints.extend(document.complaints("get", STREAM, &head));
    answered.entry(("get".into(), STREAM.into())).or_default().insert(head.status);
    // A refusal that every operation has.
    for (method, path) in document.operations() {
        let target = path.replace("{address}", "all").replace("{user}", "u").replace("{id}", "x");
        let answer = call(at, &method, &target, None, &[("host", "example.com")]);
        assert_eq!(answer.status, 403, "{method} {path}");
        let found = document.complaints(&method, &path, &answer);
        complaints.extend(found.iter().map(|c| format!("{method} {path}: {c}")));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
    let succeeded = answered.iter().filter(|(_, s)| s.iter().any(|status| *status < 300));
    let succeeded: BTreeSet<_> = succeeded.map(|(operation, _)| operation.clone()).collect();
    assert_eq!(succeeded, document.operations(), "every operation was shown to work");
}

#[test]
fn refusals_before_a_handler_are_documented() {
    let key = "auth.keys";
    // SHA-256 of "reader".
    let hash = "3d0941964aa3ebdcb00ccef58b1bb399f9f898465e9886d5aec7f31090a0fb30";
    let keys = format!("[{{name: reader, sha256: {hash}, allow: [read]}}]");
    let server = Server::builder()
        .set("listeners.http.auth", "required")
        .set(key, &keys)
        .set("limits.body_bytes", "1KiB")
        .set("limits.payload_bytes", "512")
        .start();
    let at = server.addr();
    let reader = [("authorization", "Bearer reader")];
    let document = Document(call(at, "GET", "/openapi.json", None, &reader).json());
    let body = json!({ "address": "user:u", "text": "x" });
    let large = json!({ "address": "user:u", "text": "x".repeat(2000) });
    let open = Server::start();
    let media = [("content-type", "text/plain")];
    let answers = [
        (401, "post", PUBLISH, call(at, "post", PUBLISH, Some(&body), &[])),
        (403, "post", PUBLISH, call(at, "post", PUBLISH, Some(&body), &reader)),
        (413, "post", PUBLISH, call(at, "post", PUBLISH, Some(&large), &reader)),
        (401, "get", "/metrics", call(at, "get", "/metrics", None, &[])),
        (405, "post", ACK, call(at, "get", ACK, None, &[])),
        (415, "post", PUBLISH, call(open.addr(), "post", PUBLISH, Some(&body), &media)),
    ];
    for (status, method, path, answer) in answers {
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        assert_eq!(document.complaints(method, path, &answer), [""; 0], "{method} {path}");
    }
}

#[test]
fn what_is_not_documented_is_not_there() {
    let server = Server::start();
    let at = server.addr();
    let document = Document::of(at);
    let operations = document.operations();
    let paths: BTreeSet<&str> = operations.iter().map(|(_, path)| path.as_str()).collect();
    for path in paths {
        let documented = |method: &str| operations.contains(&(method.to_owned(), path.to_owned()));
        let target = path.replace("{address}", "x").replace("{user}", "%00").replace("{id}", "x");
        for method in METHODS.iter().filter(|method| !documented(method)) {
            let answer = call(at, method, &target, None, &[]);
            let name = answer.json()["name"].clone();
            assert_eq!(
                (answer.status, name),
                (405, json!("method_not_allowed")),
                "{method} {path}"
            );
            let allow =
                answer.header("allow").unwrap_or_else(|| panic!("{method} {path}: no Allow"));
            let allowed: BTreeSet<String> =
                allow.split(',').map(|m| m.trim().to_lowercase()).collect();
            let mut expected: BTreeSet<String> =
                METHODS.iter().filter(|m| documented(m)).map(|m| (*m).to_owned()).collect();
            if expected.contains("get") {
                expected.insert("head".into());
            }
            assert_eq!(allowed, expected, "{method} {path}");
        }
    }
    for target in ["/", "/api", "/api/v1/", "/api/v1/publish/", "/healthz/x", "/openapi.yaml"] {
        let answer = call(at, "get", target, None, &[]);
        assert_eq!((answer.status, &answer.json()["name"]), (404, &json!("not_found")), "{target}");
    }
}

#[test]
fn routes_come_into_being_in_one_way() {
    // The document is made from the router by `routes!`; a route that is added otherwise would be missing in it.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../clarion-edge/src/http");
    let other_ways = [".route(", ".route_service(", ".nest(", ".nest_service(", ".merge("];
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("the edge's sources") {
        let path = entry.expect("a file").path();
        if path.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        files += 1;
        let text = fs::read_to_string(&path).expect("a text");
        let found: Vec<_> = other_ways.iter().filter(|way| text.contains(**way)).collect();
        assert!(found.is_empty(), "{}: {found:?}", path.display());
    }
    assert!(files > 5, "the sources were found");
}

#[test]
fn an_answer_that_the_document_lacks_is_noticed() {
    let schema = json!({
        "type": "object", "required": ["a"],
        "properties": {
            "a": { "type": "integer" },
            "b": { "type": "array", "items": { "type": ["string", "null"] } }
        }
    });
    let content = json!({ "application/json": { "schema": { "$ref": "#/components/schemas/X" } } });
    let document = Document(json!({
        "paths": { "/x": { "get": { "responses": { "200": { "content": content }, "204": {} } } } },
        "components": { "schemas": { "X": schema } }
    }));
    let answer = |status: u16, media: &str, body: &str| Answer {
        status,
        headers: vec![("content-type".into(), media.into())],
        body: body.into(),
    };
    let complaints = |answer: &Answer| document.complaints("get", "/x", answer).len();
    let json = "application/json; charset=utf-8";
    assert_eq!(complaints(&answer(200, json, r#"{"a":1,"b":["x",null]}"#)), 0);
    for bad in [
        answer(201, json, "{}"),
        answer(200, "text/plain", "x"),
        answer(204, json, "{}"),
        answer(200, json, r#"{"b":[]}"#),
        answer(200, json, r#"{"a":"1"}"#),
        answer(200, json, r#"{"a":1,"c":1}"#),
        answer(200, json, r#"{"a":1,"b":[1]}"#),
        answer(200, json, "[]"),
    ] {
        assert_eq!(complaints(&bad), 1, "{bad:?}");
    }
    assert_eq!(document.complaints("post", "/x", &answer(200, json, "{}")).len(), 1);
}
