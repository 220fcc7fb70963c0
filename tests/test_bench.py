"""Every benchmark runs at small size and ends as bench/README.md says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHES = sorted(path.name for path in (ROOT / "bench").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHES)
def test_it_prints_a_table_and_a_line_of_json(name: str) -> None:
    command = [sys.executable, f"bench/{name}", "--small"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    said = json.loads(last)
    assert table
    assert said["bench"] == name.removesuffix(".py")
    assert said["figure"] > 0
    assert said["ratio"] > 0
    assert said["unit"]
    assert said["ratio_is"]
    assert "cores" in said["hardware"]
