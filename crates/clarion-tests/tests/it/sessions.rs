//! Who is there: presence, the list of sessions, kicking.

use crate::api::{Api, Stream};
use clarion_tests::{Server, wait_for};
use serde_json::Value;

fn presence(api: &mut Api, user: &str) -> Value {
    api.ok("GET", &format!("/api/v1/users/{user}/presence"), None)
}

fn devices(list: &Value) -> Vec<&str> {
    let sessions = list["sessions"].as_array().expect("sessions");
    sessions.iter().map(|s| s["device"].as_str().unwrap_or("")).collect()
}

#[test]
fn presence_follows_connections() {
    let server = Server::start();
    let mut api = Api::of(&server);
    let nobody = presence(&mut api, "u");
    assert_eq!((&nobody["online"], devices(&nobody).len()), (&Value::Bool(false), 0));
    assert_eq!(nobody["user"], "u");
    let one = Stream::feed(&server, "u", "one");
    let two = Stream::feed(&server, "u", "two");
    let _other = Stream::feed(&server, "v", "one");
    let here = presence(&mut api, "u");
    let mut names = devices(&here);
    names.sort_unstable();
    assert_eq!((&here["online"], names), (&Value::Bool(true), vec!["one", "two"]));
    for session in here["sessions"].as_array().expect("sessions") {
        assert_eq!((&session["dialect"], &session["user"]), (&"sse".into(), &"u".into()));
        assert!(session["since"].as_u64().is_some_and(|ms| ms > 1_600_000_000_000), "{session}");
    }
    drop(one);
    wait_for("one session", || devices(&presence(&mut api, "u")) == ["two"]);
    drop(two);
    api.wait_gone("u");
    assert_eq!(api.refused("GET", "/api/v1/users/%00/presence", None).1, "bad_user");
}

#[test]
fn the_list_of_sessions_comes_in_pages() {
    let server = Server::builder().set("node.shards", "3").start();
    let mut api = Api::of(&server);
    let mut streams: Vec<Stream> = (0..12)
        .map(|n| Stream::open(&server, &format!("user=u{}&device=d{n}", n % 4), None))
        .collect();
    streams.push(Stream::open(&server, "address=topic:t", None));
    let mut found: Vec<(String, String)> = Vec::new();
    let (mut after, mut pages) = (String::new(), 0);
    loop {
        let page = api.ok("GET", &format!("/api/v1/sessions?limit=5{after}"), None);
        let sessions = page["sessions"].as_array().expect("sessions");
        assert!(sessions.len() <= 5);
        let text = |s: &Value, name: &str| s[name].as_str().unwrap_or("nobody").to_owned();
        found.extend(sessions.iter().map(|s| (text(s, "id"), text(s, "user"))));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((found.len(), pages), (13, 3));
    let ids: std::collections::BTreeSet<_> = found.iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 13, "each once");
    assert_eq!(found.iter().filter(|(_, user)| user == "nobody").count(), 1);
    let of_one = api.ok("GET", "/api/v1/sessions?user=u1&limit=2", None);
    let next = of_one["next"].as_str().expect("there is a third").to_owned();
    let rest = api.ok("GET", &format!("/api/v1/sessions?user=u1&limit=2&after={next}"), None);
    let mut names = [devices(&of_one), devices(&rest)].concat();
    names.sort_unstable();
    assert_eq!((names, &rest["next"]), (vec!["d1", "d5", "d9"], &Value::Null));
    for bad in ["limit=0", "limit=1001", "limit=x", "after=x", "who=u"] {
        let target = format!("/api/v1/sessions?{bad}");
        assert_eq!(api.refused("GET", &target, None).0, 400, "{bad}");
    }
}

#[test]
fn a_kick_ends_whom_it_names_and_bans_nobody() {
    let server = Server::builder().set("node.shards", "2").start();
    let mut api = Api::of(&server);
    let names = [("u", "a"), ("u", "b"), ("u", "b"), ("u", "c"), ("v", "a")];
    let mut streams: Vec<Stream> =
        names.iter().map(|(user, device)| Stream::feed(&server, user, device)).collect();
    let listed = presence(&mut api, "u");
    let a = listed["sessions"].as_array().expect("sessions").iter().find(|s| s["device"] == "a");
    let target =
        format!("/api/v1/sessions/{}", a.expect("it is here")["id"].as_str().expect("an id"));
    api.publish("user:u", "1");
    streams[0].numbers(1, 1);
    // By session.
    api.ok("DELETE", &target, None);
    assert_eq!(streams.remove(0).closed(), "kicked");
    wait_for("the end of the session", || devices(&presence(&mut api, "u")).len() == 3);
    assert_eq!(api.refused("DELETE", &target, None), (404, "session_not_found".into(), false));
    assert_eq!(api.refused("DELETE", "/api/v1/sessions/x", None).0, 404);
    // By device.
    let kicked = api.ok("DELETE", "/api/v1/users/u/sessions?device=b", None);
    assert_eq!(kicked["kicked"], 2);
    for mut stream in streams.drain(..2) {
        stream.numbers(1, 1);
        assert_eq!(stream.closed(), "kicked");
    }
    wait_for("the end of the sessions", || devices(&presence(&mut api, "u")) == ["c"]);
    assert_eq!(api.ok("DELETE", "/api/v1/users/u/sessions?device=b", None)["kicked"], 0);
    // By user.
    assert_eq!(api.ok("DELETE", "/api/v1/users/u/sessions", None)["kicked"], 1);
    let mut c = streams.remove(0);
    c.numbers(1, 1);
    assert_eq!(c.closed(), "kicked");
    // Nobody is banned, nothing was acked, others are untouched.
    Stream::feed(&server, "u", "a").numbers(1, 1);
    api.publish("user:v", "1");
    streams.remove(0).numbers(1, 1);
}
