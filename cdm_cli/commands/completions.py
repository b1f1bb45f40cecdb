"""`cdm completions`: the script that makes a shell complete `cdm`."""

from typing import Annotated, Literal

import typer

ShellName = Annotated[
    Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")
]


def completions(ctx: typer.Context, shell: ShellName) -> None:
    """Print the completion script of a shell.

    \b
    Example: cdm completions bash > ~/.local/share/bash-completion/completions/cdm
    Example: cdm completions zsh > ~/.zfunc/_cdm
    """
    from cdm_cli.commands._completions import SCRIPTS, list_commands

    typer.echo(SCRIPTS[shell](list_commands(ctx.find_root().command)), nl=False)
