import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsgen.__main__ import main
from fsgen.datasets import DATA, list_folder
from fsgen.likelihood import InputError


@pytest.fixture
def real():
    "Call with the name of what the data folder must have: skip if it hasn't, fail if FSGEN_REQUIRE_DATA=1."

    def require(name):
        try:
            DATA[name].list() if name in DATA else list_folder(name)
        except InputError as error:
            if os.environ.get("FSGEN_REQUIRE_DATA") == "1":
                pytest.fail(str(error))
            pytest.skip(str(error))

    return require


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


@pytest.fixture
def fsgen(monkeypatch, capsys):
    "Run `fsgen ARGS` in this process: exit code, standard output, standard error."

    def run(*args):
        monkeypatch.setattr("sys.argv", ["fsgen", *map(str, args)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def refused(fsgen):
    "Run `fsgen ARGS`, which must end with code 2 and one sentence; return the sentence."

    def run(*args):
        code, _, error = fsgen(*args)
        assert code == 2, error
        (sentence,) = (line for line in error.splitlines() if line and "images/s" not in line)
        assert sentence.startswith("fsgen: "), error
        return sentence

    return run
