"nbval on notebooks that nbdev_clean has cleaned, without the cells that nbdev_test skips."

import re
from configparser import ConfigParser
from pathlib import Path

settings = ConfigParser()
settings.read(Path(__file__).with_name("settings.ini"))
flags = "|".join(settings["DEFAULT"]["tst_flags"].split())
HEAVY = re.compile(rf"^#\|\s*(eval:\s*false|{flags})\s*$", re.MULTILINE)


def pytest_collection_modifyitems(config, items):
    cells = [item for item in items if hasattr(item, "cell")]
    for item in cells:
        if item.cell.execution_count is None:  # nbval takes a cleaned cell for one never run
            item.cell.outputs = []
    heavy = [item for item in cells if HEAVY.search(item.cell.source)]
    config.hook.pytest_deselected(items=heavy)
    items[:] = [item for item in items if item not in heavy]
