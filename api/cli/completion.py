"""``completion``: the script that makes a shell complete commands and options."""

from __future__ import annotations

import click

from api.cli.options import Command
from api.cli.session import Session

SHELLS = ("bash", "zsh", "fish")


@click.command(cls=Command)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_obj
def completion(session: Session, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      orchestrator completion bash > ~/.local/share/bash-completion/completions/orchestrator
      orchestrator completion zsh > ~/.zfunc/_orchestrator
      orchestrator completion fish > ~/.config/fish/completions/orchestrator.fish
    """
    from click.shell_completion import get_completion_class

    from api.cli.app import root

    kind = get_completion_class(shell)
    assert kind is not None, shell
    session.out.text(kind(root, {}, "orchestrator", "_ORCHESTRATOR_COMPLETE").source())
