// Push channel: submits messages. Each has an idempotency key, so trying again never stores it twice.
//
//     producer.mjs [CHANNEL] [--count N] [--interval SECONDS] [--text START]
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { again, client, metadata, options, run, unary } from "./common.mjs";

run(async () => {
  const text = { type: "string" };
  const { values, positionals } = options({ count: text, interval: text, text });
  const [channel = "aaaa"] = positionals;
  const stub = client("push.proto", "MessageSync", values.server);
  const count = Number(values.count ?? Infinity);
  for (let number = 1; number <= count; number += 1) {
    const message = values.text === undefined ? String(Date.now() / 1000) : values.text + number;
    const pairs = metadata(values, { "idempotency-key": randomUUID() });
    const answer = await again(() => unary(stub, "SubmitMessage", { channel, message }, pairs));
    console.log(answer.reply, message);
    await sleep(Number(values.interval ?? 0.1) * 1000);
  }
});
