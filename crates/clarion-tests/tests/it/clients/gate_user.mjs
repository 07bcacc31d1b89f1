// A user of a gate, by the package `mikudos-socketio-client`: logs in and prints what comes, one JSON line each.
//
//     gate_user.mjs URL USER [quiet]
//
// Acks each message, unless quiet.
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../js/package.json", import.meta.url));
const { MikudosSocketIoClient } = require("mikudos-socketio-client");
const { version } = require("mikudos-socketio-client/package.json");

const [uri, user, quiet] = process.argv.slice(2);
const print = (line) => console.log(JSON.stringify(line));
const client = new MikudosSocketIoClient({ uri, option: { transports: ["websocket"] } });

let ready;
const open = new Promise((resolve) => (ready = resolve));

client.socket.on("pusher", async (message) => {
  // The first may come together with the answer to the login, which is to be printed before it.
  await open;
  print({ ...message });
  if (quiet) return;
  message.messageType = 2;
  client.socket.emit("pusher", message);
});
client.socket.on("connect", async () => {
  const refused = await client.authentication({ strategy: "none" }).catch((answer) => answer);
  const answer = await client.authentication({ strategy: "local", user });
  print({ version, refused: refused.code, user: answer.user.id });
  ready();
});
