"""Fits per second of polyfit and its peers: the sections that race contenders."""

from dataclasses import replace
from typing import Any, Final

from bench.ours import our_contender, tutorial_spec
from bench.race import Contender, race
from bench.report import Report
from bench.settings import CORES, Options, Spec, has_avx512

LOOP: Final = Contender("the tutorial's loop", "bench.peers:loop", cores="each")

VMAP: Final = Contender("torch.func.vmap, all points", "bench.peers:torch_vmap", cores="each")

EAGER: Final = our_contender("ours, eager", tutorial_spec("eager", 8192), "each")

COMPILED: Final = our_contender("ours, compiled", tutorial_spec("compiled", 1 << 17), "each")

AFFINE: Final = our_contender(
    "ours, affine, 20 losses", tutorial_spec("affine", 1 << 17, True), "each"
)

VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "float64": {"dtype": "float64"},
    "adam": {"optimizer": "adam"},
    "momentum": {"optimizer": "momentum"},
}


def peers(options: Options, report: Report) -> None:
    """The tutorial's job, float32, 2000 steps: peers and ours."""
    _peers(options, report)


def _peers(options: Options, report: Report, narrow: bool = False) -> None:
    """``narrow``: those that are compiled, and what they are compared with, at AVX2."""
    all_cores = {"cores": len(CORES)}
    jax_points = Contender("JAX, all points, best form", "bench.peers:jax_points", cores="each")
    jax_reduced = Contender("JAX, reduced, best form", "bench.peers:jax_reduced", cores="each")
    lean = our_contender(
        "ours, compiled, iteration only", COMPILED.arguments["spec"], iteration_only=True
    )
    leaps = our_contender(
        "ours, affine, 20 losses, iteration only", AFFINE.arguments["spec"], iteration_only=True
    )
    many = 1 << (13 if options.quick else 17)
    losses = our_contender("ours, compiled, 20 losses", tutorial_spec("compiled", many, True))
    contenders = [
        LOOP,
        Contender("the loop as Ray tasks", "bench.peers:ray_tasks", all_cores, "all"),
        Contender("the loop in Ray Tune", "bench.peers:ray_tune", all_cores, "all"),
        VMAP,
        Contender("JAX, all points, plain", "bench.peers:jax_points", {"best": False}),
        jax_points,
        jax_reduced,
        Contender("numpy.polyfit (closed form)", "bench.peers:polyfits"),
        Contender("numpy.linalg.lstsq (closed form)", "bench.peers:least_squares"),
        EAGER,
        COMPILED,
        lean,
        losses,
        AFFINE,
        leaps,
    ]
    for engine, fits in (("eager", 8192), ("compiled", many), ("affine", many)):
        for name, change in () if options.quick else VARIANTS.items():
            if engine != "affine" or name != "adam":
                spec = tutorial_spec(engine, fits, engine == "affine", **change)
                contenders.append(our_contender(f"ours, {engine}, {name}", spec))
    section, title, at = "peers", "Tutorial job: 2000 points, cubic, 2000 steps, float32", ""
    if narrow:
        section, title, at = "avx2", f"{title}, AVX2", ", AVX2"
        contenders = _at_avx2(
            LOOP, VMAP, jax_points, jax_reduced, EAGER, COMPILED, lean, losses, AFFINE, leaps
        )
    rows = race(contenders, options)
    report.rates(section, title, rows, LOOP.name)
    for name, of, to in (
        ("compiled / tutorial's loop", COMPILED, LOOP),
        ("affine with 20 losses / tutorial's loop", AFFINE, LOOP),
        ("compiled / JAX best", COMPILED, jax_reduced),
        ("compiled with 20 losses / JAX best", losses, jax_reduced),
        ("compiled, iteration only / JAX best", lean, jax_reduced),
        ("affine with 20 losses / JAX best", AFFINE, jax_reduced),
        ("affine with 20 losses / compiled, iteration only", leaps, lean),
    ):
        report.ratio(f"{name}{at}", rows, of, to)


def _at_avx2(*contenders: Contender) -> list[Contender]:
    return [replace(one, narrow=True, cores="one") for one in contenders]


def objectives(options: Options, report: Report) -> None:
    """Objectives that need every point: 2000 points, 2000 steps, one core."""
    _objectives(options, report)


def _objectives(options: Options, report: Report, narrow: bool = False) -> None:
    """``narrow``: at AVX2."""
    section, at = ("avx2", ", AVX2") if narrow else ("objectives", "")
    for objective in ("huber", "log_cosh", "l1"):
        here: Spec = {"objective": objective}
        torch_loop = Contender(f"a loop in torch, {objective}", "bench.peers:loop", here)
        jax = Contender(f"JAX, best form, {objective}", "bench.peers:jax_points", here)
        eager = our_contender(f"ours, eager, {objective}", tutorial_spec("eager", 32, **here))
        spec = tutorial_spec("compiled", 512, **here)
        compiled = our_contender(f"ours, compiled, {objective}", spec)
        lean = our_contender(
            f"ours, compiled, iteration only, {objective}", spec, iteration_only=True
        )
        contenders = [torch_loop, jax, eager, compiled, lean]
        rows = race(_at_avx2(*contenders) if narrow else contenders, options)
        report.rates(section, f"{objective} on all points{at}", rows, torch_loop.name)
        for ours in (compiled, lean):
            name = ours.name.removeprefix("ours, ")
            report.ratio(f"{name} / loop{at}", rows, ours, torch_loop)
            report.ratio(f"{name} / JAX best{at}", rows, ours, jax)


def avx2(options: Options, report: Report) -> None:
    """What is compiled, and its peers, with AVX2 at most, where the CPU has AVX-512."""
    if not has_avx512():
        report.line("\nAVX2: this CPU has no AVX-512; all other sections are at what it has")
        return
    _peers(options, report, narrow=True)
    _objectives(options, report, narrow=True)


def initial(options: Options, report: Report) -> None:
    """Initial values: four of each seed, by the twister's kernel and by torch."""
    torch_asked = Contender(
        "torch, one by one", "bench.ours:torch_initial_values", {"seeds": 1 << 12}
    )
    kernel = Contender(
        "the twister's kernel", "bench.ours:kernel_initial_values", {"seeds": 1 << 18}
    )
    contenders = [torch_asked, kernel]
    if has_avx512():
        at = "the twister's kernel, AVX2"
        contenders.append(replace(kernel, name=at, narrow=True))
    rows = race(contenders, options)
    report.rates("initial", "Initial values: seeds per second, four each", rows, torch_asked.name)
    for one in contenders[1:]:
        report.ratio(f"{one.name} / torch, one by one", rows, one, torch_asked)


def mixed(options: Options, report: Report) -> None:
    """Sweeps whose fits differ: operations per second, and one problem per fit."""
    for engine, steps, seeds in (("eager", 100, 4), ("compiled", 2000, 8 if options.quick else 64)):
        most = 9
        whole_sweep = _mixed_spec(engine, steps, seeds, list(range(1, most + 1)))
        alone = _mixed_spec(engine, steps, most * seeds, [3])
        mix = our_contender(f"{engine}: degrees 1 to {most}", whole_sweep, in_flops=True)
        one = our_contender(f"{engine}: degree 3 alone", alone, in_flops=True)
        rows = race([mix, one], options)
        title = f"Mixed sweep, {engine}: 50 ranges, 3 bases, {steps} steps; flop/s"
        report.rates("mixed", title, rows, one.name, same=False)
        report.ratio(f"mixed / degree 3 alone, {engine}, in flop/s", rows, mix, one)
    fits = 256 if options.quick else 4096
    for engine in ("eager", "compiled"):
        specs = _distinct_specs(engine, fits)
        contenders = [our_contender(f"{engine}: {name}", spec) for name, spec in specs.items()]
        rows = race(contenders, options)
        title = f"One problem per fit, {engine}, {fits:,} fits"
        report.rates("mixed", title, rows, contenders[0].name, same=False)


def _mixed_spec(engine: str, steps: int, seeds: int, degrees: list[int]) -> Spec:
    ranges = [[-1 - i / 20, 1 + i / 25] for i in range(50)]
    return {
        "name": "bench-mixed",
        "fit": {"steps": steps},
        "sweep": {
            "degree": degrees,
            "basis": ["chebyshev", "legendre", "power"],
            "range": ranges,
            "seed": {"count": seeds},
        },
        "record": "none",
        "engine": engine,
    }


def _distinct_specs(engine: str, fits: int) -> dict[str, Spec]:
    """The same number of fits with one problem in all, and with one each."""
    ranges = [[-1 - i / fits, 1 + 2 * i / fits] for i in range(fits)]
    seeds = {"count": fits}
    base: Spec = {"name": "bench-distinct", "record": "none", "engine": engine}
    noisy = {"fit": {"noise": 0.1}}
    return {
        "one problem, many seeds": {**base, "sweep": {"seed": seeds}},
        "ranges, chebyshev": {**base, "sweep": {"range": ranges}},
        "ranges, power": {**base, "fit": {"basis": "power"}, "sweep": {"range": ranges}},
        "noise of its own": {
            **base, **noisy, "sweep": {"zip": [{"noise_seed": seeds, "seed": seeds}]}
        },
        "ranges and noise": {
            **base, **noisy, "sweep": {"zip": [{"range": ranges, "noise_seed": seeds}]}
        },
    }  # fmt: skip
