use super::*;
use crate::bench::mqtt::{client::Session, link::Layers};
use clarion_wire::mqtt::{Qos, Version};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

/// A broker of one connection that does as it is told.
struct Broker(TcpStream);

impl Broker {
    fn expect(&mut self, bytes: &[u8]) {
        let mut found = vec![0; bytes.len()];
        self.0.read_exact(&mut found).unwrap();
        assert_eq!(found.escape_ascii().to_string(), bytes.escape_ascii().to_string());
    }

    fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Takes the CONNECT of client `c`, and its SUBSCRIBE to `t`.
    fn welcome(&mut self) {
        self.expect(b"\x10\x0d\0\x04MQTT\x04\x02\x1c\x20\0\x01c");
        self.say(b"\x20\x02\0\0");
        self.expect(b"\x82\x06\0\x01\0\x01t\x02");
        self.say(b"\x90\x03\0\x01\x02");
    }
}

fn with_broker(script: impl FnOnce(Broker) + Send + 'static) -> (Plan, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let script = thread::spawn(move || script(Broker(listener.accept().unwrap().0)));
    (Plan { at, layers: Layers::default(), version: Version::V311 }, script)
}

fn open(plan: &Plan) -> Result<Pool, BenchError> {
    let mut pool = Pool::new(plan)?;
    let subscription = Some(("t".to_owned(), Qos::ExactlyOnce));
    let wish = Wish {
        client_id: "c".into(),
        from: None,
        session: Session::Clean,
        subscription,
        beside: 0,
    };
    let (mut latency, progress) = (Histogram::new(), Progress::new(false));
    pool.open([wish].into_iter(), 1, &mut latency, &progress)?;
    Ok(pool)
}

#[test]
fn everything_is_acked_however_it_is_cut() {
    let (plan, script) = with_broker(|mut broker| {
        broker.welcome();
        for byte in b"\x30\x04\0\x01tA\x32\x06\0\x01t\0\x07B\x34\x06\0\x01t\0\x08C" {
            broker.say(&[*byte]);
        }
        broker.expect(b"\x40\x02\0\x07\x50\x02\0\x08");
        broker.say(b"\x62\x02\0\x08");
        broker.expect(b"\x70\x02\0\x08");
        broker.say(b"\x30\x04\0\x01tE");
        // What the client publishes itself.
        broker.expect(b"\x34\x06\0\x01t\0\x01D");
        broker.say(b"\x50\x02\0\x01");
        broker.expect(b"\x62\x02\0\x01");
        broker.say(b"\x70\x02\0\x01");
        // Until the client goes.
        broker.0.read_exact(&mut [0]).unwrap_err();
    });
    let mut pool = open(&plan).unwrap();
    let (mut messages, mut released) = (Vec::new(), 0);
    while messages.len() < 4 {
        let hear = |_, heard: Heard<'_>| match heard {
            Heard::Message(payload) => messages.extend_from_slice(payload),
            Heard::Held => {}
            Heard::Released => released += 1,
            other => panic!("{other:?}"),
        };
        assert!(pool.wake(Some(QUIET), hear).unwrap(), "{messages:?}");
    }
    assert_eq!((messages.as_slice(), released), (&b"ABCE"[..], 1));
    pool.send_from(0, |client, out| client.put_publish(out, "t", Qos::ExactlyOnce, b"D")).unwrap();
    let mut acked = false;
    while !acked {
        assert!(pool.wake(Some(QUIET), |_, heard| acked |= heard == Heard::Acked).unwrap());
    }
    drop(pool);
    script.join().unwrap();
}

#[test]
fn a_refusal_and_an_end_are_told() {
    let check = |script: fn(Broker), expected: &str| {
        let (plan, script) = with_broker(script);
        let error = match open(&plan) {
            Err(error) => error,
            Ok(mut pool) => loop {
                if let Err(error) = pool.wake(Some(QUIET), |_, _| {}) {
                    break error;
                }
            },
        };
        script.join().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
    };
    let refuse = |mut broker: Broker| {
        broker.expect(b"\x10\x0d\0\x04MQTT\x04\x02\x1c\x20\0\x01c");
        broker.say(b"\x20\x02\0\x05");
    };
    check(refuse, "client 0: CONNECT was refused: code 0x05; 0 of 1 clients were open");
    let deny = |mut broker: Broker| {
        broker.expect(b"\x10\x0d\0\x04MQTT\x04\x02\x1c\x20\0\x01c");
        broker.say(b"\x20\x02\0\0");
        broker.expect(b"\x82\x06\0\x01\0\x01t\x02");
        broker.say(b"\x90\x03\0\x01\x80");
    };
    check(deny, "client 0: SUBSCRIBE was refused: code 0x80");
    let leave = |mut broker: Broker| broker.welcome();
    check(leave, "client 0: the broker closed the connection");
    let odd = |mut broker: Broker| {
        broker.welcome();
        broker.say(b"\x36\x06\0\x01t\0\x01D");
    };
    check(odd, "client 0: the broker's packet: ");
}

#[test]
fn a_session_is_resumed_and_left() {
    let (plan, script) = with_broker(|mut broker| {
        broker.expect(b"\x10\x0d\0\x04MQTT\x04\0\x1c\x20\0\x01c");
        broker.say(b"\x20\x02\x01\0\x32\x06\0\x01t\0\x07A");
        broker.expect(b"\x40\x02\0\x07\xe0\0");
        // What comes now is read, but nothing may follow DISCONNECT.
        broker.say(b"\x32\x06\0\x01t\0\x08B");
        broker.0.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(broker.0.read(&mut [0]).unwrap_or_default(), 0);
    });
    let mut pool = Pool::new(&plan).unwrap();
    let (session, subscription) = (Session::Kept, None);
    let wish = Wish { client_id: "c".into(), from: None, session, subscription, beside: 0 };
    let mut heard = Vec::new();
    let mut hear = |_, news: Heard<'_>| heard.push(format!("{news:?}"));
    let progress = Progress::new(false);
    pool.open_hearing([wish].into_iter(), 1, &progress, &mut hear).unwrap();
    pool.leave(&progress, &mut hear).unwrap();
    script.join().unwrap();
    assert_eq!(heard, ["Present", "Ready", "Message([65])", "Message([66])", "Gone"]);
}

#[test]
fn many_subscriptions_go_some_at_a_time() {
    let (plan, script) = with_broker(|mut broker| {
        broker.welcome();
        for (from, to) in [(501, 1001), (1, 501), (0, 1)] {
            let mut body = vec![0, 1];
            for topic in (from..to).map(|n| format!("beside/c/{n}")) {
                body.extend([0, topic.len() as u8]);
                body.extend(topic.bytes());
                body.push(2);
            }
            let (low, high) = ((body.len() % 128) as u8, (body.len() / 128) as u8);
            let len = if high == 0 { vec![low] } else { vec![low | 128, high] };
            broker.expect(&[&[0x82][..], &len, &body].concat());
            broker.say(b"\x90\x03\0\x01\x02");
        }
        // Until the client goes.
        broker.0.read_exact(&mut [0]).unwrap_err();
    });
    let mut pool = Pool::new(&plan).unwrap();
    let (session, subscription) = (Session::Clean, Some(("t".to_owned(), Qos::ExactlyOnce)));
    let wish = Wish { client_id: "c".into(), from: None, session, subscription, beside: 1001 };
    pool.open([wish].into_iter(), 1, &mut Histogram::new(), &Progress::new(false)).unwrap();
    drop(pool);
    script.join().unwrap();
}
