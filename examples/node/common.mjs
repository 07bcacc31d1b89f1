// What the examples share: options, the clients, and when and how fast to try again.
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { setTimeout as sleep } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const PROTOS = fileURLToPath(new URL("../../proto", import.meta.url));

/** The options of an example, those that every one has among them. */
export function options(more) {
  const text = { type: "string" };
  const { values, positionals } = parseArgs({
    options: { server: text, key: text, ...more },
    allowPositionals: true,
  });
  values.server ??= process.env.GRPC_SERVER ?? "localhost:50051";
  values.key ??= process.env.GRPC_KEY;
  return { values, positionals };
}

/** A client of a service of a proto file. It notices a dead connection and does not wait minutes to connect again. */
export function client(file, service, server) {
  const definition = loader.loadSync(file, {
    includeDirs: [PROTOS],
    keepCase: true,
    longs: String,
    enums: String,
    defaults: true,
    oneofs: true,
  });
  const path = service.split(".");
  const Client = path.reduce((part, name) => part[name], grpc.loadPackageDefinition(definition));
  return new Client(server, grpc.credentials.createInsecure(), {
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.max_reconnect_backoff_ms": 5_000,
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
  });
}

/** Metadata of a call: the key, and what has a value. */
export function metadata({ key }, more = {}) {
  const metadata = new grpc.Metadata();
  const pairs = { authorization: key && `Bearer ${key}`, ...more };
  for (const [name, value] of Object.entries(pairs)) {
    if (value !== undefined) metadata.set(name, value);
  }
  return metadata;
}

/** A unary call as a promise. */
export function unary(client, method, request, metadata, seconds = 10) {
  const deadline = new Date(Date.now() + seconds * 1000);
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// Refusals of a server that is full or busy; other RESOURCE_EXHAUSTED, such as a message that is too long, stay so.
const BUSY = ["overloaded", "queue_full", "store_full", "too_many_streams", "too_many_devices"];
const TRANSIENT = [
  grpc.status.UNAVAILABLE,
  grpc.status.DEADLINE_EXCEEDED,
  grpc.status.ABORTED,
  grpc.status.INTERNAL,
  // A stream that a proxy or a dying connection cut.
  grpc.status.CANCELLED,
];

/** Whether the same call can succeed later. */
function isTransient(error) {
  if (error.code === grpc.status.RESOURCE_EXHAUSTED) {
    return BUSY.includes(error.metadata?.get("clarion-name")[0]);
  }
  return TRANSIENT.includes(error.code);
}

const FIRST = 0.2;
const MOST = 10;

/** Waits between attempts: at random up to a bound that doubles, so that many clients do not come back at once. */
export class Backoff {
  #bound = FIRST;

  reset() {
    this.#bound = FIRST;
  }

  /** Waits; throws the error when it is final. */
  async wait(error) {
    let pause = Math.random() * this.#bound;
    if (error) {
      if (!isTransient(error)) throw error;
      told("lost", `${grpc.status[error.code]}: ${error.details}`);
      // The server's own wish: so many milliseconds, or, when negative, not again.
      const pushback = error.metadata?.get("grpc-retry-pushback-ms")[0];
      if (pushback !== undefined) {
        if (!/^\d+$/.test(pushback)) throw error;
        pause += Number(pushback) / 1000;
      }
    }
    this.#bound = Math.min(this.#bound * 2, MOST);
    await sleep(pause * 1000);
  }
}

/** Calls until it succeeds. */
export async function again(call) {
  const backoff = new Backoff();
  for (;;) {
    try {
      return await call();
    } catch (error) {
      await backoff.wait(error);
    }
  }
}

/** Reads one stream after the other, without end. `open` makes a stream; `take` gets what comes out of it. */
export async function follow(open, take) {
  const backoff = new Backoff();
  for (;;) {
    let failed;
    try {
      for await (const message of open()) {
        backoff.reset();
        take(message);
      }
    } catch (error) {
      failed = error;
    }
    await backoff.wait(failed);
  }
}

/** Tells the terminal, apart from the messages. */
export function told(what, text = "") {
  console.error(`# ${what} ${text}`.trimEnd());
}

/** Runs an example to its end or a refusal. */
export function run(main) {
  main().then(
    () => process.exit(0),
    (error) => {
      console.error(error.details === undefined ? error : `refused: ${grpc.status[error.code]}: ${error.details}`);
      process.exit(1);
    },
  );
}
