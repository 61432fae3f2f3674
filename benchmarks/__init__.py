"""robustvid's strength and speed beside those of other libraries; each module is a command."""

import argparse


def command_line(module: str, about: str | None) -> argparse.ArgumentParser:
    """Return the parser of ``python -m benchmarks.MODULE``; its help keeps the lines of the docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks.{module}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
