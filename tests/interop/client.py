"""A Python consumer of the broker: gets an access token, then follows the token events.

    python client.py --target 127.0.0.1:7480 --connection conn_… --events 3

The stubs are compiled from proto/ into a temporary folder, as a consumer's build would do it. The API key is
read from TOKENBROKER_API_KEY. Standard output is one JSON object a line: {"event": "token", …} without the
token itself, {"event": "watching"} once the stream is open, then one {"event": "received", …} an event.
Exit status: 0 when all events came, 1 on an RPC error or when they did not come in time.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"


def stubs(folder):
    """Compiles every proto into `folder` and returns the modules of TokenBroker."""
    import grpc_tools

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTO}",
            f"--proto_path={well_known}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            *files,
        ]
    )
    if status != 0:
        sys.exit(f"the protos do not compile: protoc answered {status}")
    sys.path.insert(0, str(folder))
    messages = importlib.import_module("tokenbroker.v1.token_broker_pb2")
    services = importlib.import_module("tokenbroker.v1.token_broker_pb2_grpc")
    return messages, services


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def moment(timestamp):
    """A timestamp as RFC 3339 text; None where it is not set."""
    return timestamp.ToJsonString() if timestamp.seconds else None


def run(arguments, key, messages, services):
    metadata = (("authorization", f"Bearer {key}"),)
    with grpc.insecure_channel(arguments.target) as channel:
        broker = services.TokenBrokerStub(channel)

        token = broker.GetAccessToken(
            messages.GetAccessTokenRequest(
                connection_id=arguments.connection, min_validity=Duration(seconds=1)
            ),
            metadata=metadata,
            timeout=10,
        ).token
        say(
            "token",
            token_id=token.token_id,
            token_type=token.token_type,
            characters=len(token.access_token),
            expire_time=moment(token.expire_time),
            scopes=sorted(token.scopes),
        )

        stream = broker.WatchTokenEvents(
            messages.WatchTokenEventsRequest(
                cursor=arguments.cursor, connection_ids=[arguments.connection]
            ),
            metadata=metadata,
            timeout=arguments.timeout,
        )
        say("watching")
        left = arguments.events
        while left > 0:
            answer = next(stream)
            if not answer.HasField("event"):
                continue
            event = answer.event
            say(
                "received",
                id=event.id,
                type=messages.TokenEventType.Name(event.type),
                connection_id=event.connection_id,
                owner=event.owner,
                generation=event.generation,
                cursor=answer.cursor,
                has_token=event.HasField("token"),
            )
            left -= 1
        stream.cancel()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True, help="the broker's gRPC address")
    parser.add_argument("--connection", required=True, help="the id of an active connection")
    parser.add_argument("--events", type=int, default=1, help="how many events to wait for (1)")
    parser.add_argument("--cursor", default="START", help="where to begin (START: all that is kept)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for all events (60)")
    arguments = parser.parse_args()
    key = os.environ.get("TOKENBROKER_API_KEY")
    if not key:
        sys.exit("set TOKENBROKER_API_KEY")
    with tempfile.TemporaryDirectory(prefix="tokenbroker-stubs-") as folder:
        messages, services = stubs(folder)
        try:
            run(arguments, key, messages, services)
        except grpc.RpcError as error:
            sys.exit(f"{error.code().name}: {error.details()}")
        except StopIteration:
            sys.exit("the stream ended before all events came")


if __name__ == "__main__":
    main()
