"""The monitor's page in a real browser: headless Chromium, clicked as a person does."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from jaxbed.monitor.page import serve
from jaxbed.monitor.status import Status
from tests.monitor_status import PICTURE, event, scores, show


class Browser:
    """Headless Chromium, driven through chromedriver's plain HTTP protocol (W3C WebDriver)."""

    def __init__(self, driver_url):
        arguments = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # Chromium's sandbox refuses to start as root
        wanted = {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self._session = driver_url
        made = self._call("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"{driver_url}/session/{made['sessionId']}"

    def _call(self, path, body=None, method="POST"):
        data = None if method == "DELETE" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._session + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def close(self):
        self._call("", method="DELETE")

    def open(self, url):
        self._call("/url", {"url": url})

    def run(self, script):
        """Returns the value of an expression."""
        return self._call("/execute/sync", {"script": f"return {script}", "args": []})

    def text(self, selector):
        return self.run(f"document.querySelector({selector!r})?.innerText ?? null")

    def click(self, selector):
        """Clicks as a person does: what is hidden or covered cannot be clicked."""
        found = self._call("/element", {"using": "css selector", "value": selector})
        self._call(f"/element/{next(iter(found.values()))}/click")

    def devtools(self, command, **parameters):
        return self._call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def complaints(self):
        return [line["message"] for line in self._call("/se/log", {"type": "browser"})]

    def wait_for(self, selector, text, seconds=8.0):
        end = time.monotonic() + seconds
        while text not in (self.text(selector) or ""):
            assert time.monotonic() < end, f"{selector} is {self.text(selector)!r}, not {text!r}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def browser():
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            pytest.skip(
                f"{program} is not installed (Debian: apt install chromium chromium-driver)"
            )
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        port = next(
            found[1]
            for line in driver.stdout
            if (found := re.search(r"successfully on port (\d+)", line))
        )
        with contextlib.closing(Browser(f"http://127.0.0.1:{port}")) as opened:
            yield opened
    finally:
        driver.terminate()
        driver.wait()
        driver.stdout.close()


def emulate(browser, *, width=390, height=844, scheme="light"):
    browser.devtools(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=height,
        deviceScaleFactor=1,
        mobile=width < 800,
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.devtools("Emulation.setEmulatedMedia", features=features)


@contextlib.contextmanager
def watched(status, *, picture=PICTURE):
    """Shows what `seen` holds ten times a second, as the watch loop does."""
    seen, stop = {"state": "OK", "observation": scores(), "picture": picture}, threading.Event()

    def work():
        while not stop.wait(0.1):
            show(status, **seen)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def jpeg():
    return cv2.imencode(".jpg", np.full((48, 64, 3), 128, np.uint8))[1].tobytes()


def test_a_night_in_a_real_browser(browser, jpeg):
    """From a safe sleep to a danger, its acknowledgement, a stale camera and a lost monitor."""
    emulate(browser)
    status = Status(thresholds={"stomach": (0.7, 0.4)})
    with watched(status, picture=jpeg) as seen, serve(status, "0.0.0.0:0") as server:
        token = server.url.partition("?token=")[2]
        browser.open(f"http://127.0.0.1:{urlsplit(server.url).port}/?token={token}")
        browser.wait_for("#headline", "OK")
        browser.wait_for("#live", "Live")
        assert browser.run("document.querySelector('#picture').naturalWidth") == 64
        assert token not in browser.run("location.href")
        assert token not in browser.run("document.cookie")
        assert browser.run("document.title").startswith("✓ OK")
        assert "Last frame" in browser.text("#age")

        seen.update(state="stomach", observation=scores(stomach=0.93))
        onset_s = time.monotonic() - 4.0
        evidence = tuple((onset_s + i / 10, i / 40) for i in range(40))
        status.add_event(event("1 '\"<b>", onset_s=onset_s, evidence=evidence))
        browser.wait_for("#headline", "On the stomach")
        assert "Go and look" in browser.text("[role=alert]")
        assert "0.93" in browser.text("#scores")
        assert "The infant lies on the stomach: 4 of 6 frames." in browser.text("#events")
        assert "Alert 2 s after the onset, priority high." in browser.text("#events")
        assert browser.run("document.querySelectorAll('#events polyline').length") == 1
        browser.click("#acknowledge")
        browser.wait_for("#events", "Acknowledged at")
        assert status.snapshot()["events"][0]["acknowledged"]
        assert browser.run("document.querySelector('#acknowledge').hidden")
        assert browser.text("#headline") == "On the stomach"
        browser.click("#sound-button")
        assert browser.text("#sound-button") == "Sound is on"

        status.add_event(event("1 '\"<b>", onset_s=onset_s, end_s=onset_s + 5, evidence=evidence))
        status.add_event(event("2", "stale", onset_s=time.monotonic() - 10, evidence=()))
        seen.update(state="STALE", observation=None, picture=None)
        browser.wait_for("#headline", "Camera STALE")
        browser.wait_for("#events", "lasted 5 s")
        browser.wait_for("#live", "Old picture")
        browser.click("#events button:not([hidden])")
        browser.wait_for("#events li:first-child", "Acknowledged at")
        assert not browser.complaints()

        server.close()
        browser.wait_for("#headline", "Connection lost")
        assert "does not answer" in browser.text("#advice")
        assert "0.93" not in browser.text("#scores")
        assert browser.run("document.querySelector('#picture').naturalWidth") == 64
        # It comes back by itself, though not with the token of the monitor before.
        with serve(status, f"0.0.0.0:{urlsplit(server.url).port}"):
            browser.wait_for("#advice", "open the address that it prints now")
        with serve(status, f"127.0.0.1:{urlsplit(server.url).port}"):
            browser.wait_for("#headline", "Camera STALE")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(browser, scheme):
    """No text is cut off or pale (WCAG AA, 4.5 to 1), in any state, on a small phone or a desk."""
    status = Status(wants_picture=False, thresholds={"stomach": (0.7, 0.4)})
    with watched(status), serve(status, "127.0.0.1:0") as server:
        for kind, id in (("occluded", "a"), ("stale", "b"), ("averyveryverylongkind" * 4, "c")):
            status.add_event(event(id, kind, onset_s=time.monotonic() - 9, end_s=time.monotonic()))
        browser.open(server.url)
        browser.wait_for("#headline", "OK")
        assert "Pictures are off" in browser.text("#no-picture")
        assert browser.run("document.querySelector('#picture').hidden")
        for width in (320, 360, 1280):
            emulate(browser, width=width, scheme=scheme)
            over = browser.run("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, f"{over} px too wide at {width}"
        for level in ("ok", "unsure", "starting", "waiting", "stale", "stopped", "lost", "danger"):
            pale = browser.run(f"({PALE})({level!r})")
            assert not pale, (level, pale)


PALE = """(level) => {
  document.getElementById("now").dataset.level = level;
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
    const [r, g, b] = parts.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = node => {
    const colour = getComputedStyle(node).backgroundColor;
    return colour !== "rgba(0, 0, 0, 0)" ? colour : ground(node.parentElement);
  };
  const own = node => [...node.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  return [...document.body.querySelectorAll("*")].filter(own)
    .filter(node => !["SCRIPT", "NOSCRIPT"].includes(node.tagName)).map(node => {
      const [a, b] = [light(getComputedStyle(node).color), light(ground(node))];
      return [node.textContent, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    }).filter(([, ratio]) => !(ratio >= 4.5));
}"""
