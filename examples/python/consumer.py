"""Push channel: prints what comes, one line each, and comes back when the stream breaks."""

import grpc

import push_pb2
import push_pb2_grpc
from common import Backoff, connect, metadata, parser, run, told


def main():
    options = parser(__doc__)
    options.add_argument("channel", nargs="?", default="aaaa")
    options.add_argument("--mode", choices=["unify", "every"], help="unify, the default: consumers share; every: each gets all")
    options.add_argument("--consumer", metavar="NAME", help="with --mode every: goes on where NAME was")
    args = options.parse_args()
    request = push_pb2.ConnRequest(channel=args.channel)
    pairs = metadata(args, mode=args.mode, consumer=args.consumer)
    backoff = Backoff()
    with connect(args.server) as channel:
        stub = push_pb2_grpc.MessageSyncStub(channel)
        while True:
            failed = None
            try:
                replies = stub.PushMessageStream(request, metadata=pairs)
                # Comes when the stream is open, or has failed: the loop is told that.
                replies.initial_metadata()
                if replies.is_active():
                    told("open")
                for reply in replies:
                    backoff.reset()
                    print(reply.message, flush=True)
            except grpc.RpcError as error:
                failed = error
            backoff.wait(failed)


run(main)
