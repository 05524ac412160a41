"""The command line: parse, call, print.

Exit codes: 0 done and clean, 1 found problems (differences, parked rows, failed checks), 2 wrong usage.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

from dualwrite import printing
from dualwrite.cli.commands import Commands
from dualwrite.cli.logs import log_lines
from dualwrite.errors import DualwriteError, Invalid, Usage

app = typer.Typer(
    name="dualwrite",
    cls=Commands,
    help="Keep the tables of two business systems in step, both ways.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> NoReturn:
    """Run the command line; every error is one clear message."""
    log_lines()
    try:
        sys.exit(app(prog_name="dualwrite", standalone_mode=False) or 0)
    except Invalid as invalid:
        printing.problems.problems(invalid.problems)
        sys.exit(1)
    except Usage as usage:
        printing.error(usage)
        sys.exit(2)
    except DualwriteError as trouble:
        printing.error(trouble)
        sys.exit(1)
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as wrong:
        if not hasattr(wrong, "format_message"):
            raise
        printing.misused(wrong.format_message(), getattr(wrong, "ctx", None))
        sys.exit(2)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        printing.said(f"dualwrite {version('dualwrite')}")
        raise typer.Exit


@app.callback()
def everywhere(
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version)
    ] = False,
) -> None:
    """Keep the tables of two business systems in step, both ways."""
