"""The ``polyfit`` command. Third parties: click and rich."""

__all__ = ["app"]
