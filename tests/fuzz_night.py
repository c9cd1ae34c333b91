"""Readers of night images and videos, with the smallest inputs, made up here."""

import tempfile
from pathlib import Path

import cv2
import numpy as np

from data_prep import image_folder, sleep_video, slp
from data_prep.night_images import silence
from tests.fuzz import Target

OUT = Path("never/written")


def encoded(suffix: str, levels) -> bytes:
    good, content = cv2.imencode(suffix, levels)
    assert good
    return content.tobytes()


def image_files() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (20, 24), np.uint8)
    colour = rng.integers(0, 255, (20, 24, 3), np.uint8)
    return {
        "supine/on/anna_1.png": encoded(".png", colour),
        "supine/off/anna_2.jpg": encoded(".jpg", grey),
        "left/on/bert_1.tif": encoded(".tif", (grey.astype(np.uint16) << 4)),
        "left/on/bert_2.tiff": encoded(".tiff", grey.astype(np.float32)),
        "right/off/bert_3.bmp": encoded(".bmp", grey),
        "right/off/bert_4.webp": encoded(".webp", colour),
        "prone/unknown/bert_5.pgm": encoded(".pgm", grey),
    }


def read_images(folder: Path, labels: str = ""):
    config = image_folder.Config(
        raw=folder, out=OUT, labels=folder / labels if labels else None, size=(16, 16)
    )
    return image_folder.read_images(config)[0].skipped


def image_targets():
    files = image_files()
    yield Target("image_folder", files, read_images)
    labels = "file,subject,posture,blanket\n" + "".join(
        f'"{name}",{name[-7:-4]},left side,on\n' for name in files
    )
    yield Target(
        "image labels",
        {**files, "labels.csv": labels.encode()},
        lambda folder: read_images(folder, "labels.csv"),
        spared=tuple(files),
    )


def slp_targets():
    place = "danaLab/00001/{}/cover1/image_0000{:02d}.png"
    images = list(image_files().values())
    files = {place.format("IR", pose): images[0] for pose in (1, 16, 45)}

    def read(folder):
        config = slp.Config(raw=folder, out=OUT, size=(16, 16))
        skipped = slp.read_images(config)[0].skipped
        return [line for line in skipped if "of 45 images" not in line]

    yield Target("slp", files, read)


def video(codec: str, suffix: str) -> bytes:
    """40 frames at 10 per second; a bright patch moves once."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video{suffix}"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (32, 32))
        for number in range(40):
            frame = np.full((32, 32, 3), 40, np.uint8)
            left = 2 if number < 22 else 18
            frame[8:20, left : left + 12] = 200
            writer.write(frame)
        writer.release()
        return path.read_bytes()


def read_videos(folder: Path):
    config = sleep_video.Config(
        raw=folder, out=OUT, labels=folder / "turns.csv", size=(16, 16), interval_s=0.5, lag_s=1
    )
    images, tally = sleep_video.read_videos(config)
    return [line for line in images.skipped if not line[:1].isdigit()] + tally.remarks


def video_targets():
    turns = (
        "video,subject,posture,blanket,start_s,end_s\n"
        "a.avi,anna,left,on,0,2.5\na.avi,anna,right,on,2.5,\nb.mp4,bert,supine,,,\n"
    )
    files = {"a.avi": video("MJPG", ".avi"), "b.mp4": video("mp4v", ".mp4")}
    files["turns.csv"] = turns.encode()
    yield Target("videos", files, read_videos, spared=("turns.csv",))
    yield Target("video labels", files, read_videos, spared=("a.avi", "b.mp4"))


def targets():
    """Yields every reader of night images."""
    silence()
    yield from image_targets()
    yield from slp_targets()
    yield from video_targets()
