"""The page as a browser makes it: nothing said on the console, nothing overlapping or cut off."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from pyseq.analysis.report import write_report
from tests.analysis import evaluations
from tests.analysis.test_report import SECTIONS, _report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"needs a browser to open the page in: {', '.join(BROWSERS)}"
)

# Pairs of texts in one picture that cover each other by over two pixels each way, texts that stick
# out of their picture, and elements that make the whole page scroll sideways.
MEASURE = """<script>
const found = {overlapping: [], outside: [], wide: []};
for (const svg of document.querySelectorAll('svg')) {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')].map(t => [t.textContent,
    t.getBoundingClientRect()]);
  texts.forEach(([a, p], i) => {
    if (Math.min(p.left - frame.left, frame.right - p.right, p.top - frame.top,
        frame.bottom - p.bottom) < -2) found.outside.push(a);
    texts.slice(i + 1).forEach(([b, q]) => {
      if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 2 &&
          Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2) found.overlapping.push([a, b]);
    });
  });
}
if (document.documentElement.scrollWidth > innerWidth)
  for (const e of document.querySelectorAll('main > *, section > *'))
    if (e.getBoundingClientRect().right > innerWidth) found.wide.push(e.outerHTML.slice(0, 80));
document.body.append(JSON.stringify(found));
</script>"""


def opened(page, tmp_path, width: int = 1100) -> tuple[str, list[str]]:
    """The document that the browser makes of a page, and what it says on the console."""
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},2000",
            "--enable-logging=stderr", "--v=0", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "</html>" in done.stdout, done.stderr
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def measured(page, tmp_path, width: int) -> dict:
    """What `MEASURE` finds; the page's own policy would not let it run."""
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    page.write_text(text.replace("</body>", f"{MEASURE}</body>"))
    document, console = opened(page, tmp_path, width)
    assert console == []
    return json.loads(html.unescape(document.split("</script>")[-1].split("</body>")[0]))


def test_all_sections_are_there_and_the_console_is_empty(tmp_path):
    page = tmp_path / "report.html"
    write_report(page, _report())
    document, console = opened(page, tmp_path)
    assert console == []
    assert re.findall(r'<section id="([^"]*)">', document) == SECTIONS
    assert document.count("<svg") == 15


def test_a_page_that_asks_for_something_is_told_off(tmp_path):
    """So the empty console of the other test means that nothing was asked for."""
    page = tmp_path / "report.html"
    write_report(page, _report(analysis=None, curve=()))
    asking = '<img src="https://example.invalid/picture.png"></body>'
    page.write_text(page.read_text().replace("</body>", asking))
    _, console = opened(page, tmp_path)
    assert any("Content Security Policy" in line for line in console)


def _crowded():
    """Many layers and heads, long names, large symbols, and the finest matrix that is drawn."""
    name = "a very long name of a predictor whose settings are all spelled out"
    layers = [evaluations.layer(f"block {k}: straight-through hard", 16, 10) for k in range(8)]
    layers += [evaluations.layer("inside the patch 1: cosine", 1, 1, "symbols")]
    bits = evaluations.evaluation().bits | {name: 2.7, "order-1": 2.61, "order-3": 2.6133}
    return _report(
        evaluation=evaluations.evaluation(bits=bits),
        analysis=evaluations.analysis(
            horizons=tuple(map(evaluations.head, range(1, 9))),
            scales=tuple(evaluations.scale(bins) for bins in (64, 16, 4)),
            attention=replace(evaluations.analysis().attention, layers=tuple(layers)),
        ),
    )


@pytest.mark.parametrize("width", [420, 1100])
@pytest.mark.parametrize("make", [_report, _crowded])
def test_nothing_overlaps_or_is_cut_off(tmp_path, make, width):
    page = tmp_path / "report.html"
    write_report(page, make())
    assert measured(page, tmp_path, width) == {"overlapping": [], "outside": [], "wide": []}
