# SPDX-License-Identifier: Apache-2.0
"""Reads the live counters that tests/fault/alloc_count.c keeps for each process.

    counts = AllocCount(tmp_path, build)      # build: the folder of the preset
    subprocess.Popen([...], env={**os.environ, **counts.env})
    before = counts.of(pid)
    ... requests ...
    assert counts.own_since(before, pid, threads="loop") == 0, counts.last_place(pid, "loop", binary)
"""
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

HEAD = b"weiralc1"
SLOT = struct.Struct("<4Q")


class Thread(NamedTuple):
    name: str  # as the program named it; "" when the thread is gone
    own: int
    foreign: int
    own_last: int


class AllocCount:
    def __init__(self, folder, build):
        self.folder = Path(folder) / "alloc"
        self.folder.mkdir()
        library = Path(build) / "tests/fault/liballoc_count.so"
        self.env = {"LD_PRELOAD": str(library), "WEIR_ALLOC_COUNT_DIR": str(self.folder)}

    def pids(self):
        return sorted(int(path.name) for path in self.folder.iterdir())

    def of(self, pid):
        """Thread id -> Thread, for a process that lives or has lived."""
        raw = (self.folder / str(pid)).read_bytes()
        assert raw[:8] == HEAD
        used = min(struct.unpack_from("<Q", raw, 8)[0], (len(raw) - 16) // SLOT.size)
        threads = {}
        for i in range(used):
            tid, own, foreign, last = SLOT.unpack_from(raw, 16 + i * SLOT.size)
            try:
                name = Path(f"/proc/{pid}/task/{tid}/comm").read_text().strip()
            except OSError:
                name = ""
            threads[tid] = Thread(name, own, foreign, last)
        return threads

    def own_since(self, before, pid, threads=""):
        """Own allocations since `before` (an earlier answer of `of`) in threads of that name prefix."""
        return sum(now.own - (before[tid].own if tid in before else 0)
                   for tid, now in self.of(pid).items() if now.name.startswith(threads))

    def last_place(self, pid, threads, binary):
        """Where the last own allocation of those threads was made: 'function at file:line'."""
        at = max((t.own_last for t in self.of(pid).values() if t.name.startswith(threads)), default=0)
        done = subprocess.run(["addr2line", "-fpe", str(binary), hex(max(at - 1, 0))],
                              capture_output=True, text=True)
        return done.stdout.strip()
