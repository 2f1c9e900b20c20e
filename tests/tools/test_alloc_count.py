# SPDX-License-Identifier: Apache-2.0
"""The preloaded counter on a small program: own calls, a library's calls, threads, children."""
import subprocess
from pathlib import Path

import pytest

from alloc_count import AllocCount

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void *volatile sink;

static void *work(void *arg)
{
    pthread_setname_np(pthread_self(), "loop-1");
    printf("ready\n"), fflush(stdout), getchar();
    for (int i = 0; i < 5; i++)
        sink = malloc(64);
    sink = strdup("a library's allocation");
    printf("done\n"), fflush(stdout), getchar();
    return arg;
}

int main(void)
{
    pthread_t thread;
    setvbuf(stdin, NULL, _IONBF, 0);
    sink = calloc(3, 3), sink = realloc(sink, 100);
    if (posix_memalign((void **)&sink, 64, 64) || posix_memalign((void **)&sink, 3, 64) == 0)
        return 2;
    if (fork() == 0) {
        for (int i = 0; i < 7; i++)
            sink = malloc(1);
        _exit(0);
    }
    wait(NULL);
    pthread_create(&thread, NULL, work, NULL), pthread_join(thread, NULL);
    return 0;
}
"""


@pytest.fixture
def program(tmp_path):
    (tmp_path / "p.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-O1", "-g", "-o", tmp_path / "p", tmp_path / "p.c"], check=True)
    return tmp_path / "p"


def test_counts_own_calls_by_thread(tmp_path, program):
    library = tmp_path / "tests/fault/liballoc_count.so"
    library.parent.mkdir(parents=True)
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-O2", "-shared", "-fPIC", "-fno-builtin", "-o", library,
                    ROOT / "tests/fault/alloc_count.c"], check=True)
    counts = AllocCount(tmp_path, tmp_path)
    with subprocess.Popen([program], env=counts.env, text=True, bufsize=1,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        before = counts.of(process.pid)
        assert before[process.pid].own == 4  # calloc, realloc and the two posix_memalign
        assert counts.own_since(before, process.pid, threads="loop") == 0
        process.stdin.write("\n")
        assert process.stdout.readline() == "done\n"
        assert counts.own_since(before, process.pid, threads="loop") == 5
        assert counts.own_since(before, process.pid, threads="p") == 0
        thread = next(t for t in counts.of(process.pid).values() if t.name == "loop-1")
        assert thread.foreign >= 1
        assert counts.last_place(process.pid, "loop", program).startswith("work at ")
        process.stdin.write("\n")
        assert process.wait() == 0
        child, = set(counts.pids()) - {process.pid}
    assert sum(t.own for t in counts.of(child).values()) == 7
