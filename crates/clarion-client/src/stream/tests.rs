use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{Client, Publish};

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";

async fn listener() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    (listener, client)
}

fn client(at: SocketAddr) -> Client {
    Client::new(format!("http://{at}").parse().unwrap())
}

/// Reads one request, whose body ends with `}` when it has one, and answers.
async fn serve(socket: &mut TcpStream, answer: &str) -> String {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 1024];
        let n = socket.read(&mut part).await.unwrap();
        assert_ne!(n, 0, "closed early");
        request.extend_from_slice(&part[..n]);
        let text = String::from_utf8_lossy(&request);
        if text.ends_with("\r\n\r\n") && !text.contains("content-length") || text.ends_with('}') {
            break;
        }
    }
    socket.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_reconnect_sends_the_last_token_that_was_given_out() {
    let (listener, client) = listener().await;
    let server = async {
        let (mut first, _) = listener.accept().await.unwrap();
        let head =
            serve(&mut first, &format!("{STREAM}retry: 1\nid: t1\ndata: a\n\nid: t2\ndata: b"))
                .await;
        assert!(head.starts_with("GET /api/v1/stream?user=a%20b&device=d HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains("last-event-id"), "{head}");
        drop(first);
        let (mut second, _) = listener.accept().await.unwrap();
        let head = serve(&mut second, &format!("{STREAM}id: t2\ndata: b\n\n")).await;
        assert!(head.contains("\r\nlast-event-id: t1\r\n"), "{head}");
        second
    };
    let reader = async {
        let mut stream = client.stream(StreamQuery::feed("a b", "d"));
        let mut seen = Vec::new();
        while seen.len() < 5 {
            seen.push(match stream.next().await.unwrap() {
                StreamItem::Open => "open".to_owned(),
                StreamItem::Event(event) => event.data,
                StreamItem::Lost { .. } => "lost".to_owned(),
            });
        }
        assert_eq!(seen, ["open", "a", "lost", "open", "b"]);
        assert_eq!(stream.token(), Some("t2"));
    };
    let _socket = tokio::join!(server, reader);
}

#[tokio::test]
async fn the_first_connect_and_refusals_that_will_not_pass_are_final() {
    let (listener, client) = listener().await;
    let body =
        r#"{"status":403,"code":1101,"name":"forbidden","title":"t","detail":"no","retry":false}"#;
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        serve(&mut socket, &answer("403 Forbidden", body)).await;
    };
    let mut stream = client.stream(StreamQuery::address("all"));
    let (_, item) = tokio::join!(server, stream.next());
    let problem = item.unwrap_err().problem().cloned().unwrap();
    assert_eq!((problem.status, problem.code, problem.name.as_str()), (403, 1101, "forbidden"));
    assert_eq!(problem.to_string(), "forbidden (1101): no");
    drop(listener);
    let error = stream.next().await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_between_two_calls_is_replaced() {
    let (listener, client) = listener().await;
    let ok =
        answer("200 OK", r#"{"id":"i","channel":"all","seq":1,"epoch":2,"durability":"disk"}"#);
    let server = async {
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await.unwrap();
            let request = serve(&mut socket, &ok).await;
            assert!(request.starts_with("POST /api/v1/publish HTTP/1.1\r\n"), "{request}");
            assert!(request.ends_with(r#"{"address":"all","text":"hi"}"#), "{request}");
        }
    };
    let caller = async {
        for _ in 0..2 {
            let published = client.publish(&Publish::text("all", "hi")).await.unwrap();
            assert_eq!((published.seq, published.duplicate), (1, false));
        }
    };
    tokio::join!(server, caller);
}

#[tokio::test]
async fn a_batch_gives_each_message_its_own_answer() {
    let (listener, client) = listener().await;
    let body = r#"{"results":[{"error":{"code":1001,"name":"bad_address","detail":"d","retry":false}},
        {"id":"i","channel":"all","seq":1,"epoch":2,"durability":"none","duplicate":true}]}"#;
    let both = [Publish::text("x", "1"), Publish::text("all", "2")];
    let server = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        serve(&mut socket, &answer("200 OK", body)).await;
        serve(&mut socket, &answer("200 OK", body)).await;
    };
    let caller = async {
        let results = client.publish_batch(&both).await.unwrap();
        assert_eq!(results[0].as_ref().unwrap_err().name, "bad_address");
        assert!(results[1].as_ref().unwrap().duplicate);
        let short = client.publish_batch(&both[..1]).await.unwrap_err();
        assert!(matches!(short, ClientError::Protocol(_)), "{short}");
    };
    tokio::join!(server, caller);
}
