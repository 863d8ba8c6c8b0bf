"""What a person does with the page, in a browser, where there is one."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from er.config import Config, Report
from er.reporting.gather import gather
from er.reporting.write import write
from tests.reporting.studies import many

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


@pytest.fixture
def browser() -> Iterator[Browser]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed (pip install playwright)"
    )
    if CHROMIUM is None:
        pytest.skip("no Chromium on PATH (apt-get install chromium)")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def address(study: Path, tmp_path: Path) -> str:
    write(gather(study), Report(), "", tmp_path / "out")
    return (tmp_path / "out" / "report.html").as_uri()


def opened(browser: Browser, address: str, **options: object) -> tuple[Page, list[str]]:
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
    page.goto(address)
    return page, said


def column(page: Page, title: str) -> list[str]:
    titles = page.locator("#runs thead th").all_inner_texts()
    place = next(i for i, text in enumerate(titles) if text.startswith(title))
    return page.locator(f"#runs tbody tr:not([hidden]) td:nth-child({place + 1})").all_inner_texts()


def test_a_heading_sorts_by_click_and_by_keyboard_either_way(browser: Browser, address: str) -> None:
    page, said = opened(browser, address)
    head = page.get_by_role("button", name="warm %")

    head.click()
    assert column(page, "warm %") == ["167", "167", "60", "60", "", ""]  # what is not known comes last
    head.focus()
    page.keyboard.press("Enter")
    assert column(page, "warm %") == ["60", "60", "167", "167", "", ""]
    assert page.locator("#runs th[aria-sort=ascending]").count() == 1
    assert said == []


def test_words_filter_the_runs(browser: Browser, address: str) -> None:
    page, said = opened(browser, address)

    page.get_by_label("Show only runs with").fill("REDUCED recycled")
    assert set(column(page, "arm")) == {"recycled"}
    assert page.locator("#shown").inner_text() == "2 of 6"
    page.get_by_label("Show only runs with").fill("")
    assert len(column(page, "arm")) == 6
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_a_phone_in_either_scheme(
    browser: Browser, address: str, width: int, scheme: str
) -> None:
    page, said = opened(browser, address, viewport={"width": width, "height": 844}, color_scheme=scheme)

    assert page.evaluate("document.documentElement.scrollWidth") == width
    light = sum(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"))
    assert (light > 600) if scheme == "light" else (light < 150)
    ink = page.evaluate("getComputedStyle(document.querySelector('figure svg text')).fill.match(/\\d+/g).map(Number)")
    assert (sum(ink) < 300) if scheme == "light" else (sum(ink) > 450)
    assert said == []


@pytest.mark.slow
def test_five_hundred_runs_open_and_sort_at_once(
    browser: Browser, three_arms: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many(tmp_path / "many", three_arms, 500)
    write(gather(tmp_path / "many"), Report(), "", tmp_path / "out")

    start = time.perf_counter()
    page, _ = opened(browser, (tmp_path / "out" / "report.html").as_uri())
    loaded = time.perf_counter() - start
    clicked = "(start => (document.querySelector('#runs button').click(), document.body.offsetHeight,"
    took = min(page.evaluate(f"{clicked} performance.now() - start))(performance.now())") for _ in range(9)) / 1000
    with capsys.disabled():
        sys.stdout.write(f"\n500 runs: opened in {loaded:.2f} s, sorted in {took:.3f} s\n")

    assert loaded < 3
    assert took < 0.5
