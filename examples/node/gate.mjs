// mikudos: a small gate. Users log in and out by lines on standard input: `in 21`, `out 21`; those on the command line are
// in from the start. A message for a user who is in is printed and answered RECEIVED, any other UNRECEIVED: the server
// keeps it until its user logs in.
//
//     gate.mjs [USER …] [--group GROUP]
import { createInterface } from "node:readline";
import { client, follow, metadata, options, run, told } from "./common.mjs";

run(async () => {
  const { values, positionals } = options({ group: { type: "string" } });
  const stub = client("message_pusher.proto", "message_pusher.MessagePusher", values.server);
  const users = new Set(positionals);
  let stream;

  const request = (user) => stream.write({ channelId: user, messageType: "REQUEST" });

  // A new stream asks for what waits for those who are in: the server may have sent some of it to the stream before.
  const open = () => {
    stream = stub.GateStream(metadata(values, { group: values.group }));
    stream.on("metadata", () => told("open"));
    users.forEach(request);
    return stream;
  };

  // The answer has all that the message said: a server may store it from that.
  const take = (message) => {
    const { channelId, msgId, msg } = message;
    const here = users.has(channelId);
    if (here) console.log(channelId, msgId, msg);
    stream.write({ ...message, messageType: here ? "RECEIVED" : "UNRECEIVED" });
  };

  createInterface({ input: process.stdin }).on("line", (line) => {
    const [verb, user] = line.split(" ");
    if (verb === "in") {
      users.add(user);
      request(user);
    } else if (verb === "out") {
      users.delete(user);
    }
    told("done", line);
  });
  await follow(open, take);
});
