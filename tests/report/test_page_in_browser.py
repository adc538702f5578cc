"""The page in a real browser: drawn without an error, without the network, on a desk and on a phone, light and dark.

Chromium is looked for on the path or under KE_CHROMIUM; without it, or without playwright, these tests are skipped.
"""

import os
import shutil
from importlib.util import find_spec

import pytest

from lightning_ke.report.page import write_report
from tests.report.folders import write_sweep

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
CHROMIUM = os.environ.get("KE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is there, nor KE_CHROMIUM set"
    ),
    pytest.mark.skipif(find_spec("playwright") is None, reason="no playwright to drive a browser with"),
]
CHARTS = ("generations", "rates", "costs", "mask", "loss", "lr")
WAIT = 120_000  # milliseconds; a shared machine may be slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = write_sweep(tmp_path_factory.mktemp("sweep"))
    write_report(root, root / "report.html")
    return (root / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], timeout=WAIT)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser, address):
    """Open the page; what it asked for and what it complained of is checked at the end."""
    contexts, requests, complaints = [], [], []

    def visit(width=1200, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address)
        page.wait_for_selector("body[data-drawn=yes]")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert set(requests) == {address}
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_every_chart_is_drawn_and_nothing_is_wider_than_the_screen(visit, width, scheme):
    page = visit(width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in CHARTS:
        box = page.locator(f"#{name} svg").first.bounding_box()
        assert box["width"] > 0.8 * (width - 40)
        assert box["x"] + box["width"] <= width
        assert page.locator(f"#{name} svg path[aria-roledescription], #{name} svg line[aria-roledescription]").count()


def brightness(page, selector, style):
    colour = page.locator(selector).first.evaluate(f"(e) => getComputedStyle(e).{style}")
    return sum(int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3])


def test_a_change_of_the_colour_scheme_is_followed(visit):
    page = visit(color_scheme="light")
    label = "#generations .role-axis-title text"
    assert brightness(page, "body", "backgroundColor") > 600 > brightness(page, label, "fill")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("getComputedStyle(document.querySelector('#lr .role-axis-title text')).fill > 'rgb(2'")
    assert brightness(page, "body", "backgroundColor") < 150 < brightness(page, label, "fill")


def test_a_run_is_chosen_from_the_list(visit):
    page = visit()
    curves = "[...document.querySelectorAll('#loss .mark-line path')].map((path) => path.getAttribute('d')).join()"
    before = page.evaluate(curves)
    page.locator("#loss select").select_option(label="long baseline, seed 0")
    page.wait_for_function(f"(old) => {curves} !== old", arg=before)


def test_an_entry_of_the_legend_brings_its_line_out(visit):
    page = visit()
    page.locator("#generations .role-legend-label text", has_text="rate 0.3").click()
    page.wait_for_function(
        "[...document.querySelectorAll('#generations .mark-line path')]"
        ".some((path) => path.getAttribute('opacity') === '0.12')"
    )


def test_a_mark_tells_its_numbers(visit):
    page = visit()
    page.locator("#generations .mark-symbol.role-mark path").last.hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible")
    assert "mean" in page.locator("#vg-tooltip-element").inner_text()
