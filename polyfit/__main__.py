"""``python -m polyfit`` is the ``polyfit`` command."""

from polyfit.cli import program

if __name__ == "__main__":
    program()
