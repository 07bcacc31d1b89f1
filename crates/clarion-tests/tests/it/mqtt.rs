//! MQTT: 3.1, 3.1.1 and 5 against a real server.
//!
//! `vectors`: packet sequences of another broker · `clients`: clients that others wrote · `scenarios`: what the
//! specifications say, each for every version that has it · `malformed`: what is refused, and how · `users`: feeds,
//! and the other transports · `listeners`: how connections come in · `faults`: slow, half-open and vanishing clients, crashes,
//! a failing disk · `security`: who may do what · `sys`: what the server tells of itself. Must not know: the server's codec.

mod broker;
mod certificates;
mod clients;
mod faults;
mod listeners;
mod malformed;
mod scenarios;
mod security;
mod sys;
mod users;
mod vectors;

/// One test for each version that has it.
macro_rules! versions {
    ($($name:ident: $($version:ident)+;)+) => {
        $(mod $name {
            $(#[test] fn $version() { super::$name($crate::mqtt::version::$version); })+
        })+
    };
}
pub(crate) use versions;

/// The versions by the names that tests have.
#[expect(non_upper_case_globals, reason = "the names of tests")]
pub(crate) mod version {
    use clarion_tests::mqtt::Version;
    pub(crate) const v31: Version = Version::V31;
    pub(crate) const v311: Version = Version::V311;
    pub(crate) const v5: Version = Version::V5;
}
