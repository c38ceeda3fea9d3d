"""A web application (ASGI) that tells what it was asked, streams both ways, and speaks WebSocket."""

import asyncio
import hashlib
import json
import os

import uvicorn

VERSION = os.environ["VERSION"]
BLOCK = bytes(range(256)) * 256  # 64 KiB
# The page has loaded when all has been shown, for until then an image is missing.
PAGE = """<!doctype html><title>Basalt</title><h1>Version VERSION</h1><ol id=events></ol>
<img src="/seen?wait"><script>
const shown = (text) => {
  const line = document.createElement('li')
  line.textContent = text
  events.append(line)
  if (events.children.length === 5) fetch('/seen')
}
shown('over ' + performance.getEntriesByType('navigation')[0].nextHopProtocol)
const ws = new WebSocket(location.origin.replace('http', 'ws') + '/socket', 'echo')
ws.onopen = () => ws.send('a message')
ws.onmessage = (event) => {
  shown(event.data)
  const source = new EventSource('/events?count=3&pause=0.05')
  source.onmessage = (event) => { shown(event.data); if (event.data === 'event 2') source.close() }
}
</script>"""
closes, page_seen = [], asyncio.Event()


class Answer:
    def __init__(self, send):
        self.send = send

    async def head(self, kind, *headers, status=200):
        headers = [(b"content-type", kind), *headers]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def body(self, data, more=False):
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def whole(self, kind, text, *headers, status=200):
        data = text.encode()
        await self.head(kind, (b"content-length", b"%d" % len(data)), *headers, status=status)
        await self.body(data)


async def seen(scope, receive):
    """Returns the request as it came here."""
    length, digest = 0, hashlib.sha256()
    while True:
        part = await receive()
        length += len(part.get("body", b""))
        digest.update(part.get("body", b""))
        if not part.get("more_body"):
            break
    return {
        "version": VERSION,
        "method": scope["method"],
        "protocol": scope["http_version"],
        "path": scope["path"],
        "query": scope["query_string"].decode(),
        "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
        "length": length,
        "sha256": digest.hexdigest(),
    }


async def left(receive):
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def http(scope, receive, answer):
    query = dict(pair.split("=") for pair in scope["query_string"].decode().split("&") if "=" in pair)
    match scope["path"]:
        case "/":
            await answer.whole(b"text/plain", f"version={VERSION}\n")
        case "/request":
            await answer.whole(b"application/json", json.dumps(await seen(scope, receive)))
        case "/download":
            total, gone = int(query["bytes"]), asyncio.ensure_future(left(receive))
            await answer.head(b"application/octet-stream", (b"content-length", b"%d" % total))
            for start in range(0, total, len(BLOCK)):
                await answer.body(BLOCK[: total - start], more=True)
                if gone.done():
                    return
                if "pause" in query:
                    await asyncio.sleep(float(query["pause"]))
            await answer.body(b"")
        case "/events":
            await answer.head(b"text/event-stream", (b"cache-control", b"no-cache"))
            for n in range(int(query["count"])):
                await answer.body(f"data: event {n}\n\n".encode(), more=True)
                await asyncio.sleep(float(query["pause"]))
            await answer.body(b"")
        case "/page":
            await answer.whole(b"text/html", PAGE.replace("VERSION", VERSION))
        case "/seen":
            if scope["query_string"] == b"wait":
                await asyncio.wait_for(page_seen.wait(), 10)
            page_seen.set()
            await answer.whole(b"text/plain", "")
        case "/closes":
            await answer.whole(b"application/json", json.dumps(closes))
        case _:
            await answer.whole(b"text/plain", "no such page\n", status=404)


async def socket(scope, receive, send):
    """Echoes messages until it is told to close."""
    await receive()
    spoken = "echo" if "echo" in scope["subprotocols"] else None
    await send({"type": "websocket.accept", "subprotocol": spoken, "headers": [(b"x-version", VERSION.encode())]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            closes.append([message["code"], message.get("reason") or ""])
            return
        text, data = message.get("text"), message.get("bytes")
        if text and text.startswith("close "):
            _, code, reason = text.split(" ", 2)
            return await send({"type": "websocket.close", "code": int(code), "reason": reason})
        await send({"type": "websocket.send", "text": text} if text is not None else {"type": "websocket.send", "bytes": data})


async def app(scope, receive, send):
    if scope["type"] == "http":
        await http(scope, receive, Answer(send))
    elif scope["type"] == "websocket":
        await socket(scope, receive, send)


uvicorn.run(app, host="0.0.0.0", port=8080, lifespan="off", access_log=False, log_level="warning", ws_max_size=64 << 20)
