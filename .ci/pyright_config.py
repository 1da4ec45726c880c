"""Print a pyright configuration for the installed package, with the settings of pyproject.toml.

    python .ci/pyright_config.py >SITE_PACKAGES/pyrightconfig.json
"""

import json
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))
# Without `exclude` pyright leaves out what lies in a virtual environment, which is where the package is installed.
print(json.dumps(project["tool"]["pyright"] | {"include": ["retrograd"], "exclude": ["**/__pycache__"]}, indent=2))
