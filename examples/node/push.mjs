// mikudos: pushes a message to a channel (a user); with --status, tells what the gates answered.
//
//     push.mjs CHANNEL [TEXT] [--expire SECONDS] [--status] [--count N] [--interval SECONDS]
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { again, client, metadata, options, run, unary } from "./common.mjs";

run(async () => {
  const text = { type: "string" };
  const { values, positionals } = options({ expire: text, status: { type: "boolean" }, count: text, interval: text });
  const [channelId, given] = positionals;
  const stub = client("message_pusher.proto", "message_pusher.MessagePusher", values.server);
  const method = values.status ? "PushToChannelWithStatus" : "PushToChannel";
  const count = Number(values.count ?? 1);
  for (let number = 1; number <= count; number += 1) {
    const request = { channelId, msg: given ?? `{"n":${number}}`, expire: Number(values.expire ?? 600) };
    // It keeps a repeated push from being stored twice.
    const pairs = metadata(values, { "idempotency-key": randomUUID() });
    const answer = await again(() => unary(stub, method, request, pairs, 15));
    console.log(values.status ? answer.messageType : "pushed", answer.channelId, answer.msgId);
    if (number < count) await sleep(Number(values.interval ?? 0.1) * 1000);
  }
});
