"""The HTML report of `edgeseg bench`: one file, nothing loaded from anywhere.

Charts are inline SVG written here, not matplotlib's: they follow dark mode, print and the page's type, keep their text
as text, and need no package.
"""

from pathlib import Path

from edgeseg.bench.results import Results
from edgeseg.files import write_atomically
from edgeseg.report.page import html_of_results

__all__ = ["html_of_results", "write_html"]


def write_html(results: Results, path: Path) -> None:
    """Write the report of a run as one self-contained HTML file; an existing one is replaced in one step.

    Raises:
        InputError, EdgesegError: the file cannot be written.
    """
    write_atomically(Path(path), html_of_results(results).encode())
