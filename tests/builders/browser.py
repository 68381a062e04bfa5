"""A real browser that tests drive: headless Chromium over the DevTools protocol."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
]
_KEYS = {"Enter": 13, "Escape": 27, "ArrowUp": 38, "ArrowDown": 40, "Tab": 9}
# Seconds until something that a test waits for must have happened; the machine may be busy.
_PATIENCE = 60.0


class Browser:
    """One tab.

    Attributes:
        requests: addresses of all requests it made.
        problems: what it wrote on its console as a warning or error, exceptions, and what its policy forbade.
        dialogs: messages of alert, confirm and prompt; hostile content would open one.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.dialogs: list[str] = []
        self._socket, self._number = socket, 0
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=_PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def open(self, address: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in found, (expression, found["exceptionDetails"])
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is truthy."""
        end = time.monotonic() + _PATIENCE
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, (expression, self.evaluate("document.body?.innerText"), self.problems)
            time.sleep(0.02)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements that a selector finds."""
        return self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].map((each) => each.textContent)")

    def text(self, selector: str) -> str:
        """The text of the one element that a selector finds."""
        (text,) = self.texts(selector)
        return text

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element that a selector finds."""
        place = self.evaluate(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); it.scrollIntoView({{block: 'center'}});"
            " const {x, y, width, height} = it.getBoundingClientRect(); return [x + width / 2, y + height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def write(self, text: str) -> None:
        """Type a text where the focus is."""
        self.call("Input.insertText", text=text)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key: a letter, or one of ``_KEYS``."""
        code = _KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
        given = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call(
            "Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **({"text": text} if text else {}), **given
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def resize(self, width: int, height: int, *, scale: float = 1) -> None:
        """Make the window so large, in CSS pixels; a narrow one is that of a phone."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=width < 500)

    def prefer(self, scheme: str) -> None:
        """Have the system prefer "light" or "dark"."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, *, whole: bool = False) -> str:
        """Photograph the window, or the whole page, as PNG in base64."""
        return self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]

    def _note(self, event: dict[str, Any]) -> None:
        method, parameters = event["method"], event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("warning", "error", "assert"):
            self.problems.append(json.dumps(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("warning", "error"):
            self.problems.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(parameters["message"])
            self._number += 1
            self._socket.send(
                json.dumps({"id": self._number, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}})
            )


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start Chromium with a profile of its own, which must not exist, and end it afterwards."""
    assert CHROMIUM is not None
    log = profile.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"], stdout=output, stderr=output
        )
    try:
        port = _port(profile / "DevToolsActivePort", process)
        opener = build_opener(ProxyHandler({}))  # whatever proxy this machine uses, the browser is here
        with opener.open(f"http://127.0.0.1:{port}/json/list", timeout=_PATIENCE) as answer:
            (page,) = [each for each in json.load(answer) if each["type"] == "page"]
        with connect(page["webSocketDebuggerUrl"], max_size=2**28, proxy=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait for the port that the browser took."""
    end = time.monotonic() + _PATIENCE
    while not (file.exists() and (lines := file.read_text().splitlines())):
        assert process.poll() is None, f"Chromium ended with {process.returncode}"
        assert time.monotonic() < end, "Chromium took too long to start"
        time.sleep(0.05)
    return int(lines[0])


def is_local(address: str) -> bool:
    """Tell whether a request stays on this machine."""
    parts = urlsplit(address)
    return parts.scheme in ("data", "blob", "about", "chrome-error") or parts.hostname == "127.0.0.1"
