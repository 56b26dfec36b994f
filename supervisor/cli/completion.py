"""The command completion: a script with which a shell completes the command line."""

from __future__ import annotations

import os
from typing import Literal

from supervisor.cli import output
from supervisor.cli.exits import Exit, Failure

SHELLS = ("bash", "zsh", "fish")
Shell = Literal["bash", "zsh", "fish"]


def completion(shell: Shell | None = None, /) -> int:
    """Print a script with which your shell completes commands.

    It is for bash, zsh or fish. Put it where the shell looks for it, and open
    a new shell. For bash and fish:

        creamas-supervisor completion bash > \\
            ~/.local/share/bash-completion/completions/creamas-supervisor
        creamas-supervisor completion fish > \\
            ~/.config/fish/completions/creamas-supervisor.fish

    For zsh, with `fpath=(~/.zfunc $fpath); autoload -U compinit; compinit` in
    ~/.zshrc:

        creamas-supervisor completion zsh > ~/.zfunc/_creamas-supervisor

    Args:
        shell: Which one. Default: that of SHELL.
    """
    name = shell or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise Failure(f"which shell? name one: {', '.join(SHELLS)}", Exit.USAGE)
    from supervisor.cli.app import build

    script = build().generate_completion(shell=name)  # type: ignore[arg-type]
    for line in script.splitlines():
        output.out(line)
    return Exit.DONE
