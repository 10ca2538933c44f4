"""Millions of small polynomial fits by autograd, as one distributed batch job.

The names a program needs are here; each is loaded when it is first used, so that
``import polyfit`` costs nothing and a plan can be made on a machine without torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from polyfit.api import sweep
    from polyfit.run.reader import Run
    from polyfit.spec.plan import Plan
    from polyfit.spec.spec import Spec
    from polyfit.work.driver import execute

__all__ = ["Plan", "Run", "Spec", "__version__", "execute", "sweep"]

__version__ = "0.1.0"

_MODULES = {
    "Spec": "spec.spec",
    "Plan": "spec.plan",
    "Run": "run.reader",
    "execute": "work.driver",
    "sweep": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'polyfit' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"polyfit.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
