"""What the examples share: options, the connection, and when and how fast to try again."""

import argparse
import os
import random
import sys
import time

import grpc

# Refusals of a server that is full or busy; other RESOURCE_EXHAUSTED, such as a message that is too long, stay so.
BUSY = {"overloaded", "queue_full", "store_full", "too_many_streams", "too_many_devices"}
TRANSIENT = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
    # A stream that a proxy or a dying connection cut.
    grpc.StatusCode.CANCELLED,
}


def parser(doc):
    """The options that every example has."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("GRPC_SERVER", "localhost:50051")
    options.add_argument("--server", default=default, help="host:port; default: $GRPC_SERVER, else localhost:50051")
    options.add_argument("--key", default=os.environ.get("GRPC_KEY"), help="bearer key of a listener with `auth: required`")
    return options


def connect(server):
    """A channel that notices a dead connection and does not wait minutes before it connects again."""
    options = [
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.min_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    return grpc.insecure_channel(server, options=options)


def metadata(args, **more):
    """Metadata of a call: the key, and what has a value."""
    pairs = {"authorization": args.key and f"Bearer {args.key}", **more}
    return [(name.replace("_", "-"), value) for name, value in pairs.items() if value]


def trailers(error):
    return dict(error.trailing_metadata() or ())


def is_transient(error):
    """Whether the same call can succeed later."""
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return trailers(error).get("clarion-name") in BUSY
    return error.code() in TRANSIENT


class Backoff:
    """Waits between attempts: at random up to a bound that doubles, so that many clients do not come back at once."""

    FIRST, MOST = 0.2, 10.0

    def __init__(self):
        self.bound = self.FIRST

    def reset(self):
        self.bound = self.FIRST

    def wait(self, error=None):
        """Waits; raises the error when it is final."""
        pause = random.uniform(0, self.bound)
        if error is not None:
            if not is_transient(error):
                raise error
            told("lost", f"{error.code().name}: {error.details()}")
            # The server's own wish: so many milliseconds, or, when negative, not again.
            pushback = trailers(error).get("grpc-retry-pushback-ms")
            if pushback is not None:
                if not pushback.isdigit():
                    raise error
                pause += int(pushback) / 1000
        self.bound = min(self.bound * 2, self.MOST)
        time.sleep(pause)


def told(what, text=""):
    """Tells the terminal, apart from the messages."""
    print(f"# {what} {text}".rstrip(), file=sys.stderr, flush=True)


def run(main):
    """Runs an example to its end, a refusal or Ctrl-C."""
    try:
        main()
    except KeyboardInterrupt:
        pass
    except grpc.RpcError as error:
        sys.exit(f"refused: {error.code().name}: {error.details()}")
