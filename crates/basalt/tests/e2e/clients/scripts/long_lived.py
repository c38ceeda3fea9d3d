"""Keeps long-lived connections busy until standard input ends, then says what came of them: `long_lived.py URL CERTIFICATE`.

WebSockets are opened again when they are closed with 1001; anything else that ends early has failed.
"""

import asyncio
import json
import ssl
import sys

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

url, certificate = sys.argv[1], sys.argv[2]


def trust():
    """Returns a context of its own for each client: httpx writes into it which versions of HTTP it speaks."""
    return ssl.create_default_context(cafile=certificate)


over = asyncio.Event()
counts, versions, failures = {"messages": 0, "going_away": 0, "event_streams": 0, "downloads": 0}, set(), []


async def socket():
    while not over.is_set():
        async with connect(url.replace("http", "ws", 1) + "/socket", ssl=trust()) as ws:
            versions.add(ws.response.headers["x-version"])
            try:
                while not over.is_set():
                    await ws.send("message")
                    assert await asyncio.wait_for(ws.recv(), 10) == "message"
                    counts["messages"] += 1
                    await asyncio.sleep(0.01)
            except ConnectionClosed as closed:
                if closed.rcvd is None or closed.rcvd.code != 1001:
                    raise
                counts["going_away"] += 1


async def events(client):
    async with client.stream("GET", "/events?count=50&pause=0.02") as answer:
        assert len([line async for line in answer.aiter_lines() if line]) == 50
    counts["event_streams"] += 1


async def download(client):
    async with client.stream("GET", "/download?bytes=3276800&pause=0.02") as answer:
        assert sum([len(part) async for part in answer.aiter_raw()]) == 3276800
    counts["downloads"] += 1


async def repeat(what, **versions):
    async with httpx.AsyncClient(base_url=url, verify=trust(), timeout=15, **versions) as client:
        while not over.is_set():
            await what(client)


async def watch(name, work):
    try:
        await work
    except Exception as error:
        failures.append(f"{name}: {error!r}")


async def main():
    tasks = [watch("socket", socket()) for _ in range(8)]
    for versions in [{"http1": True}, {"http1": False, "http2": True}]:
        tasks += [watch(f"{what.__name__} {versions}", repeat(what, **versions)) for what in [events, download]]
    tasks = [asyncio.create_task(task) for task in tasks]
    while not versions and not failures:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    over.set()
    await asyncio.gather(*tasks)


asyncio.run(main())
print(json.dumps({**counts, "versions": sorted(versions), "failures": failures[:5]}))
sys.exit(1 if failures else 0)
