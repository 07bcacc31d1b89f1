// Push channel: prints what comes, one line each, and comes back when the stream breaks.
//
//     consumer.mjs [CHANNEL] [--mode unify | every] [--consumer NAME]
//
// unify, the default: consumers share what comes. every: each gets all, and goes on where NAME was.
import { client, follow, metadata, options, run, told } from "./common.mjs";

run(async () => {
  const text = { type: "string" };
  const { values, positionals } = options({ mode: text, consumer: text });
  const [channel = "aaaa"] = positionals;
  const stub = client("push.proto", "MessageSync", values.server);
  const { mode, consumer } = values;
  const open = () => {
    const call = stub.PushMessageStream({ channel }, metadata(values, { mode, consumer }));
    return call.on("metadata", () => told("open"));
  };
  await follow(open, (reply) => console.log(reply.message));
});
