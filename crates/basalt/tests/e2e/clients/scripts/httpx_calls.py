"""Asks by HTTP/1.1 and HTTP/2 over TLS, with large bodies both ways: `httpx_calls.py URL CERTIFICATE MEBIBYTES`."""

import hashlib
import ssl
import sys
import time

import httpx

url, certificate, mebibytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
BLOCK = bytes(range(256)) * 256


def parts(count):
    for _ in range(count):
        yield BLOCK


def check(client, protocol, mebibytes):
    assert client.get("/").http_version == protocol
    told = client.get("/request?a=b&c=%20", headers={"x-given": "yes"}).json()
    headers = dict(told["headers"])
    assert (told["query"], headers["x-given"], headers["x-forwarded-proto"]) == ("a=b&c=%20", "yes", "https"), told
    assert client.get("/nothing").status_code == 404
    assert client.head("/request").headers["content-length"] != "0"
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"]:
        told = client.request(method, "/request", content=b"body").json()
        assert (told["method"], told["length"]) == (method, 4), told

    count = mebibytes * 16
    sums = hashlib.sha256()
    for part in parts(count):
        sums.update(part)
    for length in [None, str(count * len(BLOCK))]:
        started = time.monotonic()
        headers = {"content-length": length} if length else {}
        told = client.post("/request", content=parts(count), headers=headers).json()
        assert (told["length"], told["sha256"]) == (count * len(BLOCK), sums.hexdigest()), told
        print(f"{protocol}: {mebibytes} MiB up in {time.monotonic() - started:.1f} s")
    started, got = time.monotonic(), hashlib.sha256()
    with client.stream("GET", f"/download?bytes={count * len(BLOCK)}") as answer:
        for part in answer.iter_raw():
            got.update(part)
    assert got.hexdigest() == sums.hexdigest()
    print(f"{protocol}: {mebibytes} MiB down in {time.monotonic() - started:.1f} s")

    # Events come when they are sent, not when the answer is over.
    with client.stream("GET", "/events?count=5&pause=0.1") as answer:
        began = time.monotonic()
        times = [time.monotonic() - began for line in answer.iter_lines() if line]
    assert len(times) == 5 and times[0] < 0.1 and times[-1] > 0.3, times


trust = ssl.create_default_context(cafile=certificate)
with httpx.Client(base_url=url, verify=trust, http1=True, timeout=30) as client:
    check(client, "HTTP/1.1", mebibytes)
with httpx.Client(base_url=url, verify=trust, http1=False, http2=True, timeout=30) as client:
    check(client, "HTTP/2", mebibytes // 4)
