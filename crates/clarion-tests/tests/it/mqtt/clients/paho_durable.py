"""paho-mqtt under servers that are killed: a publisher and a reader of each QoS, with durable sessions.

Arguments: host, port. Reads `go` (publishers begin), `back` (the server is there again) and `stop` (they
finish what is under way). Prints one line per event:

    ready                                    the readers are subscribed
    up ROLE QOS PRESENT                      connected; whether a session was there
    down ROLE QOS UNANSWERED                 the connection is lost; publishes without an answer
    acked QOS COUNT                          publishes that are acknowledged, now and then
    read QOS COUNT                           messages that came, now and then
    published QOS COUNT                      after `stop`: all of them, each acknowledged
    report QOS REPEATED DISORDER NAME=COUNT  after a mark on both topics: what a reader had of each publisher
"""

import sys
import threading
import traceback

from paho.mqtt import client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

HOST, PORT = sys.argv[1], int(sys.argv[2])
NAME, WINDOW, QOS = "paho", 64, (1, 2)
PADDING = " " + "x" * 100
# Each version with one of them; the other script has it the other way round.
VERSION = {1: mqtt.MQTTv311, 2: mqtt.MQTTv5}
FILTERS = {1: ["crash/1/paho", "crash/1/js"], 2: ["crash/2/+"]}
output = threading.Lock()
# In one line, as all that it says.
threading.excepthook = lambda failed: say("failed", repr(traceback.format_exception(*failed[:3])))


def say(*words):
    with output:
        print(*words, flush=True)


class Link:
    """A client with a durable session that connects again whenever it is cut off."""

    def __init__(self, role, qos):
        self.role, self.qos, self.up = role, qos, False
        self.connected, self.back = threading.Event(), threading.Event()
        v5 = VERSION[qos] == mqtt.MQTTv5
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            f"{NAME}-{role}-{qos}",
            protocol=VERSION[qos],
            clean_session=None if v5 else False,
            reconnect_on_failure=False,
        )
        self.client.max_inflight_messages_set(0)
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        options = {}
        if v5:
            kept = Properties(PacketTypes.CONNECT)
            kept.SessionExpiryInterval = 3600
            options = {"clean_start": False, "properties": kept}
        self.prepare()
        self.client.connect(HOST, PORT, keepalive=30, **options)
        threading.Thread(target=self.run, daemon=True).start()
        assert self.connected.wait(30), "not connected"

    def run(self):
        while True:
            self.client.loop_forever()
            # An attempt that fails has this library forget which QoS 2 messages were received: they would be published
            # anew instead of released. So it makes only one, when it is told that the server is back.
            self.back.wait()
            self.back.clear()
            self.client.reconnect()

    def prepare(self):
        pass

    def unanswered(self):
        return 0

    def on_connect(self, _client, _data, flags, reason, _properties):
        assert not reason.is_failure, reason
        self.up = True
        say("up", self.role, self.qos, int(flags.session_present))
        self.connected.set()

    def on_disconnect(self, _client, _data, _flags, _reason, _properties):
        if self.up:
            self.up = False
            say("down", self.role, self.qos, self.unanswered())


class Publisher(Link):
    def prepare(self):
        self.sent = self.acked = 0
        self.stopped = False
        self.idle = threading.Event()
        self.client.on_publish = self.on_publish

    def unanswered(self):
        return self.sent - self.acked

    def on_connect(self, *about):
        super().on_connect(*about)
        # All publishes are made on the client's own thread, so that their order is that of their numbers.
        if self.sent == 0:
            self.top_up()

    def top_up(self):
        while not self.stopped and self.unanswered() < WINDOW:
            payload = f"{NAME} {self.sent}{PADDING}"
            self.sent += 1
            self.client.publish(f"crash/{self.qos}/{NAME}", payload, self.qos)

    def on_publish(self, _client, _data, _mid, reason, _properties):
        # A PUBREL that is said again may be of an id that the server has let go: it is answered, and says so.
        assert not reason.is_failure or reason.value == 0x92, reason
        self.acked += 1
        if self.acked % 20 == 0:
            say("acked", self.qos, self.acked)
        if self.stopped and self.acked == self.sent:
            self.idle.set()
        self.top_up()

    def stop(self):
        self.stopped = True
        if self.acked == self.sent:
            self.idle.set()
        self.idle.wait()
        say("published", self.qos, self.sent)


class Reader(Link):
    def prepare(self):
        self.seen = {}
        self.ahead = set()
        self.count = self.repeated = self.disorder = self.marks = 0
        self.subscribed = threading.Event()
        self.client.on_message = self.on_message
        self.client.on_subscribe = lambda *_: self.subscribed.set()

    def subscribe(self):
        self.client.subscribe([(name, self.qos) for name in FILTERS[self.qos]])
        assert self.subscribed.wait(30), "not subscribed"

    def on_message(self, _client, _data, message):
        writer, number = message.payload.decode().split(" ")[:2]
        if writer == "mark":
            self.marks += 1
            if self.marks == 2:
                counts = [f"{writer}={count}" for writer, count in self.seen.items()]
                say("report", self.qos, self.repeated, self.disorder, *counts)
            return
        self.count += 1
        if self.count % 500 == 0:
            say("read", self.qos, self.count)
        self.note(writer, int(number))

    def note(self, writer, number):
        expected = self.seen.setdefault(writer, 0)
        if number < expected or (writer, number) in self.ahead:
            self.repeated += 1
            return
        self.disorder += number > expected
        self.ahead.add((writer, number))
        while (writer, expected) in self.ahead:
            self.ahead.remove((writer, expected))
            expected += 1
        self.seen[writer] = expected


def main():
    readers = [Reader("reader", qos) for qos in QOS]
    for reader in readers:
        reader.subscribe()
    publishers = []
    say("ready")
    for word in map(str.strip, sys.stdin):
        if word == "go":
            publishers = [Publisher("publisher", qos) for qos in QOS]
        elif word == "back":
            for link in readers + publishers:
                link.back.set()
        else:
            for publisher in publishers:
                publisher.stop()


main()
