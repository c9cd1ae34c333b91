"""Moving weights from one network to another, with an account of every leaf."""

import dataclasses
import fnmatch
from collections.abc import Sequence

import jax

from jaxbed.training.state import Tree


@dataclasses.dataclass(frozen=True)
class TransferReport:
    """What happened to every leaf, by path.

    Attributes:
        taken: leaves copied from the source.
        left: target leaves that kept their fresh value, and source leaves not used.
        reshaped: leaves both sides have in different shapes; the target's fresh value stays.
    """

    taken: tuple[str, ...]
    left: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __str__(self) -> str:
        fresh = ", ".join((*self.reshaped, *self.left)) or "none"
        return f"{len(self.taken)} leaves taken; fresh or unused: {fresh}"


def transfer(
    source: Tree, target: Tree, *, fresh: Sequence[str] = ()
) -> tuple[Tree, TransferReport]:
    """Copies every leaf of `source` into `target`, except those declared fresh.

    Args:
        source: tree of arrays, `params` and `batch_stats` together.
        target: tree whose structure and shapes the result has.
        fresh: patterns (as of file names) of paths that need not match; where they do not,
            the target's own value stays.

    Returns:
        The new tree, and the account.

    Raises:
        ValueError: a leaf is missing on one side or differs in shape, and no pattern says
            that it may; the message lists both sides.
    """
    have, want = _by_path(source), _by_path(target)
    taken = [p for p in want if p in have and have[p].shape == want[p].shape]
    reshaped = [p for p in want if p in have and p not in set(taken)]
    only_target = [p for p in want if p not in have]
    only_source = [p for p in have if p not in want]

    undeclared = [
        [p for p in paths if not any(fnmatch.fnmatch(p, pattern) for pattern in fresh)]
        for paths in (reshaped, only_target, only_source)
    ]
    if any(undeclared):
        shapes = [f"{p} {have[p].shape} -> {want[p].shape}" for p in undeclared[0]]
        raise ValueError(
            f"weights do not fit: other shapes {shapes}, only in the target {undeclared[1]}, "
            f"only in the source {undeclared[2]}; name them in fresh={tuple(fresh)} if meant"
        )
    chosen = {p: have[p] if p in set(taken) else want[p] for p in want}
    leaves, structure = jax.tree.flatten(target)
    moved = jax.tree.unflatten(structure, [chosen[p] for p in want])
    named = tuple(f"{p} {have[p].shape} -> {want[p].shape}" for p in reshaped)
    return moved, TransferReport(tuple(taken), tuple(only_target + only_source), named)


def _by_path(tree: Tree) -> dict[str, jax.Array]:
    """Lists leaves by path, in the tree's own order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
