"""Set up this clone: the check of the keys of `dvc exp run -S`. `make setup` runs this."""

import set_param


def main() -> None:
    """Run the installers."""
    set_param.install()


if __name__ == "__main__":
    main()
