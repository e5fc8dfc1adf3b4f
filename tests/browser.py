"""Open a page of plots in Chromium, without a network."""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.sync_api import TimeoutError, sync_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NO_CHROMIUM = "needs Chromium: apt-get install chromium"

_DRAWN = "[...document.querySelectorAll('body > div')].every(place => place.querySelector('svg.marks, img'))"

# For each plot: how many marks or pictures it has, and the texts that are cut off at its edge.
_PLOTS = """[...document.querySelectorAll('body > div')].map(place => {
    const pictures = [...place.querySelectorAll('img')].filter(picture => picture.naturalWidth > 0);
    const plot = place.querySelector('svg.marks');
    if (plot === null) return [place.id, pictures.length, []];
    const inside = (box, edge) => box.left >= edge.left - 1 && box.right <= edge.right + 1
        && box.top >= edge.top - 1 && box.bottom <= edge.bottom + 1;
    const cut = [...plot.querySelectorAll('text')].filter(
        text => !inside(text.getBoundingClientRect(), plot.getBoundingClientRect()));
    const marks = plot.querySelectorAll('.role-mark > path, .role-mark > line');
    return [place.id, marks.length, cut.map(text => text.textContent)];
})"""


def plots_of(page: Path) -> dict[str, int]:
    """Return the number of marks or pictures of each plot. Fail at a message, a request, or a text that is cut off."""
    said: list[str] = []
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        opened: Any = browser.new_context(offline=True, viewport={"width": 1400, "height": 900}).new_page()
        opened.on("console", lambda message: said.append(f"console: {message.text}"))
        opened.on("pageerror", lambda error: said.append(f"error: {error}"))
        opened.on("request", lambda request: said.append(request.url) if not request.url.startswith("file:") else None)
        opened.goto(page.as_uri())
        with suppress(TimeoutError):  # what was said, and the plots without marks, tell more
            opened.wait_for_function(_DRAWN, timeout=20_000)
        plots = opened.evaluate(_PLOTS)
        browser.close()
    assert said == [], said
    cut_off = {name: cut for name, _, cut in plots if cut}
    assert cut_off == {}, cut_off
    return {name: marks for name, marks, _ in plots}
