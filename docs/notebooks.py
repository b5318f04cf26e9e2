"""Hook of mkdocs: every tutorial as a Jupyter notebook beside its page.

Code blocks become cells, and the text between them Markdown. The blocks are those
that `tests/test_docs.py` runs.
"""

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
CODE = re.compile(r"^```python[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook(markdown: str) -> str:
    """The page as JSON of nbformat 4."""
    cells = []
    for number, text in enumerate(CODE.split(markdown)):
        text = text.strip("\n")
        if not text:
            continue
        kind = "code" if number % 2 else "markdown"
        cell = {"cell_type": kind, "id": f"cell{number}", "metadata": {}}
        cell["source"] = text.splitlines(keepends=True)
        if kind == "code":
            cell |= {"outputs": [], "execution_count": None}
        cells.append(cell)
    whole = {"cells": cells, "metadata": {"kernelspec": KERNEL}}
    return json.dumps(whole | {"nbformat": 4, "nbformat_minor": 5}, indent=1)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the notebooks to the site."""
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.md")):
        if path.stem == "index":
            continue
        made = f"tutorials/{path.stem}.ipynb"
        files.append(File.generated(config, made, content=notebook(path.read_text())))
    return files


def on_page_markdown(markdown: str, page, **kwargs) -> str:
    """A line under the title of a tutorial, with the link."""
    folder, _, name = page.file.src_uri.rpartition("/")
    if folder != "tutorials" or name == "index.md":
        return markdown
    title, _, rest = markdown.partition("\n")
    link = f"[Download as a notebook]({name.removesuffix('.md')}.ipynb){{: download }}"
    return f"{title}\n\n{link}\n{rest}"
