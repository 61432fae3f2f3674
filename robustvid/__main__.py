"""``python -m robustvid`` is ``robustvid``."""

from robustvid.cli import main

main(prog_name="robustvid")
