//! The one table of error codes; every edge answers from it.
//!
//! Invariants: a code's number and name never change meaning and are never used again; a test holds the list.
//! Must not know: how an edge writes an answer.

use std::{borrow::Cow, fmt};

/// What a refusal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Only this request.
    Request,
    /// The connection or stream.
    Session,
    /// The node is at fault; others may answer.
    Node,
}

/// Whether the same request can succeed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Not without a change.
    Never,
    /// Later, as it is.
    Later,
    /// Later, and nobody knows whether it already took effect: send it with an idempotency key.
    Unknown,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The code.
    pub code: Code,
    /// Its stable name.
    pub name: &'static str,
    /// What it ends.
    pub scope: Scope,
    /// Whether to try again.
    pub retry: Retry,
    /// HTTP status.
    pub http: u16,
    /// gRPC status code.
    pub grpc: u8,
    /// MQTT 5 reason code.
    pub mqtt5: u8,
    /// One sentence for people.
    pub title: &'static str,
}

macro_rules! codes {
    ($($code:ident = $number:literal $name:literal $scope:ident $retry:ident $http:literal $grpc:literal $mqtt5:literal $title:literal;)*) => {
        /// A stable code. Its number is `code as u16`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code { $(#[doc = $title] $code = $number,)* }

        /// The table, by number.
        pub const TABLE: &[Row] = &[$(Row {
            code: Code::$code, name: $name, scope: Scope::$scope, retry: Retry::$retry,
            http: $http, grpc: $grpc, mqtt5: $mqtt5, title: $title,
        },)*];

        impl Code {
            /// Its row.
            pub const fn row(self) -> &'static Row {
                const { assert!(TABLE.len() < 1000); }
                match self { $(Self::$code => &const { Row {
                    code: Code::$code, name: $name, scope: Scope::$scope, retry: Retry::$retry,
                    http: $http, grpc: $grpc, mqtt5: $mqtt5, title: $title,
                } },)* }
            }
        }
    };
}

codes! {
//  code                number name                     scope   retry  http grpc mqtt5 title
    BadRequest         = 1000 "bad_request"            Request Never   400  3 0x83 "The request is malformed";
    BadAddress         = 1001 "bad_address"            Request Never   400  3 0x90 "The address is not valid";
    BadPayload         = 1002 "bad_payload"            Request Never   400  3 0x99 "The payload is not what it says it is";
    BadExpire          = 1003 "bad_expire"             Request Never   400  3 0x83 "The expire value is not valid";
    BadToken           = 1004 "bad_token"              Request Never   400  3 0x83 "The token was not made by this server";
    BadUser            = 1005 "bad_user"               Request Never   400  3 0x85 "The user or device name is not valid";
    PayloadTooLarge    = 1010 "payload_too_large"      Request Never   413  3 0x95 "The payload is larger than the limit";
    RequestTooLarge    = 1011 "request_too_large"      Request Never   413  3 0x95 "The request is larger than the limit";
    BatchTooLong       = 1012 "batch_too_long"         Request Never   413  3 0x95 "The batch has more messages than the limit";
    HeadTooLarge       = 1013 "head_too_large"         Session Never   431  3 0x95 "The request's head is larger than the limit";
    Unauthenticated    = 1100 "unauthenticated"        Request Never   401 16 0x87 "No valid credentials";
    Forbidden          = 1101 "forbidden"              Request Never   403  7 0x87 "These credentials do not allow this";
    ForeignToken       = 1102 "foreign_token"          Request Never   403  7 0x87 "The token belongs to another principal or device";
    NetworkForbidden   = 1103 "network_forbidden"      Session Never   403  7 0x87 "This listener does not take connections from there";
    HostForbidden      = 1104 "host_forbidden"         Request Never   403  7 0x87 "An open listener answers only to an IP address or localhost";
    OriginForbidden    = 1105 "origin_forbidden"       Session Never   403  7 0x87 "This listener does not take connections from pages of that origin";
    NotFound           = 1200 "not_found"              Request Never   404  5 0x83 "There is no such thing";
    NotStored          = 1201 "not_stored"             Request Never   404  5 0x83 "A live message is not stored, so nothing is known of it";
    SessionNotFound    = 1202 "session_not_found"      Request Never   404  5 0x83 "There is no such session on this node";
    MethodNotAllowed   = 1203 "method_not_allowed"     Request Never   405 12 0x83 "This path does not take this method";
    UnsupportedMedia   = 1204 "unsupported_media_type" Request Never   415  3 0x99 "The body must be application/json";
    UpgradeRequired    = 1205 "upgrade_required"       Session Never   426  9 0x83 "This path speaks WebSocket only";
    Conflict           = 1300 "conflict"               Request Later   409 10 0x83 "Somebody else changed it first";
    RequestTimeout     = 1400 "request_timeout"        Session Later   408  4 0x83 "The request did not arrive in time";
    TooManyStreams     = 1401 "too_many_streams"       Request Later   503  8 0x97 "The listener carries as many streams as it may";
    TooManyConnections = 1402 "too_many_connections"   Session Later   503  8 0x97 "The listener carries as many connections as it may";
    Overloaded         = 1403 "overloaded"             Request Later   503  8 0x97 "More work is waiting than the node takes in";
    QueueFull          = 1404 "queue_full"             Request Later   503  8 0x97 "The queue holds as many bytes as it may";
    StoreFull          = 1405 "store_full"             Node    Later   507  8 0x97 "The store holds as many bytes as it may";
    TooManyDevices     = 1406 "too_many_devices"       Request Later   503  8 0x97 "The user has as many attached devices as he may";
    TooManyCursors     = 1407 "too_many_cursors"       Request Never   409  8 0x97 "The device reads as many channels as it may";
    StoreUnavailable   = 1500 "store_unavailable"      Node    Later   503 14 0x88 "The store does not take writes";
    StoreOutcome       = 1501 "store_outcome_unknown"  Node    Unknown 503 14 0x88 "The store did not say whether it took this";
    ShuttingDown       = 1502 "shutting_down"          Node    Later   503 14 0x8b "The node is going down";
    Internal           = 1900 "internal"               Node    Later   500 13 0x80 "The server made a mistake";
}

impl Code {
    /// Its stable name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Its HTTP status.
    pub const fn http(self) -> u16 {
        self.row().http
    }

    /// Whether the same request can succeed later.
    pub fn retryable(self) -> bool {
        self.row().retry != Retry::Never
    }
}

/// A refusal: a code and what was wrong this time. The detail reaches the client: no secret in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// Which row of the table.
    pub code: Code,
    /// This case, in words.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with its reason.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into() }
    }
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Self {
        Self::new(code, code.row().title)
    }
}

impl From<crate::AddressError> for Refusal {
    fn from(error: crate::AddressError) -> Self {
        Self::new(Code::BadAddress, error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_sorted_and_agree_with_their_rows() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].code < pair[1].code, "{} stands out of order", pair[1].name);
        }
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.code.row().name, row.name);
            assert!(TABLE[..i].iter().all(|other| other.name != row.name), "{} twice", row.name);
            assert!(
                (400..600).contains(&row.http) && row.grpc <= 16 && row.mqtt5 >= 0x80,
                "{}",
                row.name
            );
        }
    }

    #[test]
    fn no_code_disappears_or_changes_its_number() {
        let list: Vec<String> =
            TABLE.iter().map(|r| format!("{} {}", r.code.number(), r.name)).collect();
        assert_eq!(list.join("\n"), include_str!("codes.txt").trim_end());
    }
}
