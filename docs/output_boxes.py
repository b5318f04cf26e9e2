"""Hook of mkdocs: the box after a code block that prints is titled "Output".

In the sources the title of such a `text` block says by how much its numbers may
differ (`tests/pages.py` reads it), which is of no use to a reader of the site.
"""

import re

BOX = re.compile(
    r'(^```python[^\n]*\n(?:(?!^```).*\n)*^```\n\n```text)(?: title="[^"]*")?$',
    re.MULTILINE,
)
# With words between it and its code.
TITLED = re.compile(r'^(```text) title="(?:numbers vary|within \d+ %)"$', re.MULTILINE)


def on_page_markdown(markdown: str, **kwargs) -> str:
    """Give every such box its title."""
    markdown = BOX.sub(r'\1 title="Output"', markdown)
    return TITLED.sub(r'\1 title="Output"', markdown)
