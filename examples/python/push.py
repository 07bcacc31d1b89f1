"""mikudos: pushes a message to a channel (a user); with --status, tells what the gates answered."""

import itertools
import time
import uuid

import grpc

import message_pusher_pb2 as pb
import message_pusher_pb2_grpc
from common import Backoff, connect, metadata, parser, run


def push(call, args, text):
    """Pushes one message, as often as it takes. The key keeps a repeated push from being stored twice."""
    request = pb.PushMessage(channelId=args.channel, msg=text, expire=args.expire)
    pairs = metadata(args, idempotency_key=str(uuid.uuid4()))
    backoff = Backoff()
    while True:
        try:
            return call(request, metadata=pairs, timeout=15)
        except grpc.RpcError as error:
            backoff.wait(error)


def main():
    options = parser(__doc__)
    options.add_argument("channel", help="the user's id")
    options.add_argument("text", nargs="?", help="default: a small JSON with a number")
    options.add_argument("--expire", type=int, default=600, help="seconds; 0: only for the gates that are there")
    options.add_argument("--status", action="store_true", help="wait for the gates' answer")
    options.add_argument("--count", type=int, default=1)
    options.add_argument("--interval", type=float, default=0.1, help="seconds between two")
    args = options.parse_args()
    with connect(args.server) as channel:
        stub = message_pusher_pb2_grpc.MessagePusherStub(channel)
        call = stub.PushToChannelWithStatus if args.status else stub.PushToChannel
        for number in itertools.islice(itertools.count(1), args.count):
            answer = push(call, args, args.text or f'{{"n":{number}}}')
            kind = pb.MessageType.Name(answer.messageType) if args.status else "pushed"
            print(kind, answer.channelId, answer.msgId, flush=True)
            if number < args.count:
                time.sleep(args.interval)


run(main)
