"""The command line. Nothing heavy is imported here: ``robustvid --help`` answers before torch could load."""

from __future__ import annotations

from robustvid.cli.main import main

__all__ = ["main"]
