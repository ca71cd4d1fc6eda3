import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsgen.datasets import OMNIGLOT_PARTS, data_folder, find_omniglot
from fsgen.likelihood import InputError


@pytest.fixture(scope="session")
def omniglot_root():
    "The data folder, if Omniglot is in it; else skip, or fail if FSGEN_REQUIRE_DATA=1."
    root = data_folder()
    try:
        for part in OMNIGLOT_PARTS:
            find_omniglot(part, root)
    except InputError as error:
        if os.environ.get("FSGEN_REQUIRE_DATA") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
    return root


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
