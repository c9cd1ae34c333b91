"""A network camera, and captures that behave as a test says."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np


def picture(number, *, size=(48, 64), grey=False):
    """A frame u8[H,W,3] that shows its number, up to 63, as six bars that survive any codec."""
    bits = np.array([number >> bit & 1 for bit in range(6)])
    row = 40 + 170 * bits[np.arange(size[1]) * 6 // size[1]]
    image = np.broadcast_to(row[None, :, None], (*size, 3)).astype(np.uint8)
    return image[..., 0] if grey else image


def number_of(image):
    """Reads the number of a picture."""
    centres = (2 * np.arange(6) + 1) * image.shape[1] // 12
    return int(((image[:, centres].mean((0, 2)) > 120) << np.arange(6)).sum())


def jpeg(image):
    return cv2.imencode(".jpg", image)[1].tobytes()


class MjpegCamera:
    """Serves pictures on the loopback interface; `mode` may change at any time.

    "ok", "stall" (connections stay open and nothing comes), "gone" (connections are ended),
    "frozen" (the same picture again), "torn" (every third picture is half a file).
    """

    def __init__(self, *, port=0, hz=50, size=(48, 64)):
        self.mode, self.hz, self.size, self.sent = "ok", hz, size, 0
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                if camera.mode == "gone":
                    self.send_error(503)
                    return
                self.send_response(200)
                kind = "multipart/x-mixed-replace; boundary=frame"
                self.send_header("Content-Type", kind)
                self.end_headers()
                try:
                    while camera.mode != "gone":
                        camera.send_to(self.wfile)
                        time.sleep(1 / camera.hz)
                except OSError:
                    pass

        ThreadingHTTPServer.allow_reuse_address = True
        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}/video"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.mode = "gone"
        self.server.shutdown()
        self.server.server_close()

    def send_to(self, stream):
        if self.mode == "stall":
            return
        self.sent += self.mode != "frozen"
        body = jpeg(picture(self.sent, size=self.size))
        if self.mode == "torn" and self.sent % 3 == 0:
            body = body[: len(body) // 2]
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        stream.write(head.encode() + body + b"\r\n")
        stream.flush()


class Acted:
    """A capture that gives what `acts` yields: images, None for damage, or raises exceptions."""

    def __init__(self, acts, *, opened=True):
        self.acts, self.opened, self.image, self.released = iter(acts), opened, None, False

    def isOpened(self):
        return self.opened

    def grab(self):
        act = next(self.acts, StopIteration)
        if act is StopIteration:
            return False
        if isinstance(act, Exception):
            raise act
        self.image = act() if callable(act) else act
        return True

    def retrieve(self):
        return self.image is not None, self.image

    def get(self, _):
        return 0.0

    def release(self):
        self.released = True


def write_video(path, frames, *, fps=10, codec="mp4v"):
    height, width = frames[0].shape[:2]
    fourcc = cv2.VideoWriter.fourcc(*codec)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, fourcc, fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path
