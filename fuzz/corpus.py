#!/usr/bin/env python3
"""The corpus of each fuzz target as one text: a line of hexadecimal digits for each input.

    corpus.py unpack   writes corpus/<target>/ from inputs/<target>.hex, for cargo fuzz
    corpus.py pack     writes inputs/<target>.hex from corpus/<target>/
"""

import hashlib
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
TARGETS = sorted(path.stem for path in (HERE / "fuzz_targets").glob("*.rs"))


def unpack(target: str) -> None:
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for line in (HERE / "inputs" / f"{target}.hex").read_text().split("\n"):
        data = bytes.fromhex(line)
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def pack(target: str) -> None:
    inputs = {path.read_bytes() for path in (HERE / "corpus" / target).iterdir()}
    lines = sorted((data.hex() for data in inputs if data), key=lambda line: (len(line), line))
    (HERE / "inputs").mkdir(exist_ok=True)
    (HERE / "inputs" / f"{target}.hex").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    actions = {"pack": pack, "unpack": unpack}
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    for name in TARGETS:
        actions[sys.argv[1]](name)
