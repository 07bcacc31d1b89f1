"""What grpcio sends and is told at the edges: gzip, the longest messages, what does not exist, broken bytes.

    wire.py FOLDER SERVER

Prints one line for each: what was done, the code, the text.
"""

import sys

sys.path.insert(0, sys.argv[1])

import grpc
import message_pusher_pb2
import message_pusher_pb2_grpc
import push_pb2
import push_pb2_grpc

LIMIT = 4_194_304



def told(what, call):
    try:
        answer = call()
        print(f"{what}: OK", str(answer).replace("\n", " ")[:60].strip(), flush=True)
    except grpc.RpcError as error:
        print(f"{what}: {error.code().name} {error.details()}", flush=True)


def grown(message, field, size):
    """The message with a field so long that the whole has this size."""
    setattr(message, field, "m" * size)
    setattr(message, field, "m" * (size - (message.ByteSize() - size)))
    assert message.ByteSize() == size
    return message


def main(server):
    channel = grpc.insecure_channel(server)
    sync = push_pb2_grpc.MessageSyncStub(channel)
    pusher = message_pusher_pb2_grpc.MessagePusherStub(channel)
    gzip = {"compression": grpc.Compression.Gzip, "timeout": 20}
    # Long enough that it becomes shorter: shorter ones are sent as they are.
    request = push_pb2.SubmitRequest(channel="zipped", message="m" * 10_000)
    told("gzip", lambda: sync.SubmitMessage(request, **gzip))
    replies = sync.PushMessageStream(push_pb2.ConnRequest(channel="zipped"), **gzip)
    assert next(replies).message == request.message
    replies.cancel()
    deflate = {"compression": grpc.Compression.Deflate, "timeout": 20}
    told("deflate", lambda: sync.SubmitMessage(request, **deflate))
    for size in [LIMIT, LIMIT + 1]:
        push = grown(message_pusher_pb2.PushMessage(channelId="21", expire=600), "msg", size)
        told(f"push {size}", lambda: pusher.PushToChannel(push, timeout=20))
        submit = grown(push_pb2.SubmitRequest(channel="c"), "message", size)
        told(f"submit {size}", lambda: sync.SubmitMessage(submit, timeout=20))
        zipped = push_pb2.SubmitRequest(channel="c", message=submit.message)
        told(f"zipped submit {size}", lambda: sync.SubmitMessage(zipped, **gzip))
    for path in ["/no.Such/Push", "/MessageSync/Push", "/message_pusher.MessagePusher/Push"]:
        told(path, lambda: channel.unary_unary(path)(b"", timeout=20))
    cut = channel.unary_unary("/MessageSync/SubmitMessage")
    told("cut bytes", lambda: cut(b"\x0a\x04aa", timeout=20))
    told("not UTF-8", lambda: cut(b"\x0a\x01c\x12\x02\xff\xfe", timeout=20))
    told("no channel", lambda: sync.SubmitMessage(push_pb2.SubmitRequest(), timeout=20))


main(*sys.argv[2:])
