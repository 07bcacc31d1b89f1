// Prints one JSON line for each thing that the `eventsource` package tells: open, error, message, gap, close.
import { createRequire } from "node:module";

const { EventSource } = createRequire(new URL("../../../js/package.json", import.meta.url))("eventsource");

const source = new EventSource(process.argv[2]);
const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

source.onopen = () => print({ type: "open" });
source.onerror = (event) => print({ type: "error", message: event.message ?? null });
for (const type of ["message", "gap", "close"]) {
  source.addEventListener(type, (event) =>
    print({ type, id: event.lastEventId, data: JSON.parse(event.data) }),
  );
}
