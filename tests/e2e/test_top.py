# SPDX-License-Identifier: Apache-2.0
"""`weir top` on a real terminal: a pseudo-terminal whose screen an emulator keeps."""

import contextlib
import fcntl
import http.client
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time

import pyte
import pytest
import weir
from gateway import Gateway, infer_body
from test_gateway import linear_endpoint


@pytest.fixture
def busy(tmp_path, weir_binary):
    """A gateway with two endpoints that are asked all the time; some of it is wrong."""
    gw = Gateway(tmp_path / "gateway")
    gw.plan(linear_endpoint(gw), linear_endpoint(gw, "quiet"))
    gw.start("--loops", "1")
    stop = threading.Event()

    def ask():
        while not stop.wait(0.01):
            with contextlib.suppress(OSError, http.client.HTTPException):  # a test may end it
                gw.request("POST", "/v2/models/m/infer", infer_body([[1, 2]] * 4))
                gw.request("POST", "/v2/models/m/infer", "{")

    thread = threading.Thread(target=ask)
    thread.start()
    yield gw
    stop.set()
    thread.join()
    gw.stop()


class Terminal:
    def __init__(self, *command, columns=140, lines=24):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.resize(columns, lines)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "NO_COLOR": ""},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.slave = slave

    def resize(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def read(self, seconds=0.1):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.master], [], [], 0.02)[0]:
                data = os.read(self.master, 65536)
                self.raw += data
                self.stream.feed(data)

    def text(self, where=None):
        return "\n".join(self.screen.display) if where is None else self.screen.display[where]

    def wait(self, pattern, seconds=15, where=None):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text(where), re.M):
            assert time.monotonic() < end, f"no {pattern!r}:\n{self.text()}"
            self.read()
        return self.text()

    def press(self, keys):
        os.write(self.master, keys.encode())

    def end(self, seconds=10):
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        self.read()
        if self.process.poll() is None:
            self.process.kill()
        code = self.process.wait()
        after = termios.tcgetattr(self.slave)
        os.close(self.slave)
        os.close(self.master)
        return code, after


def top(gw, *more):
    return (str(weir.binary()), "top", "--gateway", gw.address, *more)


LEAVE = b"\x1b[?25h\x1b[?1049l"


def test_the_screen(busy):
    t = Terminal(*top(busy, "--interval", "300ms"))
    text = t.wait(r"^m +1 +champion +[1-9]")
    assert "weir top" in text and "1 gateway" in text and "requests" in text and "p99" in text
    title = next(line for line in text.splitlines() if line.startswith("ENDPOINT"))
    assert title.split() == [
        "ENDPOINT",
        "VER",
        "ARM",
        "REQ/S",
        "ERR/S",
        "P50",
        "P95",
        "P99",
        "QUEUE",
        "COMPUTE",
        "BATCH",
        "CREW",
        "WAIT",
        "INFLIGHT",
        "BREAKER",
        "DRIFT",
    ]
    row = next(line.split() for line in text.splitlines() if line.startswith("m "))
    requests, errors = float(row[3]), float(row[4])
    assert 1 < errors < requests < 1000 and float(row[10]) == 4
    assert re.fullmatch(r"[\d.]+(us|ms)", row[5]) and re.fullmatch(r"[\d.]+(us|ms)", row[7])
    quiet = next(line.split() for line in text.splitlines() if line.startswith("quiet"))
    assert quiet[3:6] == ["0", "0", "-"]
    assert [line.split()[0] for line in text.splitlines()[5:7]] == ["m", "quiet"]
    assert "q quit" in t.screen.display[-1]
    t.press("n")
    t.press(" ")
    t.wait("paused")
    t.resize(60, 12)
    os.kill(t.process.pid, signal.SIGWINCH)
    t.read(0.5)
    narrow = t.text()
    assert "REQ/S" in narrow and "P99" in narrow and "BREAKER" not in narrow
    t.press("q")
    code, after = t.end()
    assert code == 0 and after == t.before and LEAVE in t.raw


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGSEGV])
def test_the_terminal_is_as_it_was_after_every_end(busy, how):
    t = Terminal(*top(busy, "--interval", "300ms"))
    t.wait("q quit")
    assert termios.tcgetattr(t.slave) != t.before
    os.kill(t.process.pid, how)
    code, after = t.end()
    assert after == t.before and LEAVE in t.raw
    assert code == (-how if how == signal.SIGSEGV else 128 + how)


def test_ctrl_c_ends_it(busy):
    t = Terminal(*top(busy))
    t.wait("q quit")
    t.press("\x03")
    code, after = t.end()
    assert code == 130 and after == t.before


def test_a_gateway_that_goes_is_told_and_comes_back(busy):
    t = Terminal(*top(busy, "--interval", "200ms"))
    t.wait("q quit")
    busy.process.kill()
    busy.process.wait()
    t.wait("^.*" + re.escape(busy.address) + ".+$", where=3)
    assert t.process.poll() is None
    busy.process = None
    busy.start("--loops", "1")
    t.wait("^ *$", where=3)  # no trouble any more
    t.wait(r"^m +1 +champion +[1-9]")
    t.press("q")
    assert t.end()[0] == 0


def test_without_a_terminal(busy):
    once = subprocess.run(top(busy, "--once"), capture_output=True, text=True, timeout=30)
    assert once.returncode == 0 and "\x1b" not in once.stdout, once.stderr
    assert re.search(r"^m +1 +champion +[1-9]", once.stdout, re.M)
    out = json.loads(subprocess.check_output(top(busy, "--once", "--json", "--sort", "name"), timeout=30))
    assert [s["endpoint"] for s in out["series"]] == ["m", "quiet"] and out["gateways"] == 1
    m = out["series"][0]
    assert m["requests_per_s"] > m["errors_per_s"] > 0 and 0 < m["p50_s"] <= m["p95_s"] <= m["p99_s"] < 1
    assert m["batch_rows"] == 4 and m["rows_per_s"] > 0 and "p50_s" not in out["series"][1]
    assert out["all"]["requests_per_s"] == pytest.approx(m["requests_per_s"])
    again = subprocess.Popen(top(busy, "--interval", "100ms", "--json"), stdout=subprocess.PIPE)
    lines = [json.loads(again.stdout.readline()) for _ in range(3)]
    again.kill()
    again.wait()
    again.stdout.close()
    assert all(0.05 < x["seconds"] < 5 for x in lines)


def test_wrong_use(busy):
    for more, text in ((["--sort", "size"], "--sort"), (["--interval", "1ms"], "--interval")):
        got = subprocess.run(top(busy, *more), capture_output=True, text=True, timeout=30)
        assert got.returncode == 2 and text in got.stderr
    nobody = (str(weir.binary()), "top", "--once", "--gateway", f"127.0.0.1:{weir.free_port()}")
    got = subprocess.run(nobody, capture_output=True, text=True, timeout=30)
    assert got.returncode == 3 and "127.0.0.1" in got.stderr
