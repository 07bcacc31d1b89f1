"""Makes Python stubs of every proto file of a folder with grpcio-tools, imports them, and prints their methods."""

import importlib
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc


def compile_all(folder, out):
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.proto"))
    options = [f"-I{folder}", f"--python_out={out}", f"--grpc_python_out={out}"]
    status = protoc.main(["protoc", *options, *names])
    assert status == 0, status
    return names


def methods(name, channel):
    module = name.removesuffix(".proto").replace("/", ".")
    messages = importlib.import_module(module + "_pb2")
    stubs = importlib.import_module(module + "_pb2_grpc")
    for message in messages.DESCRIPTOR.message_types_by_name:
        kind = getattr(messages, message)
        assert kind.FromString(kind().SerializeToString()) == kind(), message
    for service in messages.DESCRIPTOR.services_by_name.values():
        stub = getattr(stubs, service.name + "Stub")(channel)
        for method in service.methods:
            assert callable(getattr(stub, method.name)), method.full_name
            streams = f"{method.client_streaming} {method.server_streaming}".lower()
            yield f"/{service.full_name}/{method.name} {streams}"


def main():
    folder = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as out:
        names = compile_all(folder, out)
        sys.path.insert(0, out)
        # Nothing is sent over it.
        with grpc.insecure_channel("127.0.0.1:1") as channel:
            for name in names:
                for line in methods(name, channel):
                    print(line)
    print(len(names), "files")


main()
