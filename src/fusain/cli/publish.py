"""`fusain publish`: a trained model on the hub."""

from __future__ import annotations

from pathlib import Path

import click

from fusain.cli import output
from fusain.settings import user_file


@click.command()
@click.argument("run")
@click.option("--repo", metavar="OWNER/NAME", help="Where to on the hub; made where there is none yet.")
@click.option("--dry-run", is_flag=True, help="Write the model card and list the files, and ask nobody.")
@click.option("--licence", "--license", metavar="ID", help="As in apache-2.0; without it, that of the base.")
@click.option("--public", is_flag=True, help="Let everybody see it; without it, you alone.")
@click.option("--message", metavar="TEXT", help="What the commit says.")
@click.option("--runs-folder", type=click.Path(path_type=Path), default=user_file.runs_folder, show_default="runs")
@output.format_option
def verb(
    run: str, repo: str | None, dry_run: bool, licence: str | None, public: bool, message: str | None, runs_folder: Path
) -> None:
    """Publish a trained model on the hub, with a model card.

    \b
    Examples:
      fusain publish my_run --dry-run --licence apache-2.0
      fusain publish my_run --repo me/my_model --licence apache-2.0
      fusain publish my_run --repo me/my_model --public
    """
    from fusain.runs.publishing import publish

    done = publish(
        run,
        repo=repo,
        private=not public,
        dry_run=dry_run,
        licence=licence,
        message=message,
        runs_folder=runs_folder,
        note=output.talk,
        bars=output.is_lively(),
    )
    for notice in done.notices:
        output.talk(f"Warning: {notice}")
    if done.url is not None:
        output.show(done.as_json(), [done.url], quiet=[done.url])
        return
    files = [f"{file.size:>15,}  {file.name}" for file in done.files]
    lines = [*files, f"{done.size:>15,}  bytes in {len(done.files)} files", f"card: {done.card}"]
    output.show(done.as_json(), lines, quiet=[str(done.card)])
    output.talk("Nothing was sent.")
