//! Crash rounds with durable sessions: paho-mqtt and mqtt.js publish and read at QoS 1 and QoS 2, the server is killed again
//! and again, everybody goes on where he was.
//!
//! Each library keeps its own side of the sessions and says again what was not answered; so in the end everything that was
//! published is acknowledged, and each of the four readers must have had all that both publishers of its QoS published:
//! with QoS 1 at least once, and in the order in which it was published, with QoS 2 exactly once. A round without a publish
//! that was unanswered at the kill does not count. `CLARION_CRASH_ROUNDS` makes it shorter (or longer).

use crate::{
    clients::{crate_dir, python},
    mqtt_durable::{assert_no_panic, at, traps::Random},
};
use clarion_tests::{
    Command, Server,
    mqtt::{Client, Version},
    wait_for,
};
use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    hash::{BuildHasher, Hasher, RandomState},
    io::Write,
};

/// Rounds that count.
const ROUNDS: u64 = 20;
/// Acknowledged publishes of each round, about.
const ACKNOWLEDGED: u64 = 5000;
const PROCESSES: [&str; 2] = ["paho", "js"];

/// One of the clients: process, role, QoS.
type Link = (usize, String, u8);

/// What a reader had at the end.
#[derive(Debug)]
struct Report {
    repeated: u64,
    disorder: u64,
    /// All of each publisher's up to here.
    had: BTreeMap<String, u64>,
}

struct Fleet {
    processes: [Command; 2],
    ready: usize,
    /// Whether each is connected, with what it had unanswered when it was cut off.
    links: BTreeMap<Link, Result<(), u64>>,
    acked: BTreeMap<(usize, u8), u64>,
    published: BTreeMap<(usize, u8), u64>,
    read: BTreeMap<(usize, u8), u64>,
    reports: BTreeMap<(usize, u8), Report>,
}

impl Fleet {
    fn start(server: &Server) -> Self {
        let address = at(server);
        let folder = crate_dir().join("tests/it/mqtt/clients");
        let modules = crate_dir().join("js/node_modules");
        assert!(
            modules.join("mqtt").exists(),
            "the package mqtt is absent: run ./test.sh, or npm --prefix crates/clarion-tests/js ci"
        );
        let to: [OsString; 2] =
            [address.ip().to_string().into(), address.port().to_string().into()];
        let paho = [folder.join("paho_durable.py").into()].into_iter().chain(to.clone());
        let js = [folder.join("mqttjs_durable.mjs").into()].into_iter().chain(to);
        let js = js.chain([modules.into()]);
        Self {
            processes: [
                Command::start_listening(python("python"), paho),
                Command::start_listening("node", js),
            ],
            ready: 0,
            links: BTreeMap::new(),
            acked: BTreeMap::new(),
            published: BTreeMap::new(),
            read: BTreeMap::new(),
            reports: BTreeMap::new(),
        }
    }

    fn tell(&mut self, word: &str) {
        self.processes.iter_mut().for_each(|process| process.say(word));
    }

    /// Listens to all of them until this holds; each word that comes gives them time for the next one.
    fn listen(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let mut lines = Vec::new();
            wait_for(what, || {
                for (n, process) in self.processes.iter().enumerate() {
                    lines.extend(process.lines_so_far().into_iter().map(|line| (n, line)));
                    // Nothing is written there but what went wrong.
                    let errors = process.errors();
                    assert!(errors.is_empty(), "{}: {}", PROCESSES[n], errors.join("\n"));
                }
                !lines.is_empty()
            });
            lines.into_iter().for_each(|(process, line)| self.hear(process, &line));
        }
    }

    fn hear(&mut self, process: usize, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |n: usize| -> u64 { words[n].parse().unwrap_or_else(|_| panic!("{line}")) };
        let qos = || (process, number(1) as u8);
        match words[0] {
            "ready" => self.ready += 1,
            "up" => {
                let link = (process, words[1].to_owned(), number(2) as u8);
                let known = self.links.insert(link, Ok(())).is_some();
                assert_eq!(
                    number(3) == 1,
                    known,
                    "{}: {line}: session present",
                    PROCESSES[process]
                );
            }
            "down" => {
                let link = (process, words[1].to_owned(), number(2) as u8);
                self.links.insert(link, Err(number(3)));
            }
            "acked" => drop(self.acked.insert(qos(), number(2))),
            "read" => drop(self.read.insert(qos(), number(2))),
            "published" => drop(self.published.insert(qos(), number(2))),
            "report" => {
                let had = words[4..].iter().filter_map(|word| word.split_once('='));
                let had = had.map(|(name, n)| (name.to_owned(), n.parse().expect("a number")));
                let report =
                    Report { repeated: number(2), disorder: number(3), had: had.collect() };
                self.reports.insert(qos(), report);
            }
            _ => panic!("{}: {line}", PROCESSES[process]),
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acked.values().sum()
    }

    fn all_up(&self) -> bool {
        self.links.len() == 8 && self.links.values().all(Result::is_ok)
    }

    /// Load up to a kill at some count of acknowledgements, and the server's return; what was unanswered.
    fn round(&mut self, server: &mut Server, random: &mut Random) -> u64 {
        let target = ACKNOWLEDGED / 2 + random.below(ACKNOWLEDGED as usize) as u64;
        let target = self.acknowledged() + target;
        let before = self.acked.clone();
        self.listen("acknowledgements", |fleet| {
            // Everybody is there and at work.
            let grown = |(who, count): (&(usize, u8), &u64)| before.get(who) < Some(count);
            let at_work = fleet.acked.len() == 4 && fleet.acked.iter().all(grown);
            fleet.acknowledged() >= target && fleet.all_up() && at_work
        });
        server.kill9();
        self.listen("the end of all connections", |fleet| fleet.links.values().all(Result::is_err));
        let unanswered = self.links.values().filter_map(|link| link.err()).sum();
        println!("killed at {} acknowledged, {unanswered} unanswered", self.acknowledged());
        server.restart();
        self.tell("back");
        unanswered
    }

    /// The publishers finish; every reader reads up to a mark on each of its topics.
    fn finish(&mut self, server: &Server) {
        self.tell("stop");
        self.listen("the last acknowledgements", |fleet| fleet.published.len() == 4);
        let mut marker = Client::connect(at(server), Version::V5, "marker");
        for qos in [1, 2] {
            for name in PROCESSES {
                assert_eq!(marker.publish(&format!("crash/{qos}/{name}"), "mark 0", qos), 0);
            }
        }
        self.listen("the readers", |fleet| fleet.reports.len() == 4);
    }

    /// What each reader had is what was published; all that is wrong, at once.
    fn judge(&self) {
        let mut wrong = Vec::new();
        for ((reader, qos), report) in &self.reports {
            let who = format!("the reader of {} with QoS {qos}: {report:?}", PROCESSES[*reader]);
            for (n, name) in PROCESSES.into_iter().enumerate() {
                let published = self.published[&(n, *qos)];
                if report.had.get(name) != Some(&published) {
                    wrong.push(format!("{published} of {name} were published; {who}"));
                }
            }
            if *qos == 1 && report.disorder > 0 {
                wrong.push(format!("a hole or another order; {who}"));
            }
            if *qos == 2 && report.repeated > 0 {
                wrong.push(format!("QoS 2 came again; {who}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn nothing_is_lost_and_qos_2_comes_once() {
    let seed = RandomState::new().build_hasher().finish() | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let rounds = env::var("CLARION_CRASH_ROUNDS").map_or(ROUNDS, |n| n.parse().expect("a number"));
    let mut server = Server::start();
    let mut fleet = Fleet::start(&server);
    fleet.listen("the clients", |fleet| fleet.ready == 2);
    fleet.tell("go");
    let (mut counted, mut all, mut unanswered) = (0, 0, 0);
    while counted < rounds || fleet.acknowledged() < rounds * ACKNOWLEDGED {
        all += 1;
        assert!(all < 3 * rounds, "{counted} rounds of {} count", all - 1);
        let left = fleet.round(&mut server, &mut random);
        counted += u64::from(left > 0);
        unanswered += left;
    }
    fleet.finish(&server);
    fleet.judge();
    let sum = |of: fn(&Report) -> u64| -> u64 { fleet.reports.values().map(of).sum() };
    let published: u64 = fleet.published.values().sum();
    let line = format!(
        "crash rounds with durable sessions: {counted} of {all}; acknowledged {published}, unanswered at the kill \
         {unanswered}, delivered {}, repeated {} (none with QoS 2); lost 0\n",
        sum(|report| report.had.values().sum::<u64>() + report.repeated),
        sum(|report| report.repeated),
    );
    // Past the capture of the test's output.
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    assert_no_panic(&server);
}
