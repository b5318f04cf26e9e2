"""Extension of griffe: sections of our docstrings that Google's style has no name for.

"Cost: ..." and the like run on over indented lines, which griffe takes for the title
and the body of an admonition. They become paragraphs that begin with the name.
Formulas are typeset as `formulas` says.
"""

import importlib.util
import pathlib
import re

import griffe

# The extension is loaded by its path, so its neighbour is not on the module path.
_SPEC = importlib.util.spec_from_file_location(
    "formulas", pathlib.Path(__file__).with_name("formulas.py")
)
formulas = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(formulas)

NAMES = "Cost|Source|Sources|Status|Raises, cost|A batch"
SECTION = re.compile(rf"^({NAMES}): (.*(?:\n  +\S.*)*)", re.MULTILINE)


def _paragraph(match: re.Match) -> str:
    lines = [line.strip() for line in match[2].splitlines()]
    return f"\n**{match[1]}**: " + "\n".join(lines) + "\n"


INDENTED = re.compile(r"(?:^ {4,}\S.*\n?)+", re.MULTILINE)


def _display(match: re.Match) -> str:
    found = formulas.DISPLAY.get(" ".join(match[0].split()))
    return f"$$\n{found}\n$$\n" if found else match[0]


def typeset(text: str) -> str:
    """Put LaTeX in place of the formulas of a docstring."""
    text = INDENTED.sub(_display, text)
    for plain, latex in formulas.INLINE.items():
        # Longer ones come first, since they hold shorter ones; lines may end within.
        words = r"\s+".join(map(re.escape, plain.split()))
        text = re.sub(words, lambda _, latex=latex: rf"\({latex}\)", text)
    return text


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Called for every object."""
        if obj.docstring:
            obj.docstring.value = typeset(SECTION.sub(_paragraph, obj.docstring.value))
