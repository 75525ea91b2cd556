"""The agent tells what the machine is, and None where it cannot be known."""

from __future__ import annotations

import os
from pathlib import Path

from keyrack.agent.system import machine


def test_the_facts_of_this_machine_are_read() -> None:
    facts = machine.facts()
    assert facts["kernel"] == os.uname().release
    assert facts["cores"] == os.cpu_count()
    assert 0 < facts["memory_free"] <= facts["memory_total"]
    assert 0 <= facts["disk_free"] <= facts["disk_total"]
    assert facts["uptime"] > 0
    assert facts["load"] >= 0


def test_facts_of_the_machine_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    facts = machine.facts(str(tmp_path))
    assert facts["kernel"] == os.uname().release
    assert [facts[name] for name in ("processor", "memory_total", "memory_free", "uptime")] == [None] * 4
    (tmp_path / "meminfo").write_text("MemTotal:       2048 kB\nMemAvailable:   rather much\n")
    (tmp_path / "uptime").write_text("")
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: One\n\nmodel name\t: Two\n")
    facts = machine.facts(str(tmp_path))
    assert [facts[name] for name in ("processor", "memory_total", "memory_free", "uptime")] == [
        "One",
        2097152,
        None,
        None,
    ]
