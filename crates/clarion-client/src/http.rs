//! Requests over HTTP/1.1: a small pool of keep-alive connections to one server.
//!
//! Invariants: at most [`IDLE_MAX`] idle connections are kept; an answer has at most [`BODY_MAX`] bytes; a request is
//! sent again only when hyper gives it back unsent. Must not know: what is asked.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{ClientError, Problem, url::BaseUrl};

/// Largest answer that is read, streams aside: a page of 1,000 messages of several KiB.
const BODY_MAX: usize = 64 << 20;
/// Idle connections kept.
const IDLE_MAX: usize = 64;
/// How long a connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

type Sender = SendRequest<Full<Bytes>>;

/// One server, as requests reach it.
#[derive(Debug)]
pub(crate) struct Pool {
    base: BaseUrl,
    bearer: Option<HeaderValue>,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) json: Option<Vec<u8>>,
    pub(crate) last_event_id: Option<String>,
    /// How long the server was asked to wait before it answers: that comes on top of the limit to a call.
    pub(crate) wait: Duration,
}

impl Call {
    pub(crate) fn new(method: Method, target: impl Into<String>) -> Self {
        let target = target.into();
        Self { method, target, json: None, last_event_id: None, wait: Duration::ZERO }
    }
}

impl Pool {
    pub(crate) fn new(base: BaseUrl) -> Self {
        Self { base, bearer: None, timeout: Duration::from_secs(30), idle: Mutex::default() }
    }

    /// The same server with other settings and no connection yet.
    pub(crate) fn with(&self, bearer: Option<HeaderValue>, timeout: Duration) -> Self {
        Self { base: self.base.clone(), bearer, timeout, idle: Mutex::default() }
    }

    pub(crate) fn base(&self) -> &BaseUrl {
        &self.base
    }

    pub(crate) fn bearer(&self) -> Option<HeaderValue> {
        self.bearer.clone()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a request and reads its answer whole; a refusal is an error.
    pub(crate) async fn call(&self, call: Call) -> Result<Bytes, ClientError> {
        let timeout = self.timeout.saturating_add(call.wait);
        let answer = tokio::time::timeout(timeout, self.exchange(call)).await;
        answer.map_err(|_| ClientError::Timeout(timeout.as_secs()))?
    }

    async fn exchange(&self, call: Call) -> Result<Bytes, ClientError> {
        let (sender, response) = self.send(call).await?;
        let status = response.status();
        let body = read_body(response).await?;
        self.give_back(sender);
        if status.is_success() {
            return Ok(body);
        }
        Err(ClientError::Refused(Problem::read(status.as_u16(), &body)))
    }

    /// Opens a stream on a connection of its own, which ends with the body.
    pub(crate) async fn open(&self, call: Call) -> Result<Response<Incoming>, ClientError> {
        let seconds = self.timeout.as_secs();
        let exchange = async {
            let mut sender = self.connect().await?;
            let sent = sender.send_request(self.request(call)?).await;
            let response = sent.map_err(|e| ClientError::Broken(e.to_string()))?;
            let status = response.status();
            if status.as_u16() == 200 {
                return Ok(response);
            }
            let body = read_body(response).await?;
            Err(ClientError::Refused(Problem::read(status.as_u16(), &body)))
        };
        let answer = tokio::time::timeout(self.timeout, exchange).await;
        answer.map_err(|_| ClientError::Timeout(seconds))?
    }

    async fn send(&self, call: Call) -> Result<(Sender, Response<Incoming>), ClientError> {
        let mut request = self.request(call)?;
        while let Some(mut sender) = self.take_idle() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((sender, response)),
                // The server had closed this connection; the request never left.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(ClientError::Broken(failed.error().to_string())),
                },
            }
        }
        let mut sender = self.connect().await?;
        let sent = sender.send_request(request).await;
        Ok((sender, sent.map_err(|e| ClientError::Broken(e.to_string()))?))
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let unreachable =
            |cause| ClientError::Unreachable { authority: self.base.authority(), cause };
        let connect = TcpStream::connect((self.base.host(), self.base.port()));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| unreachable(std::io::ErrorKind::TimedOut.into()))?
            .map_err(unreachable)?;
        stream.set_nodelay(true).map_err(unreachable)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| unreachable(std::io::Error::other(e)))?;
        // Ends when the sender and the body are dropped, or with the connection; its errors reach both.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>, ClientError> {
        let odd = |e: hyper::http::Error| ClientError::Protocol(e.to_string());
        let mut request = Request::builder()
            .method(call.method)
            .uri(self.base.target(&call.target))
            .header(HOST, self.base.authority());
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        if let Some(id) = call.last_event_id {
            request = request.header(ACCEPT, "text/event-stream").header("last-event-id", id);
        }
        if call.json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::from(call.json.unwrap_or_default())).map_err(odd)
    }

    fn take_idle(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn give_back(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            idle.push(sender);
        }
    }
}

async fn read_body(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
    Ok(body.map_err(|e| ClientError::Broken(e.to_string()))?.to_bytes())
}
