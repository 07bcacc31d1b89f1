//! The native gRPC API: unary calls equal HTTP, streams give what they promise, shared cursors share.
//!
//! `unary`: calls · `stream`: what is read from where, credit, window, ends · `acks`: acks, nacks, confirmations ·
//! `shared`: consumers of one cursor.

mod acks;
mod shared;
mod stream;
mod unary;

use clarion_tests::{
    Server,
    grpc::{Grpc, Status, Streaming},
};
use clarion_wire::proto::clarion_v1::{
    Ack, AckRange, Close, Credit, Delivery, Hello, Mode, Nack, PublishBatchRequest,
    PublishBatchResponse, PublishRequest, PublishResponse, SubscribeRequest, SubscribeResponse,
    publish_result, subscribe_request, subscribe_response::Response,
};

/// The path of a method of the native service.
pub(crate) fn path(method: &str) -> String {
    format!("/clarion.v1.Clarion/{method}")
}

pub(crate) async fn connect(server: &Server) -> Grpc {
    Grpc::open(server.listener("grpc")).await
}

pub(crate) fn message(address: &str, text: &str) -> PublishRequest {
    PublishRequest {
        address: address.into(),
        payload: text.to_owned().into(),
        ..Default::default()
    }
}

pub(crate) async fn publish(grpc: &Grpc, address: &str, text: &str) -> PublishResponse {
    grpc.call(&path("Publish"), &message(address, text)).await.expect("published")
}

/// Publishes texts in one batch each of at most 500; all must be taken.
pub(crate) async fn publish_all(grpc: &Grpc, address: &str, texts: &[String]) {
    for part in texts.chunks(500) {
        let messages = part.iter().map(|text| message(address, text)).collect();
        let request = PublishBatchRequest { messages };
        let answer: PublishBatchResponse =
            grpc.call(&path("PublishBatch"), &request).await.expect("published");
        assert_eq!(answer.results.len(), part.len());
        for result in answer.results {
            assert!(matches!(result.result, Some(publish_result::Result::Taken(_))), "{result:?}");
        }
    }
}

/// `0`, `1`, … as texts.
pub(crate) fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

pub(crate) fn text(delivery: &Delivery) -> String {
    let message = delivery.message.as_ref().expect("a delivery has a message");
    String::from_utf8(message.payload.to_vec()).expect("text")
}

pub(crate) fn seq(delivery: &Delivery) -> u64 {
    delivery.message.as_ref().expect("a delivery has a message").seq
}

/// A hello that reads one address.
pub(crate) fn reads(address: &str, mode: Mode) -> Hello {
    Hello { addresses: vec![address.into()], mode: mode.into(), ..Default::default() }
}

/// A member of a group.
pub(crate) fn in_group(address: &str, group: &str) -> Hello {
    Hello { group: group.into(), ..reads(address, Mode::Group) }
}

/// A user's feed as a device.
pub(crate) fn feed(user: &str, device: &str) -> Hello {
    Hello { user: user.into(), device: device.into(), ..Default::default() }
}

/// A Subscribe stream.
pub(crate) struct Stream(pub(crate) Streaming<SubscribeResponse>);

impl Stream {
    /// Opens it; the server has said welcome.
    pub(crate) async fn open(grpc: &Grpc, hello: Hello) -> Self {
        Self::try_open(grpc, hello).await.expect("a welcome")
    }

    pub(crate) async fn try_open(grpc: &Grpc, hello: Hello) -> Result<Self, Status> {
        let mut stream = Self(grpc.start(&path("Subscribe"), &[]).await?);
        stream.say(subscribe_request::Request::Hello(hello));
        match stream.0.next().await?.and_then(|first| first.response) {
            Some(Response::Welcome(_)) => Ok(stream),
            other => panic!("a stream began with {other:?}"),
        }
    }

    pub(crate) fn say(&mut self, request: subscribe_request::Request) {
        self.0.say(&SubscribeRequest { request: Some(request) });
    }

    /// The next response of any kind.
    pub(crate) async fn response(&mut self) -> Response {
        self.0.message_of().await.response.expect("a known response")
    }

    pub(crate) async fn delivery(&mut self) -> Delivery {
        match self.response().await {
            Response::Delivery(delivery) => delivery,
            other => panic!("not a delivery: {other:?}"),
        }
    }

    /// The texts of the next so many deliveries.
    pub(crate) async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(text(&self.delivery().await));
        }
        texts
    }

    pub(crate) async fn closed(&mut self) -> Close {
        match self.response().await {
            Response::Close(close) => close,
            other => panic!("not a close: {other:?}"),
        }
    }

    /// Acks a range of the one channel, or of that one.
    pub(crate) fn ack(&mut self, channel: &str, from: u64, to: u64, confirm: u64) {
        let range = AckRange { channel: channel.into(), epoch: 0, from, to };
        self.say(subscribe_request::Request::Ack(Ack { ranges: vec![range], confirm }));
    }

    /// Acks single messages.
    pub(crate) fn ack_each(&mut self, seqs: &[u64], confirm: u64) {
        let one = |to: &u64| AckRange { to: *to, ..Default::default() };
        let ranges = seqs.iter().map(one).collect();
        self.say(subscribe_request::Request::Ack(Ack { ranges, confirm }));
    }

    /// Waits for this confirmation; deliveries that come before it are returned.
    pub(crate) async fn stored(&mut self, confirm: u64) -> Vec<Delivery> {
        let mut before = Vec::new();
        loop {
            match self.response().await {
                Response::AckStored(stored) => {
                    assert_eq!(stored.confirm, confirm);
                    return before;
                }
                Response::Delivery(delivery) => before.push(delivery),
                other => panic!("not a confirmation: {other:?}"),
            }
        }
    }

    pub(crate) fn nack(&mut self, channel: &str, seq: u64, delay_ms: u32) {
        let nack = Nack { channel: channel.into(), epoch: 0, seq, delay_ms };
        self.say(subscribe_request::Request::Nack(nack));
    }

    pub(crate) fn credit(&mut self, messages: u32) {
        self.say(subscribe_request::Request::Credit(Credit { messages }));
    }

    /// Half-closes and waits for the end.
    pub(crate) async fn finish(mut self) -> Status {
        self.0.finish();
        self.0.end().await
    }
}

/// The value of a metric without labels, or the sum over its labels.
pub(crate) async fn metric(server: &Server, name: &str) -> f64 {
    let text = server.client().text("/metrics").await.expect("metrics");
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    text.lines().filter(of).filter_map(value).sum()
}

/// Waits until no session is left.
pub(crate) async fn no_session_is_left(server: &Server) {
    clarion_tests::wait_until("the end of all sessions", async || {
        let listed = server.client().sessions(&Default::default()).await.expect("sessions");
        listed.sessions.is_empty() && metric(server, "clarion_sessions").await == 0.0
    })
    .await;
}
