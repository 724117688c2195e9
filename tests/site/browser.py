"""Look at the built site with Chromium, without network, and bring home what it saw.

A page of our own loads the site's pages into a frame, one after the other, and sends back what the
browser knows of them. Nothing is driven from outside: a web server of the standard library serves
site and page, and is told the answer.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOOK = Path(__file__).with_name("look.html")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
Page = dict[str, Any]


class Handler(SimpleHTTPRequestHandler):
    """Serves the site, files beside it or in place of its own, and takes the answer."""

    def __init__(
        self,
        *arguments: Any,
        answer: list[Any],
        told: threading.Event,
        beside: Mapping[str, Path],
        **more: Any,
    ):
        self.answer = answer
        self.told = told
        self.beside = beside
        super().__init__(*arguments, **more)

    def translate_path(self, path: str) -> str:
        known = self.beside.get(path.partition("?")[0])
        return str(known) if known else super().translate_path(path)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        self.answer.append(json.loads(self.rfile.read(length)))
        self.send_response(204)
        self.end_headers()
        self.told.set()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(
    folder: Path, beside: Mapping[str, Path]
) -> Iterator[tuple[str, list[Any], threading.Event]]:
    """The address of the site, what the page answers, and whether it has."""
    answer: list[Any] = []
    told = threading.Event()
    handler = partial(Handler, directory=str(folder), answer=answer, told=told, beside=beside)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", answer, told
    finally:
        server.shutdown()
        server.server_close()


def visit(folder: Path, page: str, profile: Path, beside: Mapping[str, Path]) -> tuple[Any, str]:
    """What a page of our own sends back, and the address at which the site was.

    Parameters
    ----------
    folder : Path
        The built site.
    page : str
        Path and query of the page, which is one of `beside`.
    profile : Path
        An empty folder for the browser's own files.
    beside : dict
        Files by their path on the server: the page, and what it needs.
    """
    assert CHROMIUM is not None
    with served(folder, beside) as (address, answer, told):
        command = [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--window-size=1500,1000",
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"{address}{page}",
        ]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            try:
                assert told.wait(240), "the browser said nothing for four minutes"
            finally:
                browser.terminate()
    return answer[0], address


def look(folder: Path, pages: list[str], width: int, profile: Path) -> list[Page]:
    """What the browser knows of these pages, at this width in pixels.

    Parameters
    ----------
    folder : Path
        The built site.
    pages : list of str
        Paths below it, queries included.
    width : int
    profile : Path
        An empty folder for the browser's own files.

    Returns
    -------
    list of dict
        See ``look.html``.
    """
    query = f"width={width}&pages={','.join(pages)}"
    answer, address = visit(folder, f"/look.html?{query}", profile, {"/look.html": LOOK})
    for page in answer:
        page["base"] = address
    return answer
