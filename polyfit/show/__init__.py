"""What a person sees of one fit: its equation, its curve in the terminal, its recomputation."""

__all__ = ["show"]
