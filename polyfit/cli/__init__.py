"""The ``polyfit`` command: one module a command, and the app that has them all.

Third parties: click. Heavy modules are imported by the command that needs them, when it runs, so
that ``polyfit --help`` and ``polyfit plan`` stay light.
"""

__all__ = ["app"]
