"""Settings of Sphinx, which builds the pages as a searchable site: ``make docs``.

The pages are plain Markdown that reads well where the repository is shown, so the navigation
stands here and not in a page.
"""

from __future__ import annotations

from sphinx.application import Sphinx

project = "sipgate for Django"
extensions = ["myst_parser"]
include_patterns = ["*.md", "docs/*.md"]
root_doc = "README"
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {"page_width": "1200px", "code_font_size": "0.8em"}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_copy_source = False
NAVIGATION = """

```{toctree}
:hidden:
docs/tutorial
docs/code
docs/operate
docs/reference
docs/how-it-works
CONTRIBUTING
SECURITY
CHANGELOG
```
"""


def add_navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += NAVIGATION


def setup(app: Sphinx) -> None:
    app.connect("source-read", add_navigation)
