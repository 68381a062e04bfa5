"""The container, as far as it can be tried without a builder: its files agree with the tree, and its command runs under its conditions.

The conditions: another user, no home, code and indexes that cannot be written to.
"""

from __future__ import annotations

import fnmatch
import functools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import httpx
import pytest
import yaml
from builders.markdown import ROOT

from colbert_core import Index, Passage
from colbert_core.cli.main import build_parser

pytestmark = pytest.mark.skipif(not (ROOT / "Dockerfile").is_file(), reason="only a clone has the Dockerfile")

TOKEN = "a-token-of-the-container"
USER = 10001
BECOME = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", "--bounding-set=-all"]


def instructions():
    """The Dockerfile's instructions, as pairs of a word and the rest; lines that go on are one."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def final(word):
    """The instructions of one kind of the last stage."""
    given = instructions()
    start = max(place for place, (kind, _) in enumerate(given) if kind == "FROM")
    return [rest for kind, rest in given[start:] if kind == word]


def copied():
    """What is copied from the tree."""
    return [path for word, rest in instructions() if word == "COPY" and "--from" not in rest for path in rest.split()[:-1]]


def let_through(path):
    """Tell if .dockerignore lets a file through; its last line that matches decides."""
    through = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [path, *map(str, Path(path).parents)] if not line.startswith("**/") else Path(path).parts
        if line and not line.startswith("#") and any(fnmatch.fnmatch(str(name), pattern) for name in names):
            through = line.startswith("!")
    return through


def healthcheck():
    (check,) = final("HEALTHCHECK")
    return json.loads(check[check.index("CMD ") + 4 :])


def command():
    (line,) = final("CMD")
    return json.loads(line)


def environment():
    return dict(pair.split("=", 1) for line in final("ENV") for pair in shlex.split(line))


# The files agree


def test_what_is_copied_is_there_and_let_through_and_nothing_else_is():
    assert all((ROOT / path).exists() for path in copied())
    assert all(let_through(path) for path in [*copied(), "colbert_core/cli/main.py", "colbert_core/default_model/NOTICE"])
    for path in (
        "tests/conftest.py",
        ".git/HEAD",
        ".venv/bin/python",
        "token",
        "colbert_core/__pycache__/types.pyc",
        "docs/faq.md",
    ):
        assert not let_through(path), path


def test_all_that_the_wheel_is_made_of_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())
    assert {project["project"]["readme"], project["project"]["license-files"][0]} <= set(copied())
    (install,) = (rest for word, rest in instructions() if word == "RUN" and '".[' in rest)
    extras = re.search(r'"\.\[(.*)\]"', install)[1].split(",")
    assert set(extras) <= set(project["project"]["optional-dependencies"])


def test_the_command_is_understood_and_asks_for_a_token():
    assert command()[0] == "colbert"
    options = build_parser().parse_args(command()[1:])
    assert (options.host, options.port, options.token_file) == ("0.0.0.0", 8080, "/run/secrets/token")
    assert final("EXPOSE") == ["8080"] and ":8080/health" in healthcheck()[-1]


def test_it_runs_as_a_user_of_its_own():
    (user,) = final("USER")
    assert user != "root" and f"--uid {USER}" in final("RUN")[0]


def test_compose_agrees_with_the_dockerfile():
    composed = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    service = composed["services"]["colbert"]
    assert service["healthcheck"]["test"] == ["CMD", *healthcheck()]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    written = {*service["tmpfs"], *(volume.split(":")[1] for volume in service["volumes"])}
    assert written == {environment()["TMPDIR"], *json.loads(final("VOLUME")[0])}
    assert environment()["XDG_CACHE_HOME"] == "/cache"
    assert command()[-1] == f"/run/secrets/{service['secrets'][0]}" and "token" in composed["secrets"]
    assert service["ports"] == ["127.0.0.1:8080:8080"]


# The command runs


@pytest.fixture
def container():
    """Folders as the image has them: the code, /indexes, /cache, /tmp and the token."""
    with tempfile.TemporaryDirectory(prefix="colbert-container-") as name:  # pytest's own folders are its user's alone
        root = Path(name)
        root.chmod(0o755)
        for package in copied():
            if (ROOT / package).is_dir():
                shutil.copytree(ROOT / package, root / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
        index = Index.create(root / "indexes" / "pets")
        index.add([Passage("cats", "Cats purr when they are content."), Passage("dogs", "Dogs bark at strangers.")])
        index.close()
        (root / "token").write_text(TOKEN + "\n")
        for folder in ("cache", "tmp"):
            (root / folder).mkdir(mode=0o700)
            if os.getuid() == 0:
                os.chown(root / folder, USER, USER)
        for path in [root / "code", root / "indexes", *root.glob("code/**/*"), *root.glob("indexes/**/*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        yield root
        for path in [root / "code", root / "indexes", *root.glob("code/**/"), *root.glob("indexes/**/")]:
            path.chmod(0o755)


def as_user(arguments):
    """The command line that runs another as the container's user, or as it is where this user cannot become that one."""
    return [*BECOME, *arguments] if may_become() else arguments


@functools.cache
def may_become():
    """Whether this user can become the container's, and that one can run this Python, which may lie in the home of root."""
    if os.getuid() != 0 or shutil.which("setpriv") is None:
        return False
    tried = subprocess.run([*BECOME, sys.executable, "-c", "import httpx"], cwd="/", capture_output=True)
    return tried.returncode == 0


def within(root, text):
    """A path of the image as one of this machine."""
    for place, there in (("/indexes", "indexes"), ("/cache", "cache"), ("/tmp", "tmp"), ("/run/secrets/token", "token")):
        if text == place or text.startswith(place + "/"):
            return str(root / there) + text.removeprefix(place)
    return text


def changes(root):
    """When each file and folder of the code and the indexes was last changed.

    Of root, whom no mode keeps from writing, files alone: SQLite makes its short-lived ones in the folder of an index.
    """
    paths = [path for folder in ("code", "indexes") for path in (root / folder).rglob("*")]
    as_root = os.getuid() == 0 and not may_become()
    return {path: path.stat().st_mtime_ns for path in paths if path.is_file() or not as_root}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_the_command_runs_where_only_cache_and_tmp_can_be_written_to_and_ends_at_sigterm(container):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    changed = {"0.0.0.0": "127.0.0.1", "8080": port}
    arguments = [changed.get(word, within(container, word)) for word in command()[1:]]
    variables = {name: within(container, value) for name, value in environment().items() if name != "PATH"}
    variables |= {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "PYTHONPATH": str(container / "code"),
        "HF_HUB_OFFLINE": "1",
    }
    options = {"env": variables, "cwd": container / "indexes", "stderr": subprocess.PIPE, "text": True}
    before = changes(container)
    process = subprocess.Popen(as_user([sys.executable, "-m", "colbert_core.cli", *arguments]), **options)
    try:
        url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {TOKEN}"}
        until = time.monotonic() + 120
        while True:
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.ConnectError:
                pass
            assert process.poll() is None and time.monotonic() < until, process.communicate()[1]
            time.sleep(0.2)
        check = [sys.executable if word == "python" else word.replace(":8080", f":{port}") for word in healthcheck()]
        subprocess.run(as_user(check), env=variables, cwd=container, check=True, timeout=60)
        assert httpx.post(f"{url}/v1/indexes/pets/search", json={"query": "cats"}).status_code == 401
        found = httpx.post(f"{url}/v1/indexes/pets/search", json={"query": "happy cats"}, headers=headers)
        assert found.json()["hits"][0]["id"] == "cats"
        body = {"query": "happy cats", "documents": ["dogs bark", "cats purr"]}
        assert httpx.post(f"{url}/v2/rerank", json=body, headers=headers).json()["results"][0]["index"] == 1
    finally:
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=60)[1]
    # As the first process of a container it ends with 0: there the signal that ends others does nothing.
    assert process.returncode in (0, -signal.SIGTERM), errors
    assert "Traceback" not in errors
    assert changes(container) == before
