"""Extension of griffe: sections of our docstrings that Google's style has no name for.

"Cost: ..." and the like run on over indented lines, which griffe takes for the title
and the body of an admonition. They become paragraphs that begin with the name.
"""

import re

import griffe

NAMES = "Cost|Source|Sources|Status|Raises, cost|A batch"
SECTION = re.compile(rf"^({NAMES}): (.*(?:\n  +\S.*)*)", re.MULTILINE)


def _paragraph(match: re.Match) -> str:
    lines = [line.strip() for line in match[2].splitlines()]
    return f"\n**{match[1]}**: " + "\n".join(lines) + "\n"


class Docstrings(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_instance(self, *, obj: griffe.Object, **kwargs) -> None:
        """Called for every object."""
        if obj.docstring:
            obj.docstring.value = SECTION.sub(_paragraph, obj.docstring.value)
