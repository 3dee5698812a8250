from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.compare import differences

VALUE = {
    "weights": {"a": torch.tensor([1.0, float("nan")]), "scalar": torch.tensor(2.0, dtype=torch.bfloat16)},
    "list": [1, (np.array([0.0, 1.0]), "x"), None],
    "empty": torch.zeros(0, 3),
    "flags": np.array([True, False]),
}


def changed(*path: Any, to: Any) -> dict[str, Any]:
    def put(value: Any, rest: tuple[Any, ...]) -> Any:
        if not rest:
            return to
        items = dict(value) if isinstance(value, dict) else list(value)
        items[rest[0]] = put(items[rest[0]], rest[1:])
        return items if isinstance(value, dict) else type(value)(items)

    result: dict[str, Any] = put(VALUE, path)
    return result


def test_a_copy_is_the_same() -> None:
    copy = changed("weights", "a", to=torch.tensor([1.0, float("nan")]))
    assert differences(VALUE, copy) == []
    assert differences(VALUE, OrderedDict(copy)) == []


@pytest.mark.parametrize(
    ("path", "to", "place"),
    [
        (("weights", "a"), torch.tensor([1.0, 2.0]), "/weights/a"),
        (("weights", "a"), torch.tensor([1.0, float("nan")], dtype=torch.float64), "/weights/a"),
        (("weights", "scalar"), torch.tensor([2.0], dtype=torch.bfloat16), "/weights/scalar"),
        (("weights", "scalar"), 2.0, "/weights/scalar (Tensor, float)"),
        (("list", 1, 0), np.array([-0.0, 1.0]), "/list/1/0"),
        (("list", 1, 0), np.array([0.0, 1.0], dtype=np.float32), "/list/1/0"),
        (("list", 1), (), "/list/1 (2 items, 0)"),
        (("list", 0), 1.0, "/list/0 (int, float)"),
        (("list", 2), False, "/list/2 (NoneType, bool)"),
        (("empty",), torch.zeros(3, 0), "/empty"),
        (("weights",), {"scalar": VALUE["weights"]["scalar"], "a": VALUE["weights"]["a"]}, "/weights (keys)"),  # type: ignore[index, call-overload]
    ],
)
def test_what_differs_is_named(path: tuple[Any, ...], to: Any, place: str) -> None:
    assert differences(VALUE, changed(*path, to=to)) == [place]
    assert differences(changed(*path, to=to), VALUE, "x") != []
