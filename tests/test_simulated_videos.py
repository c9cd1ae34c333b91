"""From simulated videos to a trained network, by commands alone."""

import csv
import json

import numpy as np
import pytest

from data_prep import simulated_videos, sleep_video
from experiments import sleep_posture, sleep_posture_study
from jaxbed.data.prepared_night import read_night_images
from jaxbed.errors import InputError

LAG_S = 1.5


@pytest.mark.slow
def test_simulated_videos_are_prepared_and_trained_on(tmp_path):
    videos, prepared = tmp_path / "videos", tmp_path / "prepared"
    simulated_videos.main(
        simulated_videos.Config(out=videos, subjects=3, size=(96, 128), frame_hz=5)
    )
    sleep_video.main(sleep_video.Config(raw=videos, out=prepared, size=(64, 64), lag_s=LAG_S))

    images = read_night_images(prepared, "sleep_video")
    with (videos / "turns.csv").open() as file:
        turns = {row["video"]: row for row in csv.DictReader(file)}
    assert len(turns) == 3 * 4 * 2
    assert set(images.recording) == set(turns)  # a turn is never missed
    for video, time_s in zip(images.recording, images.extra["time_s"], strict=True):
        begin_s, end_s = (float(turns[video][name]) for name in ("begin_s", "end_s"))
        assert begin_s < time_s <= end_s + LAG_S
    assert np.bincount(images.posture).min() >= 6

    asked = sleep_posture.resolved(
        sleep_posture.Config(
            preset="smoke",
            data="sleep_video",
            data_dir=prepared,
            arms=("multi_task",),
            width=2,
            steps=2,
            workdir=tmp_path / "run",
        )
    )
    report = sleep_posture_study.run(asked)
    told = json.loads(report.with_suffix(".json").read_text())
    assert told["finished"]
    assert told["data"]["train"] + told["data"]["test"] == len(images)
    assert not told["data"]["subjects_shared"]


@pytest.mark.parametrize(
    ("wrong", "flag"),
    [
        ({"subjects": 0}, "--subjects"),
        ({"frame_hz": 0.5}, "--frame-hz"),
        ({"size": (8, 8)}, "--size"),
    ],
)
def test_impossible_videos_are_refused(tmp_path, wrong, flag):
    with pytest.raises(InputError, match=flag):
        simulated_videos.main(simulated_videos.Config(out=tmp_path / "videos", **wrong))
    assert not any(tmp_path.iterdir())
