"""`keyrack completion`: the script by which a shell completes words; must know no command itself."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

WHERE = {
    "bash": 'eval "$(keyrack completion bash)"    # in ~/.bashrc',
    "zsh": 'eval "$(keyrack completion zsh)"     # in ~/.zshrc, behind compinit',
    "fish": "keyrack completion fish | source       # in ~/.config/fish/config.fish",
}


@click.command(name="completion")
@click.argument("shell", type=click.Choice(list(WHERE)))
def command(shell: str) -> None:
    """Print a script that completes commands and options in a shell.

    For example, in ~/.bashrc: eval "$(keyrack completion bash)"
    """
    shell_class = get_completion_class(shell)
    assert shell_class is not None
    root = click.get_current_context().find_root().command
    click.echo(f"# {WHERE[shell]}")
    script = shell_class(root, {}, "keyrack", "_KEYRACK_COMPLETE").source()
    # The help of a command may contain a comma, where fish would cut it off.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'))
