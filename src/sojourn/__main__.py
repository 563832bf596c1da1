"""The command ``sojourn``, also ``python -m sojourn``."""

import sys


def main() -> None:
    """Run the command line."""
    sys.exit("sojourn: the command line is not part of this build")


if __name__ == "__main__":
    main()
