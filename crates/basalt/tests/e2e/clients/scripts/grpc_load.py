"""Calls without a pause until standard input ends, then says how many there were: `grpc_load.py ADDRESS`.

Not one may fail: unary calls, streams that last for a second, and conversations of as long. Nothing is tried again.
"""

import json
import sys
import threading
import time

from grpc_calls import open_channel

address = sys.argv[1]
over = threading.Event()
counts, versions, failures = {}, set(), []


def unary(channel):
    answer = channel.unary_unary("/test.Test/Echo")(b"x", timeout=10)
    versions.add(answer.split(b":")[0].decode())


def stream(channel):
    assert len(list(channel.unary_stream("/test.Test/Count")(b"50 0.02", timeout=20))) == 50


def chat(channel):
    def ask():
        for n in range(50):
            time.sleep(0.02)
            yield b"%d" % n

    answers = list(channel.stream_stream("/test.Test/Chat")(ask(), timeout=20))
    assert len(answers) == 50 and len({answer.split(b":")[0] for answer in answers}) == 1, answers


def repeat(call):
    with open_channel(address) as channel:
        while not over.is_set():
            try:
                call(channel)
                counts[call.__name__] = counts.get(call.__name__, 0) + 1
            except Exception as error:
                failures.append(f"{call.__name__}: {error}")
                time.sleep(0.05)


threads = [threading.Thread(target=repeat, args=[call]) for call in [unary, unary, stream, stream, chat, chat]]
for thread in threads:
    thread.start()
while not versions and not failures:
    time.sleep(0.01)
print("ready", flush=True)
sys.stdin.read()
over.set()
for thread in threads:
    thread.join()
print(json.dumps({"calls": counts, "versions": sorted(versions), "failures": failures[:5]}))
sys.exit(1 if failures else 0)
