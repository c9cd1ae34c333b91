"""Prepares videos of sleepers, the frames after movement, as `sleep_video`.

    python -m data_prep.sleep_video --raw my_videos --out prepared/my_videos

The folder holds SUBJECT/POSTURE/on_01.mp4, SUBJECT/POSTURE/off_01.mp4 and so on: who lies there,
how (supine, prone, left or right: the side that is lain on) and whether a blanket is on. Or else
--labels names a CSV with the columns video, subject, posture and, if you like, blanket, start_s
and end_s, which tell what is seen between these seconds; one line a posture.

Frames are chosen as in "A deep learning-based method for nighttime sleep posture recognition"
(Wang et al.), eqs. 1 and 2: see data_prep/moving_frames.py.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from data_prep.moving_frames import Box, Look, Looks, Rule, frame_times, target_region
from data_prep.night_images import (
    MOST_PIXELS,
    Picture,
    check_size,
    joined,
    resized,
    silence,
    told,
    write_set,
)
from data_prep.night_labels import Label
from data_prep.sleep_video_scenes import Scene, found_videos, listed_videos
from jaxbed.cli import run
from jaxbed.data.depth import Size
from jaxbed.data.night import NightImages
from jaxbed.errors import InputError

NAME = "sleep_video"
_PROGRESS_S = 30.0
_CUT_SHORT = 0.95
"""Files that count their frames often do so roughly."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Where the videos lie, where the prepared set goes and which frames it gets."""

    raw: Path
    """The folder that holds the videos."""
    out: Path
    """Folder to make. It appears only when everything in it is complete."""
    labels: Path | None = None
    """A CSV that tells what the videos show; without it, their folders do."""
    t1: float = 25.0
    """A pixel has moved when it changed by more than so many of 255 grey levels."""
    t2: float = 0.01
    """A frame is kept when so many pixels have moved: below 1 a share, from 1 on a number."""
    interval_s: float = 1.0
    """One frame is looked at in so many seconds."""
    lag_s: float = 1.5
    """It is compared with the frame so many seconds earlier."""
    size: Size = (256, 256)
    """Height and width of the prepared images in pixels; other shapes are squeezed into it."""
    crop: bool = True
    """Cut out the region that moved, or keep the whole frame."""
    margin: float = 0.15
    """What a crop shows on each side of what moved, as a share of its longer side."""
    least_crop: float = 0.5
    """Shortest side of a crop, as a share of the frame's shorter side."""

    @property
    def rule(self) -> Rule:
        """What chooses the frames."""
        return Rule(t1=self.t1, t2=self.t2, interval_s=self.interval_s, lag_s=self.lag_s)


@dataclasses.dataclass
class Tally:
    """What became of the frames.

    Attributes:
        read: frames of the videos.
        damaged: frames that were wanted and could not be decoded.
        looked: frames that were looked at, within the scenes.
        early: those without a frame the lag earlier.
        still: those without movement.
        most_moving: the largest share of pixels that moved in any.
        remarks: what was odd about videos, one line each.
    """

    read: int = 0
    damaged: int = 0
    looked: int = 0
    early: int = 0
    still: int = 0
    most_moving: float = 0.0
    remarks: list[str] = dataclasses.field(default_factory=list)


def main(config: Config) -> None:
    """Reads the videos, chooses frames and writes them."""
    from jaxbed.data.prepared import complete_or_absent

    _check(config)
    with complete_or_absent(config.out) as partial:
        images, tally = read_videos(config)
        write_set(images, partial, read=tally.read)
    print(told(images, tally.read), _sentence(images, tally, config), config.out, sep="\n")


def read_videos(config: Config) -> tuple[NightImages, Tally]:
    """Reads every video. An unreadable one is left out and listed.

    Returns:
        The chosen frames, and what became of all.

    Raises:
        InputError: if the labels cannot be understood, if no video can be read, or if no frame
            follows movement.
    """
    if not config.raw.is_dir():
        raise InputError(f"{config.raw} is not a folder; point --raw at that of the videos.")
    if config.labels is None:
        scenes = found_videos(config.raw)
    else:
        scenes = listed_videos(config.labels, config.raw)
    silence()
    pictures, unreadable, tally = [], [], Tally()
    progress = _Progress({video: (config.raw / video).stat().st_size for video in scenes})
    for video in scenes:
        try:
            for picture in _read_video(video, scenes[video], config, tally, progress):
                pictures.append(picture)
                progress.kept += 1
        except ValueError as error:
            unreadable.append(f"{video}: {error}")
        progress.finish(video)
    progress.close()
    if len(unreadable) == len(scenes):
        raise InputError(
            f"{config.raw} holds no readable video among {len(scenes)} ({unreadable[0]}); mend "
            "the files, or convert them to MP4."
        )
    if not pictures:
        raise InputError(
            f"{config.raw} shows no movement: of {tally.looked:,} frames looked at, "
            f"{tally.early:,} had no frame {config.lag_s:g} s earlier, and in the others at most "
            f"{tally.most_moving:.2%} of the pixels changed by more than {config.t1:g} levels; "
            "lower --t2 or --t1, or raise --lag-s."
        )
    skipped = [*unreadable, *tally.remarks, *_left_out(tally, config)]
    return joined(NAME, pictures, skipped), tally


def _read_video(
    video: str, scenes: Sequence[Scene], config: Config, tally: Tally, progress: "_Progress"
) -> Iterator[Picture]:
    """Chooses the frames of a video. Raises ValueError telling why it cannot."""
    path = config.raw / video
    if not path.stat().st_size:
        raise ValueError("is empty")
    # This backend only: another one takes on_01.avi for the first of a row of images.
    capture = cv2.VideoCapture(os.fspath(path.resolve()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise ValueError("is not a video that can be read")
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    if width * height > MOST_PIXELS:
        raise ValueError(f"claims frames of more than {MOST_PIXELS:,} pixels")
    frames, read = capture.get(cv2.CAP_PROP_FRAME_COUNT), 0
    looks, looked = Looks(config.rule), [0] * len(scenes)
    try:
        for time_s in frame_times(capture):
            if time_s >= scenes[-1].end_s:
                break
            read += 1
            tally.read += 1
            if read % 100 == 0 and frames > 0:
                progress.reach(video, read / frames)
            look = looks.offer(time_s, lambda: _retrieved(capture, tally))
            number = next((i for i, x in enumerate(scenes) if x.start_s <= time_s < x.end_s), None)
            if look is None or number is None:
                continue
            looked[number] += 1
            picture = _picture(video, look, scenes[number].label, config, tally)
            if picture is not None:
                yield picture
        else:
            if 0 < read < _CUT_SHORT * frames - 1:
                tally.remarks.append(f"{video}: ends after {read:,} of {frames:,.0f} frames")
    finally:
        capture.release()
    if not read:
        raise ValueError("holds no frame that can be read")
    tally.remarks += [
        f"{video}: no frame was looked at from {scene.start_s:g} s on"
        for scene, count in zip(scenes, looked, strict=True)
        if not count
    ]


def _retrieved(capture: cv2.VideoCapture, tally: Tally) -> np.ndarray | None:
    """Decodes the frame that was grabbed, u8[h,w]; None where it is damaged."""
    try:
        good, frame = capture.retrieve()
    except cv2.error:
        good = False
    if not good:
        tally.damaged += 1
        return None
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if frame.ndim == 3 else frame


def _picture(video: str, look: Look, label: Label, config: Config, tally: Tally) -> Picture | None:
    """Keeps a frame that is looked at if it follows movement."""
    tally.looked += 1
    if look.moving is None:
        tally.early += 1
        return None
    moving, pixels = int(np.count_nonzero(look.moving)), look.moving.size
    tally.most_moving = max(tally.most_moving, moving / pixels)
    if moving < config.rule.needed_px(pixels):
        tally.still += 1
        return None
    box = Box(0, 0, *look.frame.shape)
    if config.crop:
        box = target_region(look.moving, margin=config.margin, least=config.least_crop)
    return Picture(
        image=resized(box.cut(look.frame), config.size),
        label=label,
        recording=video,
        extra={
            "time_s": look.time_s,
            "moving_share": moving / pixels,
            **{f"crop_{name}_px": value for name, value in box._asdict().items()},
        },
    )


def _check(config: Config) -> None:
    """Refuses flags that cannot be."""
    check_size(config.size)
    config.rule.check()
    if not 0 <= config.margin <= 10:
        raise InputError(f"--margin must be a share of 0 to 10, not {config.margin}; change it.")
    if not 0 <= config.least_crop <= 1:
        raise InputError(
            f"--least-crop must be a share of 0 to 1, not {config.least_crop}; change it."
        )


def _left_out(tally: Tally, config: Config) -> list[str]:
    """Tells why frames that were read were not kept."""
    reasons = {
        f"not looked at, one each {config.interval_s:g} s is": tally.read - tally.looked,
        f"without a frame {config.lag_s:g} s earlier": tally.early,
        f"without movement in {config.lag_s:g} s": tally.still,
    }
    return [f"{count:,} frames: {reason}" for reason, count in reasons.items() if count]


def _sentence(images: NightImages, tally: Tally, config: Config) -> str:
    return (
        f"  looked at {tally.looked:,} of {tally.read:,} frames: {len(images):,} after movement, "
        f"{tally.still:,} without movement, {tally.early:,} without a frame {config.lag_s:g} s "
        f"earlier; {tally.damaged:,} damaged"
    )


class _Progress:
    """Shows rate and time left: a bar on a terminal, a plain line now and then elsewhere.

    It counts bytes of files, which are known before a video is opened.
    """

    def __init__(self, sizes: Mapping[str, int]):
        self.kept = 0
        self._sizes, self._before, self._done = sizes, 0, 0
        self._begun = self._told = time.monotonic()
        self._style = {"total": sum(sizes.values()), "unit": "B", "unit_scale": True}
        self._bar = tqdm(desc="reading videos", disable=None, **self._style)

    def reach(self, video: str, share: float) -> None:
        """Shows that a share of a video is done."""
        self._show(self._before + int(self._sizes[video] * min(share, 1)))

    def finish(self, video: str) -> None:
        """Shows that a video is done."""
        self._before += self._sizes[video]
        self._show(self._before)

    def close(self) -> None:
        """Leaves the last state on the screen."""
        self._bar.close()

    def _show(self, done: int) -> None:
        self._done, now = max(done, self._done), time.monotonic()
        if not self._bar.disable:
            self._bar.set_postfix(kept=self.kept, refresh=False)
            self._bar.update(self._done - self._bar.n)
        elif now - self._told > _PROGRESS_S:
            self._told = now
            state = tqdm.format_meter(
                self._done, elapsed=now - self._begun, postfix=f"kept={self.kept}", **self._style
            )
            print(f"reading videos: {state}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(main, Config, doc=__doc__)
