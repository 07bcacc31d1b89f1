"""Push channel: submits messages. Each has an idempotency key, so trying again never stores it twice."""

import itertools
import time
import uuid

import grpc

import push_pb2
import push_pb2_grpc
from common import Backoff, connect, metadata, parser, run


def submit(stub, args, message):
    """Submits one message, as often as it takes."""
    request = push_pb2.SubmitRequest(channel=args.channel, message=message)
    pairs = metadata(args, idempotency_key=str(uuid.uuid4()))
    backoff = Backoff()
    while True:
        try:
            return stub.SubmitMessage(request, metadata=pairs, timeout=10)
        except grpc.RpcError as error:
            backoff.wait(error)


def main():
    options = parser(__doc__)
    options.add_argument("channel", nargs="?", default="aaaa")
    options.add_argument("--count", type=int, help="how many; default: without end")
    options.add_argument("--interval", type=float, default=0.1, help="seconds between two")
    options.add_argument("--text", help="start of each message, a number follows; default: the time")
    args = options.parse_args()
    with connect(args.server) as channel:
        stub = push_pb2_grpc.MessageSyncStub(channel)
        for number in itertools.count(1) if args.count is None else range(1, args.count + 1):
            message = str(time.time()) if args.text is None else f"{args.text}{number}"
            reply = submit(stub, args, message)
            print(reply.reply, message, flush=True)
            time.sleep(args.interval)


run(main)
