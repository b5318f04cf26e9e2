"""A peer library in a process of its own: other versions of jax, and a time limit.

Parent: `start(python, module)` and then `.call(function, arrays, options)`. Child:
a module that ends with `serve({"name": function, ...})`. Imports the standard library
and NumPy only, so that a child works where this project is not installed. Requests
and replies are JSON lines on stdin and stdout; arrays travel as .npz files.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
LINES_OF_LOG = 12  # of the child's stderr, told when it dies

Arrays = dict[str, np.ndarray]
Function = Callable[[Arrays, dict[str, Any]], tuple[Arrays, dict[str, Any]]]


class PeerError(RuntimeError):
    """The child raised; the message is the child's."""


class PeerTimeout(PeerError):
    """The child took longer than allowed and was ended."""


class PeerProcess:
    """A child that answers calls; started at the first call, again after its end."""

    def __init__(self, python: str, module: str, environment: dict[str, str]):
        """Remember what to run; `start` is the way to make one."""
        self._command = [python, "-m", module]
        self._environment = {"OPENBLAS_NUM_THREADS": "1", **os.environ, **environment}
        self._folder = tempfile.TemporaryDirectory(prefix="jaxsns-peer-")
        self._child: subprocess.Popen | None = None
        self._sent: Arrays | None = None
        self._number = 0

    def call(
        self,
        function: str,
        arrays: Arrays,
        options: dict[str, Any],
        limit: float | None = None,
    ) -> tuple[Arrays, dict[str, Any]]:
        """Run one of the child's functions.

        Args:
          function: its name in the dictionary that the child serves.
          arrays: what it works on. The same dictionary object as in the last call is
            not sent again, and the child sees one object again too (it may keep what
            it made of it): do not change it in place.
          options: anything JSON can say.
          limit: seconds after which the child is ended; None: never.

        Returns:
          The arrays and facts that the function returned.

        Raises:
          PeerError: the function raised, or the child died.
          PeerTimeout: the limit has passed. The next call starts a fresh child.
        """
        child = self._running()
        if arrays is not self._sent:
            self._number += 1
            np.savez(self._path("arrays"), **arrays)  # type: ignore[arg-type]
            self._sent = arrays
        request = {
            "function": function,
            "arrays": str(self._path("arrays")),
            "reply": str(self._path("reply")),
            "options": options,
        }
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            raise PeerError(self._last_words()) from None
        ready, _, _ = select.select([child.stdout], [], [], limit)
        if not ready:
            self._end()
            raise PeerTimeout(f"no answer within {limit:g} s")
        line = child.stdout.readline()
        if not line:
            raise PeerError(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise PeerError(reply["error"])
        with np.load(self._path("reply")) as data:
            return dict(data), reply["facts"]

    def close(self) -> None:
        """End the child and remove its files."""
        self._end()
        self._folder.cleanup()

    def __enter__(self) -> "PeerProcess":
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _path(self, what: str) -> Path:
        number = self._number if what == "arrays" else 0
        return Path(self._folder.name) / f"{what}{number}.npz"

    def _running(self) -> subprocess.Popen:
        if self._child is not None and self._child.poll() is not None:
            self._end()
        if self._child is None:
            with open(Path(self._folder.name) / "log", "wb") as log:
                self._child = subprocess.Popen(
                    self._command,
                    cwd=ROOT,
                    env=self._environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                )
        return self._child

    def _last_words(self) -> str:
        self._end()
        log = (Path(self._folder.name) / "log").read_text(errors="replace")
        return "the child died: " + "\n".join(log.splitlines()[-LINES_OF_LOG:])

    def _end(self) -> None:
        child, self._child = self._child, None
        self._sent = None  # the next child has no arrays yet
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                pass  # what it never read


def start(python: str, module: str, **environment: str) -> PeerProcess:
    """Child that runs `python -m module` from the root of this project.

    Args:
      python: interpreter of the environment in which the peer is installed.
      module: one that calls `serve`.
      environment: variables of the child beside those of this process.
    """
    return PeerProcess(python, module, environment)


def serve(functions: dict[str, Function]) -> None:
    """Answer calls until stdin ends; what functions print goes to stderr.

    Each function takes (arrays, options) and returns (arrays, facts): facts are
    what JSON can say, such as the seconds that it measured itself.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print, also from C, must not reach the parent
    sys.stdout = sys.stderr
    path, arrays = "", {}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request["arrays"] != path:
                arrays = {}  # let go of the old ones first
                path = request["arrays"]
                with np.load(path) as data:
                    arrays = dict(data)
                os.unlink(path)
            made, facts = functions[request["function"]](arrays, request["options"])
            np.savez(request["reply"], **made)  # type: ignore[arg-type]
            reply = json.dumps({"facts": facts}, default=float)
        except Exception as error:
            traceback.print_exc()
            reply = json.dumps({"error": f"{type(error).__name__}: {error}"})
        print(reply, file=answers, flush=True)
