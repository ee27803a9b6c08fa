"""A store that speaks S3's protocol: the server of moto, in a process of its own."""

from __future__ import annotations

import contextlib
import gzip
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from inferloop.core import plugins
from inferloop.streams.contexts import SinkContext
from support.own_server import OwnServer
from support.stream_worlds import SinkWorld


class Moto(OwnServer):
    """One server with one bucket, `out`, all in memory."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.url = f"http://127.0.0.1:{self.port}"
        self.keys = {"endpoint": self.url, "access_key": "mine", "secret_key": "geheim"}
        self.start()
        self.client.create_bucket(Bucket="out")

    def command(self) -> Sequence[str]:
        """See `OwnServer`."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    @property
    def client(self) -> Any:
        """Another client than ours."""
        known = {"aws_access_key_id": "mine", "aws_secret_access_key": "geheim", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, config=Config(retries={"max_attempts": 0}), **known)

    def objects(self) -> dict[str, list[dict[str, Any]]]:
        """The records of every object, by name."""
        client = self.client
        names = [entry["Key"] for entry in client.list_objects_v2(Bucket="out").get("Contents", ())]
        bodies = {name: client.get_object(Bucket="out", Key=name)["Body"].read() for name in names}
        return {name: [json.loads(line) for line in gzip.decompress(body).splitlines()] for name, body in bodies.items()}


@contextlib.asynccontextmanager
async def s3_sink(folder: Path, _: Any) -> AsyncIterator[SinkWorld]:
    server = Moto(folder / "moto")
    sink = plugins.load("sinks", "s3")
    config = sink.Config(bucket="out", **server.keys)

    def effects() -> list[str]:
        groups = sorted(server.objects().values(), key=lambda records: int(records[0]["number"]))
        assert all(record["idempotency_key"] == f"k{record['number']}" for records in groups for record in records)
        return [record["idempotency_key"] for records in groups for record in records]

    try:
        yield SinkWorld(lambda: sink(config, SinkContext("p", "act")), effects)
    finally:
        server.stop()
