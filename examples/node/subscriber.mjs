// clarion.v1: prints what comes, acks it, and goes on where it was when the stream breaks.
//
//     subscriber.mjs --user 42 --device phone         the user's feed
//     subscriber.mjs queue:jobs --mode unify          work, shared by all that read it so
//     subscriber.mjs topic:news                       what is published from now on
import { client, follow, metadata, options, run, told } from "./common.mjs";

// Deliveries that the server may send before it is granted more. Half of it printed = as much is granted again.
const CREDIT = 20;

run(async () => {
  const text = { type: "string" };
  const { values, positionals: addresses } = options({ user: text, device: text, mode: text });
  const stub = client("clarion/v1/clarion.proto", "clarion.v1.Clarion", values.server);
  const [mode, group] = (values.mode ?? "every").split(":");
  const { user, device } = values;
  let stream;
  let printed;

  const open = () => {
    stream = stub.Subscribe(metadata(values));
    printed = 0;
    const hello = { user, device, addresses, mode: `MODE_${mode.toUpperCase()}`, group, credit: CREDIT };
    stream.write({ hello });
    return stream;
  };

  const deliver = ({ channel, epoch, seq, payload }) => {
    console.log(channel, seq, payload.toString());
    printed += 1;
    // Seq 0 is live: never stored, nothing to ack.
    if (seq !== "0") {
      stream.write({ ack: { ranges: [{ channel, epoch, to: seq }], confirm: printed } });
    }
    if (printed % (CREDIT / 2) === 0) stream.write({ credit: { messages: CREDIT / 2 } });
  };

  await follow(open, (response) => {
    const { delivery, ack_stored: stored, gap, close } = response;
    switch (response.response) {
      case "welcome":
        return told("open");
      case "delivery":
        return deliver(delivery.message);
      case "ack_stored":
        return told("acked", `${stored.confirm} messages`);
      case "gap":
        return told("gap", `${gap.channel} ${gap.from}..${gap.to}: ${gap.reason}`);
      case "close":
        return told("close", close.reason);
    }
  });
});
