"""The command ``robustvid`` and how it fails: one clear line, exit code 2, nothing lost."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import Any

import click

import robustvid
from robustvid.cli.attack import attack, demo
from robustvid.cli.bench import bench
from robustvid.cli.compress import compress
from robustvid.cli.data import data
from robustvid.cli.doctor import doctor
from robustvid.cli.features import features
from robustvid.cli.leaderboard import leaderboard
from robustvid.cli.listing import list_command
from robustvid.cli.live import live
from robustvid.cli.runs import report, sync
from robustvid.cli.train import train_adv
from robustvid.cli.ui import ui
from robustvid.errors import RobustvidError
from robustvid.registry import did_you_mean


class _Stderr(logging.Handler):
    """Log lines on stderr as it is now: above the progress bar while there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"{record.levelname.lower()}: {record.getMessage()}", err=True)


class _Failure(click.ClickException):
    """A failure the user can mend."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print one line on stderr, and the error as JSON on stdout where that was asked for."""
        click.echo(f"Error: {self.message}", err=True, file=file)
        if "--json" in sys.argv:
            click.echo(json.dumps({"error": {"code": self.exit_code, "message": self.message}}))


class _Crash(_Failure):
    """A failure nobody expected: ours, or of the code that was brought."""

    exit_code = 1


class _Commands(click.Group):
    """A group that suggests the nearest command and turns expected errors into one line."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            known = self.list_commands(ctx)
            ctx.fail(f"no command {args[0]!r}.{did_you_mean(args[0], known)} There are: {', '.join(known)}.")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RobustvidError as error:
            raise _Failure(str(error)) from error
        except OSError as error:
            raise _Failure(str(error)) from error
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if os.environ.get("ROBUSTVID_TRACEBACK"):
                raise
            first = next(iter(str(error).splitlines()), "")
            raise _Crash(f"{type(error).__name__}: {first} (ROBUSTVID_TRACEBACK=1 shows where)") from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ROBUSTVID"},
    epilog="Start with:  robustvid demo",
)
@click.version_option(robustvid.__version__, prog_name="robustvid")
def main() -> None:
    """How much may each frame, and the whole clip, be disturbed before a video classifier fails?"""
    logger = logging.getLogger("robustvid")
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logger.addHandler(_Stderr())
    logger.propagate = False


for command in (
    attack,
    bench,
    compress,
    data,
    demo,
    doctor,
    features,
    leaderboard,
    list_command,
    live,
    report,
    sync,
    train_adv,
    ui,
):
    main.add_command(command)
