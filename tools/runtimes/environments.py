"""A virtual environment or an npm folder for every runtime, made when it is first asked for.

They lie in the folder that LRP_ONNX_RUNTIMES names, else in the user's cache; what is there is
used again as long as the packages are the same.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.runtimes.errors import UnavailableError

MINUTES = 10
"""Longest time that an installation may take."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True, slots=True)
class Environment:
    """Packages of one installation."""

    packages: tuple[str, ...] = ()
    """With their versions; none for this project's own environment."""
    npm: bool = False
    """Whether they are npm's, not pip's."""

    @property
    def folder(self) -> Path:
        """Where it lies: named after its packages and what installs them."""
        tool = "node" if self.npm else f"python{sys.version_info.major}.{sys.version_info.minor}"
        text = " ".join((tool, *self.packages))
        first = re.sub("[=<@]+", "-", self.packages[0])
        return cache_folder() / f"{first}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def cache_folder() -> Path:
    """The folder of all environments."""
    stated = os.environ.get("LRP_ONNX_RUNTIMES")
    if stated:
        return Path(stated)
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lrp-onnx" / "runtimes"
    )


def python_of(environment: Environment) -> Path:
    """The interpreter of a pip environment, which is made where it is not there.

    Raises:
        UnavailableError: it cannot be made; pip's reason is the message.
    """
    if not environment.packages:
        return Path(sys.executable)
    return _made(environment) / "bin" / "python"


def node_of(environment: Environment) -> tuple[str, Path]:
    """The node program, and the folder whose `node_modules` hold the packages.

    Raises:
        UnavailableError: there is no node, or npm cannot install them.
    """
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        raise UnavailableError("there is no node or no npm on this machine")
    return node, _made(environment)


def browser() -> str:
    """The program of a Chromium.

    Raises:
        UnavailableError: there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise UnavailableError("there is no Chromium on this machine")
    return found


@cache
def _reason(environment: Environment) -> str | None:
    """Make the environment where it is not there; why that cannot be, or None."""
    folder = environment.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    done = folder / "complete"
    # Several processes of one test run may want the same one.
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return None
        shutil.rmtree(folder, ignore_errors=True)
        for command in _commands(environment):
            reason = _fault(command)
            if reason is not None:
                return reason
        done.touch()
    return None


def _made(environment: Environment) -> Path:
    reason = _reason(environment)
    if reason is not None:
        raise UnavailableError(f"{', '.join(environment.packages)}: {reason}")
    return environment.folder


def _commands(environment: Environment) -> list[list[str]]:
    """What makes an environment."""
    folder = str(environment.folder)
    if environment.npm:
        # The packages' own scripts fetch CUDA libraries, which nothing here needs.
        options = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "1"]
        return [["npm", "install", "--prefix", folder, *options, *environment.packages]]
    # This environment's pip serves all of them, and nothing is compiled ahead: half the time.
    pip = [sys.executable, "-m", "pip", "--python", f"{folder}/bin/python", "install", "-q"]
    options = ["--no-compile", "--disable-pip-version-check", "--retries", "1", "--timeout", "20"]
    venv = [sys.executable, "-m", "venv", "--without-pip", folder]
    return [venv, [*pip, *options, *environment.packages]]


def _fault(command: list[str]) -> str | None:
    """Run a command; the last line of what it says where it fails, else None."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60 * MINUTES, check=False
        )
    except subprocess.TimeoutExpired:
        return f"its installation took more than {MINUTES} minutes"
    if done.returncode == 0:
        return None
    return last_line(done.stderr or done.stdout) or f"{command[0]} ended with {done.returncode}"


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
