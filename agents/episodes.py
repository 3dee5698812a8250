"""Returns of the latest episodes, per game."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

WINDOW = 100
"""Episodes of each game that means are taken over."""


class EpisodeLog:
    """The last `window` episodes of each game, fed from `infos` and read as TensorBoard tags."""

    def __init__(self, games: Sequence[str], window: int = WINDOW) -> None:
        """`games` may name a game more than once; each gets one window."""
        self._episodes: dict[str, deque[tuple[float, int, float | None]]] = {
            game: deque(maxlen=window) for game in dict.fromkeys(games)
        }

    def add(self, game: str, info: Mapping[str, Any]) -> None:
        """Take an info in which `game` ended an episode: "episode" (r, l), "normalized_return" where known."""
        episode = info["episode"]
        self._episodes[game].append((float(episode["r"]), int(episode["l"]), info.get("normalized_return")))

    def returns(self) -> dict[str, float]:
        """Mean return of each game that has ended an episode."""
        return {game: fmean(e[0] for e in episodes) for game, episodes in self._episodes.items() if episodes}

    def metrics(self) -> dict[str, float]:
        """Tags and values: overall means over all windows, and each game's own."""
        everything = [episode for episodes in self._episodes.values() for episode in episodes]
        if not everything:
            return {}
        tags = {
            "rollout/ep_rew_mean": fmean(e[0] for e in everything),
            "rollout/ep_len_mean": fmean(e[1] for e in everything),
        }
        normalized = []
        for game, episodes in self._episodes.items():
            if not episodes:
                continue
            tags[f"game/{game}/return"] = fmean(e[0] for e in episodes)
            tags[f"game/{game}/length"] = fmean(e[1] for e in episodes)
            known = [e[2] for e in episodes if e[2] is not None]
            if known:
                tags[f"game/{game}/normalized"] = fmean(known)
                normalized.append(tags[f"game/{game}/normalized"])
        if normalized:
            tags["rollout/normalized_mean"] = fmean(normalized)
        return tags

    def state(self) -> dict[str, Any]:
        """The windows as plain data, for a checkpoint."""
        return {game: [list(e) for e in episodes] for game, episodes in self._episodes.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up the windows that `state` returned."""
        for game, episodes in state.items():
            if game in self._episodes:
                self._episodes[game].clear()
                self._episodes[game].extend((float(r), int(n), z) for r, n, z in episodes)


def full_window_score(state: Mapping[str, Any]) -> float | None:
    """Mean over games of their mean normalised return, from what `EpisodeLog.state` returned.

    None unless every game has ended `WINDOW` episodes whose normalised return is known.
    """
    means = []
    for episodes in state.values():
        known = [float(z) for _, _, z in episodes if z is not None]
        if len(known) < WINDOW:
            return None
        means.append(fmean(known))
    return fmean(means) if means else None
