//! What is right: a small model of gates, pushes and answers, which says what must come where the recording shows a fault.
//!
//! The rules are the design's: an answered push with `expire` > 0 is kept until somebody received it, or it expired; a
//! REQUEST brings everything that is kept above its number, in order; what nobody is left to answer comes to the next gate;
//! the first RECEIVED counts, UNRECEIVED only when all have said it. Must not know: bytes, servers.

use super::proto::{RECEIVED, Said};
use std::time::{Duration, Instant};

/// A push and what became of it.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) said: Said,
    /// The number that it has here; 0 = not seen yet.
    pub(super) id: u64,
    pub(super) acked: bool,
    /// The server knows, without being asked, that it is unacked.
    remembered: bool,
    /// Gates that must get it live; `None` = any one.
    pub(super) targets: Option<Vec<String>>,
    /// Gates that may still answer.
    pub(super) waiting: Vec<String>,
    /// Gates that got it live.
    pub(super) live_to: Vec<String>,
    started: Instant,
    pub(super) replied: Option<Instant>,
    /// What decided it, for who waits.
    pub(super) decided: Option<Said>,
}

impl Push {
    fn stored(&self) -> bool {
        self.said.expire > 0
    }

    fn life(&self) -> Duration {
        Duration::from_secs(self.said.expire.max(0) as u64)
    }

    /// Whether a question asked at `asked` and answered at `answered` must bring it, if it is kept at all; `None` = it may.
    fn alive(&self, asked: Instant, answered: Instant) -> Option<bool> {
        if answered < self.started + self.life() {
            return Some(true);
        }
        match self.replied {
            Some(replied) if asked > replied + self.life() => Some(false),
            _ => None,
        }
    }
}

/// A gate that is there.
#[derive(Debug, Clone)]
struct Gate {
    name: String,
    group: String,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Model {
    mode: String,
    pub(super) pushes: Vec<Push>,
    gates: Vec<Gate>,
    /// Silence after which the server counts a push as parked.
    patience: Duration,
}

/// What a question must bring, in order, and what it may bring besides.
pub(super) struct Owed {
    pub(super) must: Vec<usize>,
    pub(super) may: Vec<usize>,
}

impl Model {
    /// Of a server in this mode; after so much silence it counts a push as parked.
    pub(super) fn new(mode: &str, patience: Duration) -> Self {
        Self { mode: mode.to_owned(), patience, ..Self::default() }
    }

    /// Whether a push goes to one gate only.
    pub(super) fn gets_one(&self) -> bool {
        !["group", "every"].contains(&&*self.mode)
    }

    pub(super) fn gates(&self) -> usize {
        self.gates.len()
    }

    pub(super) fn gate_came(&mut self, name: &str, group: &str) {
        self.gates.push(Gate { name: name.into(), group: group.into() });
    }

    pub(super) fn gate_left(&mut self, name: &str) {
        self.gates.retain(|gate| gate.name != name);
        for push in &mut self.pushes {
            let before = push.waiting.len();
            push.waiting.retain(|waiting| waiting != name);
            if before > 0 && push.waiting.is_empty() && !push.acked {
                push.decided.get_or_insert_with(Said::default);
            }
        }
    }

    /// The server was killed: what it knew is on disk only.
    pub(super) fn killed(&mut self) {
        self.gates.clear();
        for push in &mut self.pushes {
            push.waiting.clear();
            push.remembered = false;
        }
    }

    /// Who gets a push now; `None` = any one.
    fn targets(&self) -> Option<Vec<String>> {
        let all = || self.gates.iter().map(|gate| gate.name.clone());
        match (&*self.mode, self.gates.len()) {
            ("every", _) | (_, 0 | 1) => Some(all().collect()),
            ("group", _) => {
                let newest = self.gates.iter().enumerate().filter(|(at, gate)| {
                    self.gates[at + 1..].iter().all(|later| later.group != gate.group)
                });
                Some(newest.map(|(_, gate)| gate.name.clone()).collect())
            }
            _ => None,
        }
    }

    pub(super) fn push(&mut self, said: Said) -> usize {
        let targets = self.targets();
        let decided =
            targets.as_ref().filter(|targets| targets.is_empty()).map(|_| Said::default());
        self.pushes.push(Push {
            said,
            id: 0,
            acked: false,
            remembered: true,
            waiting: targets.clone().unwrap_or_default(),
            targets,
            live_to: Vec::new(),
            started: Instant::now(),
            replied: None,
            decided,
        });
        self.pushes.len() - 1
    }

    /// The push has this number: one of its own for ever, and one that fits.
    pub(super) fn name(&mut self, push: usize, id: u64) {
        let of = &self.pushes[push];
        assert!((1..=u64::from(u32::MAX)).contains(&id), "the number {id} fits no gate");
        if of.id == 0 {
            let channel = &of.said.channel;
            let twice = self.pushes.iter().any(|p| p.id == id && p.said.channel == *channel);
            assert!(!twice, "the number {id} was given out twice in {channel:?}");
            self.pushes[push].id = id;
        }
        assert_eq!(
            self.pushes[push].id, id,
            "reply and gates name one number: {:?}",
            self.pushes[push]
        );
    }

    /// The push that a live message is, by its number or by its text.
    pub(super) fn find(&self, live: &Said) -> Option<usize> {
        let same = |p: &Push| p.said.channel == live.channel && p.said.text == live.text;
        let known =
            self.pushes.iter().position(|p| p.id == live.id && p.said.channel == live.channel);
        known.or_else(|| self.pushes.iter().position(|p| p.id == 0 && same(p)))
    }

    /// A gate got it, live or again.
    pub(super) fn got(&mut self, push: usize, gate: &str, live: bool) {
        let of = &mut self.pushes[push];
        if live {
            assert!(!of.live_to.iter().any(|got| got == gate), "{gate} got it live twice: {of:?}");
            of.live_to.push(gate.to_owned());
        }
        let from_start = live && of.targets.is_some();
        if !from_start && !of.waiting.iter().any(|waiting| waiting == gate) {
            of.waiting.push(gate.to_owned());
        }
        of.remembered = true;
    }

    /// A gate's RECEIVED or UNRECEIVED.
    pub(super) fn answered(&mut self, gate: &str, said: &Said) {
        let same = |p: &&mut Push| p.id == said.id && p.said.channel == said.channel;
        let Some(push) = self.pushes.iter_mut().filter(|_| said.id != 0).rfind(same) else {
            return;
        };
        if said.kind == RECEIVED {
            push.acked = true;
            push.waiting.clear();
            push.decided.get_or_insert_with(|| said.clone());
            return;
        }
        if push.acked || push.waiting.is_empty() {
            return;
        }
        let at = push.waiting.iter().position(|waiting| waiting == gate).unwrap_or(0);
        push.waiting.remove(at);
        if push.waiting.is_empty() {
            push.decided.get_or_insert_with(|| said.clone());
        }
    }

    /// Somebody removes it; whether it was there.
    pub(super) fn removed(&mut self, channel: &str, id: u64) -> bool {
        let mut found = self.pushes.iter_mut();
        let push = found.find(|p| p.id == id && p.said.channel == channel && p.stored() && id != 0);
        let there = push.filter(|push| {
            !push.acked && push.alive(Instant::now(), Instant::now()) != Some(false)
        });
        there.map(|push| push.acked = true).is_some()
    }

    /// What a REQUEST must bring.
    pub(super) fn requested(&self, channel: &str, above: u64, asked: Instant) -> Owed {
        self.owed(asked, |p| p.said.channel == channel && p.id > above, |_| false)
    }

    /// What a new gate must get.
    pub(super) fn parked(&self, asked: Instant) -> Owed {
        let silent = |p: &Push| p.started + self.patience < Instant::now();
        self.owed(asked, |p| p.remembered && p.waiting.is_empty(), silent)
    }

    fn owed(
        &self,
        asked: Instant,
        must: impl Fn(&Push) -> bool,
        may: impl Fn(&Push) -> bool,
    ) -> Owed {
        let mut owed = Owed { must: Vec::new(), may: Vec::new() };
        for (at, push) in self.pushes.iter().enumerate() {
            if !push.stored() || push.acked {
                continue;
            }
            match (must(push), push.alive(asked, Instant::now())) {
                (_, Some(false)) => {}
                (true, Some(true)) => owed.must.push(at),
                (true, None) => owed.may.push(at),
                (false, _) if may(push) => owed.may.push(at),
                (false, _) => {}
            }
        }
        owed
    }

    /// Every push went live to whom it had to, once.
    pub(super) fn check_live(&self) {
        for push in &self.pushes {
            match &push.targets {
                Some(targets) => {
                    let mut missing = targets.iter().filter(|name| {
                        !push.live_to.contains(name) && self.gates.iter().any(|g| g.name == **name)
                    });
                    assert_eq!(missing.next(), None, "it did not come live: {push:?}");
                    let more = push.live_to.iter().find(|name| !targets.contains(name));
                    assert_eq!(more, None, "it should not have come live: {push:?}");
                }
                None => assert_eq!(push.live_to.len(), 1, "exactly one gate gets it: {push:?}"),
            }
        }
    }
}
