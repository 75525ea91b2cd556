"""The agent tells what the machine is, and None where it cannot be known."""

from __future__ import annotations

import os
from pathlib import Path

from keyrack.agent.system import machine


def test_the_facts_of_this_machine_are_read() -> None:
    told = machine.facts()
    assert told["kernel"] == os.uname().release
    assert told["cores"] == os.cpu_count()
    assert 0 < told["memory_free"] <= told["memory_total"]
    assert 0 <= told["disk_free"] <= told["disk_total"]
    assert told["uptime"] > 0
    assert told["load"] >= 0


def test_facts_of_the_machine_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    told = machine.facts(str(tmp_path))
    assert told["kernel"] == os.uname().release
    assert [told[name] for name in ("processor", "memory_total", "memory_free", "uptime")] == [None] * 4
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\nMemAvailable:   rather much\n")
    (tmp_path / "uptime").write_text("")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: One\n\nmodel name\t: Two\n")
    told = machine.facts(str(tmp_path))
    assert [told[name] for name in ("processor", "memory_total", "memory_free", "uptime")] == [
        "One",
        2097152,
        None,
        None,
    ]
