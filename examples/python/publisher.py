"""clarion.v1: publishes messages and prints where each is."""

import time
import uuid

import grpc

from clarion.v1 import clarion_pb2 as pb
from clarion.v1 import clarion_pb2_grpc
from common import Backoff, connect, metadata, parser, run


def publish(stub, args, text):
    """Publishes one message, as often as it takes."""
    request = pb.PublishRequest(
        address=args.address,
        payload=text.encode(),
        content_type="text/plain",
        kind=args.kind,
        expire=args.expire,
        idempotency_key=str(uuid.uuid4()),
    )
    backoff = Backoff()
    while True:
        try:
            return stub.Publish(request, metadata=metadata(args), timeout=10)
        except grpc.RpcError as error:
            backoff.wait(error)


def main():
    options = parser(__doc__)
    options.add_argument("address", help="user:42, queue:jobs, topic:news, all")
    options.add_argument("text", nargs="+", help="one message each")
    options.add_argument("--kind", help="the application's name for these events")
    options.add_argument("--expire", type=int, help="seconds; 0: only for those who are there")
    options.add_argument("--interval", type=float, default=0, help="seconds between two")
    args = options.parse_args()
    with connect(args.server) as channel:
        stub = clarion_pb2_grpc.ClarionStub(channel)
        for text in args.text:
            answer = publish(stub, args, text)
            durability = pb.Durability.Name(answer.durability).removeprefix("DURABILITY_").lower()
            print(answer.channel, answer.seq, durability, answer.id, flush=True)
            time.sleep(args.interval)


run(main)
