"""The push channel as its first users wrote against it: code as protoc makes it, one stub, one loop, no options.

    push_demo.py FOLDER SERVER consume
    push_demo.py FOLDER SERVER produce COUNT
"""

import sys
import threading
import time

sys.path.insert(0, sys.argv[1])

import grpc
import push_pb2
import push_pb2_grpc

PACE = 0.1


def consume(stub):
    try:
        for r in stub.PushMessageStream(push_pb2.ConnRequest(channel="aaaa")):
            print(r.message, flush=True)
    except grpc.RpcError as error:
        print("ended:", error.code().name, error.details(), flush=True)


def produce(stub, count):
    pace = threading.Event()
    for _ in range(count):
        message = str(time.time())
        reply = stub.SubmitMessage(push_pb2.SubmitRequest(channel="aaaa", message=message))
        print(reply.reply, message, flush=True)
        # A producer's own speed, which nothing here waits for.
        pace.wait(PACE)


def main(server, role, count="0"):
    stub = push_pb2_grpc.MessageSyncStub(grpc.insecure_channel(server))
    if role == "consume":
        consume(stub)
    else:
        produce(stub, int(count))


main(*sys.argv[2:])
