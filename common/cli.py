"""What every command line of the project has in common: a user's error is one line and exit code 2."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping

from common.errors import RunError, UserError

RUN_FAILED = 1
USER_ERROR = 2
INTERRUPTED = 130


def run_command(main: Callable[[], int]) -> int:
    """Run `main` and return the exit code of the process.

    A `UserError` and an error of the operating system (a full disk, a directory that is read-only) become
    one line on stderr and code 2, a `RunError` one line and code 1. Other exceptions are bugs and keep their traceback.
    """
    try:
        return main()
    except BrokenPipeError:
        # Whoever read our output has left (`| head`): nothing is wrong, and nobody is there to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as error:
        return _complain(str(error))
    except RunError as error:
        _complain(str(error))
        return RUN_FAILED
    except OSError as error:
        return _complain(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def with_subcommands(main: Callable[[], int], modules: Mapping[str, str]) -> Callable[[], int]:
    """`main`, or another main where the first word of the command line names one.

    Args:
        main: of the program itself.
        modules: by first word, the module whose ``main(words)`` takes the rest; imported only when asked for, so that
            one command need not wait for the libraries of another.
    """

    def run() -> int:
        word, *rest = sys.argv[1:] or [""]
        if word not in modules:
            return main()
        code: int = importlib.import_module(modules[word]).main(rest)
        return code

    return run


def _complain(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def without_box(text: str) -> str:
    """The message in one of tyro's framed errors, as one line."""
    lines = [
        re.sub(r"[│╭╮╰╯─]", " ", line).strip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    ]
    body = [line for line in lines[1:] if line]
    message = " ".join(" ".join(body).split("For full helptext")[0].split())
    return message[:1].lower() + message[1:]
