"""What each thread of the process is doing, for a watchdog that looks from outside.

>>> with stage("evaluation"), stage("environment"):
...     active_stages()
['evaluation: environment']
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

_active: dict[int, tuple[str, ...]] = {}
"""By thread, the stages that it is in, outermost first."""


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Within this context, the present thread is in the stage `name`, and in those around it."""
    thread = threading.get_ident()
    outer = _active.get(thread, ())
    _active[thread] = outer if name in outer else (*outer, name)
    try:
        yield
    finally:
        if outer:
            _active[thread] = outer
        else:
            del _active[thread]


def active_stages() -> list[str]:
    """What the threads that are in a stage are doing, each once: "learning", "evaluation: environment"."""
    return list(dict.fromkeys(": ".join(names) for names in list(_active.values())))
