"""The report as its reader sees it: in a headless browser, without network."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import chromium
from playwright.sync_api import Browser, Page

import polyfit
from polyfit.run.reader import Run
from polyfit.show.report import report_html
from polyfit.spec.spec import Spec

pytestmark = pytest.mark.slow  # a browser

TEXT = """\
name: page
shard: 40
fit: {steps: 60, points: 40, dtype: float64}
sweep:
  degree: [1, 2, 3]
  basis: [chebyshev, power]
  lr: [{of_limit: 0.5}, {of_limit: 1.2}]
  seed: {count: 10}
record: {at: [0, 1, 5, 20, 59], of: [loss, coefficients]}
"""


@dataclass
class Opened:
    """A page, and what it has complained of or asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """120 fits in three shards, half of which diverge."""
    folder = str(tmp_path_factory.mktemp("store"))
    return polyfit.execute(Spec.parse(TEXT), store=folder, executor="inline")


@pytest.fixture(scope="module")
def file(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(report_html(run))
    return path


def opened(browser: Browser, file: Path, width: int = 1280, scheme: str = "light") -> Opened:
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    found = Opened(context.new_page())
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.goto(file.as_uri())
    found.page.wait_for_selector("html[data-ready]")
    return found


@pytest.fixture(scope="module")
def reader(browser: Browser, file: Path) -> Iterator[Opened]:
    found = opened(browser, file)
    yield found
    found.page.context.close()


def test_the_page_draws_all_charts_without_a_complaint_or_a_request(
    reader: Opened, file: Path
) -> None:
    charts = reader.page.locator("[data-chart]").count()

    assert charts >= 9
    assert reader.page.locator("[data-chart] svg").count() == charts
    assert (reader.complaints, reader.requests) == ([], [file.as_uri()])


def test_a_click_on_a_head_sorts_by_numbers_both_ways(reader: Opened) -> None:
    head = reader.page.locator("#extremes th button", has_text="loss").first
    cells = reader.page.locator("#extremes tbody tr td:nth-child(6)")

    orders = []
    for _ in range(2):
        head.click()
        orders.append([float(text) for text in cells.all_inner_texts()])

    assert orders == [sorted(orders[0]), sorted(orders[0], reverse=True)]
    assert head.locator("..").get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize(
    ("text", "rows"), [("power", 6), ("power, diverged = 0", 3), ("degree <= 2", 8), ("", 12)]
)
def test_a_filter_takes_words_and_comparisons(reader: Opened, text: str, rows: int) -> None:
    reader.page.fill('input[data-filter="groups"]', text)

    assert reader.page.locator("#groups tbody tr:visible").count() == rows
    shown = "12 rows" if rows == 12 else f"{rows} of 12 rows"
    assert reader.page.locator('[data-count="groups"]').inner_text() == shown


def test_a_filter_names_a_column_that_is_not_there(reader: Opened) -> None:
    reader.page.fill('input[data-filter="groups"]', "power, los < 3")

    said = reader.page.locator('[data-count="groups"]').inner_text()
    assert said == 'no column "los": nothing is filtered'
    assert reader.page.locator("#groups tbody tr:visible").count() == 12
    reader.page.fill('input[data-filter="groups"]', "")


def test_a_point_has_a_tooltip(reader: Opened) -> None:
    point = reader.page.locator('[data-chart="loss-0"] .role-mark.mark-symbol path').first
    point.evaluate("mark => mark.scrollIntoView({block: 'center'})")  # not under the sticky bar
    point.hover(force=True)

    tooltip = reader.page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "median" in tooltip.inner_text()


def test_arrow_keys_read_a_charts_marks(reader: Opened) -> None:
    figure = reader.page.locator("figure", has=reader.page.locator('[data-chart="loss-0"]'))
    figure.focus()

    read = []
    for _ in range(2):
        reader.page.keyboard.press("ArrowRight")
        read.append(figure.locator(".reading").inner_text())

    assert all("median" in text for text in read)
    assert read[0] != read[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_follow_the_system_until_the_button_is_pressed(
    browser: Browser, file: Path, scheme: str
) -> None:
    found = opened(browser, file, scheme=scheme)
    ground = "getComputedStyle(document.body).backgroundColor"
    axis = "getComputedStyle(document.querySelector('.role-axis-title text')).fill"

    before = found.page.evaluate(f"[{ground}, {axis}]")
    found.page.click("#theme")
    after = found.page.evaluate(f"[{ground}, {axis}]")
    found.page.context.close()

    light, dark = (
        ["rgb(255, 255, 255)", "rgb(28, 32, 36)"],
        ["rgb(20, 23, 26)", "rgb(236, 239, 242)"],
    )
    assert [before, after] == ([light, dark] if scheme == "light" else [dark, light])


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(
    browser: Browser, file: Path, width: int, scheme: str
) -> None:
    found = opened(browser, file, width, scheme)

    violations = Axe().run(found.page).response["violations"]
    wide = found.page.evaluate("document.documentElement.scrollWidth")
    found.page.context.close()

    assert [one["id"] for one in violations] == []
    assert wide == width


EDGE = """
const box = document.querySelector('#groups').parentElement;
box.scrollLeft = %s;
const {right, top} = box.getBoundingClientRect();
return [right + scrollX, top + scrollY, box.scrollWidth > box.clientWidth];
"""


def test_an_edge_beyond_which_a_table_goes_on_has_a_shadow(browser: Browser, file: Path) -> None:
    found = opened(browser, file, width=400)
    found.page.add_style_tag(content=".scroll * { visibility: hidden; }")
    edges = []
    for place in ("0", "1e6"):
        right, top, wider = found.page.evaluate(f"() => {{ {EDGE % place} }}")
        clip = {"x": right - 12, "y": top + 60, "width": 12, "height": 20}
        edges.append(found.page.screenshot(clip=clip, full_page=True))  # type: ignore[arg-type]
        assert wider
    found.page.context.close()

    assert edges[0] != edges[1]


@pytest.mark.parametrize(("points", "whole"), [("[40]", True), ("[40, 50]", False)])
def test_a_table_of_up_to_forty_rows_stands_whole(
    browser: Browser, tmp_path: Path, points: str, whole: bool
) -> None:
    text = (
        "name: tall\nfit: {steps: 5}\n"
        f"sweep: {{degree: {{start: 0, stop: 30}}, points: {points}}}\n"
    )
    run = polyfit.execute(Spec.parse(text), store=str(tmp_path), executor="inline")
    (tmp_path / "report.html").write_bytes(report_html(run))
    found = opened(browser, tmp_path / "report.html")
    box = found.page.locator(".scroll", has=found.page.locator("#groups"))
    hidden = box.evaluate("box => box.scrollHeight - box.clientHeight")
    found.page.context.close()

    assert (hidden <= 0) == whole


def test_hostile_words_stay_words(browser: Browser, run: Run, tmp_path: Path) -> None:
    """A spec and a cause may hold markup, and what would end a script."""
    bad = "</script><script>console.log('in')</script><img src=x onerror=console.log('in')>"
    copy = tmp_path / "page" / "run"
    shutil.copytree(run.uri, copy)
    (copy / "spec.yaml").write_text(bad)
    (copy / "manifest.json").unlink()
    next(copy.glob("shards/000001-*")).unlink()
    (copy / "failed").mkdir()
    (copy / "failed" / "000001.json").write_text('{"shard": 1, "causes": ["' + bad + '"]}')
    (tmp_path / "report.html").write_bytes(report_html(Run.open(copy)))

    found = opened(browser, tmp_path / "report.html")
    alerts = found.page.locator(".alert").all_inner_texts()
    spec = found.page.locator("#reproduce pre").first.inner_text()
    found.page.context.close()

    assert (found.complaints, spec) == ([], bad)
    assert "not complete: 80 of 120 fits" in alerts[0]
    assert f"shard 1 (fits 40 to 79): {bad}" in alerts[1]
