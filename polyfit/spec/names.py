"""What a misspelt name or value probably means."""

import difflib
from collections.abc import Iterable
from typing import Final

__all__ = ["meant"]

_SYNONYMS: Final = {
    # keys
    "learning_rate": "lr", "rate": "lr", "eta": "lr",
    "order": "degree", "deg": "degree",
    "samples": "points", "n_points": "points", "num_points": "points",
    "polynomial": "basis", "polynomials": "basis",
    "interval": "range", "domain": "range",
    "loss": "objective", "cost": "objective",
    "loss_function": "objective", "loss_fn": "objective", "criterion": "objective",
    "precision": "dtype", "type": "dtype",
    "function": "target", "formula": "target", "f": "target", "y": "target",
    "sigma": "noise", "noise_std": "noise",
    "epochs": "steps", "iterations": "steps", "updates": "steps", "max_steps": "steps",
    "tolerance": "stop", "tol": "stop", "early_stopping": "stop",
    "method": "optimizer", "algorithm": "optimizer", "solver": "optimizer",
    "random_state": "seed", "random_seed": "seed", "seeds": "seed",
    "grid": "sweep", "parameters": "sweep", "product": "sweep",
    "where": "exclude", "skip": "exclude", "filter": "exclude", "except": "exclude",
    "backend": "engine", "output": "store", "bucket": "store", "log": "record",
    # keys of generators
    "end": "stop", "to": "stop", "from": "start", "first": "start", "last": "stop",
    "num": "count", "n": "count", "size": "count", "length": "count", "by": "step",
    "random": "uniform", "rand": "uniform", "loguniform": "log_uniform", "lin": "linspace",
    "geomspace": "logspace", "geometric": "logspace",
    # values
    "sgd": "gd", "gradient_descent": "gd", "mae": "l1", "l2": "sse", "squares": "sse",
    "double": "float64", "float": "float32", "single": "float32", "half": "float32",
    "monomial": "power", "monomials": "power", "powers": "power", "abort": "stop",
    "adamw": "adam",
}  # fmt: skip


def meant(text: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that ``text`` probably means: a synonym, or one spelt alike."""
    names = tuple(names)
    synonym = _SYNONYMS.get(text.lower().replace("-", "_"))
    if synonym in names:
        return synonym
    spelt = {name.lower(): name for name in names}
    close = difflib.get_close_matches(text.lower(), spelt, 1)
    return spelt[close[0]] if close else None
