"""The page in a headless Chromium: of a site in memory, and of an emulator whose run's portal address is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser import Browser, browser, serve
from unit.emulator.page_fakes import HOSTILE, Site

from himl_container.emulator.state.runs import Status

if TYPE_CHECKING:
    from azureml.core import Workspace

pytestmark = pytest.mark.emulator

TAB, ENTER = "\ue004", "\ue007"

_CONTRAST = """
const light = colour => {
  const linear = part => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = colour.map(part => linear(part / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const parts = text => text.match(/[\\d.]+/g).map(Number);
const behind = element => {
  for (; element; element = element.parentElement) {
    const found = parts(getComputedStyle(element).backgroundColor);
    if (found.length === 3 || found[3] > 0) return found.slice(0, 3);
  }
  return [255, 255, 255];
};
const bad = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  if (element.closest("script, noscript, title, desc")) continue;
  const style = getComputedStyle(element);
  const front = parts(element.closest("svg") ? style.fill : style.color).slice(0, 3);
  const back = element.closest("svg") ? behind(element.closest("svg")) : behind(element);
  const pair = [light(front), light(back)].sort((a, b) => b - a);
  const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
  if (ratio < 4.5) bad.push(walker.currentNode.data.trim() + " " + ratio.toFixed(2));
}
return bad;
"""


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture(scope="module")
def site() -> Site:
    found = Site()
    found.training()
    found.failure()
    found.search()
    return found


@pytest.fixture(scope="module")
def address(site: Site) -> Iterator[str]:
    with serve(site.router) as found:
        yield found


@pytest.fixture
def page(window: Browser, address: str, site: Site) -> Iterator[Browser]:
    """The browser, let in to the site in memory."""
    window.open(f"{address}{site.key.prefix}/")
    window.complaints()
    yield window
    window.scripts(True)
    window.scheme("light")
    complaints = [line for line in window.complaints() if "404 (Not Found)" not in line]
    assert complaints == [], "violations of the policy, or errors of the script"


@pytest.fixture(scope="module")
def paths(site: Site) -> dict[str, str]:
    search = next(run.run_id for run in site.bench.runs.all() if run.run_type == "hyperdrive")
    return {
        "home": "/",
        "runs": "/runs?children=1",
        "experiment": "/experiments/segmentation",
        "run": "/runs/training_1",
        "failed": "/runs/failed_1",
        "search": f"/runs/{search}",
        "nothing": "/runs/nothing",
    }


def test_the_key_is_kept_from_scripts_and_from_the_address(window: Browser, address: str, site: Site) -> None:
    window.open(f"{address}/")
    window.forget()
    window.open(f"{address}/runs/training_1")
    assert "Not for this browser yet" in window.text("main")
    window.open(f"{address}{site.key.prefix}/runs/training_1?wsid=/subscriptions/s&tid=t")
    assert window.address == f"{address}/runs/training_1"
    assert window.text("h1") == "patient_apple_1"
    assert window.run("return document.cookie") == ""
    window.complaints()


@pytest.mark.parametrize("name", ["home", "runs", "experiment", "run", "failed", "search", "nothing"])
def test_every_page_can_be_read(page: Browser, address: str, paths: dict[str, str], name: str) -> None:
    """In light and dark colours with enough contrast, on a narrow screen, by whoever cannot see it."""
    page.open(address + paths[name])
    page.run("for (const item of document.querySelectorAll('details')) item.open = true")
    for scheme in ("light", "dark"):
        page.scheme(scheme)
        assert page.run(_CONTRAST) == []
    page.devtools("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    try:
        assert page.run("return document.documentElement.scrollWidth") <= 390
    finally:
        page.devtools("Emulation.clearDeviceMetricsOverride")
    assert unnamed(page) == []
    assert page.count("h1") == 1
    assert page.run("return document.documentElement.lang") == "en"
    assert page.run(
        "return performance.getEntriesByType('resource').every(item => item.name.startsWith(location.origin))"
    )


def unnamed(page: Browser) -> list[str]:
    """Return the roles of what a screen reader would find without a name."""
    wanted = ("link", "button", "image", "textbox", "searchbox", "combobox", "checkbox", "region", "log")
    nodes = page.devtools("Accessibility.getFullAXTree")["nodes"]
    return [
        str(node["role"]["value"])
        for node in nodes
        if not node.get("ignored")
        and node.get("role", {}).get("value") in wanted
        and not node.get("name", {}).get("value")
    ]


def test_it_is_walked_through_by_keyboard(page: Browser, address: str, paths: dict[str, str]) -> None:
    page.open(address + paths["run"])
    page.keys(TAB)
    assert page.run("return document.activeElement.className") == "skip"
    assert page.run("return document.activeElement.getBoundingClientRect().left") > 0, (
        "it is seen once it has the focus"
    )
    page.keys(ENTER)
    page.wait("return location.hash === '#main'")
    page.keys(TAB)
    assert page.run("return document.activeElement.closest('main') !== null")
    assert page.run("return getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_pictures_are_drawn(page: Browser, address: str, paths: dict[str, str]) -> None:
    page.open(address + paths["run"])
    assert page.count("#metrics .chart > svg path") >= 4
    page.wait(
        "const image = document.querySelector('.picture img'); return image.complete && image.naturalWidth === 96"
    )
    drawn = page.run("return document.querySelector('.s0 path').getTotalLength()")
    assert drawn > 300
    assert page.run("return getComputedStyle(document.querySelector('.s0 path')).stroke") != "none"
    page.open(address + paths["search"])
    assert page.count(".parallel .marks path") == 24
    page.run(
        "document.querySelector('.dots a').dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
    )
    page.wait("return location.pathname.startsWith('/runs/HD_') && document.title.includes('_')")


def test_it_works_without_scripts(page: Browser, address: str, paths: dict[str, str], site: Site) -> None:
    run_id = site.training("without_scripts", ended=False)
    page.scripts(False)
    try:
        page.open(address + paths["search"])
        page.click("thead th:nth-child(4) a")
        page.wait("return !!document.querySelector('thead th[aria-sort]')?.innerText.includes('lr')")
        page.open(f"{address}/experiments/segmentation")
        page.type("input[type=search]", "failed")
        page.click("form.filter button")
        page.wait("return document.querySelectorAll('tbody tr').length === 1")
        page.open(f"{address}/runs/{run_id}")
        assert "epoch 29 loss" in page.text("#log-text")
        assert "Reload the page" in page.text("#live")
    finally:
        page.scripts(True)
        site.bench.runs.set_status(run_id, Status.CANCELED)


def test_a_log_is_shown_while_it_is_written(page: Browser, address: str, site: Site) -> None:
    run_id = site.training("living", ended=False)
    path = "user_logs/std_log.txt"
    page.open(f"{address}/runs/{run_id}")
    page.wait("return document.querySelector('#live').innerText === 'Live'")
    site.bench.artifacts.append_log(run_id, path, f"more {HOSTILE} €\n".encode())
    page.wait("return document.querySelector('#log-text').textContent.endsWith(arguments[0])", f"more {HOSTILE} €\n")
    assert page.count("#log-text script") == 0
    log = "const log = document.querySelector('#log-text');"
    assert page.run(f"{log} return log.scrollTop + log.clientHeight >= log.scrollHeight - 2"), "it follows"
    page.run("document.querySelector('#log-text').scrollTop = 0")
    site.bench.artifacts.append_log(run_id, path, b"and more\n")
    page.wait("return document.querySelector('#log-text').textContent.endsWith('and more\\n')")
    assert page.run("return document.querySelector('#log-text').scrollTop") == 0, "who reads further up is left alone"
    site.bench.runs.set_status(run_id, Status.FAILED)
    page.wait("return document.querySelector('#live').innerText.startsWith('The run has ended')")
    assert page.text("#status") == "Failed"
    page.click("#live a")
    page.wait("return !document.querySelector('#live')")


def test_the_portal_address_of_a_run_opens(window: Browser, workspace: Workspace) -> None:
    from azureml.core import Experiment

    run: Any = Experiment(workspace, "page").start_logging(snapshot_directory=None)
    for value in (0.5, 0.25, 0.125):
        run.log("loss", value)
    run.tag("kind", "from outside")
    run.flush()
    window.open(run.get_portal_url())
    assert run.id in window.text("main")
    assert "wsid" not in window.address
    assert window.text("#status") == "Running"
    assert window.count("#metrics .chart") == 1
    assert "from outside" in window.text(".tags")
    run.complete()
    window.open(run.experiment.get_portal_url())
    assert window.text("h1") == "page"
    assert "Completed" in window.text("tbody")
    assert window.complaints() == []


def test_who_has_no_key_learns_none(workspace: Workspace, emulator: Any, tmp_path: Path) -> None:
    import requests

    from himl_container.emulator.page.access import PageKey

    key = PageKey(emulator.installation.client_secret, emulator.installation.short_id).key
    assert requests.get(emulator.address, timeout=60).status_code == 403
    for address in ("https://ml.azure.com/", "https://ml.azure.com/runs/x"):
        answer = requests.get(address, timeout=60)
        assert answer.status_code == 403
        assert key not in answer.text
    found = requests.get("https://eastus.api.azureml.ms/discovery", timeout=60).json()
    assert found["studio"] == emulator.address
    assert key in requests.get(workspace.discovery_url, timeout=60).json()["studio"]
    entered = requests.get(f"https://ml.azure.com/k/{key}/", timeout=60)
    assert (entered.status_code, entered.url) == (200, "https://ml.azure.com/")
