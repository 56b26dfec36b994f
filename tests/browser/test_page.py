"""The page in a real browser, with made-up data."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from creamas_sc.page.access import Access
from creamas_sc.page.report import report
from creamas_sc.page.source import Picture
from tests.browser.made_up import HOSTILE, HOSTILE_HTML, HOSTILE_SVG, Society
from tests.browser.server import Server
from tests.browser.window import Window

pytestmark = pytest.mark.slow

TILES = "[...document.querySelectorAll('.tile')]"
FIRST_TILE = f"{TILES}.find(each => each.style.transform === 'translate(0px, 0px)')"
FIRST_LABEL = f"{FIRST_TILE}?.querySelector('button').getAttribute('aria-label')"
SHIFTS = """
  window.shifts = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value;
  }).observe({type: 'layout-shift', buffered: true});
"""


def test_load(window: Window, server: Server) -> None:
    """All parts are there, nothing complains, and nothing moves while they come."""
    window.open(server.url)
    window.run(SHIFTS)
    assert window.text("#name") == "colours"
    assert window.text("#state").startswith("stepping · 60 agents · 4 slaves · 1 restart")
    assert window.text("#step") == "200 of 1,000"
    assert window.text("#rate") == "12.3"
    assert window.text("#left") == "1 min 04 s"
    assert window.text("#failures") == "3"
    names = [each.text for each in window.driver.find_elements("css selector", ".chart .name")]
    assert names == ["novelty", "value", "seconds"]
    assert window.text("#gallery-count") == "400"
    window.look_at("#society")
    window.wait_text(".legend", "Painter")
    window.look_at("#log")
    window.wait("document.querySelectorAll('#slaves tbody tr').length", 4)
    window.wait_text("#log-errors", "division by zero")
    assert window.complaints() == []
    assert window.get("window.shifts") < 0.02


def test_live(window: Window, server: Server, society: Society) -> None:
    """Header, metrics and gallery follow the steps."""
    window.open(server.url)
    window.wait(f"{FIRST_LABEL}?.startsWith('artifact 399 ')")
    society.step()
    window.wait_text("#step", "201 of 1,000")
    window.wait(f"{FIRST_LABEL}?.startsWith('artifact 402 ')")
    window.wait("document.querySelector('.chart canvas').ariaValueText.startsWith('step 201: ')")
    assert window.text("#gallery-count") == "403"
    assert "step 201" in window.get("document.title")
    assert window.complaints() == []


def test_slider(window: Window, server: Server, society: Society) -> None:
    """The gallery shows a step of the past, and stays there while the society goes on."""
    window.open(server.url)
    window.run(
        "const slider = document.getElementById('gallery-step'); slider.value = 100;"
        "slider.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    window.wait(f"{FIRST_LABEL}?.includes('step 100')")
    assert window.text("#gallery-count") == "200 of 400"
    society.step()
    window.wait_text("#step", "201")
    window.find("#gallery-step").send_keys("\ue012")  # arrow left
    window.wait(f"{FIRST_LABEL}?.includes('step 99')")
    window.find("#gallery-step").send_keys("\ue010")  # end
    window.wait(f"{FIRST_LABEL}?.includes('step 201')")
    society.step()
    window.wait(f"{FIRST_LABEL}?.includes('step 202')")


def test_best_and_by_agent(window: Window, server: Server, society: Society) -> None:
    """The gallery in the order of scores, and of one agent."""
    window.open(server.url)
    window.click("input[value=best]")
    best = max(each["score"] or 0 for each in society.items)
    window.wait(f"{FIRST_LABEL}?.includes('score {best:.3g}')")
    window.find("#gallery-agent").send_keys("2\n")
    amount = sum(each["agent"] == "2" for each in society.items)
    window.wait_text("#gallery-count", f"{amount} of 400")
    window.wait(f"{TILES}.every(each => each.querySelector('.by').textContent === 'agent 2')")
    window.find("#gallery-agent").clear()
    window.find("#gallery-agent").send_keys("nobody\n")
    window.wait_text("#gallery-empty", "No artifact fits.")


def test_who_scrolls_looks_at_what_stays(window: Window, server: Server, society: Society) -> None:
    """Artifacts in sight stay where they are while others come, until one asks for these."""
    window.open(server.url)
    window.run("document.getElementById('gallery').scrollTop = 1000")
    window.wait("!document.getElementById('gallery-newer').hidden")
    labels = f"{TILES}.map(each => each.querySelector('button').ariaLabel).sort()"
    window.wait(f"{labels}.every(each => each)")
    before = window.get(labels)
    society.step()
    window.wait_text("#step", "201")
    window.wait("page.view.metrics.charts.get('value').lines[0].steps.length", 201)
    assert window.get(labels) == before
    window.click("#gallery-newer")
    window.wait(f"{FIRST_LABEL}?.startsWith('artifact 402 ')")


def test_click(window: Window, server: Server, society: Society) -> None:
    """An artifact tells who made it and who thought what of it, and leads to its maker's others."""
    society.items[-1].update(agent="7", evaluated=5, score=0.5)
    window.open(server.url)
    window.wait(f"{FIRST_LABEL}?.startsWith('artifact 399 by agent 7')")
    window.run(f"{FIRST_TILE}.querySelector('button').focus()")
    window.driver.switch_to.active_element.send_keys("\n")
    window.wait_text("#artifact", "Evaluations (5)")
    window.wait("document.querySelectorAll('#artifact tbody tr').length", 5)
    assert "agent 7" in window.text("#artifact .list")
    assert '{"liked":"the hue"}' in window.text("#artifact tbody")
    window.driver.switch_to.active_element.send_keys("\ue00c")  # escape
    window.wait("!document.getElementById('artifact').open")
    assert window.get("document.activeElement.className") == "cover"
    window.driver.switch_to.active_element.send_keys("\n")
    window.wait("document.querySelectorAll('#artifact tbody tr').length", 5)
    window.find("#artifact button.link").click()
    window.wait("document.getElementById('gallery-agent').value", "7")
    window.wait_text("#gallery-count", " of 400")


def test_pause(window: Window, server: Server, society: Society) -> None:
    """Pause and resume, each where it applies."""
    window.open(server.url)
    assert window.get("document.getElementById('resume').disabled")
    window.click("#pause")
    window.wait_text("#state", "paused")
    assert society.now["state"] == "paused"
    assert window.get("document.getElementById('pause').disabled")
    window.click("#resume")
    window.wait_text("#state", "stepping")
    society.refusal = "the simulation takes no orders now"
    window.click("#pause")
    window.wait_text("#order-error", "Could not pause: the simulation takes no orders now.")
    assert not window.get("document.getElementById('pause').disabled")


def test_reconnect(window: Window, server: Server, society: Society) -> None:
    """A page whose server died says so, and goes on once there is one again."""
    window.open(server.url)
    window.wait_text("#step", "200")
    server.stop()
    window.wait_text("#connection", "Connection lost, trying again.")
    society.step()
    server.start()
    window.wait_text("#step", "201")
    window.wait("document.getElementById('connection').textContent === ''")
    window.wait(f"{FIRST_LABEL}?.startsWith('artifact 402 ')")
    streams = [each for each in society.asked if each.startswith("events")]
    assert streams == ["events since None", "events since 1-0"]  # none was lost


def test_a_server_that_knows_no_cookie(window: Window, server: Server, society: Society) -> None:
    """The page says what to do, and goes on once that was done in another tab."""
    window.open(server.url)
    server.stop()
    server.access = Access(port=server.port)
    server.start()
    window.wait_text("#connection", "open the URL that the command printed")
    with window.another_tab():
        window.open(server.url)
    society.step()
    window.wait_text("#step", "201")
    window.wait("document.getElementById('connection').textContent === ''")


def test_gap(window: Window, server: Server, society: Society) -> None:
    """A page that missed events asks for everything that it shows."""
    window.open(server.url)
    window.wait("document.querySelectorAll('.tile img').length > 10")
    society.items[-1]["agent"] = "58"
    society.post("gap", {"lost": 12})
    window.wait(f"{FIRST_LABEL}?.startsWith('artifact 399 by agent 58')")


def test_unreachable(window: Window, server: Server, society: Society) -> None:
    """What the server says of a simulation that it cannot reach is in sight until it can."""
    window.open(server.url)
    society.post("unreachable", {"problem": "the daemon does not answer"})
    window.wait_text("#connection", "the daemon does not answer. Trying again.")
    society.step()
    window.wait("document.getElementById('connection').textContent === ''")


def test_another_society(window: Window, society: Society) -> None:
    """Of several societies one is shown; nothing of it is left when another one is chosen."""
    other = Society(agents=9, artifacts=30, steps=50, name="shapes & sounds")
    with Server(society, other) as server:
        window.open(server.url)
        window.run(
            "const chooser = document.getElementById('chooser'); chooser.value = arguments[0];"
            "chooser.dispatchEvent(new Event('change'))",
            other.name,
        )
        window.wait_text("#name", "shapes & sounds")
        window.wait_text("#gallery-count", "30")
        window.wait(f"{FIRST_LABEL}?.startsWith('artifact 29 ')")
        window.wait("document.querySelectorAll('.chart').length", 3)
        society.step()
        other.step()
        window.wait_text("#step", "51")
        window.wait(f"{FIRST_LABEL}?.startsWith('artifact 32 ')")
        assert window.text("#name") == other.name
        window.run("history.back()")
        window.wait_text("#gallery-count", "403")
        assert window.get("document.getElementById('chooser').value") == society.name


def test_what_is_hidden_asks_for_nothing(window: Window, server: Server, society: Society) -> None:
    """A tab that nobody looks at has no connection; it goes on when it is looked at."""
    window.open(server.url)
    window.wait("page.view.parts.every(each => !each.refresher.busy)")
    window.run(
        "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true});"
        "window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
    )
    window.wait("page.view.data.events === null")
    asked = list(society.asked)
    society.step()
    society.step()
    assert society.asked == asked
    window.run("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    window.wait_text("#step", "202")


def test_a_large_society(window: Window, capsys: pytest.CaptureFixture[str]) -> None:
    """10,000 artifacts and 1,000 agents: only what is in sight is in the document."""
    society = Society(agents=1000, artifacts=10_000, steps=2000)
    with Server(society) as server:
        window.open(server.url)
        window.wait("performance.getEntriesByName('gallery-shown').length")
        first_view = window.get("performance.getEntriesByName('gallery-shown')[0].startTime")
        with capsys.disabled():
            print(f"\nfirst view of 10,000 artifacts and 1,000 agents: {first_view:.0f} ms")
        assert window.text("#gallery-count") == "10,000"
        assert window.get("document.querySelectorAll('.tile').length") < 60
        window.run("document.getElementById('gallery').scrollTop = 1e9")
        window.wait("document.querySelector('.cover[aria-label^=\"artifact 0 \"]')")
        assert window.get("document.querySelectorAll('.tile').length") < 60
        assert window.get("page.view.gallery.pages.size") <= 8
        window.look_at("#society")
        window.wait_text("#society-count", "1,000 agents")
        window.find(".society canvas").send_keys("\ue014")  # arrow right
        window.wait_text("#society-reading", "agents 0 to 7 to agents 0 to 7: ")


def test_an_artifact_with_a_script_does_nothing(
    window: Window, server: Server, society: Society
) -> None:
    """Whatever is said by users is text, and pictures run nothing."""
    kinds = {"image/svg+xml": HOSTILE_SVG, "text/html": HOSTILE_HTML, None: ""}
    for item, (kind, data) in zip(society.items[-4:-1], kinds.items(), strict=True):
        for name in ("agent", "creator", "class", "domain", "object_class", "text"):
            item[name] = HOSTILE
        society.pictures[item["artifact"]] = Picture(kind or "", data.encode())
        url = society.items[0]["picture"]["url"].replace("/0/", f"/{item['artifact']}/")
        item["picture"] = kind and {"type": kind, "url": url}
    society.metrics_of = {HOSTILE: society.metrics_of["value"], **society.metrics_of}
    society.now["name"] = society.now["error"] = HOSTILE
    society.said = HOSTILE
    window.driver.get(server.url)
    window.wait("document.querySelectorAll('.tile img').length > 10")
    window.wait("document.querySelector('.tile iframe')")
    window.wait("[...document.querySelectorAll('.tile img')].every(each => each.complete)")
    for at in range(4):
        window.run("document.querySelectorAll('.tile button')[arguments[0]].click()", at)
        window.wait_text("#artifact", "Evaluations (")
        window.run("document.getElementById('artifact').close()")
    window.look_at("#log")
    window.wait_text("#log-lines", "<script>")
    assert "broken" in window.text("h1")
    assert window.get("document.title").startswith(HOSTILE)
    assert window.get("document.scripts.length") == 12
    assert window.get("document.querySelector('[onerror], [onload], #name *')") is None
    assert window.get("document.querySelector('.tile iframe').getAttribute('sandbox')") == ""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_sizes_and_schemes(window: Window, server: Server, width: int, scheme: str) -> None:
    """Nothing is wider than the page, and each scheme has its own ground."""
    window.size(width, 850)
    window.media(prefers_color_scheme=scheme)
    window.open(server.url)
    assert window.get("document.documentElement.scrollWidth") <= width
    ground = window.get("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 21, 22)"}[scheme]


def test_keyboard(window: Window, server: Server) -> None:
    """Without a pointer: a chart's values, artifacts, and agents are read by arrow keys."""
    window.open(server.url)
    window.wait("document.querySelector('.chart .at').textContent.includes('at step 200')")
    chart = window.find(".chart canvas")
    chart.send_keys("\ue012")
    window.wait("document.querySelector('.chart .at').textContent.includes('at step 200')")
    chart.send_keys("\ue012")
    window.wait("document.querySelector('.chart .at').textContent.includes('at step 199')")
    window.run(f"{FIRST_TILE}.querySelector('button').focus()")
    window.driver.switch_to.active_element.send_keys("\ue014")
    assert window.get("document.activeElement.ariaLabel").startswith("artifact 398 ")
    window.driver.switch_to.active_element.send_keys("\ue015")
    columns = window.get("document.activeElement.ariaLabel.match(/artifact (\\d+)/)[1]")
    assert int(columns) < 398
    window.look_at("#society")
    window.wait("document.querySelector('.society canvas')")
    window.find(".society canvas").send_keys("\ue014")
    window.wait_text("#society-reading", "Agent 0 · Painter")
    window.click("#society-artifacts")
    window.wait("document.getElementById('gallery-agent').value", "0")


def test_study(window: Window, society: Society, server: Server) -> None:
    """Of a study, means with a band, or a line for each run."""
    society.now.update(kind="record", runs=9, can_steer=False, state="ended")
    society.parameters = ["alpha"]
    window.open(server.url)
    window.wait_text(".chart .readings", "alpha = 0.5")
    assert window.get("document.getElementById('orders').hidden")
    assert window.get("page.view.metrics.charts.get('value').lines[0].low.length") == 200
    window.run(
        "const by = document.getElementById('metrics-by'); by.value = '';"
        "by.dispatchEvent(new Event('change'))"
    )
    window.wait("page.view.metrics.charts.get('value').lines.length", 9)
    assert window.get("document.getElementById('run').options.length") == 9
    window.run(f"window.tile = {FIRST_TILE}")
    window.run(
        "const run = document.getElementById('run'); run.value = 'run-3';"
        "run.dispatchEvent(new Event('change'))"
    )
    window.wait(f"{FIRST_TILE} !== window.tile")  # the numbers of artifacts are those of a run


def test_report(window: Window, society: Society, tmp_path: Path) -> None:
    """The same page as one file, with its data inside, asks nobody for anything."""
    society.now.update(kind="record", can_steer=False, state="ended")
    (tmp_path / "report.html").write_text(anyio.run(report, society))
    window.open((tmp_path / "report.html").as_uri())
    assert window.text("#name") == "colours"
    window.wait_text("#gallery-count", "400")
    window.click("input[value=best]")
    best = max(each["score"] or 0 for each in society.items)
    window.wait(f"{FIRST_LABEL}?.includes('score {best:.3g}')")
    window.run(f"{FIRST_TILE}.querySelector('button').click()")
    window.wait("document.querySelectorAll('#artifact tbody tr').length", 5)
    assert window.complaints() == []


@pytest.mark.long
def test_memory_over_an_hour_of_events(
    window: Window, server: Server, society: Society, capsys: pytest.CaptureFixture[str]
) -> None:
    """The events of an hour, four a second, one after the other: what the page holds is bounded.

    Parts load as often as they can meanwhile, rather than once in some seconds.
    """
    window.open(server.url)
    window.run("for (const part of page.view.parts) part.refresher.pause = 0")
    held = []
    for _ in range(4):
        for _ in range(12):
            for _ in range(300):
                society.step(published=1)
            # Only the last 1,000 events are kept: the page is to hear each.
            window.wait_text("#step", f"{society.now['step']:,}")
        window.wait(f"{FIRST_LABEL}?.startsWith('artifact {len(society.items) - 1} ')")
        held.append(window.memory())
    loads = society.asked.count("artifacts")
    with capsys.disabled():
        sizes = ", ".join(f"{each['JSHeapUsedSize'] / 1e6:.2f}" for each in held)
        print(f"\n14,400 events and {loads} loads of the gallery; heap {sizes} MB; {held[-1]}")
    assert held[-1]["JSHeapUsedSize"] < held[0]["JSHeapUsedSize"] + 2e6
    assert held[-1]["Nodes"] < held[0]["Nodes"] + 1000
