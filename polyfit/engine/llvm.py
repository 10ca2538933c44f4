"""LLVM through llvmlite: loaded when it is first needed, or missed with a clear message."""

from typing import Any

from polyfit.errors import ClusterError

__all__ = ["binding", "parsed"]


def binding() -> Any:
    """llvmlite's binding of LLVM.

    Raises:
        ClusterError: llvmlite is missing or cannot be loaded.
    """
    try:
        from llvmlite import binding as llvm
    except (ImportError, OSError) as error:
        raise ClusterError(
            f"llvmlite, which makes the engine's machine code, cannot be used here ({error}); "
            "install it, or use engine: eager"
        ) from None
    return llvm


def parsed(text: str) -> Any:
    """LLVM's module of IR, verified."""
    module = binding().parse_assembly(text)
    module.verify()
    return module
