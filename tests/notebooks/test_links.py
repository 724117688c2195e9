"""Links into hosted services follow the address of the repository and name every chapter."""

from __future__ import annotations

import os
from pathlib import Path

import links
import pytest


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://github.com/owner/name.git\n", "owner/name"),
        ("git@github.com:owner/na.me", "owner/na.me"),
        ("ssh://git@github.com/owner/name/", "owner/name"),
        ("/srv/git/minikv", None),
        ("https://example.org/owner/name", None),
        ("", None),
    ],
)
def test_the_repository_is_read_from_the_address(address, expected):
    assert links.repository(address) == expected


def test_the_address_of_the_sites_links_to_edit_comes_first(monkeypatch):
    monkeypatch.setenv("MINIKV_REPOSITORY", "https://github.com/owner/name/")
    assert links.found() == "owner/name"
    monkeypatch.setenv("MINIKV_REPOSITORY", "https://example.org/owner/name")
    assert links.found() is None


def test_each_chapter_has_a_link_to_each_service_and_writing_twice_changes_nothing():
    chapters = sorted(path.name for path in links.HERE.glob("[0-9][0-9]_*.ipynb"))
    made = links.table("owner/name")
    assert len(chapters) == 12
    for name in chapters:
        assert made.count(name) == len(links.SERVICES)
    readme = (links.HERE / "README.md").read_text(encoding="utf-8")
    once = links.updated(readme, made)
    assert made in once
    assert links.updated(once, made) == once
    with pytest.raises(SystemExit, match="no lines"):
        links.updated("nothing", made)


def test_binder_installs_this_checkout_and_fetches_a_model_that_is_known():
    from minikv.weights.fetch import KNOWN

    binder = Path(links.HERE).parent / ".binder"
    assert (binder / "requirements.txt").read_text() == "-e .[notebooks,chat,fetch]\n"
    assert os.access(binder / "postBuild", os.X_OK)
    *_, command = (binder / "postBuild").read_text().splitlines()
    assert command.split()[:2] == ["minikv", "fetch"]
    assert command.split()[2] in KNOWN
