// mqtt.js under servers that are killed: a publisher and a reader of each QoS, with durable sessions. Arguments: host, port,
// and where its modules lie. What it reads and prints is what `paho_durable.py` says; that the server
// is back it finds out by itself.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";
import readline from "node:readline";

const [host, port, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(path.join(modules, "x.js")));
const mqtt = require("mqtt");

const NAME = "js";
const WINDOW = 64;
const PADDING = " " + "x".repeat(100);
// Each version with one of them; the other script has it the other way round.
const VERSION = { 1: 5, 2: 4 };
const FILTERS = { 1: ["crash/1/+"], 2: ["crash/2/paho", "crash/2/js"] };

function say(...words) {
  console.log(words.join(" "));
}

// A client with a durable session that connects again whenever it is cut off.
async function link(role, qos, unanswered) {
  const client = mqtt.connect({
    host,
    port: Number(port),
    protocol: "mqtt",
    clientId: `${NAME}-${role}-${qos}`,
    protocolVersion: VERSION[qos],
    clean: false,
    properties: VERSION[qos] === 5 ? { sessionExpiryInterval: 3600 } : undefined,
    reconnectPeriod: 100,
    connectTimeout: 30_000,
    resubscribe: false,
  });
  let up = false;
  client.on("error", () => {});
  client.on("connect", (connack) => {
    up = true;
    say("up", role, qos, Number(connack.sessionPresent));
  });
  client.on("close", () => {
    if (up) say("down", role, qos, unanswered());
    up = false;
  });
  await new Promise((resolve) => client.once("connect", resolve));
  return client;
}

async function publisher(qos) {
  let sent = 0;
  let acked = 0;
  let stopped = false;
  let idle = () => {};
  const client = await link("publisher", qos, () => sent - acked);
  const done = (error) => {
    // A PUBREL that is said again may be of an id that the server has let go.
    if (error && error.code !== 0x92) throw error;
    acked += 1;
    if (acked % 20 === 0) say("acked", qos, acked);
    if (stopped && acked === sent) idle();
    topUp();
  };
  const topUp = () => {
    while (!stopped && sent - acked < WINDOW) {
      client.publish(`crash/${qos}/${NAME}`, `${NAME} ${sent}${PADDING}`, { qos }, done);
      sent += 1;
    }
  };
  const stop = async () => {
    stopped = true;
    if (acked < sent) await new Promise((resolve) => (idle = resolve));
    say("published", qos, sent);
  };
  return { topUp, stop };
}

async function reader(qos) {
  const seen = new Map();
  const ahead = new Set();
  let [count, repeated, disorder, marks] = [0, 0, 0, 0];
  const note = (writer, number) => {
    let expected = seen.get(writer) ?? 0;
    if (number < expected || ahead.has(`${writer} ${number}`)) {
      repeated += 1;
      return;
    }
    if (number > expected) disorder += 1;
    ahead.add(`${writer} ${number}`);
    while (ahead.delete(`${writer} ${expected}`)) expected += 1;
    seen.set(writer, expected);
  };
  const client = await link("reader", qos, () => 0);
  client.on("message", (topic, payload) => {
    const [writer, number] = payload.toString().split(" ");
    if (writer === "mark") {
      marks += 1;
      if (marks === 2) {
        say("report", qos, repeated, disorder, ...[...seen].map(([name, n]) => `${name}=${n}`));
      }
      return;
    }
    count += 1;
    if (count % 500 === 0) say("read", qos, count);
    note(writer, Number(number));
  });
  await client.subscribeAsync(FILTERS[qos], { qos });
}

for (const qos of [1, 2]) await reader(qos);
const publishers = [await publisher(1), await publisher(2)];
say("ready");
for await (const line of readline.createInterface({ input: process.stdin })) {
  for (const own of publishers) {
    if (line === "go") own.topUp();
    if (line === "stop") await own.stop();
  }
}
