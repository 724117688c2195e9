"""minikv starts from any working directory, above all from the folder that holds the clone.

There, ``minikv`` is also the name of a folder: the clone's own, whose package lies one level down.
An install that Python finds through an import hook loses against that folder; one that is an entry
of the path wins, since a package beats a folder without ``__init__.py``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRINT_FILE = "import minikv; print(minikv.__file__)"


def run(*command: str | Path, folder: Path) -> str:
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=surroundings,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def shadowed(tmp_path_factory) -> Path:
    """A folder that holds something called ``minikv`` which is no package."""
    folder = tmp_path_factory.mktemp("parent")
    (folder / "minikv" / "minikv").mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A Python that finds this checkout as an editable install does: by an entry of its path."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, system_site_packages=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    site = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder
    )
    seen = [entry for entry in sys.path if entry.endswith("site-packages")]
    Path(site, "_editable.pth").write_text("\n".join([str(ROOT), *seen]) + "\n", encoding="utf-8")
    return python


def test_a_folder_called_minikv_does_not_hide_the_install(shadowed, installed):
    assert run(installed, "-c", PRINT_FILE, folder=shadowed) == str(ROOT / "minikv/__init__.py")
    assert run(installed, "-m", "minikv", "--version", folder=shadowed).startswith("minikv ")


HOOKED = """
import sys
from importlib.abc import MetaPathFinder
from importlib.util import spec_from_file_location


class Hook(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return spec_from_file_location(name, sys.argv[1]) if name == "minikv" else None


sys.meta_path.append(Hook())
import minikv

print(minikv.__file__)
"""


def test_an_install_behind_an_import_hook_is_hidden(shadowed):
    """The control: what setuptools makes by default."""
    package = ROOT / "minikv/__init__.py"
    # -S: without the site's path entries, where this checkout may be found
    assert run(sys.executable, "-S", "-c", HOOKED, package, folder=shadowed) == "None"


def test_the_project_is_installed_as_an_entry_of_the_path():
    """Hatchling's editable wheel holds a ``.pth`` file, no import hook."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'build-backend = "hatchling.build"' in text
