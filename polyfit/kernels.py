"""Functions of tensors compiled to one C function each, once per node.

``torch.compile``'s Inductor fuses a function into a single C++ loop. That loop is kept in the
user's cache as a library of its own, so that the next process calls it within milliseconds:
nothing is traced or compiled again, and a call costs a few microseconds. For an accelerator the
function is traced by every process; what Inductor and Triton make of it is kept in the same cache.

The cache lies in ``POLYFIT_CACHE``, else ``$XDG_CACHE_HOME/polyfit``, else ``~/.cache/polyfit``.
A kernel's file is named by all that decides its code: the function's sources, torch and the CPU.
"""

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any, Final

import torch
from torch import Tensor

from polyfit.errors import ClusterError

__all__ = [
    "LANES",
    "Kernel",
    "Link",
    "Recipe",
    "cache_folder",
    "chain",
    "compiling",
    "load",
    "prepare",
]

Function = Callable[..., Sequence[Tensor]]

_ABREAST: Final = 3
"""Vectors that pass through a long chain side by side, where there are 32 registers for them."""

LANES: Final = 16 * _ABREAST
"""A compiled loop takes so many numbers at a time, or a divisor of it."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A function to compile.

    ``name`` tells it from all others; ``sources`` are the files that its meaning depends on.
    ``make`` gives the function and example arguments on the CPU: contiguous tensors, of which
    every size above 1 that may vary occurs as one number, and differs from the others. ``fused``
    lets a product and a sum be rounded once, together, which no single operation of torch's does.
    ``long`` says that each number comes out of one long chain of operations: a processor waits for
    one after the other, unless a few vectors pass through the chain side by side. The loop's length
    is a multiple of ``multiple``, in the examples too: where it takes as many numbers at a time, or
    a divisor of it, there is no code for a remainder. ``clamped`` says that it takes the larger or
    the smaller of two numbers only with a constant on the right, which is one instruction; three
    more see to it that a NaN is kept from either side.
    """

    name: str
    sources: tuple[str, ...]
    make: Callable[[], tuple[Function, list[Tensor]]]
    fused: bool = False
    long: bool = False
    multiple: int = 1
    clamped: bool = False


class Link(ABC):
    """A compiled function with its arguments, part by part: one call per place of a first
    dimension that all its tensors have."""

    @abstractmethod
    def call(self) -> None:
        """Call it for every part."""


class Kernel(ABC):
    """A compiled function."""

    @abstractmethod
    def link(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Link:
        """The function from ``inputs`` to ``outputs``, each with a first dimension of parts.

        Each part of a tensor is contiguous, and no output is an input. One part of an input may
        serve all, by a stride of 0. The tensors' memory is kept for as long as the link is.
        """

    def bind(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Callable[[], None]:
        """A call that reads ``inputs`` and writes ``outputs``: contiguous, none of them shared.

        It runs on one thread and lets others run beside it.
        """
        parts = ([tensor.unsqueeze(0) for tensor in tensors] for tensors in (inputs, outputs))
        return chain([self.link(*parts)])


def chain(links: Sequence[Link]) -> Callable[[], None]:
    """A call that takes each part through all of ``links`` before it turns to the next.

    What a part reads and writes stays in the fastest cache between two links.
    """
    bound = [link for link in links if isinstance(link, _Bound)]
    if bound:
        return partial(_run, _Bound.joined(bound), bound)

    def call() -> None:
        for link in links:
            link.call()

    return call


class _Bound(Link):
    """Of a library: where the arguments of the first part lie, and how far those of the next."""

    def __init__(
        self,
        chain: Any,
        function: Any,
        values: Sequence[int],
        steps: Sequence[int],
        parts: int,
        kept: Any,
    ) -> None:
        self._chain, self._function, self._parts, self._kept = chain, function, parts, kept
        numbers = ctypes.c_int64 * len(values)
        self._values, self._steps = numbers(*values), numbers(*steps)

    def call(self) -> None:
        self.joined([self])()

    @staticmethod
    def joined(links: Sequence["_Bound"]) -> Callable[[], None]:
        """A call of all links, which must outlive it."""
        first, pointers = links[0], ctypes.c_void_p * len(links)
        if any(link._parts != first._parts for link in links):
            raise ValueError("the links of a chain have the same parts")
        return partial(
            first._chain,
            ctypes.c_int64(first._parts),
            ctypes.c_int64(len(links)),
            pointers(*(_address(link._function) for link in links)),
            pointers(*(ctypes.addressof(link._values) for link in links)),
            pointers(*(ctypes.addressof(link._steps) for link in links)),
        )


def _run(call: Callable[[], None], kept: Sequence[Link]) -> None:
    call()


def _address(function: Any) -> int | None:
    return ctypes.cast(function, ctypes.c_void_p).value


class _Library(Kernel):
    """A kernel for the CPU: one of those that a library has."""

    def __init__(self, library: Any, number: int) -> None:
        library.polyfit_chain.restype = None
        arguments = library[f"polyfit_arguments_{number}"]
        arguments.restype = ctypes.c_char_p
        self._chain, self._link = library.polyfit_chain, library[f"polyfit_link_{number}"]
        self._arguments: list[list[Any]] = json.loads(arguments())

    def link(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Link:
        values, steps, kept = [], [], [*inputs, *outputs]
        for kind, *place in self._arguments:
            step = 0
            if kind == "size":
                source, dim, multiple = place
                value = inputs[source].shape[1 + dim]
                if value % multiple:
                    raise ValueError(f"a size is {value}, and not a multiple of {multiple}")
            else:
                if kind == "scratch":
                    itemsize, sizes = place
                    shape = [inputs[i].shape[1 + dim] for i, dim in sizes]
                    tensor = torch.empty(1, itemsize * prod(shape), dtype=torch.uint8)
                    kept.append(tensor)
                else:
                    tensor = (inputs if kind == "in" else outputs)[place[0]]
                    step = tensor.stride(0) * tensor.element_size()
                value = tensor.data_ptr()
            values.append(value)
            steps.append(step)
        return _Bound(self._chain, self._link, values, steps, outputs[0].shape[0], kept)


class _Accelerated(Kernel):
    """A kernel for a device other than the CPU: Inductor's, which writes into the outputs."""

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        from torch._guards import TracingContext, tracing
        from torch._inductor import compile_fx, config
        from torch._inductor.decomposition import select_decomp_table
        from torch.fx import GraphModule
        from torch.fx.experimental.proxy_tensor import make_fx

        _allow_long_chains()
        function, examples = recipe.make()
        inputs = [example.to(device) for example in examples]
        outputs = [torch.empty_like(value) for value in function(*inputs)]

        def written(*tensors: Tensor) -> tuple[()]:
            made = function(*tensors[: len(inputs)])
            for kept, value in zip(tensors[len(inputs) :], made, strict=True):
                kept.copy_(value)
            return ()

        table = select_decomp_table()
        traced = make_fx(written, tracing_mode="symbolic", decomposition_table=table)(
            *inputs, *outputs
        )
        # Whatever else the tracer left keeps Inductor from finding it in its cache.
        graph = GraphModule(traced, traced.graph)
        for node in graph.graph.nodes:
            node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
        values = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
        options = {"max_fusion_size": 1_000_000, "size_asserts": False, "compile_threads": 1}
        with (
            tracing(TracingContext(values[0].fake_mode)),
            config.patch(options),
            _inductor_folder(str(cache_folder() / "inductor")),
        ):
            self._compiled: Any = compile_fx.compile_fx_inner(graph, values)
            self._compiled([*inputs, *outputs])  # what is left to compile is compiled now

    def link(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Link:
        parts = zip(*(tensor.unbind(0) for tensor in (*inputs, *outputs)), strict=True)
        return _Calls(self._compiled, list(parts))


@dataclass(frozen=True, slots=True)
class _Calls(Link):
    function: Callable[[list[Tensor]], Any]
    parts: Sequence[Sequence[Tensor]]

    def call(self) -> None:
        for part in self.parts:
            self.function(list(part))


def load(recipe: Recipe, device: torch.device) -> Kernel:
    """The kernel of ``recipe``; compiled now unless this user has it already.

    Raises:
        ClusterError: there is no C++ compiler that works, or no folder to keep kernels in.
    """
    if device.type != "cpu":
        return _accelerated(recipe, device)
    return _loaded(_place(recipe), recipe)


def prepare(recipes: Sequence[Recipe], device: torch.device) -> None:
    """Have all kernels ready; what another process is compiling already is left to it for now.

    Raises:
        ClusterError: as ``load``.
    """
    if device.type == "cpu":
        _prepare([group for fused in (False, True) for group in _groups(recipes, fused)])
    for recipe in recipes:
        load(recipe, device)


def compiling() -> bool:
    """Whether a thread of this process compiles, or waits for another process that does."""
    return bool(_builds) or _building.locked()


def _groups(recipes: Sequence[Recipe], fused: bool) -> list[list[Recipe]]:
    """Those alike in ``fused``, apart in libraries: large ones, if there is work for each core."""
    alike = [recipe for recipe in recipes if recipe.fused == fused]
    count = max(-(-len(alike) // _TOGETHER), min(_compilers(), len(alike)))
    return [alike[first::count] for first in range(count)]


def _compilers() -> int:
    """How many compilers this process may have running: each takes a core and 300 MB."""
    return min(len(os.sched_getaffinity(0)), _MOST_COMPILERS)


def _prepare(groups: Sequence[Sequence[Recipe]]) -> None:
    """Build the kernels that are neither there nor being built; the compiler has one group while
    the code of the next is written."""
    with contextlib.ExitStack() as stack:
        running: list[_Build] = []
        for group in groups:
            build = _Build()
            stack.callback(build.close)
            places = [(recipe, _place(recipe)) for recipe in group]
            free = [(recipe, place) for recipe, place in places if build.lock(place, wait=False)]
            # Whoever had a lock may have built it just before we got it.
            missing = [(recipe, place) for recipe, place in free if not _whole(place)]
            if not missing:
                build.close()
                continue
            build.write(missing)
            if len(running) == _compilers():
                running.pop(0).keep()
            build.compile()
            running.append(build)
        for build in running:
            build.keep()


_kernels: dict[str, Kernel] = {}


def _accelerated(recipe: Recipe, device: torch.device) -> Kernel:
    place = _place(replace(recipe, name=f"{device.type} {recipe.name}"))
    wanted = "Triton with a C compiler that works (gcc or clang, or the one that CC names)"
    with _building, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own insides
        if str(place) not in _kernels:
            with _locked(place, wait=True), torch.no_grad(), _compiler_wanted(wanted):
                _kernels[str(place)] = _Accelerated(recipe, device)
        return _kernels[str(place)]


def _loaded(place: Path, recipe: Recipe) -> Kernel:
    known = _kernels.get(str(place))
    if known is not None:
        return known
    if not _whole(place):
        with contextlib.closing(_Build()) as build:
            build.lock(place, wait=True)
            if not _whole(place):
                build.write([(recipe, place)])
                build.compile()
                build.keep()
    try:
        library = ctypes.CDLL(str(place))
    except OSError as error:  # the folder's file system may forbid to run what lies on it
        raise ClusterError(
            f"a compiled kernel cannot be loaded: {error}; set POLYFIT_CACHE to a folder where "
            "programs may run, or use engine: eager"
        ) from None
    kernel = _kernels[str(place)] = _Library(library, _number(place))
    return kernel


_DIGEST: Final = hashlib.sha256().digest_size
"""Bytes at the end of a kernel's file: a digest of all before."""
_NUMBER: Final = 4
"""Bytes before the digest: which of the library's kernels this one is. Neither is of the library
itself; the dynamic loader does not look behind it."""


def _number(place: Path) -> int:
    try:
        return int.from_bytes(place.read_bytes()[-_DIGEST - _NUMBER : -_DIGEST], "little")
    except OSError as error:
        raise ClusterError(f"a compiled kernel cannot be read: {error}") from None


def _filed(library: bytes, number: int) -> bytes:
    """A kernel's file."""
    data = library + number.to_bytes(_NUMBER, "little")
    return data + hashlib.sha256(data).digest()


def _whole(place: Path) -> bool:
    """Whether a kernel is there as it was written: to load half a library may kill the process."""
    try:
        data = place.read_bytes()
    except OSError:
        return False
    return hashlib.sha256(data[:-_DIGEST]).digest() == data[-_DIGEST:]


def _place(recipe: Recipe) -> Path:
    digest = hashlib.sha256(f"{recipe.name} {recipe.fused} {_machine()}".encode())
    for source in (*recipe.sources, __file__):
        digest.update(_digest(source))
    return cache_folder() / f"{digest.hexdigest()[:32]}.so"


@lru_cache
def _digest(source: str) -> bytes:
    return hashlib.sha256(Path(source).read_bytes()).digest()


@lru_cache(maxsize=1)
def _machine() -> str:
    """What code made here needs to run elsewhere: the home folder may be shared by machines."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        lines = {line.split(":")[0].strip(): line for line in file if ":" in line}
    kind = [lines.get(name, "") for name in ("model name", "flags", "Features")]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{torch.__version__} {platform.machine()} {capability} {kind} {platform.libc_ver()}"


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Where kernels are kept; made if need be, and ours alone.

    Raises:
        ClusterError: it cannot be made or belongs to somebody else.
    """
    named = os.environ.get("POLYFIT_CACHE")
    if named:
        wanted = [Path(named).absolute()]
    else:
        wanted = []
        with contextlib.suppress(RuntimeError):  # a user without a home
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            wanted.append(Path(home).absolute() / "polyfit")
        with contextlib.suppress(FileNotFoundError):  # no folder for temporary files
            wanted.append(Path(tempfile.gettempdir()) / f"polyfit-{os.getuid()}")
    for folder in filter(_compilers_take, wanted):
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Code is loaded from here: nobody else may write it.
            found = folder.stat()
            sound = found.st_uid == os.getuid() and not found.st_mode & 0o022
            if sound and os.access(folder, os.W_OK | os.X_OK):
                return folder
    odd = "" if all(map(_compilers_take, wanted)) else "has blanks or quotes in its name, "
    places = " and ".join(map(str, wanted)) or "a home or a temporary folder"
    raise ClusterError(
        f"no folder for compiled kernels: {places} {odd}cannot be written, "
        "or others can write there; set POLYFIT_CACHE to a folder of your own, or use engine: eager"
    )


def _compilers_take(folder: Path) -> bool:
    """Whether torch's command line for a compiler keeps the folder's name whole."""
    return not re.search(r"[\s'\"\\]", str(folder))


@contextlib.contextmanager
def _locked(place: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock of one kernel; it goes with its process. False if another has it."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(place.with_suffix(".lock"), "a", encoding="utf-8"))
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        except OSError as error:  # not every file system of a network has locks
            raise ClusterError(
                f"compiled kernels cannot be kept in {place.parent}: {error}; set POLYFIT_CACHE "
                "to a folder of this machine, or use engine: eager"
            ) from None
        yield True


# --- compiling -------------------------------------------------------------------------------


_building: Final = Lock()
"""Inductor is told what to do by settings of the process: one thread compiles at a time."""


_TOGETHER: Final = 8
"""Kernels of one library: what all include takes a compiler ten times as long as one of them."""

_MOST_COMPILERS: Final = 4
"""Running for one process at once, for the sake of memory."""


_builds: Final = set["_Build"]()
"""Those under way in this process."""


class _Build:
    """Kernels on their way, alike in ``fused``: one library. Their locks are held until its end."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()
        _builds.add(self)

    def lock(self, place: Path, wait: bool) -> bool:
        """Whether the kernel that belongs there is ours to build; its end releases it."""
        if not wait and _whole(place):
            return False
        return self._held.enter_context(_locked(place, wait))

    def write(self, missing: Sequence[tuple[Recipe, Path]]) -> None:
        """The source of the recipes' library, and how to compile it."""
        self._missing = missing
        with _room_wanted(cache_folder()):
            for _, place in missing:  # whoever left one was killed: the lock is ours
                for left in place.parent.glob(f"{place.stem}.build-*"):
                    shutil.rmtree(left, ignore_errors=True)
            place = missing[0][1]
            folder = self._held.enter_context(
                tempfile.TemporaryDirectory(prefix=f"{place.stem}.build-", dir=place.parent)
            )
            self._log, source = Path(folder) / "compiler.txt", Path(folder) / "kernels.cpp"
            with _building, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch says of its own insides
                _check_compiler()  # torch asks for one already while it writes the code
                parts = [_part(number, one, folder) for number, (one, _) in enumerate(missing)]
                source.write_text("\n".join([_SHARED, *parts]))
                self._command, self._library = _command(source, missing[0][0].fused)

    def compile(self) -> None:
        """Start the compiler."""
        with _compiler_wanted(), self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._log.parent,
                env={**os.environ, "TMPDIR": str(self._log.parent)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C on a terminal is for us to take
            )
        self._held.callback(self._end)

    def keep(self) -> None:
        """Wait for the compiler, and put each kernel in its place, whole or not at all."""
        with _compiler_wanted():
            if (code := self._process.wait()) != 0:
                lines = self._log.read_text(errors="replace").splitlines()
                ended = f"it ended with {code}"
                raise RuntimeError(next((line for line in lines if "error" in line), ended))
            library = self._library.read_bytes()
        for number, (_, place) in enumerate(self._missing):
            _keep(place, _filed(library, number))
        self.close()

    def _end(self) -> None:
        """End the compiler and its children."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """End what is running, and release the locks."""
        _builds.discard(self)
        self._held.close()


def _part(number: int, recipe: Recipe, folder: str) -> str:
    """The code of one kernel among others, and its entries."""
    code, arguments = _generated(recipe, folder)
    entries = _ENTRIES.replace("ARGUMENTS", json.dumps(json.dumps(arguments)))
    return re.sub(r"\bkernel\b(?= *\()", "kernel_NUMBER", code + entries).replace(
        "NUMBER", str(number)
    )


def _keep(place: Path, data: bytes) -> None:
    kept = place.with_suffix(f".{os.getpid()}")
    try:
        kept.write_bytes(data)
        kept.replace(place)
    except OSError as error:
        kept.unlink(missing_ok=True)
        raise ClusterError(f"a compiled kernel cannot be kept in {place.parent}: {error}; "
                           "use engine: eager, or POLYFIT_CACHE") from None  # fmt: skip


_SHARED: Final = """
#include <torch/csrc/inductor/cpp_prefix.h>
#include <cstdint>
#include <type_traits>
#include <utility>

// What is passed for an argument of the kernel: its value, or its address for the first part.
template <class A> A polyfit_argument(int64_t value, int64_t step, int64_t part) {
    if constexpr (std::is_pointer_v<A>) return reinterpret_cast<A>(value + part * step);
    else return value;
}

template <class... A, size_t... I>
void polyfit_call(void (*function)(A...), const int64_t* values, const int64_t* steps,
                  int64_t part, std::index_sequence<I...>) {
    function(polyfit_argument<A>(values[I], steps[I], part)...);
}

template <class... A>
void polyfit_spread(void (*function)(A...), const int64_t* values, const int64_t* steps,
                    int64_t part) {
    polyfit_call(function, values, steps, part, std::index_sequence_for<A...>{});
}

typedef void (*Link)(const int64_t*, const int64_t*, int64_t);

extern "C" void polyfit_chain(int64_t parts, int64_t links, const Link* functions,
                              const int64_t* const* values, const int64_t* const* steps) {
    for (int64_t part = 0; part < parts; ++part)
        for (int64_t i = 0; i < links; ++i) functions[i](values[i], steps[i], part);
}
"""
_ENTRIES: Final = """
extern "C" void polyfit_link_NUMBER(const int64_t* values, const int64_t* steps, int64_t part) {
    polyfit_spread(&kernel_NUMBER, values, steps, part);
}

extern "C" const char* polyfit_arguments_NUMBER() { return ARGUMENTS; }
"""
"""What a library has once, and beside each kernel: calls by addresses, in parts and in chains."""


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler

    with _compiler_wanted():
        get_cpp_compiler()


_COMPILER: Final = "a C++ compiler that works (g++ or clang++, or the one that CXX names)"


@contextlib.contextmanager
def _compiler_wanted(wanted: str = _COMPILER) -> Iterator[None]:
    """What a missing or broken compiler makes torch raise, in words."""
    from torch._inductor import exc

    try:
        yield
    except (exc.CppCompileError, exc.InvalidCxxCompiler, OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None:  # Inductor wraps whatever it meets
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        last = [line for line in str(error).splitlines() if line.strip()]
        raise ClusterError(
            "this machine cannot compile the engine's kernels "
            f"({last[0] if last else type(error).__name__}): {wanted} is needed; install it, or "
            "use engine: eager"
        ) from None


@contextlib.contextmanager
def _room_wanted(folder: Path) -> Iterator[None]:
    """What a full disk makes torch raise while it writes, in words."""
    try:
        yield
    except ClusterError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise ClusterError(
            f"kernels cannot be compiled in {folder}: {cause}; set POLYFIT_CACHE to a folder with "
            "room, or use engine: eager"
        ) from None


def _command(source: Path, fused: bool) -> tuple[list[str], Path]:
    """What makes a shared library of a C++ file, for this machine's vector units; and its path."""
    from torch._inductor.cpp_builder import CppBuilder, CppTorchOptions
    from torch._inductor.cpu_vec_isa import pick_vec_isa

    with _compiler_wanted(), _settings(fused), _inductor_folder(str(source.parent)):
        builder = CppBuilder(
            name=source.stem,
            sources=str(source),
            output_dir=str(source.parent),
            BuildOption=CppTorchOptions(vec_isa=pick_vec_isa(), warning_all=False),
        )
        return shlex.split(builder.get_command_line()), Path(builder.get_target_file_path())


def _untried(self: Any, code: str) -> bool:
    return False


@contextlib.contextmanager
def _settings(fused: bool = False) -> Iterator[None]:
    """Inductor's, for one thread and the vector units that torch itself uses here."""
    from torch._inductor import config
    from torch._inductor.cpu_vec_isa import VecISA

    widths = {"AVX512": 512, "AVX2": 256}
    width = widths.get(torch.backends.cpu.get_cpu_capability())
    patch = config.patch(
        {
            "cpp.threads": 1,
            "cpp.simdlen": width,
            # What torch runs with needs no trial compilations, which take many seconds.
            "cpp.vec_isa_ok": True if width else None,
            "cpp.enable_floating_point_contract_flag": "fast" if fused else "off",
            "compile_threads": 1,
            "fx_graph_cache": False,
            # One loop, whatever its length: intermediate values stay in registers.
            "max_fusion_size": 1_000_000,
            "size_asserts": False,
        }
    )
    tried = VecISA.check_build
    if width:  # nor do the units for bfloat16 and int8, which no kernel has
        VecISA.check_build = _untried  # type: ignore[method-assign]
    try:
        with patch:
            yield
    finally:
        VecISA.check_build = tried  # type: ignore[method-assign]


@contextlib.contextmanager
def _loops(recipe: Recipe) -> Iterator[None]:
    """Have Inductor's loops take a few vectors at a time for a long chain, and leave out what they
    would do with remainders that do not occur, which is half of the code, and with NaN on the right
    of a clamp."""
    from torch._inductor.codegen.cpp import CppVecOverrides, LoopLevel, TilingSelect

    select = TilingSelect.select_tiling
    tile: Callable[..., Any] = LoopLevel.tile

    def several(self: Any, *arguments: Any) -> Any:
        factors, *rest = select(self, *arguments)
        return [_ABREAST * factor for factor in factors], *rest

    def whole(self: Any, factor: int) -> Any:
        loop = tile(self, factor)
        if recipe.multiple % factor == 0:
            loop.tiled_size = loop.size
        return loop

    larger, smaller = CppVecOverrides.maximum, CppVecOverrides.minimum
    if recipe.clamped:
        CppVecOverrides.maximum = staticmethod(_clamped_below)  # type: ignore[method-assign]
        CppVecOverrides.minimum = staticmethod(_clamped_above)  # type: ignore[method-assign]
    LoopLevel.tile = whole  # type: ignore[method-assign]
    if recipe.long and torch.backends.cpu.get_cpu_capability() == "AVX512":
        TilingSelect.select_tiling = several  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        TilingSelect.select_tiling = select  # type: ignore[method-assign]
        LoopLevel.tile = tile  # type: ignore[method-assign]
        CppVecOverrides.maximum = staticmethod(larger)  # type: ignore[method-assign]
        CppVecOverrides.minimum = staticmethod(smaller)  # type: ignore[method-assign]


def _clamped_below(value: Any, least: Any) -> str:
    return f"at::vec::clamp_min({value}, {least})"


def _clamped_above(value: Any, most: Any) -> str:
    return f"at::vec::clamp_max({value}, {most})"


def _allow_long_chains() -> None:
    """Inductor follows a chain of operations by recursion."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))


def _generated(recipe: Recipe, folder: str) -> tuple[str, list[list[Any]]]:
    """Inductor's C++ for ``recipe``, and what each argument of its function is."""
    _allow_long_chains()
    from torch._inductor import async_compile, compile_fx
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    function, examples = recipe.make()
    graph = make_fx(function, tracing_mode="symbolic", decomposition_table=select_decomp_table())(
        *examples
    )
    placeholders = [n.meta["val"] for n in graph.graph.nodes if n.op == "placeholder"]
    sources: list[str] = []
    calls: list[tuple[Any, ...]] = []

    def note(self: Any, types: list[str], code: str) -> Callable[..., None]:
        # Everything but the compiler's run: the library is made from the code, by us.
        sources.append(code)
        return lambda *arguments: calls.append(arguments)

    original = async_compile.AsyncCompile.cpp_pybinding
    async_compile.AsyncCompile.cpp_pybinding = note  # type: ignore[method-assign, assignment]
    try:
        with _settings(), _loops(recipe), _inductor_folder(folder), torch.no_grad():
            compiled = compile_fx.compile_fx_inner(graph, placeholders)
            outputs = compiled(list(examples))
    finally:
        async_compile.AsyncCompile.cpp_pybinding = original  # type: ignore[method-assign]
    if len(sources) != 1 or len(calls) != 1:
        raise RuntimeError(f"{recipe.name}: {len(sources)} kernels and {len(calls)} calls, not one")
    return sources[0], _arguments(recipe, calls[0], examples, list(outputs))


def _arguments(
    recipe: Recipe, call: Sequence[Any], examples: Sequence[Tensor], outputs: Sequence[Tensor]
) -> list[list[Any]]:
    """Which input, output or size each argument of the one call was."""
    known: dict[int, list[Any]] = {t.data_ptr(): ["in", i] for i, t in enumerate(examples)}
    known |= {t.data_ptr(): ["out", i] for i, t in enumerate(outputs)}
    sizes = {
        size: ["size", i, dim, 1 if size % recipe.multiple else recipe.multiple]
        for i, tensor in enumerate(examples)
        for dim, size in enumerate(tensor.shape)
        if size > 1
    }
    found = []
    for value in call:
        if not isinstance(value, Tensor):
            place = sizes.get(value)
        else:
            place = known.get(value.data_ptr())
            dims = [sizes.get(size) for size in value.shape if size > 1]
            if place is None and None not in dims:
                place = ["scratch", value.element_size(), [dim[1:3] for dim in dims if dim]]
        if place is None:
            raise RuntimeError(
                f"{recipe.name}: an argument is neither input, output, size nor scratch"
            )
        found.append(place)
    written = {place[1] for place in found if place[0] == "out"}
    if written != set(range(len(outputs))):
        raise RuntimeError(f"{recipe.name}: outputs {written} of {len(outputs)} are written")
    return found


@contextlib.contextmanager
def _inductor_folder(folder: str) -> Iterator[None]:
    """Inductor's own files go where ours do, and go away with them."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    os.environ[name] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
