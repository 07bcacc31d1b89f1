//! Delivery modes: how a cursor is shared, and who gets a message of it (design §1.6).
//!
//! The mode is chosen by the reader that attaches, never by the publish. [`pick`] is pure: the same mode, candidates
//! and random number name the same members. Must not know: who has room (the caller leaves out who has none), leases.

/// One live member of a shared cursor (a consumer's session, a gate); the node's number of it.
pub type Member = u64;

/// How a cursor is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// The cursor is the device's own: whoever attaches to it gets everything.
    Every,
    /// The cursor is named after a group: one member of each group gets a message.
    Group,
    /// The one reserved group `*`: one member of all gets a message.
    Unify,
}

impl Mode {
    /// All of them with the names that clients and configurations use.
    pub const NAMES: [(&'static str, Self); 3] =
        [("every", Self::Every), ("group", Self::Group), ("unify", Self::Unify)];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Every => "every",
            Self::Group => "group",
            Self::Unify => "unify",
        }
    }

    /// The mode of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|&(_, mode)| mode)
    }
}

/// A member that could take the next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Who.
    pub member: Member,
    /// The group that it says it belongs to; empty when it names none.
    pub group: &'a str,
    /// Of one group the highest rank is preferred: gates rank by the order in which they came, so the newest live one
    /// wins; consumers that share the work all rank alike.
    pub rank: u64,
}

/// Who gets a message: `every` = all of them; `group` = of each group the one of the highest rank; `unify` = one.
/// `random` decides among equals. The answer is ascending and without repeats.
pub fn pick(mode: Mode, candidates: &[Candidate<'_>], random: u64) -> Vec<Member> {
    let mut chosen: Vec<Member> = match mode {
        Mode::Every => candidates.iter().map(|c| c.member).collect(),
        Mode::Unify => one_of(candidates, random).into_iter().collect(),
        Mode::Group => of_each_group(candidates, random),
    };
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

fn of_each_group(candidates: &[Candidate<'_>], random: u64) -> Vec<Member> {
    let mut sorted = candidates.to_vec();
    sorted.sort_unstable_by(|a, b| {
        a.group.cmp(b.group).then(b.rank.cmp(&a.rank)).then(a.member.cmp(&b.member))
    });
    let groups = sorted.chunk_by(|a, b| a.group == b.group);
    groups
        .filter_map(|group| {
            let equals = group.partition_point(|c| c.rank == group[0].rank);
            one_of(&group[..equals], random)
        })
        .collect()
}

fn one_of(candidates: &[Candidate<'_>], random: u64) -> Option<Member> {
    let count = candidates.len() as u64;
    let i = random.checked_rem(count)?;
    candidates.get(i as usize).map(|c| c.member)
}

#[cfg(test)]
mod tests;
