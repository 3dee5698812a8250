"""Opens the page in a browser, where there is a desktop."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping


def has_desktop(environment: Mapping[str, str] | None = None) -> bool:
    """Whether a browser opened here would be seen: not over SSH, nor on a machine without a screen."""
    variables = os.environ if environment is None else environment
    if variables.get("SSH_CONNECTION") or variables.get("SSH_TTY"):
        return False
    return sys.platform == "darwin" or bool(variables.get("DISPLAY") or variables.get("WAYLAND_DISPLAY"))


def open_page(address: str) -> None:
    """Open `address` without waiting for the browser."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
