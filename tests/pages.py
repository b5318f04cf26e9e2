"""The Python blocks of the README and the documentation, and a way to run them.

`python tests/pages.py PAGE...` runs the blocks of each page in one namespace a page
and prints {page: {"failed": text or null, "gaps": {section: number}}} as JSON. With
`--peers NAME...` blocks titled NAME run too, and `gaps` has the largest difference of
what they leave in `theirs` from what ours leave in `ours`.
"""

import json
import pathlib
import re
import sys
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w*)(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]*)"')


class Block(NamedTuple):
    title: str  # of the library whose code it is; "" for none
    section: str  # last heading before it
    line: int
    text: str


def paths():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(path):
    text = path.read_text()
    for match in FENCE.finditer(text):
        language, rest, code = match.groups()
        if language == "python":
            before = text[: match.start()]
            headings = re.findall(r"^#+ (.*)$", before, re.MULTILINE)
            title = TITLE.search(rest)
            yield Block(
                title.group(1) if title else "",
                headings[-1] if headings else "",
                before.count("\n") + 2,
                code,
            )


def run(path, peers=()):
    space, gaps, section = {"__name__": "__page__"}, {}, ""
    for block in blocks(path):
        if block.section != section:  # what one side left alone is not compared
            section = block.section
            space.pop("ours", None)
        if block.title not in ("", "jaxsns", *peers):
            continue
        try:
            # Newlines in front: line numbers of a traceback are those of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(path.name), "exec")
            exec(code, space)
        except Exception:
            return {"failed": traceback.format_exc(limit=-3), "gaps": gaps}
        if "theirs" in space and "ours" in space:
            import numpy as np

            theirs, ours = (
                np.asarray(space.pop("theirs")),
                np.asarray(space.pop("ours")),
            )
            same = theirs.shape == ours.shape
            gaps[block.section] = float(abs(theirs - ours).max()) if same else None
    return {"failed": None, "gaps": gaps}


if __name__ == "__main__":
    names, _, peers = " ".join(sys.argv[1:]).partition("--peers")
    out = {name: run(ROOT / name, peers.split()) for name in names.split()}
    print(json.dumps(out))  # noqa: T201
