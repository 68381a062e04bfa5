"""An S3 server on this machine: moto's, which keeps everything in memory. pyarrow talks to it as to any other."""

from __future__ import annotations

import contextlib
import urllib.parse
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

USER, PASSWORD = "somebody", "secret"


class ObjectServer:
    """A server, and the addresses of what lies on it."""

    def __init__(self, server):
        self._server = server
        self.host, self.port = server.get_host_and_port()

    def address(self, place):
        """The address of "bucket/folder" on this server, with the keys to it."""
        endpoint = urllib.parse.quote(f"127.0.0.1:{self.port}", safe="")
        return f"s3://{USER}:{PASSWORD}@{place}?region=us-east-1&scheme=http&endpoint_override={endpoint}"

    @property
    def client(self):
        """What AWS's own library talks to it by."""
        keys = {"aws_access_key_id": USER, "aws_secret_access_key": PASSWORD, "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", **keys)

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
    """Start a server on the loopback interface."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        yield ObjectServer(server)
    finally:
        server.stop()
