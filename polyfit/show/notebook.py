"""A line of progress in a notebook, which is written over as the run goes on.

IPython is no dependency: in a notebook it is there already.
"""

import sys
from html import escape
from typing import Any

__all__ = ["NotebookLine", "in_notebook"]


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None) is not None


class NotebookLine:
    """A bar and text below a notebook's cell."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, done: int, total: int, head: str, facts: str) -> None:
        """Show ``done`` of ``total``, with a text beside the bar and one below."""
        from IPython.display import display

        html = (
            f'<progress value="{done}" max="{total}" style="width: 16em"></progress> '
            f"{escape(head)}<br><small>{escape(facts)}</small>"
        )
        bundle = {"text/plain": f"{head}\n{facts}", "text/html": html}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
