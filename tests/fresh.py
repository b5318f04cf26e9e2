"""Code in a fresh process: what importing does, what needs no jaxsns."""

import json
import os
import subprocess
import sys
import textwrap

EXTRA = os.environ.get("PYTHONPATH", "")


def run(code, path="", **variables):
    """What the code prints last, read as JSON.

    path: a folder in which `import` looks first.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path + os.pathsep + EXTRA} | variables,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
