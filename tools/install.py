"""Set up this clone: the merge drivers, the page that draws plots without a network, and the check of the keys of -S.

    python tools/install.py

`make setup` runs this.
"""

import merge_lock
import plots_page
import set_param
from rlhf_sentiment.engine.errors import one_line_errors  # found through the imports above


def main() -> None:
    """Run the installers."""
    merge_lock.install()
    plots_page.install()
    set_param.install()


if __name__ == "__main__":
    with one_line_errors("install"):
        main()
