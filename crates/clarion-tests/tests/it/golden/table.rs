//! What each recorded scenario is here: replayed, with the steps that differ on purpose, or run by a test of its own, or
//! without a counterpart. docs/golden.md says why; steps are counted from 0.

use super::vectors::Scenario;
use super::{own, own_load};

/// How a step differs here on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Here {
    /// It does not happen, or the model says what does.
    Skip,
    /// The call is refused with this code.
    Code(i32),
    /// The call is answered; more than the original says.
    Answered,
    /// The call ends.
    Any,
}

/// How a scenario is replayed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) differs: &'static [(usize, Here)],
    /// An UNRECEIVED of something never pushed: push it first.
    pub(super) push_first: bool,
    /// Its times are its subject.
    pub(super) timed: bool,
    /// A gate answers with the number after the one it got.
    pub(super) plus_one: bool,
    pub(super) status_timeout_ms: u64,
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) enum Case {
    Replay(Plan),
    Own(fn(&Scenario)),
    NotHere,
}

const PLAIN: Plan = Plan {
    differs: &[],
    push_first: false,
    timed: false,
    plus_one: false,
    // Nobody waits that long where answers come.
    status_timeout_ms: 60_000,
};

const fn differs(differs: &'static [(usize, Here)]) -> Case {
    Case::Replay(Plan { differs, ..PLAIN })
}

/// Who waits for an answer that does not come waits so long.
const fn times_out(differs: &'static [(usize, Here)]) -> Case {
    Case::Replay(Plan { differs, status_timeout_ms: 1500, ..PLAIN })
}

/// The case of a scenario.
pub(super) fn case(name: &str) -> Case {
    use Here::{Answered, Any, Code, Skip};
    match name {
        "unify_services_and_methods" => differs(&[
            // GetConfig and StateInfo tell something; the older name is served; so are health and reflection.
            (1, Answered),
            (5, Answered),
            (7, Answered),
            (9, Answered),
            (11, Code(3)),
            (17, Answered),
            (19, Any),
            (21, Skip),
        ]),
        // An empty channelId is refused; gzip is understood.
        "unify_bad_bytes" => {
            differs(&[(4, Code(13)), (8, Skip), (17, Skip), (18, Code(3)), (20, Answered)])
        }
        // The message of 4 MiB goes without its expire, so that a default gate takes it.
        "unify_size_limits" => differs(&[(13, Skip)]),
        "mode_unknown" | "mode_empty" => Case::Own(own::unknown_mode),
        // An empty channelId is refused, and one with a control character.
        "unify_one_gate_live" => differs(&[
            (20, Skip),
            (21, Code(3)),
            (23, Skip),
            (24, Code(3)),
            (32, Skip),
            (33, Code(3)),
        ]),
        "unify_status_no_answer" => times_out(&[]),
        // Neither RESPONSE nor REQUEST ends the wait.
        "unify_status_forms" => times_out(&[]),
        "unify_status_late_acks" => Case::Replay(Plan {
            push_first: true,
            plus_one: true,
            status_timeout_ms: 1500,
            ..PLAIN
        }),
        "unify_expire" | "mysql_expire_and_count" => {
            Case::Replay(Plan { push_first: true, timed: true, ..PLAIN })
        }
        "unify_unreceived_forged" => Case::Replay(Plan { push_first: true, ..PLAIN }),
        "unify_keep_20" => Case::Own(own::keeps_20),
        "unify_restart_eviction" => Case::Own(own::restart_evicts_nothing),
        "unify_stalled_gate_then_gone" => Case::Own(own_load::stalled_then_gone),
        "group_stalled_gate" | "every_stalled_gate" => Case::Own(own_load::stalled_beside_another),
        "unify_gate_dies_under_load" => Case::Own(own_load::gates_die_under_load),
        "unify_parallel_ids" => Case::Own(own_load::parallel_ids),
        "every_churn" => Case::Own(own_load::churn),
        // The waiting call is answered.
        "unify_server_stops" => differs(&[(4, Any)]),
        "unify_redis_down"
        | "unify_redis_restart"
        | "unify_request_unexpected_member"
        | "unify_two_redis_nodes"
        | "unify_redis_password"
        | "unify_redis_wrong_password"
        | "mysql_down"
        | "mysql_restart" => Case::NotHere,
        _ => Case::Replay(PLAIN),
    }
}
