"""A real browser for tests, where one is installed: pages as people see them, driven through the pipe of its debugger."""

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
"""None: tests then read the page with a parser alone."""


class Browser:
    """One window of a headless browser; `with Browser(profile) as browser`."""

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        (his_in, self._out), (self._in, his_out) = os.pipe(), os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]

        def connect() -> None:
            """The browser reads commands from its descriptor 3 and answers on 4."""
            answers = os.dup(his_out)  # which may be 3 itself
            os.dup2(his_in, 3)
            os.dup2(answers, 4)

        self._process = subprocess.Popen(
            [BROWSER, *flags], preexec_fn=connect, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(his_in)
        os.close(his_out)
        self._answers = os.fdopen(self._in, "rb")
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._out)  # it ends when nobody speaks to it any more
        self._answers.close()
        self._process.kill()
        self._process.wait()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the debugging protocol, and its answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._answer()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def open(self, page: Path, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> None:
        """A file, in a window of that size."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url=page.as_uri())
        while self._answer().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        result = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def _answer(self) -> dict[str, Any]:
        message = bytearray()
        while (sign := self._answers.read(1)) != b"\0":
            assert sign, "the browser has ended"
            message += sign
        return dict(json.loads(message))
