"""Returns of the latest episodes, per game."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import Any

WINDOW = 100
"""Episodes of each game that means are taken over."""


class EpisodeLog:
    """The last `WINDOW` episodes of each game, fed from `infos` and read as TensorBoard tags.

    Games that are not played any more are remembered, and not reported.
    """

    def __init__(self, games: Iterable[str]) -> None:
        """`games` are those that are played now; others may follow."""
        self._episodes: dict[str, deque[tuple[float, int, float | None]]] = {}
        self._played: dict[str, None] = {}
        for game in games:
            self._window(game)

    def _window(self, game: str) -> deque[tuple[float, int, float | None]]:
        self._played[game] = None
        return self._episodes.setdefault(game, deque(maxlen=WINDOW))

    def add(self, game: str, info: Mapping[str, Any]) -> None:
        """Take an info in which `game` ended an episode: "episode" (r, l), "normalized_return" where known."""
        episode = info["episode"]
        entry = (float(episode["r"]), int(episode["l"]), info.get("normalized_return"))
        self._window(game).append(entry)

    def _reported(self) -> dict[str, deque[tuple[float, int, float | None]]]:
        return {game: self._episodes[game] for game in self._played if self._episodes[game]}

    def returns(self) -> dict[str, float]:
        """Mean return of each game that has ended an episode."""
        return {game: fmean(e[0] for e in episodes) for game, episodes in self._reported().items()}

    def metrics(self) -> dict[str, float]:
        """Tags and values: overall means over all windows, and each game's own."""
        windows = self._reported()
        everything = [episode for episodes in windows.values() for episode in episodes]
        if not everything:
            return {}
        tags = {
            "rollout/ep_rew_mean": fmean(e[0] for e in everything),
            "rollout/ep_len_mean": fmean(e[1] for e in everything),
        }
        normalized = []
        for game, episodes in windows.items():
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
        """The windows of all games as plain data, and which games are played, for a checkpoint."""
        windows = {game: [list(e) for e in episodes] for game, episodes in self._episodes.items()}
        return {"windows": windows, "played": list(self._played)}

    def load_state(self, state: Mapping[str, Any], same_games: bool = False) -> None:
        """Take up the windows that `state` returned.

        Args:
            state: what `state` returned.
            same_games: take up which games are played, too; else that stays as it is.
        """
        for game, episodes in state["windows"].items():
            self._episodes[game] = deque(((float(r), int(n), z) for r, n, z in episodes), maxlen=WINDOW)
        if same_games:
            self._played = dict.fromkeys(state["played"])


def full_window_score(state: Mapping[str, Any]) -> float | None:
    """Mean over the played games of their mean normalised return, from what `EpisodeLog.state` returned.

    None unless each of them has ended `WINDOW` episodes whose normalised return is known.
    """
    means = []
    for game in state["played"]:
        known = [float(z) for _, _, z in state["windows"][game] if z is not None]
        if len(known) < WINDOW:
            return None
        means.append(fmean(known))
    return fmean(means) if means else None
