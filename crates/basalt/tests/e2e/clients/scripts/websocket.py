"""Speaks WebSocket through the gateway: `websocket.py URL CERTIFICATE`."""

import asyncio
import json
import ssl
import sys
import urllib.request

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

url = sys.argv[1]
trust = ssl.create_default_context(cafile=sys.argv[2]) if url.startswith("wss") else None


def open_socket(**options):
    return connect(url, ssl=trust, subprotocols=["echo"], max_size=64 << 20, **options)


async def messages():
    for compression in [None, "deflate"]:
        async with open_socket(compression=compression) as ws:
            assert ws.subprotocol == "echo" and ws.response.headers["x-version"] == "one", ws.response
            for sent in ["", "text: ä €  𝄞", b"", bytes(range(256)), "x" * 125, b"y" * 126, b"z" * 65_535, "w" * 65_536]:
                await ws.send(sent)
                assert await ws.recv() == sent, sent[:20]
            await ws.send(["in ", "three ", "fragments"])
            assert await ws.recv() == "in three fragments"
            await ws.send([b"a" * 100_000] * 5)
            assert await ws.recv() == b"a" * 500_000
            large = bytes(16 << 20)
            await ws.send(large)
            assert await ws.recv() == large
            # Pings are answered, and have their turn between messages.
            for _ in range(3):
                await asyncio.wait_for(await ws.ping(b"are you there?"), 5)
            for n in range(500):
                await ws.send(f"{n}")
            assert [await ws.recv() for _ in range(500)] == [f"{n}" for n in range(500)]


async def closes():
    for code, reason in [(1000, "over"), (3000, ""), (4999, "the last one ä")]:
        # By the server …
        async with open_socket() as ws:
            await ws.send(f"close {code} {reason}")
            try:
                await ws.recv()
                raise AssertionError("it is open")
            except ConnectionClosed as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (code, reason), closed
                assert closed.sent.code == code, closed
        # … and by the client.
        ws = await open_socket()
        await ws.close(code, reason)
        assert ws.close_code == code, ws.close_code
        assert await told() == [code, reason]
    # An end without a close frame is none on the other side: it sees 1006, or (by this server's library) 1005.
    ws = await open_socket()
    ws.transport.abort()
    for _ in range(100):
        if (await told())[0] in (1005, 1006):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(await told())


async def told():
    """Returns the last close that the server has seen."""

    def ask():
        page = url.replace("ws", "http", 1).replace("/socket", "/closes")
        with urllib.request.urlopen(page, context=trust, timeout=5) as answer:
            return json.load(answer)[-1]

    return await asyncio.to_thread(ask)


async def main():
    await messages()
    await closes()
    await asyncio.gather(*(messages() for _ in range(3)))


asyncio.run(main())
