"""The documentation site: built without a warning and without a network, with every public name in its reference."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit import ROOT

pytest.importorskip("mkdocs", reason="pip install 'himl-container[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    # Whoever asks a proxy that is not there gets no answer: nothing may be fetched.
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, **nowhere, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not line.startswith("INFO")] == []
    return folder


def test_every_public_name_is_described(site: Path) -> None:
    import health_azure
    import health_azure.utils
    import himl_container
    import himl_container.training

    text = "".join(page.read_text(encoding="utf-8") for page in (site / "reference").glob("*.html"))
    ids = set(re.findall(r'id="([\w.]+)"', text))
    described = {name.rpartition(".")[2] for name in ids} | set(re.findall(r"<td><code>(\w+)</code></td>", text))
    for module in (himl_container, himl_container.training, health_azure, health_azure.utils):
        assert set(module.__all__) - {"__version__"} - described == set(), module.__name__


def test_every_command_is_described(site: Path) -> None:
    from himl_container.cli.main import COMMANDS

    text = (site / "commands.html").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f'id="{name}"' not in text] == []
    assert "--conda-file" in text
    assert 'id="emulator-start"' in text


def test_a_reader_fetches_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]*\ssrc=\"(https?:[^\"]+)", text)
        fetched += re.findall(r"<link[^>]*rel=\"(?:stylesheet|preconnect|icon)\"[^>]*href=\"(https?:[^\"]+)", text)
        assert fetched == [], page


def test_links_of_the_site_lead_somewhere(site: Path) -> None:
    links = [
        (page, target)
        for page in site.rglob("*.html")
        if page.name != "404.html"
        for target in re.findall(r'<a[^>]*\shref="([^"#:]+)(?:#[^"]*)?"', page.read_text(encoding="utf-8"))
    ]
    assert len(links) > 1000
    assert [(page.name, target) for page, target in links if not (page.parent / target).exists()] == []


def test_no_markup_of_docstrings_is_left(site: Path) -> None:
    for page in (site / "reference").glob("*.html"):
        text = re.sub(r"<(pre|code)[^>]*>.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert re.findall(r":(?:func|class|mod|meth|param|raises)\b[^<]*", text) == [], page.name
