"""The table of processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from agentpool.proctable import ProcessEntry, _psutil_entry, read_entry
from tests.support.waiting import until

#: Uses 0.3 s of CPU by a child that it waits for and 0.2 s itself, and says so.
BURNER = """
import os, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
if os.fork() == 0:
    burn(0.3)
    os._exit(0)
os.wait()
burn(0.2)
print("done", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="compares with /proc")
def test_psutil_tells_what_proc_tells() -> None:
    """Where there is no /proc, every process had used no CPU and no memory: limits on their sums held nothing."""
    with subprocess.Popen([sys.executable, "-c", BURNER], stdout=subprocess.PIPE) as burner:
        try:
            assert burner.stdout is not None
            assert burner.stdout.readline() == b"done\n"
            burner.send_signal(signal.SIGSTOP)

            def stopped() -> ProcessEntry | None:
                entry = read_entry(burner.pid)
                return entry if entry is not None and entry.state == "T" else None

            entry, same = until(stopped), _psutil_entry(burner.pid)
            assert same is not None
            hertz = os.sysconf("SC_CLK_TCK")
            assert entry.cpu_ticks >= 0.4 * hertz, "its child's too"
            assert abs(same.cpu_ticks - entry.cpu_ticks) <= 1
            assert same[:4] == entry[:4]
            # Not the same count: one of the two is a sum of what each processor knows.
            assert same.rss_pages == pytest.approx(entry.rss_pages, rel=0.2)
        finally:
            burner.kill()
