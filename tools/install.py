"""Set up this clone: name the merge drivers in its git configuration. `make setup` runs this."""

import merge_lock


def main() -> None:
    """Run the installers."""
    merge_lock.install()


if __name__ == "__main__":
    main()
