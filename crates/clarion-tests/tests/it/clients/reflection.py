"""Knows nothing but an address: asks reflection for the services, calls two of them, and asks health for all.

Prints the services, one line each, then `called PATH: ANSWER`.
"""

import sys

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

CALLS = [
    ("message_pusher.MessagePusher", "PushToChannel", {"channelId": "21", "msg": "m", "expire": 600}),
    ("message_pusher.Message_pusher", "PushToChannel", {"channelId": "21", "msg": "m", "expire": 600}),
    ("message_pusher.Message_pusher", "PushToChannelWithStatus", {"channelId": "21", "msg": "m"}),
    ("message_deliver.MessageDeliver", "MessageReceived", {"channelId": "21", "msgId": 1}),
    ("MessageSync", "SubmitMessage", {"channel": "c", "message": "m"}),
    ("clarion.v1.Clarion", "Publish", {"address": "user:22", "payload": b"m", "expire": 0}),
]


def call(channel, pool, service, method, fields):
    found = pool.FindServiceByName(service).methods_by_name[method]
    request = message_factory.GetMessageClass(found.input_type)(**fields)
    answer = message_factory.GetMessageClass(found.output_type)
    path = f"/{service}/{method}"
    unary = channel.unary_unary(path, lambda m: m.SerializeToString(), answer.FromString)
    text = MessageToJson(unary(request, timeout=20), indent=None, preserving_proto_field_name=True)
    print(f"called {path}: {text}")


def main(server):
    channel = grpc.insecure_channel(server)
    database = ProtoReflectionDescriptorDatabase(channel)
    services = sorted(database.get_services())
    health = health_pb2_grpc.HealthStub(channel)
    for service in ["", *services]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service
        watched = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=20)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING, service
        watched.cancel()
    for service in services:
        print(service)
    try:
        health.Check(health_pb2.HealthCheckRequest(service="no.Such"), timeout=20)
        raise AssertionError("the health of what does not exist")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
    pool = DescriptorPool(database)
    for service in services:
        # All that its methods take and give is described, too.
        for method in pool.FindServiceByName(service).methods:
            assert method.input_type.full_name and method.output_type.full_name
    for service, method, fields in CALLS:
        if service in services:
            call(channel, pool, service, method, fields)


main(*sys.argv[1:])
