"""Kernels as machine code of this machine's CPU, in this process, by LLVM.

Machine code is kept in the user's cache. Its name holds all that decides it; what is there is used
only if its digest is right, and otherwise made again. Two who compile at once do the same work
twice. Without a folder to keep it in, it is made for each process.
"""

import contextlib
import ctypes
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from polyfit.engine.emit import BYTES
from polyfit.engine.kernel import Kernel, cpu_text
from polyfit.errors import ClusterError

__all__ = [
    "HOST",
    "Function",
    "Machine",
    "cache_folder",
    "compiling",
    "lanes_of",
    "load",
    "machine_code",
    "optimised",
]


@dataclass(frozen=True)
class Machine:
    """What code is made for: a CPU and its features in LLVM's words; empty: this machine's."""

    cpu: str = ""
    features: str = ""

    @property
    def registers(self) -> int:
        """Bytes of a vector register."""
        if not self.cpu:
            return 64 if "+avx512f" in _host()[1].split(",") else 32
        return {"x86-64-v4": 64, "x86-64-v3": 32}.get(self.cpu, 16)


HOST: Final = Machine()


class Function:
    """A kernel's function; call it with its arguments."""

    def __init__(self, kernel: Kernel, lanes: int, code: bytes) -> None:
        from llvmlite import binding as llvm

        self.kernel, self.lanes = kernel, lanes
        module = llvm.parse_assembly("")
        self._engine = llvm.create_mcjit_compiler(module, _target(HOST))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = self._engine.get_function_address("run")
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)

    def bind(self, arguments: Mapping[str, "np.ndarray[Any, Any] | int"]) -> Callable[..., None]:
        """A call with these arrays (contiguous, of the kernel's types; those left out are not
        used) and integers, some of which each call may set anew."""
        names = self.kernel.arguments
        given = np.zeros(len(names), dtype=np.int64)
        places = {name: place for place, name in enumerate(names)}
        for name, value in arguments.items():
            whole = not isinstance(value, int)
            given[places[name]] = value.ctypes.data if whole else value  # type: ignore[union-attr]
        kept, run, at = (self, dict(arguments)), self._run, given.ctypes.data
        begin, end = places["begin"], places["end"]

        def call(**integers: int) -> None:
            for name, value in integers.items():
                given[places[name]] = value
            assert kept  # the code and the arrays live as long as the call
            if given[begin] < given[end]:  # its loops turn at least once
                run(at)

        return call


def load(kernel: Kernel, lanes: int) -> Function:
    """The function of ``kernel``, from this process, the cache, or made now.

    Raises:
        ClusterError: no machine code can be made or run here.
    """
    key = (kernel.words, lanes)
    with _LOCK:
        if key not in _FUNCTIONS:
            _check()
            _FUNCTIONS[key] = Function(kernel, lanes, _cached(kernel, lanes))
        return _FUNCTIONS[key]


def compiling() -> bool:
    """Whether a thread of this process makes machine code."""
    return _LOCK.locked()


_FUNCTIONS: Final[dict[tuple[str, int], Function]] = {}
_LOCK: Final = threading.Lock()


def machine_code(text: str, machine: Machine = HOST) -> bytes:
    """LLVM IR as an object file."""
    code: bytes = _target(machine).emit_object(optimised(text, machine))
    return code


def optimised(text: str, machine: Machine) -> Any:
    """LLVM's module of IR after its passes; what is vectors already is not made into others."""
    from llvmlite import binding as llvm

    module = llvm.parse_assembly(text)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=1)
    tuning.slp_vectorization = tuning.loop_vectorization = tuning.loop_unrolling = False
    passes = llvm.create_pass_builder(_target(machine), tuning)
    passes.getModulePassManager().run(module, passes)
    return module


def _target(machine: Machine) -> Any:
    """LLVM's target, a new one: a function that is loaded owns the one that it gets."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = (machine.cpu, machine.features) if machine.cpu else _host()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)


@lru_cache(maxsize=1)
def _host() -> tuple[str, str]:
    _check()
    from llvmlite import binding as llvm

    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@lru_cache(maxsize=1)
def _check() -> None:
    try:
        from llvmlite import binding as llvm
    except (ImportError, OSError) as error:
        raise ClusterError(
            f"llvmlite, which makes the engine's machine code, cannot be used here ({error}); "
            "install it, or use engine: eager"
        ) from None
    try:
        llvm.check_jit_execution()
    except OSError as error:
        raise ClusterError(
            f"this machine does not allow to run machine code made in memory ({error}); "
            "use engine: eager"
        ) from None


# --- cache -----------------------------------------------------------------------------------

_DIGEST: Final = hashlib.sha256().digest_size


def _cached(kernel: Kernel, lanes: int) -> bytes:
    folder, name = cache_folder(), _named(kernel, lanes)
    place = folder / f"{name}.o" if folder else None
    if place:
        with contextlib.suppress(OSError):
            data = place.read_bytes()
            if _digest(name, data[_DIGEST:]) == data[:_DIGEST]:
                return data[_DIGEST:]
    code = machine_code(cpu_text(kernel, lanes))
    if place:
        with contextlib.suppress(OSError):  # a full disk: it is made again next time
            _write(place, _digest(name, code) + code)
    return code


def _digest(name: str, code: bytes) -> bytes:
    """Of machine code under its name: another kernel's has another."""
    return hashlib.sha256(name.encode() + code).digest()


def _write(place: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=place.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(name, place)
    except BaseException:
        os.unlink(name)
        raise


def _named(kernel: Kernel, lanes: int) -> str:
    """A name that holds all that decides the machine code."""
    import llvmlite

    words = [kernel.words, lanes, *_host(), llvmlite.__version__, torch.__version__, _sources()]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of this wing's sources, of which kernels are written."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """Where machine code is kept; made if need be. None where no folder is ours alone.

    ``$POLYFIT_CACHE``; without it ``polyfit`` in ``$XDG_CACHE_HOME`` or ``~/.cache``, or a folder
    with the temporary files.
    """
    named = os.environ.get("POLYFIT_CACHE")
    wanted = [Path(named).absolute()] if named else []
    if not named:
        with contextlib.suppress(RuntimeError):  # a user without a home
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            wanted.append(Path(home).absolute() / "polyfit")
        with contextlib.suppress(FileNotFoundError):  # no folder for temporary files
            wanted.append(Path(tempfile.gettempdir()) / f"polyfit-{os.getuid()}")
    for folder in wanted:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Code is loaded from here: nobody else may write it.
            found = folder.stat()
            ours = found.st_uid == os.getuid() and not found.st_mode & 0o022
            if ours and os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None


def lanes_of(kernel: Kernel, values: int, machine: Machine = HOST) -> int:
    """Lanes for a kernel that changes ``values`` vectors in its innermost loop.

    Several registers a vector hide the latency of dependent operations; where there are many
    values, or few registers of a machine, one leaves them in registers.
    """
    if machine.registers == 64:
        several = 4 if values <= 4 else 2 if values <= 16 else 1
    else:
        several = 2 if values <= 6 else 1
    return machine.registers // BYTES[kernel.real] * several
