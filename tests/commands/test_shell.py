"""A shell completes what ``minikv`` knows."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from minikv import cli


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash, not installed here")
def test_bash_completes_commands_and_options(capsys, tmp_path):
    pytest.importorskip("shtab", reason="needs the extra `shell`")
    assert cli.main(["--completion", "bash"]) == 0
    script = tmp_path / "complete.bash"
    script.write_text(capsys.readouterr().out, encoding="utf-8")

    def completed(*words: str) -> list[str]:
        given = " ".join(words)
        line = f"""
            source {script}
            COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}
            COMP_LINE='{given}'; COMP_POINT={len(given)}
            $(complete -p minikv | sed -E 's/.*-F ([^ ]+).*/\\1/') minikv {words[-1]} {words[-2]}
            echo "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
        return done.stdout.split()

    assert "generate" in completed("minikv", "gen")
    assert "--budget" in completed("minikv", "generate", "--bud")
    assert completed("minikv", "xyz") == []


def test_without_the_extra_it_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert cli.main(["--completion", "zsh"]) == 2
    assert "minikv[shell]" in capsys.readouterr().err
