// mqtt.js in Node against a server. Arguments: URL, protocol version (3, 4, 5), and a file with the certificate to trust.
// Prints one line when everything worked; ends with an error otherwise.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [url, versionText, trusted, modules] = process.argv.slice(2);
const require = createRequire(pathToFileURL(path.join(modules, "x.js")));
const mqtt = require("mqtt");
const { version: installed } = require("mqtt/package.json");

const version = Number(versionText);
const options = {
  protocolVersion: version,
  protocolId: version === 3 ? "MQIsdp" : "MQTT",
  reconnectPeriod: 0,
  connectTimeout: 30_000,
  ca: trusted === "-" ? undefined : readFileSync(trusted),
};

function assert(holds, ...what) {
  if (!holds) throw new Error(`not as expected: ${JSON.stringify(what)}`);
}

// A client whose messages wait for whoever takes them.
async function connect(more) {
  const client = await mqtt.connectAsync(url, { ...options, ...more });
  const waiting = [];
  const takers = [];
  client.on("message", (topic, payload, packet) => {
    const message = { topic, text: payload.toString(), qos: packet.qos, retain: packet.retain, packet };
    const taker = takers.shift();
    if (taker) taker(message);
    else waiting.push(message);
  });
  client.message = () =>
    waiting.length > 0 ? waiting.shift() : new Promise((resolve) => takers.push(resolve));
  return client;
}

const deadline = setTimeout(() => {
  console.error(`nothing more happened at ${url}`);
  process.exit(1);
}, 30_000);

const name = `js-${process.pid}`;
const reader = await connect({ clientId: `${name}-reader` });
const writer = await connect({ clientId: `${name}-writer`, username: "somebody", password: "something" });
const top = `js/${process.pid}`;

for (const granted of [0, 1, 2]) {
  const [answer] = await reader.subscribeAsync(`${top}/${granted}`, { qos: granted });
  assert(answer.qos === granted, answer);
  for (const published of [0, 1, 2]) {
    await writer.publishAsync(`${top}/${granted}`, "ä".repeat(published * 10_000), { qos: published });
    const got = await reader.message();
    assert(got.text.length === published * 10_000 && got.qos === Math.min(granted, published), got.qos);
  }
}
await writer.publishAsync(`${top}/r`, "kept", { qos: 1, retain: true });
await reader.subscribeAsync(`${top}/+`, { qos: 1 });
const kept = await reader.message();
assert(kept.text === "kept" && kept.retain, kept.text);
await writer.publishAsync(`${top}/r`, "", { qos: 1, retain: true });
assert((await reader.message()).text === "");

const dying = await connect({
  clientId: `${name}-dying`,
  will: { topic: `${top}/will`, payload: Buffer.from("gone"), qos: 1, retain: false },
});
dying.on("error", () => {});
dying.stream.destroy();
assert((await reader.message()).text === "gone");

if (version === 5) {
  const properties = { userProperties: { k: ["1", "2"] }, contentType: "text/plain", responseTopic: "r" };
  await writer.publishAsync(`${top}/p`, "x", { qos: 1, properties });
  const got = (await reader.message()).packet.properties;
  assert(JSON.stringify(got.userProperties.k) === '["1","2"]', got);
  assert(got.contentType === "text/plain" && got.responseTopic === "r", got);
}
await reader.endAsync();
await writer.endAsync();
clearTimeout(deadline);
const shown = { 3: "3.1", 4: "3.1.1", 5: "5" }[version];
console.log(`mqtt.js ${installed}: ${shown} at ${url.split(":")[0]}: each QoS, retained, will`);
