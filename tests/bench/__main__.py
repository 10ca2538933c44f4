"""The command of ``make bench``, which hands on its options: ``ARGS="--quick --only peers"``."""

import argparse
import json
import signal
import sys
from collections.abc import Callable
from typing import Final

import bench
from bench.accelerator import accelerator
from bench.end_to_end import end, plan, start
from bench.kernels import kernels
from bench.processes import isolated_environment
from bench.rates import avx2, initial, mixed, objectives, peers
from bench.report import Report, machine
from bench.scale import memory, resume
from bench.settings import OUT, ROOT, Options, changed_environment
from bench.stages import ladder

SECTIONS: Final[dict[str, Callable[[Options, Report], None]]] = {
    "peers": peers,
    "objectives": objectives,
    "avx2": avx2,
    "initial": initial,
    "kernels": kernels,
    "accelerator": accelerator,
    "mixed": mixed,
    "plan": plan,
    "end": end,
    "start": start,
    "memory": memory,
    "resume": resume,
    "ladder": ladder,
}


def main() -> None:
    """Measure, show and write."""
    parser = argparse.ArgumentParser(
        prog="make bench", description=(bench.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller work: a look")
    parser.add_argument("--long", action="store_true", help="also the run of 10^8 fits")
    parser.add_argument(
        "--rehearse", action="store_true", help="the accelerator's section on the CPU, in small"
    )
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    options = Options(arguments.quick, arguments.long, arguments.rehearse)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # children and folders go
    report = Report(machine())
    print(json.dumps(report.machine, indent=1))
    with isolated_environment() as (_, env), changed_environment(env):
        for name in chosen:
            with report.row(name, "the section"):
                SECTIONS[name](options, report)
            report.write()
    print(f"\nwritten to {OUT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
