"""A gRPC server whose messages are plain bytes, so that nothing has to be generated."""

import os
import signal
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

VERSION = os.environ["VERSION"].encode()
cancelled = 0


def echo(request, context):
    context.send_initial_metadata((("version", VERSION.decode()),))
    sent = dict(context.invocation_metadata())
    context.set_trailing_metadata((("asked", sent.get("ask", "")), ("bytes-bin", sent.get("bytes-bin", b""))))
    return VERSION + b":" + request


def count(request, context):
    """Sends as many messages as asked, with a pause between them."""
    number, pause = request.split()
    for n in range(int(number)):
        yield b"%s:%d" % (VERSION, n)
        time.sleep(float(pause))
    context.set_trailing_metadata((("sent", number.decode()),))


def total(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def chat(requests, context):
    """Answers each message when it comes."""
    for request in requests:
        yield VERSION + b":" + request
    context.set_trailing_metadata((("chat", "over"),))


def fail(request, context):
    """Ends with an error: at once, or after a message if asked for one."""
    if request:
        yield request
    context.set_trailing_metadata((("why", "test"), ("why-bin", b"\x00\xff")))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "so nicht: ä 100%\n")


def slow(request, context):
    """Answers after ten seconds, unless the client no longer waits."""
    gone = futures.Future()
    context.add_callback(lambda: gone.set_result(None))
    try:
        gone.result(10)
        global cancelled
        cancelled += 1
    except futures.TimeoutError:
        pass
    return b""


def cancellations(request, context):
    return b"%d" % cancelled


server = grpc.server(futures.ThreadPoolExecutor(64), options=[("grpc.max_receive_message_length", 32 << 20)])
methods = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_stream_rpc_method_handler(fail),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Cancellations": grpc.unary_unary_rpc_method_handler(cancellations),
}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", methods),))
status = health.HealthServicer()
status.set("test.Test", health_pb2.HealthCheckResponse.SERVING)
health_pb2_grpc.add_HealthServicer_to_server(status, server)
server.add_insecure_port("0.0.0.0:8080")
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(2))
server.wait_for_termination()
