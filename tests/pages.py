"""The Python blocks of the README and the documentation, and a way to run them.

`python tests/pages.py PAGE...` runs the blocks of each page in one namespace a page
and an empty folder, compares what they print with the ```text blocks right after
them, and prints {page: {"failed": text or null, "gaps": {section: number}, "pictures":
[names of what was saved]}} as JSON. Words must be equal and numbers within 2 %, or as
a title says: `within 10 %`, `numbers vary`. `--into FOLDER` runs there and so keeps the
pictures. With `--peers NAME...` blocks titled NAME run too, and `gaps` has the largest
difference of what they leave in `theirs` from what ours leave in `ours`.
"""

import argparse
import contextlib
import io
import json
import pathlib
import re
import tempfile
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w*)(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]*)"')
KEPT = ("jax_enable_x64", "jax_persistent_cache_min_compile_time_secs")
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


class Block(NamedTuple):
    title: str  # of the library whose code it is; "" for none
    section: str  # last heading before it
    line: int
    text: str
    output: str  # the ```text block right after it; "" for none
    within: float  # by which share its numbers may be off


def paths():
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _title(rest):
    title = TITLE.search(rest)
    return title.group(1) if title else ""


def _within(title):
    if title == "numbers vary":
        return 2.0  # of the larger: no two numbers are further apart
    share = re.fullmatch(r"within (\d+) %", title)
    if title and not share:
        raise ValueError(f"a text block is titled {title!r}")
    return int(share.group(1)) / 100 if share else 0.02


def blocks(path):
    text = path.read_text()
    for match in FENCE.finditer(text):
        language, rest, code = match.groups()
        if language == "python":
            before = text[: match.start()]
            headings = re.findall(r"^#+ (.*)$", before, re.MULTILINE)
            after = FENCE.match(text, match.end() + len("\n\n"))
            shown = after if after and after.group(1) == "text" else None
            yield Block(
                _title(rest),
                headings[-1] if headings else "",
                before.count("\n") + 2,
                code,
                shown.group(3) if shown else "",
                _within(_title(shown.group(2)) if shown else ""),
            )


def agree(printed, shown, within):
    """Whether two texts have the same words, and numbers that are close."""
    words = [NUMBER.sub("0", text).split() for text in (printed, shown)]
    numbers = [[float(x) for x in NUMBER.findall(text)] for text in (printed, shown)]
    return words[0] == words[1] and all(
        abs(p - q) <= within * max(abs(p), abs(q))
        for p, q in zip(*numbers, strict=True)
    )


def run(path, peers=()):
    space, gaps, section, wrong = {"__name__": "__page__"}, {}, "", []
    for block in blocks(path):
        if block.section != section:  # what one side left alone is not compared
            section = block.section
            space.pop("ours", None)
        if block.title not in ("", "jaxsns", *peers):
            continue
        printed = io.StringIO()
        try:
            # Newlines in front: line numbers of a traceback are those of the page.
            code = compile("\n" * (block.line - 1) + block.text, str(path.name), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, space)
        except Exception:
            wrong.append(traceback.format_exc(limit=-3))
            break
        if not agree(printed.getvalue(), block.output, block.within):
            wrong.append(
                f"{path.name}, line {block.line}: the block prints\n"
                f"{printed.getvalue()}and the page says\n{block.output or 'nothing'}"
            )
        if "theirs" in space and "ours" in space:
            import numpy as np

            theirs, ours = (
                np.asarray(space.pop("theirs")),
                np.asarray(space.pop("ours")),
            )
            same = theirs.shape == ours.shape
            gaps[block.section] = float(abs(theirs - ours).max()) if same else None
    return {"failed": "\n".join(wrong) or None, "gaps": gaps}


@contextlib.contextmanager
def settings_kept():
    """What a page sets of JAX, such as float64, ends with the page."""
    import jax

    kept = {name: getattr(jax.config, name) for name in KEPT}
    yield
    for name, value in kept.items():
        jax.config.update(name, value)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pages", nargs="+")
    parser.add_argument("--into")
    parser.add_argument("--peers", nargs="*", default=())
    arguments = parser.parse_args()
    out = {}
    for name in arguments.pages:
        with tempfile.TemporaryDirectory() as empty:
            with contextlib.chdir(arguments.into or empty), settings_kept():
                out[name] = run(ROOT / name, arguments.peers)
            saved = [p for p in pathlib.Path(empty).iterdir() if p.is_file()]
            out[name]["pictures"] = sorted(path.name for path in saved)
    print(json.dumps(out))  # noqa: T201


if __name__ == "__main__":
    main()
