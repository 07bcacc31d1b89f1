// clarion.v1: publishes messages and prints where each is.
//
//     publisher.mjs ADDRESS TEXT … [--kind KIND] [--expire SECONDS] [--interval SECONDS]
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { again, client, metadata, options, run, unary } from "./common.mjs";

run(async () => {
  const text = { type: "string" };
  const { values, positionals } = options({ kind: text, expire: text, interval: text });
  const [address, ...texts] = positionals;
  const stub = client("clarion/v1/clarion.proto", "clarion.v1.Clarion", values.server);
  for (const text of texts) {
    const request = {
      address,
      payload: Buffer.from(text),
      content_type: "text/plain",
      kind: values.kind,
      expire: values.expire,
      idempotency_key: randomUUID(),
    };
    const answer = await again(() => unary(stub, "Publish", request, metadata(values)));
    const durability = answer.durability.replace("DURABILITY_", "").toLowerCase();
    console.log(answer.channel, answer.seq, durability, answer.id);
    await sleep(Number(values.interval ?? 0) * 1000);
  }
});
