"""clarion.v1: prints what comes, acks it, and goes on where it was when the stream breaks.

    subscriber.py --user 42 --device phone          the user's feed
    subscriber.py queue:jobs --mode unify           work, shared by all that read it so
    subscriber.py topic:news                        what is published from now on
"""

import queue

import grpc

from clarion.v1 import clarion_pb2 as pb
from clarion.v1 import clarion_pb2_grpc
from common import Backoff, connect, metadata, parser, run, told

# Deliveries that the server may send before it is granted more. Half of it printed = as much is granted again.
CREDIT = 20


class Stream:
    """One stream: what is said to the server, and what it delivered."""

    def __init__(self, hello):
        self.say = queue.SimpleQueue()
        self.say.put(pb.SubscribeRequest(hello=hello))
        self.printed = 0

    def requests(self):
        return iter(self.say.get, None)

    def close(self):
        self.say.put(None)

    def take(self, response):
        match response.WhichOneof("response"):
            case "welcome":
                told("open")
            case "delivery":
                self.deliver(response.delivery.message)
            case "ack_stored":
                told("acked", f"{response.ack_stored.confirm} messages")
            case "gap":
                gap = response.gap
                told("gap", f"{gap.channel} {getattr(gap, 'from')}..{gap.to}: {gap.reason}")
            case "close":
                told("close", response.close.reason)

    def deliver(self, message):
        print(message.channel, message.seq, message.payload.decode(errors="replace"), flush=True)
        self.printed += 1
        # Seq 0 is live: never stored, nothing to ack.
        if message.seq:
            acked = pb.AckRange(channel=message.channel, epoch=message.epoch, to=message.seq)
            self.say.put(pb.SubscribeRequest(ack=pb.Ack(ranges=[acked], confirm=self.printed)))
        if self.printed % (CREDIT // 2) == 0:
            self.say.put(pb.SubscribeRequest(credit=pb.Credit(messages=CREDIT // 2)))


def hello(args):
    mode, _, group = args.mode.partition(":")
    return pb.Hello(
        user=args.user,
        device=args.device,
        addresses=args.addresses,
        mode=pb.Mode.Value(f"MODE_{mode.upper()}"),
        group=group,
        credit=CREDIT,
    )


def main():
    options = parser(__doc__)
    options.add_argument("addresses", nargs="*", help="what to read; none: the user's feed")
    options.add_argument("--user")
    options.add_argument("--device", help="a durable reader of this user")
    options.add_argument("--mode", default="every", help="every, unify or group:NAME")
    args = options.parse_args()
    backoff = Backoff()
    with connect(args.server) as channel:
        stub = clarion_pb2_grpc.ClarionStub(channel)
        while True:
            failed, stream = None, Stream(hello(args))
            try:
                for response in stub.Subscribe(stream.requests(), metadata=metadata(args)):
                    backoff.reset()
                    stream.take(response)
            except grpc.RpcError as error:
                failed = error
            stream.close()
            backoff.wait(failed)


run(main)
