//! mosquitto_pub and mosquitto_sub, of each version.

use crate::{
    clients::run,
    mqtt::{broker::Broker, versions},
};
use clarion_tests::{
    Command,
    mqtt::{Message, Version, id, pairs, prop, text},
};
use std::{net::SocketAddr, path::Path, process};

versions! {
    each_qos_and_retained: v31 v311 v5;
    wills: v31 v311 v5;
    lines_files_and_urls: v31 v311 v5;
    what_the_server_tells: v31 v311 v5;
}

fn name(version: Version) -> &'static str {
    match version {
        Version::V31 => "mqttv31",
        Version::V311 => "mqttv311",
        Version::V5 => "mqttv5",
    }
}

/// Where, and which version.
fn common(at: SocketAddr, version: Version) -> Vec<String> {
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    ["-h", &host, "-p", &port, "-V", name(version)].map(str::to_owned).to_vec()
}

fn publish(at: SocketAddr, version: Version, args: &[&str]) {
    let mut all = common(at, version);
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    run(Path::new("mosquitto_pub"), &all);
}

/// A subscriber that is subscribed.
fn subscribe(at: SocketAddr, version: Version, args: &[&str]) -> Command {
    let mut all = common(at, version);
    all.extend(["-d", "-F", "MSG %t %q %r %p"].map(str::to_owned));
    all.extend(args.iter().map(|arg| (*arg).to_owned()));
    // Line by line, as on a terminal.
    let command =
        Command::start("stdbuf", ["-oL".into(), "mosquitto_sub".into()].into_iter().chain(all));
    while !command.line().starts_with("Subscribed") {}
    command
}

/// The next message, as the format tells it.
fn next(sub: &Command) -> String {
    loop {
        if let Some(message) = sub.line().strip_prefix("MSG ") {
            return message.to_owned();
        }
    }
}

/// What package this is.
fn package() -> String {
    let out = process::Command::new("mosquitto_sub").arg("--help").output();
    let out =
        out.expect("mosquitto_sub is there: run ./test.sh, or apt-get install mosquitto-clients");
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    let version = out.split("version ").nth(1).and_then(|rest| rest.split(' ').next());
    format!("mosquitto_pub, mosquitto_sub {}", version.expect("it tells its version"))
}

fn each_qos_and_retained(version: Version) {
    let broker = Broker::start();
    let at = broker.at();
    let sub = subscribe(at, version, &["-i", "sub", "-q", "2", "-t", "m/#", "-u", "a", "-P", "b"]);
    for qos in ["0", "1", "2"] {
        publish(at, version, &["-t", "m/q", "-q", qos, "-m", "hello"]);
        assert_eq!(next(&sub), format!("m/q {qos} 0 hello"));
    }
    publish(at, version, &["-t", "m/r", "-q", "1", "-r", "-m", "kept", "-u", "a", "-P", "b"]);
    assert_eq!(next(&sub), "m/r 1 0 kept");
    let late = subscribe(at, version, &["-q", "1", "-t", "m/r"]);
    assert_eq!(next(&late), "m/r 1 1 kept");
    publish(at, version, &["-t", "m/r", "-q", "1", "-r", "-n"]);
    assert_eq!(next(&late), "m/r 1 0 ");
    assert_eq!(next(&sub), "m/r 1 0 ");
    let cleared = subscribe(at, version, &["-t", "m/r", "-t", "m/end", "-C", "1"]);
    publish(at, version, &["-t", "m/end", "-m", "end"]);
    assert_eq!(next(&cleared), "m/end 0 0 end");
    println!("{}: -V {}: each QoS, retained", package(), name(version));
}

fn what_the_server_tells(version: Version) {
    let broker = Broker::with(&[("mqtt.sys_interval", "50ms")]);
    let at = broker.at();
    let sub = subscribe(at, version, &["-t", "$SYS/broker/clients/#", "-q", "1", "-i", "sub"]);
    while next(&sub) != "$SYS/broker/clients/maximum 0 0 1" {}
    let other = subscribe(at, version, &["-t", "$SYS/broker/version"]);
    let expected = concat!("clarion version ", env!("CARGO_PKG_VERSION"));
    assert_eq!(next(&other), format!("$SYS/broker/version 0 1 {expected}"));
    while next(&sub) != "$SYS/broker/clients/maximum 0 0 2" {}
    // As Mosquitto's users count what is there.
    publish(at, version, &["-t", "m/kept", "-q", "1", "-r", "-m", "kept"]);
    let count = ["-t", "$SYS/broker/retained messages/count"];
    let counted = subscribe(at, version, &count);
    while next(&counted).rsplit(' ').next() != Some("1") {}
    // An administrator deletes it: later ones do not get it, the live one is told nothing.
    let live = subscribe(at, version, &["-t", "m/#"]);
    assert_eq!(next(&live), "m/kept 0 1 kept");
    let url = format!("http://{}", broker.http());
    let output = Command::clarion(["retained", "delete", "m/kept", "--url", &url]);
    assert!(output.status.success());
    while next(&counted).rsplit(' ').next() != Some("0") {}
    let late = subscribe(at, version, &["-t", "m/#"]);
    publish(at, version, &["-t", "m/end", "-m", "end"]);
    assert_eq!(next(&late), "m/end 0 0 end");
    assert_eq!(next(&live), "m/end 0 0 end");
    println!("{}: -V {}: $SYS, a deleted retained message", package(), name(version));
}

fn wills(version: Version) {
    let broker = Broker::start();
    let at = broker.at();
    let sub = subscribe(at, version, &["-q", "2", "-t", "m/will/+"]);
    for (n, qos) in ["0", "1", "2"].into_iter().enumerate() {
        let topic = format!("m/will/{n}");
        let will = ["--will-topic", &topic, "--will-payload", "gone", "--will-qos", qos];
        drop(subscribe(at, version, &[&will[..], &["-t", "m/x"]].concat()));
        assert_eq!(next(&sub), format!("m/will/{n} {qos} 0 gone"));
    }
    println!("{}: -V {}: wills", package(), name(version));
}

fn lines_files_and_urls(version: Version) {
    let broker = Broker::start();
    let at = broker.at();
    let sub = subscribe(at, version, &["-q", "2", "-t", "m/#"]);
    let mut lines = common(at, version);
    lines.extend(["-t", "m/l", "-q", "2", "-l"].map(str::to_owned));
    let mut lines = Command::start_listening("mosquitto_pub", lines);
    for n in 0..100 {
        lines.say(&format!("line {n}"));
    }
    for n in 0..100 {
        assert_eq!(next(&sub), format!("m/l 2 0 line {n}"));
    }
    drop(lines);
    let script = crate::clients::crate_dir().join("tests/it/mqtt/clients/paho_client.py");
    let file = std::fs::read_to_string(&script).expect("readable");
    publish(at, version, &["-t", "m/f", "-q", "1", "-f", script.to_str().expect("a path")]);
    let first = file.lines().next().expect("lines");
    assert_eq!(next(&sub), format!("m/f 1 0 {first}"));
    // A URL says it all: host, port, topic, name and password.
    let url = format!("mqtt://somebody:something@{at}/m/u");
    run(Path::new("mosquitto_pub"), &["-L", &url, "-V", name(version), "-q", "1", "-m", "by URL"]);
    assert_eq!(next(&sub), "m/u 1 0 by URL");
    println!("{}: -V {}: lines, files, URLs", package(), name(version));
}

#[test]
fn properties_of_5() {
    let broker = Broker::start();
    let at = broker.at();
    let mut reader = broker.client(Version::V5, "reader");
    reader.subscribe(&[("m/p", 1)]);
    let properties = [
        ["user-property", "k", "1"].as_slice(),
        &["user-property", "k", "2"],
        &["content-type", "text/plain"],
        &["response-topic", "m/answer"],
        &["message-expiry-interval", "100"],
    ];
    let mut args = vec!["-t", "m/p", "-q", "1", "-m", "x"];
    for property in properties {
        args.extend(["-D", "publish"].into_iter().chain(property.iter().copied()));
    }
    publish(at, Version::V5, &args);
    let got = reader.message();
    assert_eq!(pairs(&got.properties), [("k", "1"), ("k", "2")]);
    assert_eq!(text(&got.properties, id::RESPONSE_TOPIC), Some("m/answer"));
    // And the other way; two members of a group share.
    let format = ["-F", "MSG %t %q %r %p %C %R %D %P"];
    let members: Vec<Command> = (0..2)
        .map(|_| {
            subscribe(at, Version::V5, &[&format[..], &["-q", "1", "-t", "$share/g/m/s"]].concat())
        })
        .collect();
    for n in 0..4 {
        let message = Message::new("m/s", n.to_string())
            .qos(1)
            .with(prop::content_type("text/plain"))
            .with(prop::response_topic("m/answer"))
            .with(prop::correlation(*b"7"))
            .with(prop::user("k", "v"));
        reader.publish_as(message);
    }
    let mut got: Vec<String> =
        members.iter().flat_map(|member| [next(member), next(member)]).collect();
    got.sort();
    let expected: Vec<String> =
        (0..4).map(|n| format!("m/s 1 0 {n} text/plain m/answer 7 k:v")).collect();
    assert_eq!(got, expected);
    println!("{}: -V mqttv5: properties both ways, $share", package());
}

#[test]
fn requests_and_responses() {
    let broker = Broker::start();
    let at = broker.at();
    let mut answers = broker.client(Version::V5, "answers");
    answers.subscribe(&[("m/ask", 1)]);
    for version in [Version::V311, Version::V5] {
        let mut args = common(at, version);
        args.extend(["-t", "m/ask", "-e", "m/answer", "-m", "?", "-q", "1"].map(str::to_owned));
        let mut asks = Command::start("mosquitto_rr", args);
        let got = answers.message();
        let to = text(&got.properties, id::RESPONSE_TOPIC).unwrap_or("m/answer").to_owned();
        answers.publish(&to, "!", 1);
        assert_eq!(asks.line(), "!");
        assert!(asks.wait().success());
    }
    println!("{}: mosquitto_rr", package());
}
