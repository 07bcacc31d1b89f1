"""mikudos: a small gate. Users log in and out by lines on standard input: `in 21`, `out 21`; those on the command line are
in from the start. A message for a user who is in is printed and answered RECEIVED, any other UNRECEIVED: the server
keeps it until its user logs in."""

import queue
import sys
import threading

import grpc

import message_pusher_pb2 as pb
import message_pusher_pb2_grpc
from common import Backoff, connect, metadata, parser, run, told


class Gate:
    """The users who are in, and the answers of the stream that is open now."""

    def __init__(self, users):
        self.lock = threading.Lock()
        self.users = set(users)
        self.answers = queue.SimpleQueue()

    def reopen(self):
        """The answers of a new stream. It asks for what waits for those who are in: the server may have sent some of it
        to the stream before."""
        with self.lock:
            self.answers.put(None)
            self.answers = queue.SimpleQueue()
            for user in sorted(self.users):
                self.request(user)
            return iter(self.answers.get, None)

    def request(self, user):
        self.answers.put(pb.Response(channelId=user, messageType=pb.REQUEST))

    def login(self, user):
        with self.lock:
            self.users.add(user)
            self.request(user)

    def logout(self, user):
        with self.lock:
            self.users.discard(user)

    def take(self, message):
        """Hands a message on and answers it, with all that it said: a server may store it from that."""
        with self.lock:
            here = message.channelId in self.users
            if here:
                print(message.channelId, message.msgId, message.msg, flush=True)
            answer = pb.Response(
                channelId=message.channelId,
                msgId=message.msgId,
                msg=message.msg,
                expire=message.expire,
                messageType=pb.RECEIVED if here else pb.UNRECEIVED,
            )
            self.answers.put(answer)


def listen(gate):
    """Logins and logouts from standard input."""
    for line in sys.stdin:
        match line.split():
            case ["in", user]:
                gate.login(user)
            case ["out", user]:
                gate.logout(user)
            case _:
                told("unknown:", line)
                continue
        told("done", line)


def main():
    options = parser(__doc__)
    options.add_argument("users", nargs="*", help="who is in from the start")
    options.add_argument("--group", help="this gate's group; needed when the server's mode is group")
    args = options.parse_args()
    gate = Gate(args.users)
    threading.Thread(target=listen, args=[gate], daemon=True).start()
    backoff = Backoff()
    with connect(args.server) as channel:
        stub = message_pusher_pb2_grpc.MessagePusherStub(channel)
        while True:
            failed = None
            try:
                messages = stub.GateStream(gate.reopen(), metadata=metadata(args, group=args.group))
                # Comes when the stream is open, or has failed: the loop is told that.
                messages.initial_metadata()
                if messages.is_active():
                    told("open")
                for message in messages:
                    backoff.reset()
                    gate.take(message)
            except grpc.RpcError as error:
                failed = error
            backoff.wait(failed)


run(main)
