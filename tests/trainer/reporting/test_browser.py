"""The report in a browser: self-contained, readable on a phone, in light and dark mode."""

from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.reporting.page import page
from tests.trainer.reporting import chromium
from tests.trainer.reporting.test_page import full, hostile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine"),
]

WIDTHS = (1280, 390)
SCHEMES = ("light", "dark")
SMALLEST_TEXT = 9  # pixels

# red, green, and blue of text, background, and lines
COLORS = """(() => {
  const body = getComputedStyle(document.body);
  return [body.color, body.backgroundColor, ...[...document.querySelectorAll('.line')].map(
    line => getComputedStyle(line).stroke)].map(text => text.match(/[\\d.]+/g).map(Number));
})()"""
TEXT_HEIGHTS = """[...document.querySelectorAll('svg text')].map(
  text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)"""
OUTSIDE = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1
      || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
})"""


async def open_page(folder: Path, text: str, width: int, scheme: str, *scripts: str) -> list[Any]:
    """Open the page and return the results of the scripts.

    The page must make no requests, log nothing, and fit the width.
    """
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    async with chromium.browser(folder / "profile") as tab:
        await tab.open(path, width=width, scheme=scheme)
        found = [await tab.evaluate(script) for script in scripts]
        overflow = await tab.evaluate("document.documentElement.scrollWidth")
        requests = [event["request"]["url"] for event in tab.of("Network.requestWillBeSent")]
        entries = [event["entry"]["text"] for event in tab.of("Log.entryAdded")]
        messages = [event["args"] for event in tab.of("Runtime.consoleAPICalled")]
        dialogs = tab.of("Page.javascriptDialogOpening")
    assert requests == [path.as_uri()]
    assert (entries, messages, dialogs) == ([], [], [])
    assert overflow <= width
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_page_is_readable_and_makes_no_requests(
    width: int, scheme: str, tmp_path: Path
) -> None:
    colors, heights, outside = await open_page(
        tmp_path, page(full()), width, scheme, COLORS, TEXT_HEIGHTS, OUTSIDE
    )
    words, behind, *lines = colors
    assert contrast(words, behind) > 7
    assert lines
    assert min(contrast(line, behind) for line in lines) > 3
    assert (luminance(behind) > 0.5) == (scheme == "light")
    assert min(heights) >= SMALLEST_TEXT
    assert outside == []


async def test_text_from_users_runs_no_scripts(tmp_path: Path) -> None:
    [scripts] = await open_page(tmp_path, page(hostile()), 390, "light", "document.scripts.length")
    assert scripts == 0


def luminance(color: list[float]) -> float:
    """Relative luminance, as WCAG defines it."""
    shares = [part / 255 for part in color[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    light, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (light + 0.05) / (dark + 0.05)
