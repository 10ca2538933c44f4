"""The pages as pasted: each block runs here, or against a stand-in of what it is marked to need.

A block of shell that this machine cannot run says what it needs (```` ```sh needs=kubernetes ````).
All others run in a copy of the checkout, page by page and in order, as a reader would.
Commands that a developer gives to the checkout itself are not run: what they name has to exist.
"""

import dataclasses
import getpass
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import kubectl
import pytest
from deployed import ROOT
from limits import HANG_S
from servers import RayHead, S3Server

import polyfit
from polyfit.cli.app import cli
from polyfit.errors import Exit

FENCE = re.compile(r"^```(.*)\n((?:(?!```).*\n)*)```$", re.MULTILINE)
FILE = re.compile(r"As `([\w-]+\.yaml)`:\n\n$")  # before a block that the reader saves
TABLE_OR_HTML = ("|", "<", "  <")
FOR_DEVELOPERS = ("polyfit", "tests")  # folders whose pages speak of the checkout itself


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page; ``info`` is its first line, less the fence.

    ``output`` is the text that the page shows directly below it, ``file`` the name under which the
    page says to save it.
    """

    page: str
    info: str
    text: str
    output: str = ""
    file: str = ""

    @property
    def title(self) -> str:
        """What a test of it is called by."""
        return self.text.partition("\n")[0][:40]


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A Markdown file; ``name`` is its path in the checkout."""

    name: str
    text: str

    @property
    def folder(self) -> Path:
        return (ROOT / self.name).parent

    @property
    def prose(self) -> str:
        """The page without its fenced blocks."""
        return FENCE.sub("", self.text)

    def blocks(self) -> Iterator[Block]:
        for match in FENCE.finditer(self.text):
            info, text = match.groups()
            if info == "sh" and self.folder.name in FOR_DEVELOPERS:
                info = "sh needs=developer"
            below = FENCE.match(self.text, match.end() + 2)
            output = below[2] if below and below[1] == "text" else ""
            named = FILE.search(self.text[: match.start()])
            yield Block(self.name, info, text, output, named[1] if named else "")


def _pages() -> list[Page]:
    folders = [ROOT, *(ROOT / name for name in ("jobs", "deploy", *FOR_DEVELOPERS))]
    paths = [path for folder in folders for path in sorted(folder.glob("*.md"))]
    return [
        Page(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths
    ]


PAGES = _pages()
BLOCKS = [block for page in PAGES for block in page.blocks()]
NEEDS = ("docker", "kubernetes", "aws", "cron", "systemd", "developer")


def blocks(info: str) -> list[Block]:
    return [block for block in BLOCKS if block.info == info]


def shell(text: str, folder: Path, env: Mapping[str, str]) -> str:
    """Run a block, each of whose lines has to succeed; what it prints."""
    done = subprocess.run(
        ["bash", "-ec", text], cwd=folder, env=env, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=HANG_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pages
def test_every_block_says_what_it_is_and_shell_what_it_needs(page: Page) -> None:
    needs = [f"sh needs={what}" for what in NEEDS]

    assert {block.info for block in page.blocks()} <= {"sh", "yaml", "python", "text", *needs}
    assert len(re.findall(r"^```", page.text, re.MULTILINE)) == 2 * len([*page.blocks()])


@pages
def test_a_line_of_prose_fits_an_editor(page: Page) -> None:
    prose = [line for line in page.prose.splitlines() if not line.startswith(TABLE_OR_HTML)]

    assert [line for line in prose if len(line) > 110] == []


def test_the_front_page_is_short() -> None:
    (front,) = (page for page in PAGES if page.name == "README.md")

    assert len(front.text.splitlines()) <= 130


def test_the_page_of_jobs_has_a_line_for_every_field_and_exit_code() -> None:
    (jobs,) = (page for page in PAGES if page.name == "jobs/README.md")
    fields = [field.name for field in dataclasses.fields(polyfit.Spec.parse("name: example").fit)]

    assert [name for name in fields if f"\n| `{name}` |" not in jobs.text] == []
    assert [code for code in Exit if f"\n| {code.value} | {code.meaning} |" not in jobs.text] == []


# What pages name ---------------------------------------------------------------------------------

LINK = re.compile(r"(?:\]\(|(?:src|srcset)=\")([^)\"\s]+)")
NAMED_PATH = re.compile(r"`(\w[\w.*-]*(?:/[\w.*-]+)+/?|[\w-]+\.(?:py|md|yaml|toml))`")

NAME_IN_A_DRAWING = re.compile(r"\b(?:[a-z]+_\w+|[A-Z][a-z]+[A-Z]\w+|[A-Z][a-z]+\.[a-z]\w*)\b")


def headings(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_what_a_page_links_to_is_there(page: Page) -> None:
    for link in LINK.findall(page.prose):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.folder / path).resolve() if path else ROOT / page.name

        assert target.exists(), link
        assert not anchor or anchor in headings(target), link


@pages
def test_the_paths_that_a_page_names_are_there(page: Page) -> None:
    """Of the checkout, or of the page's folder: other paths are of stores, or examples."""
    for path in NAMED_PATH.findall(page.prose):
        first = path.split("/")[0]
        bases = [base for base in (ROOT, page.folder) if (base / first).exists()]

        assert not bases or any([*base.glob(path)] for base in bases), path


def test_the_modules_and_names_that_the_page_of_the_code_names_are_there() -> None:
    (code,) = (page for page in PAGES if page.name == "polyfit/README.md")
    files = [*(ROOT / "polyfit").rglob("*.py"), ROOT / "tests" / "test_layers.py"]
    sources = [path.read_text(encoding="utf-8") for path in files]
    words = {word for source in sources for word in re.findall(r"\w+", source)}
    drawings = "".join(block.text for block in code.blocks())
    wings = "|".join(path.parent.name for path in (ROOT / "polyfit").glob("*/__init__.py"))
    modules = re.findall(rf"(?<!/)\b(?:{wings})/\w+", code.text)
    names = re.findall(r"`([A-Za-z_.]+)`", code.prose) + NAME_IN_A_DRAWING.findall(drawings)

    assert [it for it in modules if not (ROOT / "polyfit" / f"{it}.py").exists()] == []
    assert [it for it in names if not words >= {*it.split(".")} and not it.endswith(".py")] == []


OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
CALL = re.compile(r"\bpolyfit (\w+)([^\n`|&;#]*)")
COMMANDS = sorted(cli.commands)


def options(command: click.Command) -> set[str]:
    """The long options of a command, less --help, which each has."""
    return {name for it in command.params for name in it.opts if name.startswith("--")}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_of_jobs_lists_each_command_with_its_options(name: str) -> None:
    (jobs,) = (page for page in PAGES if page.name == "jobs/README.md")
    table = jobs.text.partition("### Options\n")[2].partition("\n#")[0]
    (listed,) = re.findall(rf"^\| `{name}` \| (.*) \|$", table, re.MULTILINE)

    assert re.search(rf"^\| `polyfit {name}\b", jobs.text, re.MULTILINE)
    assert set(OPTION.findall(listed)) == options(cli.commands[name])


@pages
def test_the_commands_and_options_that_a_page_names_are_there(page: Page) -> None:
    known = {"--help"}.union(*map(options, [cli, *cli.commands.values()]))
    calls = [(name, {*OPTION.findall(rest)}) for name, rest in CALL.findall(joined(page.text))]
    calls = [(name, given) for name, given in calls if name in cli.commands]
    alone = set(re.findall(r"`(--[a-z][\w-]*)", page.prose))

    assert [it for it in calls if not it[1] <= options(cli.commands[it[0]]) | {"--help"}] == []
    assert alone - known == set()


def joined(text: str) -> str:
    """Lines that a backslash continues, as one."""
    return text.replace("\\\n", " ")


@pages
def test_the_make_targets_that_a_page_names_are_there(page: Page) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE)

    assert set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", page.text, re.MULTILINE)) <= {*targets}


@pytest.mark.parametrize("block", blocks("sh needs=developer"), ids=lambda block: block.title)
def test_what_a_developers_command_names_is_there(block: Block) -> None:
    words = shlex.split(block.text.replace('ARGS="', '"'), comments=True)
    words = [word for given in words for word in given.split()]
    paths = [word for word in words if "/" in word and not word.startswith((".venv", ".local"))]

    shell(f"bash -n <<'END'\n{block.text}END", ROOT, os.environ)
    assert [path for path in paths if not (ROOT / path.partition("::")[0]).exists()] == []


SPECS = [block for block in blocks("yaml") if not block.text.startswith("apiVersion:")]


@pytest.mark.parametrize("block", SPECS, ids=lambda block: block.title)
def test_a_spec_is_valid_with_a_name_if_it_has_none(block: Block) -> None:
    named = re.search(r"^name:", block.text, re.MULTILINE)

    polyfit.Spec.parse(block.text if named else f"name: example\n{block.text}", block.page)


# Here --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Checkout:
    """A copy of this checkout, as `make` leaves it; ``env`` is that of its reader's shell."""

    folder: Path
    env: Mapping[str, str]


@pytest.fixture(scope="module")
def checkout(
    seaweed: S3Server, ray_cluster: RayHead, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Checkout]:
    """The store has the bucket of the pages' examples, and the cluster is at their address."""
    folder = tmp_path_factory.mktemp("checkout").resolve()
    for name in ("polyfit", "jobs", "deploy"):
        left_out = shutil.ignore_patterns("__pycache__", "*.svg")
        shutil.copytree(ROOT / name, folder / name, ignore=left_out)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, folder)
    install(folder)
    for block in BLOCKS:
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
    seaweed.client().create_bucket(Bucket="bucket")
    cluster = {name: value for name, value in ray_cluster.env.items() if "AUTH" in name}
    path = f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}"
    yield Checkout(folder, {**os.environ, **seaweed.env, **cluster, "PATH": path})
    subprocess.run(["make", "stop-s3"], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def install(folder: Path) -> None:
    """What the installations of the Makefile leave, with the packages of this environment."""
    made, ours = folder / ".venv", Path(sys.executable).parent
    venv.create(made, symlinks=True)
    for script in ours.iterdir():
        if not (made / "bin" / script.name).exists():
            (made / "bin" / script.name).symlink_to(script)
    command = "from polyfit.__main__ import program\nprogram()\n"
    (made / "bin" / "polyfit").unlink()
    (made / "bin" / "polyfit").write_text(f"#!{made}/bin/python\n{command}", encoding="utf-8")
    (made / "bin" / "polyfit").chmod(0o755)
    here = {"base": str(made), "platbase": str(made)}
    paths = Path(sysconfig.get_path("purelib", vars=here)) / "paths.pth"
    paths.write_text(f"{folder}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    (made / "made").write_text(f"{folder}\n", encoding="utf-8")
    (made / "run").touch()


RUN_HERE = {block.text: block for block in BLOCKS if block.info in ("sh", "python")}  # each once


@pytest.mark.parametrize("block", RUN_HERE.values(), ids=lambda block: block.title)
def test_a_block_runs_as_pasted(block: Block, checkout: Checkout, ray_cluster: RayHead) -> None:
    """A later block finds what an earlier one made, at the address that the pages say."""
    text = block.text.replace("http://HOST:8265", ray_cluster.dashboard_url)
    text = text.replace("HOST:6379", ray_cluster.address)
    if block.info == "python":
        text = f"python - <<'END'\n{text}END"

    printed = lines(shell(text, checkout.folder, checkout.env))

    assert [line for line in lines(block.output) if line not in printed] == []


def lines(text: str) -> list[str]:
    """Lines without the spaces that lay out a table."""
    return [" ".join(line.split()) for line in text.splitlines()]


PICTURES = sorted((ROOT / "jobs" / "pictures").glob("*.svg"))
# Marks and words, less what surrounds text: fonts differ by machine.
DRAWN = re.compile(r"<path (?!class)[^>]*>|(?<=>)[^<>]+(?=</text>)")


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_the_pictures_are_those_of_the_runs(path: Path, checkout: Checkout) -> None:
    """The blocks drew them again."""
    again = checkout.folder / "jobs" / "pictures" / path.name
    # The number of a fit depends on how many seeds the latest run of its name has.
    shown, drawn = (
        DRAWN.findall(re.sub(r"\bFit \d+", "Fit", svg.read_text("utf-8"))) for svg in (path, again)
    )

    assert len(shown) > 20
    assert drawn == shown, "jobs/pictures.py draws them anew"
    assert path.stat().st_size < 40 * 1024


# Elsewhere ---------------------------------------------------------------------------------------

# Each answers as its namesake does, as far as the pages' commands go, and keeps its state in
# $STATE.
# kubectl's knows these commands with their flags, which kubectl 1.35 takes; what needs no cluster
# is done by the real one.
KUBECTL = r"""#!/bin/bash
fail() { echo "$*" >&2; exit 1; }
new() { [ ! -e "$STATE/$1" ] || fail "Error from server (AlreadyExists): $1"; touch "$STATE/$1"; }
there() { [ -e "$STATE/$1" ] || fail "Error from server (NotFound): $1"; }
objects() {  # kind-name of each in YAML
  awk '/^[a-z]/ {inside = /^metadata:/} /^kind:/ {kind = tolower($2)}
       /^  name:/ && inside {name = $2} /^---/ {print kind "-" name; name = ""}
       END {print kind "-" name}'
}
built() { "$KUBECTL" kustomize "$1" | objects; }
case "$*" in
  "kustomize "*|"create configmap "*" --dry-run=client -o yaml") exec "$KUBECTL" "$@" ;;
  "apply -f -") for it in $(objects); do touch "$STATE/$it"; done ;;
  "apply -k "*) for it in $(built "$3"); do touch "$STATE/$it"; done ;;
  "create -k "*) for it in $(built "$3"); do new "$it"; done ;;
  "create job --from=cronjob/"*) there "cronjob-${3#*/}"; new "job-$4" ;;
  "delete "*" --ignore-not-found --cascade=foreground") rm -f "$STATE/$2-$3" ;;
  "get rayjob "*" --watch") there "rayjob-$3" ;;
  "logs --follow --pod-running-timeout="*m" job/"*) there "${4/\//-}" ;;
  "logs --follow job/"*) there "${3/\//-}" ;;
  *) fail "unknown: kubectl $*" ;;
esac
"""
# Ray's own command line reads the arguments, and helps instead of doing it.
RAY = """#!/bin/bash
before=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do before+=("$1"); shift; done
"$RAY" "${before[@]}" --help "$@" > "$STATE/help" || exit
case "${before[0]}" in
  up) touch "$STATE/cluster" ;;
  exec) [ -e "$STATE/cluster" ] && bash -ec "${before[2]}" ;;
  down) rm -f "$STATE/cluster" ;;
esac
"""
DOCKER = """#!/bin/bash
case "$1 $2" in
  "build -f") [ -f "$3" ] && [ "$4" = -t ] && [ -d "$6" ] && echo "$5" > "$STATE/image" ;;
  "push "*) [ "$2" = "$(cat "$STATE/image")" ] ;;
  *) exit 1 ;;
esac
"""
CRONTAB = """#!/bin/bash
case "$1" in
  -l) cat "$STATE/table" 2>/dev/null || { echo "no crontab for you" >&2; exit 1; } ;;
  -) cat > "$STATE/new" && mv "$STATE/new" "$STATE/table" ;;
esac
"""
SUDO = """#!/bin/bash
exec "$@"
"""
STAND_INS = {"kubectl": KUBECTL, "ray": RAY, "docker": DOCKER, "crontab": CRONTAB, "sudo": SUDO}


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds the stand-ins first; they keep their state."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "state").mkdir()
    for name, script in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(script, encoding="utf-8")
        (tmp_path / "bin" / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "STATE": str(tmp_path / "state"),
        "USER": getpass.getuser(),
        "RAYJOB": "deploy/rayjob/cpu",
        "CLUSTER": "deploy/aws/cluster.yaml",
        "KUBECTL": str(kubectl.PROGRAM),
        "RAY": str(Path(sys.executable).with_name("ray")),
    }


@pytest.mark.parametrize(("need", "times"), [("docker", 1), ("kubernetes", 2), ("aws", 1)])
def test_blocks_for_elsewhere_can_be_pasted_and_where_it_matters_twice(
    need: str, times: int, elsewhere: dict[str, str]
) -> None:
    """Nothing collides with what is there already, and nothing is asked for before it is there."""
    if need == "kubernetes":
        kubectl.require()
    for block in times * blocks(f"sh needs={need}"):
        shell(block.text, ROOT, elsewhere)


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("kubectl create -k $RAYJOB; kubectl create -k $RAYJOB", "AlreadyExists"),
        ("kubectl create -k $RAYJOB; kubectl logs --follow job/polyfit", "NotFound"),
        ("kubectl create job --from=cronjob/polyfit-nightly polyfit-now", "NotFound"),
        ("kubectl logs --folow job/polyfit-sweep", "unknown"),
        ("ray up --yse $CLUSTER", "No such option"),
        ("ray up $CLUSTER; ray exec $CLUSTER 'ray jobs list'", "No such command"),
    ],
)
def test_a_stand_in_refuses_what_its_namesake_does(
    command: str, error: str, elsewhere: dict[str, str]
) -> None:
    if "-k" in command:
        kubectl.require()
    with pytest.raises(AssertionError, match=error):
        shell(command, ROOT, elsewhere)


def test_no_question_waits_where_more_is_pasted_and_no_cluster_goes_below_its_job() -> None:
    for block in blocks("sh needs=aws"):
        for line in block.text.splitlines():
            assert "--yes" in line or not line.startswith(("ray up", "ray down"))
        assert "ray up" not in block.text or "ray down" not in block.text


def test_the_crontab_block_pasted_twice_leaves_one_nightly_run_and_all_else(
    elsewhere: dict[str, str], tmp_path: Path
) -> None:
    (block,) = blocks("sh needs=cron")
    text = block.text.replace("/var/log/polyfit", str(tmp_path / "log"))
    table = tmp_path / "state" / "table"

    shell(text, ROOT, elsewhere)
    fresh = table.read_text(encoding="utf-8")
    table.write_text("5 5 * * * mine\n" + fresh, encoding="utf-8")
    shell(text, ROOT, elsewhere)

    assert fresh == (ROOT / "deploy" / "machine" / "crontab").read_text(encoding="utf-8")
    assert table.read_text(encoding="utf-8") == "5 5 * * * mine\n" + fresh
    assert (tmp_path / "log").is_dir()
