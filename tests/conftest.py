import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def omniglot_root():
    "The folder FSGEN_DATA, if Omniglot is in it; else skip, or fail if FSGEN_REQUIRE_DATA=1."
    root = os.environ.get("FSGEN_DATA")
    if root and any(Path(root).glob("omniglot*")):
        return Path(root)
    reason = f"needs the real Omniglot, which FSGEN_DATA={root or ''} does not have"
    if os.environ.get("FSGEN_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def command():
    "The start of a command line, for tests that must talk to the process while it runs."
    return [Path(sys.executable).with_name("fsgen")]


@pytest.fixture(scope="session")
def run_cli(command):
    "Run `fsgen ARGS` in a process of its own and return the CompletedProcess, its output as text."

    def run(*args, cwd=None, env=None):
        line, environment = [*command, *map(str, args)], os.environ | (env or {})
        return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)

    return run
