"""Compiled kernels: made once, kept whole, and missed with a clear word."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import CPU, KINDS, KindOfFit, plan_of
from limits import HANG_S, wait_for
from torch import Tensor

from polyfit import kernels
from polyfit.errors import ClusterError, Exit
from polyfit.kernels import Recipe, cache_folder, load
from polyfit.plan import Shard
from polyfit.worker import compute


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for kernels, in a process that has none yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("POLYFIT_CACHE", str(folder))
    monkeypatch.setattr(kernels, "_kernels", {})
    monkeypatch.setattr(kernels, "cache_folder", kernels.cache_folder.__wrapped__)
    return folder


def added(one: Tensor, other: Tensor) -> Sequence[Tensor]:
    return [one + other]


def recipe(
    name: str = "added", function: Callable[..., Sequence[Tensor]] = added, source: str = __file__
) -> Recipe:
    return Recipe(name, (source,), lambda: (function, [torch.ones(5), torch.ones(5)]))


def sums(kernel: kernels.Kernel) -> list[float]:
    """What the kernel makes of these two vectors."""
    inputs = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])]
    out = torch.empty(3)
    kernel.bind(inputs, [out])()
    return out.tolist()


SUMS = [11.0, 22.0, 33.0]


def test_a_chain_takes_each_part_through_all_its_links(cache: Path) -> None:
    kernel = load(recipe(), CPU)
    one = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    other = torch.tensor([10.0, 20.0]).expand(3, 2)  # serves every part
    middle, last = torch.empty(3, 2), torch.empty(3, 2)
    call = kernels.chain(
        [kernel.link([one, other], [middle]), kernel.link([middle, other], [last])]
    )
    call()
    assert last.tolist() == [[21.0, 42.0], [23.0, 44.0], [25.0, 46.0]]
    one += 1.0
    call()
    assert last.tolist() == [[22.0, 43.0], [24.0, 45.0], [26.0, 47.0]]


def test_the_parts_of_a_chain_may_lie_apart(cache: Path) -> None:
    """A part is contiguous, but the parts need not follow one another."""
    memory = torch.zeros(2, 3, 4)
    memory[:, 0], memory[:, 1] = 1.0, torch.arange(8.0).reshape(2, 4)
    one, other, out = memory.unbind(1)
    kernels.chain([load(recipe(), CPU).link([one, other], [out])])()
    assert memory[:, 2].tolist() == [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]


def test_links_of_a_chain_have_the_same_parts(cache: Path) -> None:
    kernel = load(recipe(), CPU)
    links = [kernel.link([torch.ones(n, 2)] * 2, [torch.empty(n, 2)]) for n in (2, 3)]
    with pytest.raises(ValueError, match="the same parts"):
        kernels.chain(links)


def code_of(made: Recipe, tmp_path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own insides
        return kernels._generated(made, str(tmp_path))[0]


def whole_recipe() -> Recipe:
    examples = [torch.ones(2 * kernels.LANES) for _ in range(2)]
    return Recipe("whole", (__file__,), lambda: (added, examples), multiple=kernels.LANES)


def test_a_loop_over_whole_multiples_has_no_code_for_a_remainder(tmp_path: Path) -> None:
    whole = whole_recipe()
    remainder = "C10_UNLIKELY"
    assert remainder in code_of(recipe(), tmp_path)
    assert remainder not in code_of(whole, tmp_path)
    for long in (False, True):  # those that fit on this machine's processor, and on others
        assert remainder not in code_of(replace(whole, long=long), tmp_path)
    assert remainder in code_of(replace(recipe(), multiple=3), tmp_path)


def test_other_sizes_than_whole_multiples_are_refused(cache: Path) -> None:
    """The loop would write beyond the end."""
    kernel = load(whole_recipe(), CPU)
    with pytest.raises(ValueError, match=f"a size is 3, and not a multiple of {kernels.LANES}"):
        sums(kernel)
    one, out = torch.arange(2.0 * kernels.LANES), torch.empty(2 * kernels.LANES)
    kernel.bind([one, one], [out])()
    assert out.tolist() == (2 * one).tolist()


PROGRAM = """
    import os, sys, time
    from pathlib import Path
    import torch
    from polyfit import kernels
    from polyfit.kernels import Recipe, load, prepare

    CPU, TOLD = torch.device("cpu"), Path(os.environ["TOLD"])

    def tell(word):
        with TOLD.open("a") as file:
            file.write(word + "\\n")

    def make():
        tell("made")
        return (lambda one, other: [one + other]), [torch.ones(5), torch.ones(5)]

    def sums(kernel):
        inputs = [torch.tensor([1.0, 2.0, 3.0]), torch.tensor([10.0, 20.0, 30.0])]
        out = torch.empty(3)
        kernel.bind(inputs, [out])()
        assert out.tolist() == [11.0, 22.0, 33.0], out

    recipe = Recipe("added", (os.environ["SOURCE"],), make)
"""


def program(body: str, cache: Path, **env: str) -> subprocess.Popen[str]:
    """A process that has ``recipe``; what is told, and made, it writes to the file ``told``."""
    told = cache.parent / "told"
    told.touch()
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM) + textwrap.dedent(body)],
        env={
            **os.environ, "POLYFIT_CACHE": str(cache), "TOLD": str(told), "SOURCE": __file__, **env
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def told(cache: Path) -> list[str]:
    return (cache.parent / "told").read_text().split()


def kept(cache: Path) -> list[str]:
    """The kinds of files in the cache."""
    return sorted(path.suffix for path in cache.iterdir())


# --- made once -------------------------------------------------------------------------------


def test_a_kernel_is_compiled_once_and_found_by_the_next_process(cache: Path) -> None:
    assert sums(load(recipe(), CPU)) == SUMS
    body = """
        load(Recipe("added", recipe.sources, None), CPU)
        prepare([Recipe("added", recipe.sources, None)], CPU)
        sums(load(recipe, CPU))
        assert "torch._inductor.compile_fx" not in sys.modules
    """
    process = program(body, cache)
    output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 0, output
    assert told(cache) == []
    assert kept(cache) == [".lock", ".so"]


@pytest.mark.parametrize("call", ["load(recipe, CPU)", "prepare([recipe], CPU)"])
def test_two_processes_at_once_compile_once(cache: Path, call: str) -> None:
    body = f"""
        tell("here")
        while TOLD.read_text().count("here") < 2:
            time.sleep(0.01)
        {call}
        sums(load(recipe, CPU))
    """
    processes = [program(body, cache) for _ in range(2)]
    outputs = [process.communicate(timeout=HANG_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(told(cache)) == ["here", "here", "made"]
    assert kept(cache) == [".lock", ".so"]


def test_while_a_kernel_is_compiled_the_process_says_so(cache: Path) -> None:
    made = recipe()
    seen: list[bool] = []

    def make() -> Any:
        seen.append(kernels.compiling())
        return made.make()

    assert not kernels.compiling()
    load(replace(made, make=make), CPU)
    assert seen == [True]
    assert not kernels.compiling()


def test_threads_of_one_process_may_compile_different_kernels_at_once(cache: Path) -> None:
    """What torch is told while it compiles is told to the whole process."""

    def subtracted(one: Tensor, other: Tensor) -> Sequence[Tensor]:
        return [other - one]

    recipes = [recipe("added"), recipe("subtracted", subtracted)]
    found: dict[str, list[float]] = {}
    threads = [
        threading.Thread(target=lambda r=one: found.update({r.name: sums(load(r, CPU))}))
        for one in recipes
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"added": SUMS, "subtracted": [9.0, 18.0, 27.0]}


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_each_core_has_a_library_to_compile(
    cores: int, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that another worker, or another run of the compiler, takes the next meanwhile."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    names = ["one", "two", "three"]
    kernels.prepare([recipe(name) for name in names], CPU)
    assert [sums(load(recipe(name), CPU)) for name in names] == [SUMS] * 3
    places = [kernels._place(recipe(name)) for name in names]
    libraries = {place.read_bytes()[: -kernels._DIGEST - kernels._NUMBER] for place in places}
    assert len(libraries) == min(cores, 3)
    assert kept(cache) == [".lock"] * 3 + [".so"] * 3


def test_what_the_compiler_refuses_is_told_and_lets_go(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    with monkeypatch.context() as broken:
        broken.setattr(kernels, "_SHARED", '#error "so not"\n')
        with pytest.raises(ClusterError, match=r'error.*"so not".*: a C\+\+ compiler'):
            kernels.prepare([recipe("one"), recipe("two")], CPU)
    assert kept(cache) == [".lock"] * 2
    kernels.prepare([recipe("one"), recipe("two")], CPU)
    assert sums(load(recipe("two"), CPU)) == SUMS


def test_a_clamp_keeps_what_is_no_number(cache: Path) -> None:
    """In vectors, and in what is left over; others than a constant on the right keep it as well."""
    values = torch.linspace(-3.0, 3.0, 37)
    values[::5], values[1], values[2] = torch.nan, torch.inf, -torch.inf

    def clamped(values: Tensor, other: Tensor) -> Sequence[Tensor]:
        return [values.clamp(-1.0, 1.5) + other * 0.0]

    def larger(values: Tensor, other: Tensor) -> Sequence[Tensor]:
        return [torch.maximum(other, values) + torch.minimum(values, other)]

    for name, function, fused in (("clamped", clamped, True), ("larger", larger, False)):
        out, inputs = torch.empty(37), [values, torch.ones(37)]
        load(replace(recipe(name, function), clamped=fused), CPU).bind(inputs, [out])()
        torch.testing.assert_close(out, function(*inputs)[0], rtol=0, atol=0, equal_nan=True)
        assert out.isnan().sum() >= 8


def test_what_an_accelerator_runs_is_the_same_function_and_is_found_again(cache: Path) -> None:
    """Inductor's own kernels, here for the CPU: two parts, one of which an input has for both."""
    from torch._dynamo.utils import counters

    for _ in range(2):
        kernel = kernels._accelerated(recipe(), CPU)
        assert sums(kernel) == SUMS
        out = torch.empty(2, 3)
        parts, one = torch.arange(6.0).reshape(2, 3), torch.tensor([[10.0, 20.0, 30.0]])
        kernels.chain([kernel.link([parts, one.expand(2, 3)], [out])])()
        assert out.tolist() == [[10.0, 21.0, 32.0], [13.0, 24.0, 35.0]]
        found = counters["inductor"]["fxgraph_cache_hit"]
        kernels._kernels.clear()
    assert found == 1


@pytest.mark.parametrize("kind", [KINDS[1], KINDS[13]], ids=str)
def test_blocks_as_an_accelerator_runs_them_come_to_the_same(
    kind: KindOfFit, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """37 fits are no multiple of anything."""
    plan = plan_of(
        f"fit: {{{kind}, points: 40, steps: 131}}\nsweep: {{seed: {{count: 37}}}}", "compiled"
    )
    shard = Shard(0, 0, plan.fits)
    want = compute(plan, shard, CPU)
    monkeypatch.setattr(kernels, "_loaded", lambda place, one: kernels._accelerated(one, CPU))
    found = compute(plan, shard, CPU)
    assert found["status"].equals(want["status"])
    for name in ("loss", "max_error"):
        assert found[name].to_pylist() == pytest.approx(want[name].to_pylist(), rel=1e-5)


def test_memory_that_runs_out_while_a_device_compiles_is_just_that(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the batch is halved, and not told that a compiler is wanted."""
    from torch._inductor import compile_fx

    def full(*arguments: Any) -> Any:
        try:
            raise torch.OutOfMemoryError
        except torch.OutOfMemoryError as error:
            raise RuntimeError("wrapped") from error

    monkeypatch.setattr(compile_fx, "compile_fx_inner", full)
    with pytest.raises(torch.OutOfMemoryError):
        kernels._accelerated(recipe(), CPU)


def test_what_a_device_cannot_compile_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import compile_fx

    def refuse(*arguments: Any) -> Any:
        raise RuntimeError("no such chip\nand more")

    monkeypatch.setattr(compile_fx, "compile_fx_inner", refuse)
    with pytest.raises(ClusterError, match=r"\(no such chip\): Triton .* use engine: eager"):
        kernels._accelerated(recipe(), CPU)


@pytest.mark.parametrize("change", ["name", "source", "torch", "processor"])
def test_a_kernels_file_is_named_by_all_that_decides_its_code(
    change: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [tmp_path / "one.py", tmp_path / "same.py", tmp_path / "other.py"]
    for source, text in zip(sources, ["a = 1", "a = 1", "a = 2"], strict=True):
        source.write_text(text)
    one, same, other = (recipe(source=str(source)) for source in sources)
    before = kernels._place(one)
    assert kernels._place(same) == before
    match change:
        case "name":
            other = recipe("other", source=str(sources[0]))
        case "torch":
            monkeypatch.setattr(torch, "__version__", "9.9.9")
            other = one
        case "processor":
            monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NONE")
            other = one
    monkeypatch.setattr(kernels, "_machine", kernels._machine.__wrapped__)
    assert kernels._place(other) != before


# What a run needs is known before it begins: problems of their own, or one for all; blocks for
# every record; pieces of a batch that are one problem's, and pieces that are not.
RUNS = [
    "fit: {steps: 21, points: 2000}\nsweep: {noise: [1], noise_seed: [1, 2], seed: {count: 40}}",
    "fit: {steps: 21, basis: power}\nsweep: {noise: [1], noise_seed: [1, 2], seed: {count: 40}}",
    "fit: {steps: 21, basis: power}\nsweep: {range: [[-1, 1], [0, 1]], seed: {count: 40}}",
    "fit: {steps: 20, points: 40}\nrecord: {every: 1, of: [coefficients]}",
    "fit: {steps: 20, points: 40}\nrecord: {at: [0, 9, 10, 19], of: [loss]}",
    "fit: {steps: 20, points: 40, objective: huber, noise: 1}\nsweep: {noise_seed: [1, 2]}",
    "fit: {steps: 20, points: 40, objective: huber, basis: power, lr: 1.0e-5}\n"
    "sweep: {noise: [1], noise_seed: [1, 2], seed: {count: 3}}",
    "fit: {steps: 20, points: 40, objective: huber, basis: power, lr: 1.0e-5}\n"
    "sweep: {range: [[-1, 1], [0, 1]], seed: {count: 3}}",
    "fit: {steps: 20, optimizer: newton}\nsweep: {objective: [sse, huber], noise: [0, 1]}",
    "sweep: {degree: [1, 3], basis: [chebyshev, legendre], lr: [auto, 0.1], stop: "
    "[none, {gradient: 0.5}], seed: {count: 2}}\nfit: {steps: 20}",
]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("text", RUNS)
def test_every_kernel_is_there_before_the_first_fit(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that workers compile side by side, each another one, and none while others wait."""
    prepared: set[str] = set()
    used: set[str] = set()

    def preparing(recipes: Sequence[Recipe], device: torch.device) -> None:
        prepared.update(one.name for one in recipes)

    def loading(one: Recipe, device: torch.device) -> kernels.Kernel:
        used.add(one.name)
        return load(one, device)

    monkeypatch.setattr(kernels, "prepare", preparing)
    monkeypatch.setattr(kernels, "load", loading)
    plan = plan_of(text, "compiled")
    for shard in (Shard(0, 0, plan.fits), Shard(0, 0, 1)):
        prepared.clear()
        used.clear()
        compute(plan, shard, CPU)
        assert used <= prepared


# --- kept whole ------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["empty", "begun", "half", "but one", "flipped", "not ours"])
def test_a_damaged_kernel_is_made_again(
    cache: Path, tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(recipe(), CPU)
    place = kernels._place(recipe())
    whole = place.read_bytes()
    half = len(whole) // 2
    bad = {
        "empty": b"",
        "begun": whole[:40],
        "half": whole[:half],
        "but one": whole[:-1],
        "flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
        "not ours": whole[:-32],
    }[damage]
    # In another folder: the loader knows what it has loaded by its path.
    monkeypatch.setenv("POLYFIT_CACHE", str(tmp_path / "other"))
    place = kernels._place(recipe())
    place.write_bytes(bad)
    assert sums(load(recipe(), CPU)) == SUMS
    assert len(place.read_bytes()) == len(whole)
    assert kept(place.parent) == [".lock", ".so"]


def test_what_cannot_be_loaded_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a file system forbids to run what lies on it."""
    monkeypatch.setattr(kernels, "_whole", lambda place: True)
    kernels._place(recipe()).write_bytes(b"no library")
    with pytest.raises(ClusterError, match=r"cannot be loaded: .* POLYFIT_CACHE .* engine: eager"):
        load(recipe(), CPU)


@pytest.mark.parametrize("when", ["tracing", "keeping"])
def test_who_is_killed_while_compiling_harms_nobody(cache: Path, when: str) -> None:
    body = {
        "tracing": """
            def make():
                tell("hanging")
                time.sleep(3600)
            load(Recipe("added", recipe.sources, make), CPU)
        """,
        "keeping": """
            def replace(self, target):
                tell("hanging")
                time.sleep(3600)
            Path.replace = replace
            load(recipe, CPU)
        """,
    }[when]
    process = program(body, cache)
    try:
        while "hanging" not in told(cache):
            assert process.poll() is None, process.communicate()[0]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert sums(load(recipe(), CPU)) == SUMS


def test_a_kernel_that_cannot_be_written_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ClusterError, match="No space left on device; use engine: eager") as caught:
        load(recipe(), CPU)
    assert caught.value.exit_code == Exit.CLUSTER
    assert kept(cache) == [".lock"]


def test_what_an_interrupted_build_began_ends_with_it(cache: Path, tmp_path: Path) -> None:
    """The compiler is a program that runs others."""
    compiler = tmp_path / "compiler"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *-shared*) sleep 3600 & echo $! > "$CHILD"; wait;; esac\n'
        'exec g++ "$@"\n'
    )
    compiler.chmod(0o700)
    body = """
        import signal, threading
        child = Path(os.environ["CHILD"])

        def interrupt():
            while not child.exists() or not child.read_text().strip():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            load(recipe, CPU)
        except KeyboardInterrupt:
            tell("interrupted")
    """
    child = tmp_path / "child"
    process = program(body, cache, CXX=str(compiler), CHILD=str(child))
    output, _ = process.communicate(timeout=HANG_S)
    assert told(cache) == ["made", "interrupted"], output
    assert kept(cache) == [".lock"]
    stat = Path(f"/proc/{child.read_text().strip()}/stat")
    wait_for(
        lambda: not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z",
        "the compiler's child has ended",
    )


def test_what_a_killed_build_left_goes_with_the_next(cache: Path) -> None:
    cache.mkdir(0o700)
    place = kernels._place(recipe())
    left = place.parent / f"{place.stem}.build-left"
    left.mkdir()
    (left / "kernels.cpp").touch()
    assert sums(load(recipe(), CPU)) == SUMS
    assert kept(cache) == [".lock", ".so"]


def test_a_disk_that_is_full_while_code_is_written_is_told(cache: Path) -> None:
    """A limit on the size of files stands for the disk: the same error comes from the same call."""
    body = """
        import resource
        from polyfit.errors import ClusterError
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
        try:
            load(recipe, CPU)
        except ClusterError as error:
            print(error)
    """
    output, _ = program(body, cache).communicate(timeout=HANG_S)
    assert "File too large; set POLYFIT_CACHE to a folder with room, or use engine: eager" in output
    assert "Traceback" not in output
    assert kept(cache) == [".lock"]


# --- missed with a clear word ----------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
def test_a_folder_that_others_can_write_is_refused(cache: Path, mode: int) -> None:
    """They could put code there that we would run."""
    cache.mkdir()
    cache.chmod(mode)
    check_refused(cache)


@pytest.mark.parametrize("place", ["file/cache", "file"])
def test_what_cannot_be_a_folder_is_refused(
    place: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch(0o600)
    monkeypatch.setenv("POLYFIT_CACHE", str(tmp_path / place))
    check_refused(tmp_path / place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_we_cannot_write_is_refused(cache: Path) -> None:
    cache.mkdir(0o500)
    check_refused(cache)


def check_refused(folder: Path) -> None:
    with pytest.raises(ClusterError) as caught:
        load(recipe(), CPU)
    message = str(caught.value)
    assert str(folder) in message
    assert "POLYFIT_CACHE" in message
    assert "engine: eager" in message
    assert caught.value.exit_code == Exit.CLUSTER


def test_without_a_home_kernels_are_kept_with_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("POLYFIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_folder.__wrapped__()
    assert folder == tmp_path / f"polyfit-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    with pytest.raises(ClusterError, match="others can write there; set POLYFIT_CACHE"):
        cache_folder.__wrapped__()


@pytest.mark.parametrize("name", ["a b", "o'brien", 'the "home"', "a\\b"])
def test_a_home_whose_name_compilers_split_is_passed_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.delenv("POLYFIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / name))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder.__wrapped__() == tmp_path / f"polyfit-{os.getuid()}"
    monkeypatch.setenv("POLYFIT_CACHE", str(tmp_path / name))
    with pytest.raises(ClusterError, match=r"has blanks or quotes in its name, .* POLYFIT_CACHE"):
        cache_folder.__wrapped__()


def test_a_home_of_another_alphabet_is_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYFIT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "jürgen"))
    assert cache_folder.__wrapped__() == tmp_path / "jürgen" / ".cache" / "polyfit"


@pytest.mark.parametrize("name", ["POLYFIT_CACHE", "XDG_CACHE_HOME"])
def test_a_relative_cache_is_one_place_wherever_a_compiler_works(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POLYFIT_CACHE", raising=False)
    monkeypatch.setenv(name, "kept")
    monkeypatch.chdir(tmp_path)
    own = "" if name == "POLYFIT_CACHE" else "polyfit"
    assert cache_folder.__wrapped__() == tmp_path / "kept" / own


def test_in_the_users_cache_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POLYFIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder.__wrapped__() == tmp_path / "polyfit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder.__wrapped__() == tmp_path / ".cache" / "polyfit"


def test_a_file_system_without_locks_is_told(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(file: Any, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", unable)
    with pytest.raises(
        ClusterError, match=r"No locks available; set POLYFIT_CACHE .* engine: eager"
    ):
        load(recipe(), CPU)


SPEC = "name: test\nengine: compiled\nfit: {degree: 1, steps: 20, points: 30}\n"


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_without_a_compiler_the_command_ends_with_6(executor: str, tmp_path: Path) -> None:
    check_command(tmp_path, executor, {"CXX": "/nonexistent/g++"}, "C++ compiler")


@pytest.mark.parametrize("kind", ["none in PATH", "broken", "unwritable", "open to others"])
def test_what_compiling_lacks_ends_the_command_with_6(kind: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exec g++ "$@"\nexit 1\n')
    broken.chmod(0o700)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    env, word = {
        "none in PATH": ({"PATH": str(tmp_path / "empty")}, "C++ compiler"),
        "broken": ({"CXX": str(broken)}, "C++ compiler"),
        "unwritable": ({"POLYFIT_CACHE": str(broken / "cache")}, "POLYFIT_CACHE"),
        "open to others": ({"POLYFIT_CACHE": str(tmp_path / "open")}, "POLYFIT_CACHE"),
    }[kind]
    check_command(tmp_path, "inline", env, word)


def check_command(folder: Path, executor: str, env: dict[str, str], word: str) -> None:
    (folder / "spec.yaml").write_text(SPEC)
    environ = {name: value for name, value in os.environ.items() if name != "CXX"}
    command = ["-m", "polyfit", "run", "spec.yaml", "--executor", executor, "--store", "runs"]
    result = subprocess.run(
        [sys.executable, *command],
        env={**environ, "POLYFIT_CACHE": str(folder / "cache"), **env},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == Exit.CLUSTER, result.stderr
    assert word in result.stderr
    assert "engine: eager" in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
