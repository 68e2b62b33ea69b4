"""Runs the shell blocks of a page of the documentation, section by section.

The first block of a section that consists of assignments says what is the reader's own; the test
gives its own values for it. Everything else is run as it is printed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENTS = re.compile(r"(?:[A-Z_]+=\S+\n)+")


@dataclass
class Page:
    """One page, where and how it is run.

    Attributes:
        name: the file's name without `.md`.
        directory: where the commands run.
        values: the reader's own: name → value in this test.
        mounts: shell commands that put things where the page says they are; they run in a mount
            namespace of their own.
        environment: more variables.
        programs: a directory that comes first in PATH.
    """

    name: str
    directory: Path
    values: dict[str, str]
    mounts: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    programs: Path | None = None

    @property
    def sections(self) -> dict[str, list[str]]:
        """Title → blocks."""
        _, *parts = _SECTION.split((PAGES / f"{self.name}.md").read_text())
        return {
            title: _BLOCK.findall(text) for title, text in zip(parts[::2], parts[1::2], strict=True)
        }

    def run(self, title: str) -> str:
        """Run the blocks of a section; return what they print."""
        blocks = self.sections[title]
        assert blocks, f"{self.name}: {title} has nothing to run"
        stated = [block for block in blocks if _ASSIGNMENTS.fullmatch(block)]
        for block in stated:
            names = {line.partition("=")[0] for line in block.splitlines()}
            assert names <= set(self.values), f"{self.name}: no values for {names}"
        assignments = [f"{name}={shlex.quote(value)}\n" for name, value in self.values.items()]
        # (What a block leaves in the background ends with the section.)
        script = ["set -euo pipefail\n", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"]
        script += [*assignments, *(block for block in blocks if block not in stated)]
        inside = " && ".join(["mount --make-rprivate /", *self.mounts, 'exec bash -c "$0"'])
        path = [str(self.programs)] if self.programs else []
        path += [str(Path(sys.executable).parent), os.environ["PATH"]]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", inside, "".join(script)],
            cwd=self.directory,
            env={
                "HOME": str(self.directory),
                "LC_ALL": "C.UTF-8",
                **self.environment,
                "PATH": ":".join(path),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{self.name}: {title}:\n{done.stdout}\n{done.stderr}"
        return done.stdout
