"""What a run writes while it trains: metrics as JSON lines and TensorBoard events."""

import json
import sys
import time
from pathlib import Path

from tensorboardX import SummaryWriter
from tqdm import tqdm


class MetricLog:
    """Appends scalars to `metrics.jsonl` and to TensorBoard.

    A line holds `phase`, `kind` ("train" or "eval"), `step` and the scalars. Lines are
    flushed one by one; what was written survives a killed process.
    """

    def __init__(self, workdir: Path):
        self._path = workdir / "metrics.jsonl"
        self._board = workdir / "tensorboard"
        self._writers: dict[str, SummaryWriter] = {}
        # A killed process can leave half a line at the end.
        lines = read_metrics(workdir)
        self._file = self._path.open("a")
        self._rewrite(lines)

    def write(self, phase: str, kind: str, step: int, scalars: dict[str, float]) -> None:
        """Writes scalars of one step."""
        line = {"phase": phase, "kind": kind, "step": step, **scalars}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if phase not in self._writers:
            self._writers[phase] = SummaryWriter(str(self._board / phase))
        for name, value in scalars.items():
            self._writers[phase].add_scalar(f"{kind}/{name}", value, step)

    def forget_after(self, phase: str, step: int) -> None:
        """Drops lines of steps that are about to be taken again."""
        lines = read_metrics(self._path.parent)
        self._rewrite([x for x in lines if x["phase"] != phase or x["step"] <= step])

    def close(self) -> None:
        """Finishes both files."""
        self._file.close()
        for writer in self._writers.values():
            writer.close()

    def _rewrite(self, lines: list[dict]) -> None:
        self._file.close()
        whole = self._path.with_suffix(".tmp")
        whole.write_text("".join(json.dumps(line) + "\n" for line in lines))
        whole.replace(self._path)
        self._file = self._path.open("a")


class NoLog:
    """Takes what a MetricLog takes, and keeps nothing: for processes that do not write."""

    def write(self, phase: str, kind: str, step: int, scalars: dict[str, float]) -> None:
        """Drops scalars."""

    def forget_after(self, phase: str, step: int) -> None:
        """Has nothing to forget."""

    def close(self) -> None:
        """Has nothing to finish."""


def read_metrics(workdir: Path) -> list[dict]:
    """Reads the complete lines of `metrics.jsonl`; none where there is no file."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


class Progress:
    """Shows rate and time left: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(
        self, name: str, *, total: int, done: int = 0, every_s: float = 15.0, shown: bool = True
    ):
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit="step",
            disable=None if shown else True,  # None: where stderr is not a terminal
            dynamic_ncols=True,
        )
        self._name, self._total, self._done, self._shown = name, total, done, shown
        self._every_s, self._begin, self._begun_at = every_s, time.monotonic(), done
        self._told = self._begin

    def update(self, done: int, scalars: dict[str, float]) -> None:
        """Shows that `done` steps are done, with `scalars` beside them."""
        self._done = done
        if not self._shown:
            return
        if not self._bar.disable:
            self._bar.set_postfix(scalars, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._told < self._every_s and self._done < self._total:
            return
        self._told = now
        rate = (self._done - self._begun_at) / max(now - self._begin, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        values = ", ".join(f"{k} {v:.4g}" for k, v in scalars.items())
        print(
            f"{self._name}: {self._done}/{self._total} steps, {rate:.1f}/s, {left} left, {values}",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        """Leaves the last state on the screen."""
        self._bar.close()
