//! The clients of the crash rounds: each runs until the server is killed under it and tells what it knows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use clarion_client::{Client, ClientError, Delivery, Publish, StreamItem, StreamQuery};
use tokio::{sync::Notify, time::timeout};

use super::{DEADLINE, Random, USERS, ledger::Tag, user};

/// How many publishes were acknowledged.
#[derive(Default)]
pub(super) struct Progress {
    acknowledged: AtomicU64,
    changed: Notify,
}

impl Progress {
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn add(&self, count: u64) {
        self.acknowledged.fetch_add(count, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

pub(super) struct PublisherLog {
    pub(super) publisher: usize,
    pub(super) next_number: u64,
    pub(super) acknowledged: Vec<(usize, u64, Tag)>,
    pub(super) unanswered: Vec<(usize, Tag)>,
}

pub(super) struct ReaderLog {
    pub(super) reader: usize,
    pub(super) delivered: Vec<(u64, Tag)>,
    pub(super) acks: Vec<(Instant, u64)>,
    pub(super) last_sent: u64,
}

pub(super) fn message(to: usize, tag: Tag) -> Publish {
    let padding = "x".repeat(100);
    Publish::text(
        format!("user:{}", user(to)),
        format!("{}.{}.{padding}", tag.publisher, tag.number),
    )
}

fn tag_of(text: &str) -> Tag {
    let mut parts = text.split('.');
    let mut next = || parts.next().unwrap();
    Tag { publisher: next().parse().unwrap(), number: next().parse().unwrap() }
}

pub(super) async fn publish_until_killed(
    client: Client,
    progress: Arc<Progress>,
    mut random: Random,
    publisher: usize,
    batch: usize,
    first_number: u64,
) -> PublisherLog {
    let mut log = PublisherLog {
        publisher,
        next_number: first_number,
        acknowledged: Vec::new(),
        unanswered: Vec::new(),
    };
    loop {
        let mut sent = Vec::with_capacity(batch);
        for _ in 0..batch {
            let tag = Tag { publisher, number: log.next_number };
            log.next_number += 1;
            sent.push((random.below(USERS as u64) as usize, tag));
        }
        let messages: Vec<Publish> = sent.iter().map(|(to, tag)| message(*to, *tag)).collect();
        let answers = match &messages[..] {
            [single] => client.publish(single).await.map(|answer| vec![Ok(answer)]),
            _ => client.publish_batch(&messages).await,
        };
        let answers = match answers {
            Ok(answers) => answers,
            // Never left: the kill came between two requests.
            Err(ClientError::Unreachable { .. }) => return log,
            Err(ClientError::Broken(_)) => {
                log.unanswered.extend(sent);
                return log;
            }
            Err(error) => panic!("{error}"),
        };
        progress.add(answers.len() as u64);
        for ((to, tag), answer) in sent.into_iter().zip(answers) {
            let answer = answer.unwrap_or_else(|problem| panic!("refused: {problem}"));
            assert_eq!(answer.durability, "disk");
            log.acknowledged.push((to, answer.seq, tag));
        }
    }
}

/// Reads a user's feed and acks now and then: some readers often, some rarely.
pub(super) async fn read_until_killed(client: Client, reader: usize) -> ReaderLog {
    let mut log = ReaderLog { reader, delivered: Vec::new(), acks: Vec::new(), last_sent: 0 };
    let every = 1 + reader * 4;
    let mut stream = client.stream(StreamQuery::feed(user(reader), "reader"));
    loop {
        let event = match stream.next().await {
            Ok(StreamItem::Open) => continue,
            Ok(StreamItem::Event(event)) => event,
            Ok(StreamItem::Lost { .. }) | Err(ClientError::Unreachable { .. }) => return log,
            Err(error) => panic!("{error}"),
        };
        assert_eq!(event.name, "message", "{}", event.data);
        let delivery: Delivery = serde_json::from_str(&event.data).unwrap();
        log.delivered.push((delivery.seq, tag_of(&delivery.text.unwrap())));
        if log.delivered.len().is_multiple_of(every) {
            log.last_sent = delivery.seq;
            match client.ack(&event.id.unwrap()).await {
                Ok(_) => log.acks.push((Instant::now(), delivery.seq)),
                Err(ClientError::Broken(_) | ClientError::Unreachable { .. }) => return log,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Reads a stream up to and including this seq.
pub(super) async fn read_to(
    client: &Client,
    query: StreamQuery,
    last: u64,
) -> Vec<(u64, Tag, Option<String>)> {
    let mut stream = client.stream(query.clone());
    let mut delivered = Vec::new();
    loop {
        let item = timeout(DEADLINE, stream.next()).await;
        let item =
            item.unwrap_or_else(|_| panic!("{query:?}: nothing after {:?}", delivered.last()));
        let event = match item.unwrap() {
            StreamItem::Open => continue,
            StreamItem::Event(event) => event,
            StreamItem::Lost { cause, .. } => panic!("{query:?}: {cause}"),
        };
        assert_eq!(event.name, "message", "{}", event.data);
        let delivery: Delivery = serde_json::from_str(&event.data).unwrap();
        assert!(delivery.seq <= last, "{query:?}: {} came after the mark {last}", delivery.seq);
        delivered.push((delivery.seq, tag_of(&delivery.text.unwrap()), event.id));
        if delivery.seq == last {
            return delivered;
        }
    }
}
