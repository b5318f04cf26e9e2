"""Hooks of mkdocs: no raw HTML; pages that live outside `docs`, and links to them.

Links between the repository's pages are written for the repository. READMEs of the
experiments and CONTRIBUTING.md become pages of the site as they are, and links are
turned into those between pages; what has no page keeps its text and loses its link.
"""

import posixpath
import re
from pathlib import Path

from markdown import Extension, Markdown
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\[\]]*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


class PlainAngles(Extension):
    """No raw HTML: <C, P> is a scalar product, and not a tag."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Leave angle brackets alone."""
        md.inlinePatterns.deregister("html")
        md.preprocessors.deregister("html_block")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Switch raw HTML off."""
    config.markdown_extensions.append(PlainAngles())
    return config


def _outside() -> list[str]:
    found = [p for p in (ROOT / "experiments").glob("*/*") if p.name == "README.md"]
    found += (ROOT / "experiments").glob("*/*.png")
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    return ["CHANGELOG.md", "CONTRIBUTING.md", *names]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside `docs`, under its path in the repository."""
    for path in _outside():
        files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def _in_repository(page: str) -> str:
    return page if page in _outside() else posixpath.join("docs", page)


def on_page_markdown(markdown: str, page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of the repository into links of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(_in_repository(here))

    def link(match: re.Match) -> str:
        mark, text, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match.group()
        place = posixpath.normpath(posixpath.join(folder, path))
        if not (ROOT / place).exists():
            return match.group()  # strict mode reports it
        place = "index.md" if place == "README.md" else place.removeprefix("docs/")
        if files.get_file_from_path(place) is None:
            return text
        site = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{mark}[{text}]({site}{hash_}{anchor})"

    parts = FENCE.split(markdown)
    parts[::2] = [LINK.sub(link, part) for part in parts[::2]]
    return "".join(parts)
