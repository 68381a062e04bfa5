"""An S3 server on this machine: moto's, which keeps everything in memory. pyarrow talks to it as to any other."""

from __future__ import annotations

import contextlib
import os
import urllib.parse
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


class ObjectServer:
    """A server, and the addresses of what lies on it."""

    def __init__(self, server):
        self._server = server
        self.host, self.port = server.get_host_and_port()

    def address(self, place):
        """The address of "bucket/folder" on this server."""
        endpoint = urllib.parse.quote(f"127.0.0.1:{self.port}", safe="")
        return f"s3://{place}?region=us-east-1&scheme=http&endpoint_override={endpoint}"

    @property
    def client(self):
        """What AWS's own library talks to it by."""
        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1")

    def make_bucket(self, name):
        """Make a bucket, and return its name."""
        self.client.create_bucket(Bucket=name)
        return name

    def names(self, bucket):
        """The names of all files in a bucket."""
        return sorted(entry["Key"] for entry in self.client.list_objects_v2(Bucket=bucket).get("Contents", []))

    @contextlib.contextmanager
    def refusing(self):
        """Within the block nobody has the right to anything."""
        self._ask_for_keys_after("0")
        try:
            yield
        finally:
            self._ask_for_keys_after("inf")

    def _ask_for_keys_after(self, requests):
        url, headers = f"http://127.0.0.1:{self.port}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, requests.encode(), headers), timeout=30).close()


@contextlib.contextmanager
def object_server():
    """Start a server on the loopback interface; while the block lasts, the environment has keys for it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    before = {name: os.environ.get(name) for name in KEYS}
    os.environ.update(KEYS)
    try:
        yield ObjectServer(server)
    finally:
        server.stop()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
