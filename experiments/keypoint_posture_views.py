"""What readers of `python -m experiments.keypoint_posture` are shown: keypoints of many maps.

N maps, K keypoints of D numbers.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from experiments.keypoint_posture_data import Classes
from experiments.keypoint_posture_networks import Nodes, Variables


class Rows:
    """Some rows of an array, taken when asked for: a fold needs no copy of its keypoints."""

    def __init__(self, array: np.ndarray, rows: np.ndarray):
        self._array, self._rows = array, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        return self._array[self._rows[chosen]]


class Alternating:
    """Rows of two arrays by turns; the second begins again as often as it must."""

    def __init__(self, first: Any, second: Any):
        self._first, self._second = first, second

    def __len__(self) -> int:
        return 2 * len(self._first)

    def __getitem__(self, chosen: Any) -> np.ndarray:
        row, second = np.divmod(np.arange(len(self))[chosen], 2)
        taken = self._first[row]
        taken[second > 0] = self._second[row[second > 0] % len(self._second)]
        return taken


class Copies(NamedTuple):
    """What an encoder finds on maps and on changed copies of them.

    Attributes:
        nodes: f32[(1+M)N,K,D], the maps themselves first.
        mirrored: bool[(1+M)N].
        source: i64[(1+M)N], index of the map.
    """

    nodes: np.ndarray
    mirrored: np.ndarray
    source: np.ndarray

    def of(self, maps: np.ndarray, label: np.ndarray, classes: Classes) -> dict[str, Any]:
        """Returns `nodes` and `label` of the copies of some maps.

        Args:
            maps: i64[n], indices of maps.
            label: i32[N] of all maps; those without a class, -1, are left out.
            classes: what labels are in a mirror.
        """
        wanted = np.zeros(len(label), bool)
        wanted[maps] = label[maps] >= 0
        rows = np.flatnonzero(wanted[self.source])
        own = label[self.source[rows]]
        own = np.where(self.mirrored[rows], classes.mirrored[own], own).astype(np.int32)
        return {"nodes": Rows(self.nodes, rows), "label": own}


class Through:
    """What one encoder finds on the training maps, looked for when it is first asked for."""

    def __init__(self, find: Nodes, variables: Variables, pressure: np.ndarray, copies: int):
        """Names the encoder.

        Args:
            find: finds keypoints.
            variables: of the encoder.
            pressure: f32[N,R,C], the training maps.
            copies: M, changed copies of each.
        """
        self.variables = variables
        self._find, self._pressure, self._copies = find, pressure, copies

    @cached_property
    def training(self) -> Copies:
        """The training maps and their copies."""
        return self.copies_of(self._pressure)

    def copies_of(self, pressure: np.ndarray) -> Copies:
        """Returns what is found on maps f32[N,R,C] and their copies."""
        nodes, mirrored = self._find.of_copies(self.variables, pressure, self._copies)
        return Copies(nodes, mirrored, np.tile(np.arange(len(pressure)), 1 + self._copies))

    def __call__(self, pressure: np.ndarray) -> np.ndarray:
        """Returns the keypoints f32[N,K,D] of maps f32[N,R,C]."""
        return self._find(self.variables, pressure)


class Asked:
    """Maps that postures are asked of, and the keypoints that encoders find on them.

    Attributes:
        maps: f32[N,R,C] by name.
    """

    def __init__(self, maps: Mapping[str, np.ndarray]):
        self.maps = maps
        self._found: dict[tuple[str, Through, bool], np.ndarray] = {}

    def pressure(self, name: str, *, mirrored: bool) -> np.ndarray:
        """Returns f32[N,R,C]."""
        return self.maps[name][..., ::-1] if mirrored else self.maps[name]

    def nodes(self, name: str, through: Through, *, mirrored: bool) -> np.ndarray:
        """Returns f32[N,K,D], looked for once."""
        key = (name, through, mirrored)
        if key not in self._found:
            self._found[key] = through(self.pressure(name, mirrored=mirrored))
        return self._found[key]
