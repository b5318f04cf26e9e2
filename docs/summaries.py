"""Hook of mkdocs: tables of names, made of the first lines of their docstrings.

`{{ names }}` in a page becomes a table of what that page documents; `{{ topics }}` in
the first page of the reference becomes one such table for each page of the reference.
"""

import re
from pathlib import Path

import griffe

ROOT = Path(__file__).parent.parent
ENTRY = re.compile(r"^(?:#+ )?::: jaxsns\.(\S+)$", re.MULTILINE)
TWICE = re.compile(r"\.(\w+)\.\1$")  # a function that hides its module
_package: list[griffe.Module] = []


def _first_line(name: str) -> str:
    if not _package:
        _package.append(griffe.load("jaxsns", search_paths=[str(ROOT)]))
    found = _package[0][name]
    found = found.final_target if found.is_alias else found
    text = found.docstring.value if found.docstring else ""
    return text.strip().splitlines()[0].replace("|", "\\|") if text else ""


def table(text: str, page: str = "") -> str:
    """A row for each name that a page documents, with a link to it."""
    rows = ["| name | what it does |", "|---|---|"]
    for name in ENTRY.findall(text):
        shown = TWICE.sub(r".\1", name)
        rows.append(f"| [`{shown}`]({page}#jaxsns.{name}) | {_first_line(name)} |")
    return "\n".join(rows)


def _topics() -> str:
    parts = []
    for path in sorted((ROOT / "docs" / "reference").glob("*.md")):
        text = path.read_text()
        title = re.search(r"^# (.*)$", text, re.MULTILINE)
        page = f"reference/{path.name}"
        names = table(text, page)
        if title and ENTRY.search(text):
            parts.append(f"## [{title[1]}]({page})\n\n{names}")
    return "\n\n".join(parts)


def on_page_markdown(markdown: str, **kwargs) -> str:
    """Put the tables in."""
    if "{{ names }}" in markdown:
        markdown = markdown.replace("{{ names }}", table(markdown))
    if "{{ topics }}" in markdown:
        markdown = markdown.replace("{{ topics }}", _topics())
    return markdown
