"""paho-mqtt against a server: publishes, subscribes, retains, leaves a will, with one protocol version.

Arguments: host, port, version (3, 4 or 5). Prints one line per thing that worked; ends with an exception otherwise.
"""

import queue
import socket
import sys

import paho.mqtt
from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT, VERSION = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
V5 = VERSION == 5
SECONDS = 30


def properties(packet, **values):
    found = Properties(packet)
    for name, value in values.items():
        setattr(found, name, value)
    return found


class Client:
    """A client whose events wait in queues."""

    def __init__(self, name, will=None, user=None):
        self.messages, self.events = queue.Queue(), queue.Queue()
        clean = None if V5 else True
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, name, protocol=VERSION, clean_session=clean
        )
        self.client.on_connect = lambda c, u, flags, reason, p: self.events.put(("connect", reason, p))
        self.client.on_subscribe = lambda c, u, mid, reasons, p: self.events.put(("subscribe", reasons))
        self.client.on_unsubscribe = lambda c, u, mid, reasons, p: self.events.put(("unsubscribe", reasons))
        self.client.on_disconnect = lambda c, u, f, reason, p: self.events.put(("disconnect", reason))
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        if will:
            self.client.will_set(*will)
        if user:
            self.client.username_pw_set(*user)
        self.client.connect(HOST, PORT, keepalive=30)
        self.client.loop_start()
        reason = self.event("connect")[1]
        assert not reason.is_failure, reason

    def event(self, name):
        event = self.events.get(timeout=SECONDS)
        assert event[0] == name, event
        return event

    def subscribe(self, *args, **kwargs):
        self.client.subscribe(*args, **kwargs)
        return [reason.value for reason in self.event("subscribe")[1]]

    def unsubscribe(self, topic):
        self.client.unsubscribe(topic)
        self.event("unsubscribe")

    def publish(self, *args, **kwargs):
        info = self.client.publish(*args, **kwargs)
        info.wait_for_publish(SECONDS)
        assert info.is_published(), args

    def message(self):
        return self.messages.get(timeout=SECONDS)

    def end(self):
        self.client.disconnect()
        self.event("disconnect")
        self.client.loop_stop()


def each_qos(reader, writer):
    assert reader.subscribe([("paho/0", 0), ("paho/1", 1), ("paho/2", 2)]) == [0, 1, 2]
    for granted in range(3):
        for published in range(3):
            payload = bytes(range(256)) * published
            writer.publish(f"paho/{granted}", payload, published)
            got = reader.message()
            assert (got.topic, got.payload) == (f"paho/{granted}", payload)
            assert (got.qos, got.retain) == (min(granted, published), False)


def retained(reader, writer):
    writer.publish("paho/r/a", "kept", 1, retain=True)
    reader.subscribe("paho/r/#", 1)
    got = reader.message()
    assert (got.payload, got.retain) == (b"kept", True)
    writer.publish("paho/r/a", None, 1, retain=True)
    assert reader.message().payload == b""
    reader.unsubscribe("paho/r/#")
    writer.publish("paho/r/a", "to nobody", 1)
    reader.subscribe("paho/end", 1)
    writer.publish("paho/end", "end", 1)
    assert reader.message().payload == b"end"


def wills(reader):
    reader.subscribe("paho/will", 2)
    dying = Client("paho-dying", will=("paho/will", "gone", 2, False))
    dying.client.socket().shutdown(socket.SHUT_RDWR)
    got = reader.message()
    assert (got.payload, got.qos) == (b"gone", 2)


def only_5(reader, writer):
    filters = [("paho/5/#", SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True))]
    identifier = properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=42)
    reader.subscribe(filters, properties=identifier)
    with_all = properties(
        PacketTypes.PUBLISH,
        PayloadFormatIndicator=1,
        MessageExpiryInterval=100,
        ContentType="text/plain",
        ResponseTopic="paho/answer",
        CorrelationData=b"\x00\x01",
        UserProperty=[("k", "1"), ("k", "2")],
    )
    reader.publish("paho/5/a", "own", 1)
    writer.publish("paho/5/a", "x", 1, retain=True, properties=with_all)
    got = reader.message()
    assert (got.payload, got.retain) == (b"x", True)
    assert got.properties.SubscriptionIdentifier == [42]
    assert got.properties.UserProperty == [("k", "1"), ("k", "2")]
    assert got.properties.ContentType == "text/plain"
    assert got.properties.ResponseTopic == "paho/answer"
    assert got.properties.CorrelationData == b"\x00\x01"
    assert got.properties.MessageExpiryInterval <= 100
    writer.publish("paho/5/a", None, 1, retain=True)


def main():
    reader = Client("paho-reader", user=("somebody", "something"))
    writer = Client("paho-writer")
    each_qos(reader, writer)
    retained(reader, writer)
    wills(reader)
    if V5:
        only_5(reader, writer)
    newer = Client("paho-reader")
    reason = reader.event("disconnect")[1]
    assert not V5 or reason.value == 0x8E, reason
    newer.end()
    reader.client.loop_stop()
    writer.end()
    name = {3: "3.1", 4: "3.1.1", 5: "5"}[VERSION]
    print(f"paho-mqtt {paho.mqtt.__version__}: {name}: each QoS, retained, will, take-over")


main()
