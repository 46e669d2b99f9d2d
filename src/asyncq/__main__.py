"""The program `asyncq`, also as `python -m asyncq`."""

import os
import sys


def main() -> None:
    """Run the command line; Ctrl-C ends it without a traceback also while it is still being imported."""
    if os.environ.get("NO_COLOR"):
        os.environ["PYTHON_TYRO_ANSI_CODES"] = "False"  # tyro does not know the other name
    try:
        from asyncq.cli import main as command_line

        command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
