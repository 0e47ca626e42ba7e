"""The page without a browser and a server: what it says, to whom, and with which guards."""

from __future__ import annotations

import html
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import kit
import pytest
from unit.emulator.page_fakes import DIGEST, HOSTILE, Site, picture

import himl_container.emulator.page as package
from himl_container.emulator.http import Answer
from himl_container.emulator.page.files import LARGEST_PIECE, TAIL
from himl_container.emulator.state.runs import Status

VOID = {"meta", "link", "input", "img", "br"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects what a page may not have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.scripts = 0
        self.inline: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("href", "src", "action") if name in found]
        self.inline += [name for name in found if name.startswith("on") or name == "style"]
        if tag == "script":
            self.scripts += 1
            assert found.get("src") == "/static/page.js"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> Reader:
    """Return what is in a page that is well formed, and refers to nothing outside itself."""
    reader = Reader(text)
    assert len(set(reader.ids)) == len(reader.ids)
    assert reader.inline == []
    assert all(re.match(r"/(?!/)|\?|#", address) for address in reader.addresses), reader.addresses
    assert "<script>alert" not in text
    return reader


@pytest.fixture(scope="module")
def site() -> Site:
    """A site that tests only look at."""
    site = Site()
    for make in (site.training, site.failure, site.search):
        make()
    return site


@pytest.fixture
def own() -> Site:
    return Site()


def body(answer: Answer) -> bytes:
    return answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)


def test_the_key_in_the_address_becomes_a_cookie(site: Site) -> None:
    answer = site.answer(f"{site.key.prefix}/runs/a b", cookie="", wsid="/subscriptions/s", tid="t", log="x/y z")
    assert answer.status == 303
    assert answer.headers["location"] == "/runs/a%20b?log=x%2Fy+z"
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(cookie.split("; "))
    assert site.key.key not in cookie, "the cookie is not the key"
    assert "Secure" not in cookie
    assert "Secure" in site.answer(f"{site.key.prefix}/", cookie="", host="ml.azure.com").headers["set-cookie"]
    assert site.answer(site.key.prefix, cookie="").headers["location"] == "/"


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example", "/k//evil.example"])
def test_the_key_leads_to_no_other_host(site: Site, path: str) -> None:
    location = site.answer(f"{site.key.prefix}/{path}", cookie="").headers["location"]
    assert re.match(r"/[^/\\]", location)


@pytest.mark.parametrize(
    "cookie",
    ["", "himl_page_0123abcd=", "himl_page_0123abcd=wrong", "himl_page_0123abcd={key}", "; ;=\0", "a=b;" * 999],
)
def test_without_the_cookie_nothing_is_shown(site: Site, cookie: str) -> None:
    cookie = cookie.replace("{key}", site.key.key)
    paths = ("/", "/runs", "/runs/training_1", "/experiments/segmentation", "/runs/training_1/files/outputs/model.pt")
    for path in (*paths, "/runs/training_1/tail/user_logs/std_log.txt", "/runs/nothing", "/nowhere"):
        answer = site.answer(path, cookie=cookie)
        assert answer.status == 403
        assert b"himl-container emulator status" in body(answer)
        assert b"training" not in body(answer)


def test_a_wrong_key_is_refused(site: Site) -> None:
    for key in ("wrong", site.key.key[:-1], site.key.key.upper(), "é"):
        answer = site.answer(f"/k/{key}/", cookie="")
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_every_page_is_guarded(site: Site) -> None:
    for path in ("/", "/runs", "/runs/training_1", "/nowhere", "/static/page.css"):
        headers = site.answer(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_static_files(site: Site) -> None:
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        answer = site.answer(f"/static/{name}", cookie="")
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, kind)
        assert b"url(" not in body(answer)
        assert b"@import" not in body(answer)
    for name in ("../routes.py", "routes.py", "..", "page.css/", "PAGE.CSS"):
        assert site.answer(f"/static/{name}").status == 404


def test_every_file_of_the_page_is_packed() -> None:
    """hatchling packs what git does not ignore."""
    folder = Path(package.__file__).parent
    files = [path for name in ("templates", "static") for path in (folder / name).iterdir()]
    assert {path.suffix for path in files} == {".html", ".css", ".js", ".svg"}
    words = ["git", "check-ignore", *map(str, files)]
    done = subprocess.run(words, check=False, cwd=kit.ROOT, capture_output=True, text=True, timeout=60)
    if done.returncode == 128:
        pytest.skip("this is no git checkout")
    assert done.stdout == ""


def test_experiments(site: Site) -> None:
    text = site.page("/")
    checked(text)
    assert text.index(">exp<") < text.index(">segmentation<"), "the one that was used last comes first"
    assert "There is no experiment yet" in Site().page("/")


def test_an_archived_experiment_is_not_listed(own: Site) -> None:
    own.failure()
    experiment = own.bench.runs.experiment("segmentation")
    own.bench.runs.archive_experiment(experiment.experiment_id, True)
    assert "segmentation" not in own.page("/")
    assert "failed_1" in own.page(f"/experiments/id/{experiment.experiment_id}"), "its runs can still be looked at"


def test_the_sdks_portal_addresses(site: Site) -> None:
    experiment_id = site.bench.runs.experiment("segmentation").experiment_id
    for path in (f"/experiments/id/{experiment_id}", "/experiments/segmentation", "/runs/training_1"):
        text = site.page(path, wsid="/subscriptions/s/resourcegroups/g/workspaces/w", tid="t")
        assert "patient_apple_1" in text
    assert "HD_" not in site.page("/experiments/segmentation")


def test_runs_are_filtered_and_paged(own: Site) -> None:
    own.training()
    own.failure()
    search = own.search(4)
    assert "patient_apple_1" in own.page("/runs")
    assert f"{search}_1" not in own.page("/runs")
    assert f"{search}_1" in own.page("/runs", children="1")
    failed = own.page("/runs", status="Failed")
    checked(failed)
    assert "failed_1" in failed
    assert "patient_apple_1" not in failed
    for text in ("APPLE", "training_1", "model=unet", "reviewed"):
        found = own.page("/experiments/segmentation", text=text)
        assert "patient_apple_1" in found
        assert "/runs/failed_1" not in found
    assert "No run fits" in own.page("/runs", text=HOSTILE + HOSTILE)
    for number in range(205):
        own.bench.runs.create("many", f"many_{number}")
    first, last = own.page("/experiments/many"), own.page("/experiments/many", page="3", status="NotStarted")
    assert "205 runs, page 1 of 3" in first
    assert "many_204" in first
    assert "many_104" not in first
    assert "many_0<" in last
    assert "page=2&amp;" not in last
    assert "status=NotStarted&amp;page=2" in last
    for page in ("0", "-1", "x", "9" * 30, "٣"):
        assert "of 3" in own.page("/experiments/many", page=page, status="Nonsense")
    assert "many_0<" in own.page("/experiments/many", page="99")


def test_the_page_of_a_run(site: Site) -> None:
    text = site.page("/runs/training_1")
    reader = checked(text)
    assert reader.scripts == 0, "a run that has ended needs no script"
    shown = html.unescape(re.sub(r"<[^>]*>", " ", text))
    for words in (
        "Completed",
        "12 min 34 s",
        DIGEST,
        "training:3",
        "ct-images",
        "0.913",
        "1.2 MB",
        "system_logs/job.log",
    ):
        assert words in shown, words
    assert "--epochs 30" in shown
    assert "<b>high</b>" in shown
    assert "do-not-show" not in text
    assert text.count("<svg viewBox") >= 3
    assert "learning_rate (logarithmic)" in text
    assert 'aria-labelledby="c1-t c1-d"' in text
    assert "/runs/training_1/pictures/images/mask.png" in reader.addresses


def test_a_failed_run_says_why(site: Site) -> None:
    text = site.page("/runs/failed_1")
    checked(text)
    assert "AzureMLCompute job failed" in text
    assert "UserError" in text


def test_a_search_has_a_table_and_pictures(site: Site) -> None:
    run_id = next(run.run_id for run in site.bench.runs.all() if run.run_type == "hyperdrive")
    text = site.page(f"/runs/{run_id}")
    checked(text)
    best = site.bench.runs.get(run_id).properties["best_child_run_id"]
    rows = re.findall(r'<th scope="row"><a href="/runs/(HD_[^"]+)">', text)
    assert rows[0] == best
    assert 'aria-sort="ascending"' in text
    assert len(rows) == 24
    assert len(re.findall(r'<path class="q\d"', text)) == 24
    assert text.count("<circle class=") == 23, "one has no loss"
    assert "_aml_system" not in re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)

    by_lr = site.page(f"/runs/{run_id}", sort="p:lr", order="desc", x="dropout", y="batch_size")
    checked(by_lr)
    values = [
        float(value) for value in re.findall(r'<td class="number">([\d.e-]+)</td>\s*<td class="number">\d+</td>', by_lr)
    ]
    assert values == sorted(values, reverse=True)
    assert "Scatter plot of batch_size by dropout" in by_lr
    assert "Scatter plot of loss by optimizer" in site.page(f"/runs/{run_id}", x="optimizer", y=HOSTILE, sort=HOSTILE)
    child = site.page(f"/runs/{best}")
    assert f'<a href="/runs/{run_id}">' in child
    assert "Hyperparameters" in child


def test_children_without_a_value_come_last(own: Site) -> None:
    run_id = own.search(8)
    for order in ("asc", "desc"):
        text = own.page(f"/runs/{run_id}", sort="m:loss", order=order)
        rows = re.findall(r'<th scope="row"><a href="/runs/(HD_[^"]+)">', text)
        assert rows[-1] == f"{run_id}_5"


def test_hostile_words_are_words_everywhere(own: Site) -> None:
    run_id = own.training()
    own.scalars(run_id, HOSTILE, [1.0, 2.0])
    own.scalars(run_id, HOSTILE + "once", [1.0])
    own.log(run_id, HOSTILE + "rows", "azureml.v1.table", {HOSTILE: "string"}, [{HOSTILE: HOSTILE}, {HOSTILE: None}])
    own.change(
        run_id,
        display_name=HOSTILE,
        description=HOSTILE,
        created_by=HOSTILE,
        target=HOSTILE,
        properties={HOSTILE: HOSTILE},
        warnings=({"source": "x", "message": HOSTILE},),
        definition={
            "script": HOSTILE,
            "environmentVariables": {HOSTILE: HOSTILE},
            "data": {HOSTILE: {"mode": HOSTILE}},
        },
        input_datasets=({"identifier": {"savedId": HOSTILE}, "inputDetails": {"inputName": HOSTILE}},),
    )
    own.bench.runs.create(
        "segmentation", "child", parent_id=run_id, tags={"hyperparameters": '{"' + "a<b>" + '": "<i>"}'}
    )
    own.change(run_id, run_type="hyperdrive")
    for path in (f"/runs/{run_id}", "/runs", "/experiments/segmentation", "/runs/child"):
        text = own.page(path)
        checked(text)
        assert "<i>" not in text


@pytest.mark.parametrize(
    "definition",
    [
        {"environment": 3, "data": [], "arguments": "x", "environmentVariables": None},
        {"command": ["a", 1], "environment": {"docker": "x"}, "data": {"a": 1, "b": {"dataLocation": []}}},
        {
            "outputData": {"o": {}},
            "dataReferences": {"r": {"mode": "mount", "dataStoreName": "s", "pathOnDataStore": "p"}},
        },
    ],
)
def test_any_definition_is_shown(own: Site, definition: dict[str, object]) -> None:
    own.bench.runs.create("e", "odd", definition=definition)
    checked(own.page("/runs/odd"))


def test_any_properties_and_tags_are_shown(own: Site) -> None:
    for number, text in enumerate(("", "x", "[]", '{"name": 3}', "{" * 5000)):
        run_id = f"odd_{number}"
        own.bench.runs.create("e", run_id, run_type="hyperdrive", properties={"primary_metric_config": text})
        own.bench.runs.create("e", f"{run_id}_c", parent_id=run_id, tags={"hyperparameters": text})
        checked(own.page(f"/runs/{run_id}"))
        checked(own.page(f"/runs/{run_id}_c"))


def test_a_log_is_read_as_it_is_written(own: Site) -> None:
    run_id = own.training(ended=False)
    text = own.page(f"/runs/{run_id}")
    assert checked(text).scripts == 1
    found = re.search(r'data-tail="([^"]+)" data-next="(\d+)"', text)
    assert found
    path, place = found[1], int(found[2])

    def tail(start: object) -> dict[str, object]:
        answer = own.answer(path, **{"from": str(start)})
        assert answer.status == 200
        return dict(json.loads(body(answer)))

    nothing = tail(place)
    assert nothing == {"text": "", "next": place, "restarted": False, "status": "Running", "ended": False}
    own.bench.artifacts.append_log(run_id, "user_logs/std_log.txt", b"new \xe2\x82")
    assert tail(place)["text"] == "new ", "half a letter waits"
    assert tail(place)["next"] == place + 4
    own.bench.artifacts.append_log(run_id, "user_logs/std_log.txt", b"\xac")
    assert tail(place + 4)["text"] == "€"
    own.bench.artifacts.append_log(run_id, "user_logs/std_log.txt", b"\xff broken\n")
    assert tail(place + 7)["text"] == "\ufffd broken\n"
    own.bench.artifacts.upload(run_id, "user_logs/std_log.txt", b"from the start\n")
    again = tail(place)
    assert (again["text"], again["restarted"], again["next"]) == ("from the start\n", True, 15)
    own.bench.runs.set_status(run_id, Status.COMPLETED)
    assert tail(15)["ended"] is True
    for wrong in ("-1", "x", "٣", "9" * 40, "1.5"):
        assert own.answer(path, **{"from": wrong}).status == 400
    assert own.answer(f"/runs/{run_id}/tail/user_logs/other.txt").status == 404


def test_of_a_long_log_the_end_is_shown(own: Site) -> None:
    run_id = own.training(ended=False)
    lines = "".join(f"line {number}\n" for number in range(60_000))
    own.bench.artifacts.upload(run_id, "user_logs/std_log.txt", lines.encode())
    text = own.page(f"/runs/{run_id}")
    log = re.search(r"<pre id=\"log-text\"[^>]*>(.*?)</pre>", text, re.DOTALL)
    assert log
    assert TAIL - 20 < len(log[1]) <= TAIL
    assert log[1].startswith("line ")
    assert log[1].endswith("line 59999\n")
    answer = own.answer(f"/runs/{run_id}/tail/user_logs/std_log.txt", **{"from": "0"})
    assert len(body(answer)) < 2 * LARGEST_PIECE


def test_files_are_downloaded_and_not_shown(site: Site) -> None:
    answer = site.answer("/runs/training_1/files/outputs/model.pt")
    assert not isinstance(answer.body, bytes), "it is streamed"
    assert len(body(answer)) == 1_234_567
    assert answer.headers["content-length"] == "1234567"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''model.pt"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "sandbox" in answer.headers["content-security-policy"]
    odd = next(path for path in checked(site.page("/runs/training_1")).addresses if "alert" in path)
    found = site.answer(unquote(odd))
    assert body(found) == b"hostile"
    assert re.fullmatch(r"attachment; filename\*=UTF-8''[\w%.-]+", found.headers["content-disposition"])
    for path in ("outputs", "outputs/none.pt", "../training_2/x", "/etc/passwd", "a\0b", "x" * 3000):
        assert site.answer(f"/runs/training_1/files/{path}").status in (400, 404)


def test_a_file_that_grows_is_downloaded_as_it_was(own: Site) -> None:
    run_id = own.training(ended=False)
    path = "user_logs/std_log.txt"
    answer = own.answer(f"/runs/{run_id}/files/{path}")
    own.bench.artifacts.append_log(run_id, path, b"more" * 1000)
    assert str(len(body(answer))) == answer.headers["content-length"]


def test_pictures_are_what_their_bytes_say(own: Site) -> None:
    run_id = own.training()
    own.bench.artifacts.upload(run_id, "images/page.png", b"<html><script>alert(1)</script>")
    own.bench.artifacts.upload(run_id, "images/drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    answer = own.answer(f"/runs/{run_id}/pictures/images/mask.png")
    assert answer.headers["content-type"] == "image/png"
    assert body(answer) == picture()
    assert own.answer(f"/runs/{run_id}/pictures/images/page.png").status == 404
    drawing = own.answer(f"/runs/{run_id}/pictures/images/drawing.svg")
    assert drawing.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in drawing.headers["content-security-policy"]


def test_a_picture_that_was_logged_by_an_absolute_path(own: Site) -> None:
    run_id = own.training()
    own.bench.artifacts.upload(run_id, "home/me/plot.png", picture())
    place = f"aml://artifactId/ExperimentRun/dcid.{run_id}//home/me/plot.png"
    own.log(run_id, "absolute", "azureml.v2.image", {"absolute": "artifact"}, [{"absolute": place}])
    assert f"/runs/{run_id}/pictures/home/me/plot.png" in own.page(f"/runs/{run_id}")
    assert body(own.answer(f"/runs/{run_id}/pictures/home/me/plot.png")) == picture()


def test_a_picture_of_another_run_is_not_shown_as_ones_own(own: Site) -> None:
    own.training("other")
    run_id = own.training("mine")
    foreign = "aml://artifactId/ExperimentRun/dcid.other/images/mask.png"
    own.log(run_id, "foreign", "azureml.v2.image", {"foreign": "artifact"}, [{"foreign": foreign}, {"foreign": "x"}])
    assert "/pictures/images/mask.png" in own.page(f"/runs/{run_id}")
    assert "dcid.other" not in own.page(f"/runs/{run_id}")


def test_what_is_not_there(site: Site) -> None:
    for path in ("/runs/unknown", "/experiments/unknown", "/experiments/id/unknown", "/nowhere/at/all", "/k"):
        text = site.page(path, expect=404)
        checked(text)
        assert "Not here" in text


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "3", '{"lr": ' * 2_000])
def test_tags_that_only_look_like_hyperparameters(own: Site, text: str) -> None:
    parent, child = own.training("parent"), "child"
    own.bench.runs.create("exp", child, parent_id=parent, tags={"hyperparameters": text})
    checked(own.page(f"/runs/{child}"))
    own.bench.runs.create(
        "exp", "hd", parent_id=parent, run_type="hyperdrive", properties={"primary_metric_config": text}
    )
    checked(own.page("/runs/hd"))
    checked(own.page(f"/runs/{parent}"))


def test_many_files_are_counted_and_not_all_listed(own: Site) -> None:
    run_id = own.training()
    for number in range(1010):
        own.bench.artifacts.record(run_id, f"outputs/{number:04}")
    text = own.page(f"/runs/{run_id}")
    assert "The first 1000 of 1015" in text
