"""Calls a gRPC server through the gateway in all the ways that gRPC has: `grpc_calls.py ADDRESS [CERTIFICATE HOST]`."""

import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def open_channel(address, certificate=None, host=None):
    options = [("grpc.max_receive_message_length", 32 << 20), ("grpc.enable_retries", 0)]
    if certificate is None:
        return grpc.insecure_channel(address, options)
    options.append(("grpc.ssl_target_name_override", host))
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(open(certificate, "rb").read()), options)


def unary(channel):
    echo = channel.unary_unary("/test.Test/Echo")
    metadata = (("ask", "me"), ("bytes-bin", b"\x00\x01\xfe\xff"))
    answer, call = echo.with_call(b"hello", metadata=metadata, timeout=5)
    assert answer == b"one:hello", answer
    assert ("version", "one") in call.initial_metadata(), call.initial_metadata()
    trailers = dict(call.trailing_metadata())
    assert (trailers["asked"], trailers["bytes-bin"]) == ("me", b"\x00\x01\xfe\xff"), trailers
    assert call.code() == grpc.StatusCode.OK
    large = bytes(8 << 20)
    assert echo(large, timeout=20) == b"one:" + large
    assert echo(bytes(1 << 20), timeout=5, compression=grpc.Compression.Gzip) == b"one:" + bytes(1 << 20)
    calls = [echo.future(b"%d" % n, timeout=10) for n in range(200)]
    assert [call.result() for call in calls] == [b"one:%d" % n for n in range(200)]


def streams(channel):
    counted = channel.unary_stream("/test.Test/Count")(b"50 0.002", timeout=10)
    assert list(counted) == [b"one:%d" % n for n in range(50)]
    assert ("sent", "50") in counted.trailing_metadata(), counted.trailing_metadata()
    assert channel.stream_unary("/test.Test/Total")((bytes(10_000) for _ in range(100)), timeout=10) == b"1000000"

    # One message goes only when the answer to the one before has come: nothing in between may hold them back.
    answers = []

    def ask():
        for n in range(20):
            while len(answers) < n:
                time.sleep(0.001)
            yield b"%d" % n

    chat = channel.stream_stream("/test.Test/Chat")(ask(), timeout=10)
    for answer in chat:
        answers.append(answer)
    assert answers == [b"one:%d" % n for n in range(20)], answers
    assert ("chat", "over") in chat.trailing_metadata()


def errors(channel):
    fail = channel.unary_stream("/test.Test/Fail")
    for first in [b"", b"a message"]:
        call, got = fail(first, timeout=5), []
        try:
            got.extend(call)
            raise AssertionError("no error came")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
            assert error.details() == "so nicht: ä 100%\n", error.details()
            trailers = dict(error.trailing_metadata())
            assert (trailers["why"], trailers["why-bin"]) == ("test", b"\x00\xff"), trailers
    try:
        channel.unary_unary("/test.Test/None")(b"", timeout=5)
        raise AssertionError("there is no such method")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def deadlines(channel):
    """A deadline ends the call here, and the server learns of it."""
    cancelled = channel.unary_unary("/test.Test/Cancellations")
    before, started = int(cancelled(b"", timeout=5)), time.monotonic()
    try:
        channel.unary_unary("/test.Test/Slow")(b"", timeout=0.3)
        raise AssertionError("the deadline is over")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert time.monotonic() - started < 2
    call = channel.unary_unary("/test.Test/Slow").future(b"")
    time.sleep(0.1)
    call.cancel()
    until = time.monotonic() + 5
    while int(cancelled(b"", timeout=5)) < before + 2:
        assert time.monotonic() < until, "the server waits for nobody"
        time.sleep(0.02)


def check_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ["", "test.Test"]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, answer
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="test.Test"), timeout=5)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


if __name__ == "__main__":
    with open_channel(*sys.argv[1:]) as channel:
        for check in [unary, streams, errors, deadlines, check_health]:
            started = time.monotonic()
            check(channel)
            print(f"{check.__name__}: {time.monotonic() - started:.2f} s")
