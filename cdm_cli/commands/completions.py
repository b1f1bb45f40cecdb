"""`cdm completions`: the script that makes a shell complete `cdm`."""

import typer

from cdm_cli.commands import _own as own


def completions(ctx: typer.Context, shell: own.ShellName) -> None:
    """Print the completion script of a shell.

    Example: cdm completions bash > ~/.local/share/bash-completion/completions/cdm
    """
    from cdm_cli.commands._completions import SCRIPTS, commands_of

    typer.echo(SCRIPTS[shell](commands_of(ctx.find_root().command)), nl=False)
