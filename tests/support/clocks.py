"""A wall clock of one's own for real processes: the machine's, and an offset that a test sets while they run.

Linux has no namespace for the wall clock (time_namespaces(7): monotonic and boot time only), and the machine's belongs
to all. So the three functions of the C library that tell it are replaced by LD_PRELOAD (ld.so(8)).
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset_s;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TEST_CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) offset_s = page;
}

int clock_gettime(clockid_t id, struct timespec *to) {
    int failed = (int) syscall(SYS_clock_gettime, id, to);
    if (!failed && offset_s && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) to->tv_sec += *offset_s;
    return failed;
}

int gettimeofday(struct timeval *to, void *zone) {
    struct timespec now;
    (void) zone;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"""


class WallClock:
    """Made in ``directory``; processes started with ``environment``, and those that these start, follow it.

    Skips the test where there is no C compiler.
    """

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler (cc): a real process cannot be given a clock of its own")
        source, library = directory / "clock.c", directory / "clock.so"
        source.write_text(_SOURCE, encoding="ascii")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)], check=True)
        self._file = directory / "clock.offset"
        self._file.write_bytes(struct.pack("@l", 0))
        self.environment = {"LD_PRELOAD": str(library), "TEST_CLOCK_FILE": str(self._file)}

    def set(self, offset_s: int) -> None:
        """Put the clock so many seconds before (or, negative, behind) the machine's, at once."""
        # In place: the processes have this file's page before them.
        descriptor = os.open(self._file, os.O_WRONLY)
        try:
            os.pwrite(descriptor, struct.pack("@l", offset_s), 0)
        finally:
            os.close(descriptor)
