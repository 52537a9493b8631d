"""Work in processes, from a script of one's own."""

import subprocess
import sys
from pathlib import Path

import pytest

CALL = 'print(map_cases(abs, [(-1,), (2,), (-3,)], workers=2, desc="work"))\n'


@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_needs_its_guard_and_is_told_so(guarded: bool, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    guard = 'if __name__ == "__main__": ' if guarded else ""
    script.write_text(f"from kits.core.parallel import map_cases\n{guard}{CALL}", encoding="utf-8")
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert (ran.stdout == "[1, 2, 3]\n") is guarded
    told = f'{script} needs its calls below if __name__ == "__main__":'
    assert (told in ran.stderr.splitlines()[-1]) is not guarded
