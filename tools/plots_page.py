"""Make the page of `dvc plots show` and `dvc plots diff` work without a network.

    python tools/plots_page.py

DVC's own page loads Vega from the network. This command writes .dvc/offline.html, a template of the page that contains Vega,
and names it in .dvc/config.local. Git ignores both files. Without them, DVC's own page works as before.
"""

import shutil
import sys
from pathlib import Path

import vl_convert
from configobj import ConfigObj, ConfigObjError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))

from rlhf_sentiment.engine.errors import StageError, one_line_errors  # noqa: E402 (found through the line above)
from rlhf_sentiment.engine.outputs import writing  # noqa: E402

# DVC calls `vegaEmbed(place, spec)` for each plot. The specification is `{}` if no revision has the file. `$schema` names an
# older Vega-Lite, but the bundled one reads the same specifications. SVG stays sharp when the page is enlarged. The menu of a
# plot does not offer the editor, because that is a page on the network.
EMBED = """window.vegaEmbed = (place, {$schema, ...spec}) => $schema && vegaEmbed(place, spec, {
    mode: "vega-lite",
    renderer: "svg",
    actions: {export: true, source: true, compiled: false, editor: false},
});"""

# DVC puts the plots at {plot_divs}. It has no {scripts}, where DVC would put links to Vega on the network. The bundle is in a
# function, because its names would be names of the page otherwise.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
    <meta charset="utf-8">
    <title>Plots</title>
    <script>(() => {%s})();</script>
    <style>
        body { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 24px; font-family: sans-serif; font-size: 13px; }
        .vega-embed, [id$="_png"] { order: 1; } /* the result first */
        #plots_comparison_csv, #plots_frontier_csv { order: 0; }
        [id$="_png"] { white-space: normal !important; }
        img { max-width: 100%%; }
    </style>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def write_page(path: str | Path) -> None:
    """Write the template of the page, of about 1 MB, for `dvc plots diff --html-template`."""
    bundle = vl_convert.javascript_bundle(EMBED)
    with writing(path) as aside:
        aside.write_text(PAGE % bundle, encoding="utf-8")


def install() -> None:
    """Write the page, and name it in .dvc/config.local. The other lines of that file, and a page that it names, stay.

    The name is relative to .dvc, so that it holds after the clone was moved.

    Raises:
        StageError: .dvc/config.local cannot be read.
    """
    write_page(ROOT / ".dvc/offline.html")
    path = ROOT / ".dvc/config.local"
    try:
        config = ConfigObj(str(path), encoding="utf-8")
    except ConfigObjError as error:
        raise StageError(f".dvc/config.local: {error}; correct or remove the file") from error
    if config.setdefault("plots", {}).setdefault("html_template", "offline.html") != "offline.html":
        return
    with writing(path) as aside:
        config.filename = str(aside)
        config.write()
        if path.exists():
            shutil.copymode(path, aside)  # the file may hold passwords


if __name__ == "__main__":
    with one_line_errors("plots_page"):
        install()
