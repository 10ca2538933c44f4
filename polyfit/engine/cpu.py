"""Kernels as machine code of this machine's CPU, in this process, by LLVM.

Machine code is stored in the user's cache. A file is named by all that decides its code; it is used
only if its digest is right, and otherwise made again. Two processes that compile the same kernel at
once do the work twice. Without a cache folder each process makes its own code.
"""

import contextlib
import ctypes
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from polyfit.engine.kernel import Kernel, cpu_text
from polyfit.engine.llvm import binding, parsed
from polyfit.errors import ClusterError

__all__ = [
    "HOST",
    "Function",
    "Machine",
    "cache_folder",
    "compiling",
    "load",
    "loading_s",
    "machine_code",
    "optimised",
]


@dataclass(frozen=True)
class Machine:
    """What code is made for: a CPU and its features in LLVM's terms; empty for this machine."""

    cpu: str = ""
    features: str = ""

    @property
    def register_bytes(self) -> int:
        """Bytes of a vector register."""
        if not self.cpu:
            return 64 if "+avx512f" in _host()[1].split(",") else 32
        return {"x86-64-v4": 64, "x86-64-v3": 32}.get(self.cpu, 16)

    @property
    def num_registers(self) -> int:
        """Vector registers for values: without AVX-512, two of the 16 hold constants."""
        return 32 if self.register_bytes == 64 else 14


HOST: Final = Machine()


class Function:
    """A kernel's function; call it with its arguments."""

    def __init__(self, kernel: Kernel, code: bytes) -> None:
        llvm, self.kernel = binding(), kernel
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target(HOST))
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = self._engine.get_function_address("run")
        self._run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)

    def bind(self, arguments: Mapping[str, "np.ndarray[Any, Any] | int"]) -> Callable[..., None]:
        """A call with these arrays and integers. Each call may replace integers.

        Arrays are contiguous and have the kernel's types; those that it does not use may be
        left out.
        """
        names = self.kernel.arguments
        given = np.zeros(len(names), dtype=np.int64)
        places = {name: place for place, name in enumerate(names)}
        for name, value in arguments.items():
            given[places[name]] = value if isinstance(value, int) else value.ctypes.data
        alive, run, address = (self, dict(arguments)), self._run, given.ctypes.data
        begin, end = places["begin"], places["end"]

        def call(**integers: int) -> None:
            for name, value in integers.items():
                given[places[name]] = value
            assert alive  # the code and the arrays have to live as long as the call
            if given[begin] < given[end]:  # the kernel's loops run at least once
                run(address)

        return call


def load(kernel: Kernel, lanes: int) -> Function:
    """The function of ``kernel``, from this process, the cache, or made now.

    Raises:
        ClusterError: no machine code can be made or run here.
    """
    key = (kernel.key, lanes)
    with _LOCK:
        if key not in _FUNCTIONS:
            _check()
            begun = time.monotonic()
            _FUNCTIONS[key] = Function(kernel, _cached(kernel, lanes))
            _LOADING_S.append(time.monotonic() - begun)
        return _FUNCTIONS[key]


def compiling() -> bool:
    """Whether a thread of this process is making machine code."""
    return _LOCK.locked()


def loading_s() -> float:
    """How long this process has made or loaded machine code, in seconds."""
    return sum(_LOADING_S)


_LOADING_S: Final[list[float]] = []
_FUNCTIONS: Final[dict[tuple[str, int], Function]] = {}
_LOCK: Final = threading.Lock()


def machine_code(text: str, machine: Machine = HOST) -> bytes:
    """LLVM IR as an object file."""
    code: bytes = _target(machine).emit_object(optimised(text, machine))
    return code


def optimised(text: str, machine: Machine) -> Any:
    """LLVM's module of IR without what is not used, such as the losses of most updates.

    LLVM's usual passes are left out. They took a third of the time to make code, and the kernels
    were no faster: values are vectors already, and code generation moves constants out of loops.
    """
    llvm, module = binding(), parsed(text)
    passes = llvm.create_new_module_pass_manager()
    passes.add_aggressive_dce_pass()
    passes.run(
        module, llvm.create_pass_builder(_target(machine), llvm.create_pipeline_tuning_options())
    )
    return module


def _target(machine: Machine) -> Any:
    """LLVM's target, a new one each time: a function that is loaded owns its own."""
    llvm = binding()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    cpu, features = (machine.cpu, machine.features) if machine.cpu else _host()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=cpu, features=features, opt=3, jit=True)


@lru_cache(maxsize=1)
def _host() -> tuple[str, str]:
    _check()
    llvm = binding()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@lru_cache(maxsize=1)
def _check() -> None:
    try:
        binding().check_jit_execution()
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
        with contextlib.suppress(OSError):  # a full disk: the code is made again next time
            _write(place, _digest(name, code) + code)
    return code


def _digest(name: str, code: bytes) -> bytes:
    """Of machine code together with its name, so that a renamed file is not used."""
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

    words = [kernel.key, lanes, *_host(), llvmlite.__version__, torch.__version__, _sources()]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of this wing's sources, which write the kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def cache_folder() -> Path | None:
    """Where machine code is stored, created if needed. None if no folder is ours alone.

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
