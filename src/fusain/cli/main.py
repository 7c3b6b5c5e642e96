"""The command: its verbs by name, imported only when called, and the one edge where faults become exit codes."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from fusain.cli.output import format_option

VERBS: Final[dict[str, str]] = {
    "new": "Write a settings file from a recipe.",
    "import": "Make a settings file from a configuration of kohya, OneTrainer, ai-toolkit or diffusers.",
    "plan": "Show what a training would do, without doing it.",
    "train": "Train a model; the same command again resumes it.",
    "generate": "Draw images with a trained run.",
    "publish": "Publish a trained model on the hub, with a model card.",
    "runs": "List, show, export and remove runs.",
    "recipes": "List and show the recipes.",
    "explain": "Say what a setting or an error code means.",
    "models": "Inspect, find and convert models to start from.",
    "doctor": "Look at this machine: versions, devices, disk, extras, network.",
    "world": "Draw a data set to try things with.",
    "demo": "See it all work in a few minutes, with no download.",
}
"""Each verb is the attribute `verb` of the module of its name; a test holds these lines equal to its own help."""


class Verbs(click.Group):
    """A group that knows its commands' names and first lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"fusain.cli.{cmd_name}").verb
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not args[0].startswith("-"):
            from fusain.cli.faults import no_command  # only a mistyped verb needs it

            raise no_command(args[0], VERBS, "fusain")
        return super().resolve_command(ctx, args)


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata  # as slow as all the rest of this help

        click.echo(f"fusain {metadata.version('fusain')}")
        context.exit()


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@format_option
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def fusain() -> None:
    """Turn a folder of images into an image model you can trust.

    \b
    Examples:
      fusain demo
      fusain new unconditional --data my_images -o run.toml
      fusain train run.toml
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it tells of image processors that nobody here uses
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it tells of choices that are ours
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it misses a kernel of its own
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = fusain.main(args=words, prog_name="fusain", standalone_mode=False)
    except Exception as fault:  # the outermost edge: every fault becomes words and an exit code here
        from fusain.cli.faults import tell

        code = tell(fault, words)
    sys.exit(code if isinstance(code, int) else 0)
