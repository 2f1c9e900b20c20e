# SPDX-License-Identifier: Apache-2.0
"""A Weir project in a folder of its own, run by the real program on free loopback ports."""
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 20


def binary():
    return Path(os.environ.get("WEIR_BIN", ROOT / "build/dev/weir"))


def free_port():
    """A loopback port that nobody listens on now. Ports are tried by the kernel's choice, so that
    two runs on one machine seldom meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url, timeout=1.0):
    """True when url answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Project:
    """`weir up` in a folder with a weir.yaml. In the YAML text, and in every other file given, the
    words @GATEWAY@ and @CONTROL@ stand for the host:port pairs of this run."""

    def __init__(self, folder, yaml, files=None):
        self.folder = Path(folder)
        self.gateway = f"127.0.0.1:{free_port()}"
        self.control = f"127.0.0.1:{free_port()}"
        self.log_path = self.folder / "up.log"
        self.process = None
        for name, content in {"weir.yaml": yaml, **(files or {})}.items():
            self.write(name, content)

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content.replace("@GATEWAY@", self.gateway).replace("@CONTROL@", self.control))
        return path

    def command(self, *words):
        """The command line of the program, and the one place that knows how ports are given."""
        place = ["--listen", self.gateway, "--control", self.control] if words[0] == "up" else []
        return [str(word) for word in (binary(), *words, *place)]

    def start(self, env=None, ready_seconds=30, gateway_path="/readyz"):
        """gateway_path="/healthz": it runs; "/readyz": and every endpoint has a version to answer."""
        assert self.process is None, "already started"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command("up"), cwd=self.folder, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, env={**os.environ, **(env or {})},
                                            start_new_session=True)
        self.wait(lambda: answers(f"http://{self.gateway}{gateway_path}") and
                  answers(f"http://{self.control}/readyz"), ready_seconds, "ready")
        return self

    def wait(self, condition, seconds, what):
        """Until condition() is true; fails early when the program ends, late after `seconds`."""
        end = time.monotonic() + seconds
        while not condition():
            if self.process and self.process.poll() is not None:
                raise AssertionError(f"weir up ended with {self.process.returncode} before it was {what}:\n"
                                     f"{self.log()}")
            if time.monotonic() > end:
                raise AssertionError(f"not {what} within {seconds} s:\n{self.log()}")
            time.sleep(0.02)

    def stop(self, how=signal.SIGTERM):
        """Ends the program and returns its exit status; its children end with it."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(how)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"weir up did not end {STOP_SECONDS} s after {how.name}:\n"
                                 f"{self.log()}") from None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # whoever is left of its own process group
            except ProcessLookupError:
                pass
            process.wait()

    def pid_of(self, role):
        """Pid of the child that runs `weir ROLE` ("gateway", "control")."""
        parent = self.process.pid
        for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if role.encode() in words[1:2]:
                return int(child)
        raise AssertionError(f"no child runs `weir {role}`:\n{self.log()}")

    def log(self, lines=60):
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def run(self, *words, status=0, timeout=60, text=None):
        """Runs `weir WORDS…` in the project; its exit status must be `status` (None: any but 0)."""
        done = subprocess.run(self.command(*words), cwd=self.folder, input=text, capture_output=True,
                              text=True, timeout=timeout)
        good = done.returncode == status if status is not None else done.returncode != 0
        assert good, (f"weir {' '.join(map(str, words))}: exit {done.returncode}, want {status}\n"
                      f"{done.stdout}{done.stderr}")
        return done

    def run_json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)
