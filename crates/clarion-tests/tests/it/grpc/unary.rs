//! Unary calls say what HTTP says.

use clarion_client::{Publish, ReadRange};
use clarion_tests::{Server, grpc::Status};
use clarion_wire::proto::clarion_v1::{
    DeadRequest, Durability, Header, HistoryRequest, HistoryResponse, KickRequest, KickResponse,
    PresenceRequest, PresenceResponse, PublishBatchRequest, PublishBatchResponse, PublishRequest,
    PublishResponse, PutBackRequest, SessionsRequest, SessionsResponse, StatusRequest,
    StatusResponse, publish_result,
};

use super::{Stream, connect, feed, message, numbers, path, publish, publish_all};

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: i32, name: &str) {
    let status = answer.expect_err("a refusal");
    assert_eq!((status.code, status.get("clarion-name")), (code, Some(name)), "{status:?}");
    assert!(status.get("clarion-code").is_some_and(|n| n.parse::<u16>().is_ok()), "{status:?}");
}

#[tokio::test]
async fn publishes() {
    let server = Server::start();
    let grpc = connect(&server).await;
    let http = server.client();
    let request = PublishRequest {
        content_type: "text/plain".into(),
        kind: "k".into(),
        headers: vec![Header { name: "a".into(), value: "b".into() }],
        idempotency_key: "once".into(),
        expire: Some(1000),
        ..message("user:p", "text")
    };
    let first: PublishResponse = grpc.call(&path("Publish"), &request).await.expect("published");
    assert_eq!((first.seq, first.channel.as_str()), (1, "user:p"));
    assert_eq!(first.durability, i32::from(Durability::Disk));
    let again: PublishResponse = grpc.call(&path("Publish"), &request).await.expect("published");
    assert_eq!(again, PublishResponse { duplicate: true, ..first.clone() });
    let over_http =
        Publish { idempotency_key: Some("once".into()), ..Publish::text("user:p", "x") };
    let over_http = http.publish(&over_http).await.expect("published");
    assert!(over_http.duplicate && over_http.id == first.id, "one key over both");
    let json = PublishRequest { json: true, ..message("user:p", " {\"a\" : 1} ") };
    let _: PublishResponse = grpc.call(&path("Publish"), &json).await.expect("published");
    let page = http.messages("user:p", ReadRange::default()).await.expect("a page");
    assert_eq!(page.messages[1].json.as_ref().map(|json| json.get()), Some("{\"a\":1}"));
    let ask = HistoryRequest { address: "user:p".into(), ..Default::default() };
    let history: HistoryResponse = grpc.call(&path("History"), &ask).await.expect("a page");
    assert_eq!(history.messages.len(), page.messages.len());
    for (grpc, http) in history.messages.iter().zip(&page.messages) {
        assert_eq!((&grpc.id, grpc.seq, u64::from(grpc.epoch)), (&http.id, http.seq, http.epoch));
        assert_eq!((grpc.created_at, grpc.expires_at), (http.created_at, http.expires_at));
        assert_eq!(grpc.kind, http.kind.clone().unwrap_or_default());
    }
    assert_eq!(history.messages[0].payload, "text");
    assert_eq!(history.messages[0].headers[0].name, "a");
}

#[tokio::test]
async fn batches_history_and_status() {
    let server = Server::start();
    let grpc = connect(&server).await;
    let messages = vec![message("user:b", "1"), message("nobody:b", "2"), message("user:b", "3")];
    let request = PublishBatchRequest { messages };
    let answer: PublishBatchResponse =
        grpc.call(&path("PublishBatch"), &request).await.expect("an answer");
    let kinds: Vec<String> = answer
        .results
        .iter()
        .map(|result| match &result.result {
            Some(publish_result::Result::Taken(taken)) => taken.seq.to_string(),
            Some(publish_result::Result::Error(error)) => error.name.clone(),
            None => "nothing".into(),
        })
        .collect();
    assert_eq!(kinds, ["1", "bad_address", "2"]);
    publish_all(&grpc, "user:b", &numbers(8)).await;
    let mut ask = HistoryRequest { address: "user:b".into(), limit: 4, ..Default::default() };
    let mut seqs = Vec::new();
    loop {
        let page: HistoryResponse = grpc.call(&path("History"), &ask).await.expect("a page");
        assert_eq!((page.first, page.last), (1, 10));
        seqs.extend(page.messages.iter().map(|message| message.seq));
        ask.after = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!(seqs, (1..=10).collect::<Vec<u64>>());
    let ask = HistoryRequest { before: Some(4), limit: 2, ..ask };
    let ask = HistoryRequest { after: None, ..ask };
    let page: HistoryResponse = grpc.call(&path("History"), &ask).await.expect("a page");
    assert_eq!(page.messages.iter().map(|m| m.seq).collect::<Vec<_>>(), [3, 2]);
    let id = page.messages[0].id.clone();
    let status: StatusResponse =
        grpc.call(&path("Status"), &StatusRequest { id: id.clone() }).await.expect("a status");
    let over_http = server.client().message_status(&id).await.expect("a status");
    assert_eq!((status.state.as_str(), status.seq), (over_http.state.as_str(), over_http.seq));
    server.client().erase(&id).await.expect("erased");
    let status: StatusResponse =
        grpc.call(&path("Status"), &StatusRequest { id }).await.expect("a status");
    assert_eq!(status.state, "erased");
}

#[tokio::test]
async fn presence_sessions_and_kick() {
    let server = Server::builder().set("node.shards", "2").start();
    let grpc = connect(&server).await;
    let (_a, _b) =
        (Stream::open(&grpc, feed("p", "a")).await, Stream::open(&grpc, feed("p", "b")).await);
    let ask = PresenceRequest { user: "p".into() };
    let presence: PresenceResponse = grpc.call(&path("Presence"), &ask).await.expect("presence");
    let over_http = server.client().presence("p").await.expect("presence");
    assert!(presence.online && over_http.online);
    let of = |id: &str, device: &str| format!("{id} {device}");
    let mut ours: Vec<String> = presence.sessions.iter().map(|s| of(&s.id, &s.device)).collect();
    let theirs = over_http.sessions.iter();
    let mut theirs: Vec<String> =
        theirs.map(|s| of(&s.id, s.device.as_deref().unwrap_or_default())).collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    assert!(presence.sessions.iter().all(|session| session.dialect == "grpc"));
    let mut ask = SessionsRequest { limit: 1, ..Default::default() };
    let mut listed = 0;
    loop {
        let page: SessionsResponse = grpc.call(&path("Sessions"), &ask).await.expect("a page");
        listed += page.sessions.len();
        ask.after = page.next;
        if ask.after.is_empty() {
            break;
        }
    }
    assert_eq!(listed, 2);
    let kick = KickRequest { user: "p".into(), device: "a".into(), ..Default::default() };
    let kicked: KickResponse = grpc.call(&path("Kick"), &kick).await.expect("kicked");
    assert_eq!(kicked.kicked, 1);
    let kick = KickRequest { session: "nonsense".into(), ..Default::default() };
    assert_refused(grpc.call::<KickResponse>(&path("Kick"), &kick).await, 5, "session_not_found");
}

#[tokio::test]
async fn refusals_are_those_of_the_table() {
    let server = Server::start();
    let grpc = connect(&server).await;
    let bad = |address: &str| message(address, "x");
    let publish_bad =
        async |request| grpc.call::<PublishResponse>(&path("Publish"), &request).await;
    assert_refused(publish_bad(bad("")).await, 3, "bad_address");
    assert_refused(publish_bad(bad("group:none")).await, 5, "not_found");
    let negative = PublishRequest { expire: Some(-1), ..bad("user:x") };
    assert_refused(publish_bad(negative).await, 3, "bad_expire");
    let json = PublishRequest { json: true, ..bad("user:x") };
    assert_refused(publish_bad(json).await, 3, "bad_payload");
    let ask = HistoryRequest { address: "user:x".into(), limit: 1001, ..Default::default() };
    assert_refused(grpc.call::<HistoryResponse>(&path("History"), &ask).await, 3, "bad_request");
    let ask = StatusRequest { id: "x".into() };
    assert_refused(grpc.call::<StatusResponse>(&path("Status"), &ask).await, 5, "not_found");
    let ask = DeadRequest { address: "$dead/queue:x".into(), ..Default::default() };
    assert_refused(grpc.call::<HistoryResponse>(&path("Dead"), &ask).await, 3, "bad_address");
    let seqs = (0..1001).collect();
    let ask = PutBackRequest { address: "queue:x".into(), seqs };
    let put_back = grpc.call::<HistoryResponse>(&path("PutBack"), &ask).await;
    assert_eq!(put_back.expect_err("a refusal").get("clarion-name"), Some("batch_too_long"));
    let unknown = grpc.call::<PublishResponse>(&path("Nothing"), &bad("user:x")).await;
    assert_eq!(unknown.expect_err("unknown").code, 12);
    publish(&grpc, "user:x", "well").await;
}
