"""Ten thousand MQTT connections at once, from several addresses of this machine.

Arguments: host, port, count, first three numbers of the source addresses. Connects them all, subscribes with each, prints
"open", publishes to all and prints "delivered" when everybody has it; then waits for a line and closes each by a reset.
"""

import resource
import selectors
import socket
import struct
import sys

HOST, PORT, COUNT, SOURCES = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
SUBSCRIBE = bytes.fromhex("820b00010006") + b"crowd/" + b"\x00"
CONNACK = bytes.fromhex("20020000")
SUBACK = bytes.fromhex("9003000100")
PUBLISH = bytes([0x30, 8 + 5, 0, 6]) + b"crowd/" + b"hello"


def connect_packet(number):
    client_id = f"crowd-{number}".encode()
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack(">H", len(client_id)) + client_id
    return bytes([0x10, len(body)]) + body


def read_exactly(open_sockets, expected):
    """Everybody gets these bytes, and nothing else."""
    selector = selectors.DefaultSelector()
    missing = {one: len(expected) for one in open_sockets}
    for one in open_sockets:
        selector.register(one, selectors.EVENT_READ)
    while missing:
        events = selector.select(60)
        assert events, f"{len(missing)} wait for {expected!r}"
        for key, _ in events:
            one = key.fileobj
            got = one.recv(missing[one])
            done = len(expected) - missing[one]
            assert got and got == expected[done : done + len(got)], (got, expected)
            missing[one] -= len(got)
            if missing[one] == 0:
                del missing[one]
                selector.unregister(one)
    selector.close()


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, COUNT + 1000), hard))
    clients = []
    # All of them before anything is sent: the accept queue gets them as fast as they come.
    for number in range(COUNT):
        one = socket.socket()
        one.bind((f"{SOURCES}.{1 + number % 10}", 0))
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.connect((HOST, PORT))
        clients.append(one)
    for number, one in enumerate(clients):
        one.sendall(connect_packet(number))
    read_exactly(clients, CONNACK)
    for one in clients:
        one.sendall(SUBSCRIBE)
    read_exactly(clients, SUBACK)
    print("open", flush=True)
    clients[0].sendall(PUBLISH)
    read_exactly(clients, PUBLISH)
    print("delivered", flush=True)
    sys.stdin.readline()
    for one in clients:
        one.close()
    print("closed", flush=True)


main()
