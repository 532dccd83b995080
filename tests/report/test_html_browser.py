"""Pages in a browser: they draw, zoom and answer the pointer, without an error, a warning or a request to the network."""

import contextlib
import re

import numpy as np
import pytest

import tardigrad as td
from needs import needs_browser
from report_runs import simulate
from tardigrad.benchmarks.simulator import Identity
from tardigrad.report import html_timeline
from tardigrad.report.html_page import write_report
from tardigrad.report.html_run import ReportedRun

pytestmark = [needs_browser, pytest.mark.timeout(120)]


@contextlib.contextmanager
def opened(browser, path, **context):
    """The page in a window; at the end nothing was said on the console and nothing else asked for."""
    said, asked = [], []
    window = browser.new_context(viewport={"width": context.pop("width", 1200), "height": 900}, **context)
    page = window.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    try:
        page.goto(path.as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('[data-plot]')].every((e) => e.dataset.ready || e.dataset.failed)"
        )
        yield page
    finally:
        window.close()
    assert said == []
    assert asked == [path.as_uri()]


def shown(plot):
    return float(plot.get_attribute("data-from")), float(plot.get_attribute("data-to"))


def pixels(page, plot):
    """What is drawn on a timeline's canvas: (height, width, 4) of bytes, red, green, blue and how much it covers."""
    sizes, text = page.evaluate(
        """async (plot) => {
          await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
          const { width, height } = plot.querySelector('canvas'), copy = document.createElement('canvas');
          Object.assign(copy, { width, height });
          const pen = copy.getContext('2d', { willReadFrequently: true });
          pen.drawImage(plot.querySelector('canvas'), 0, 0);
          const bytes = pen.getImageData(0, 0, width, height).data;
          return [[height, width, 4], Array.from(bytes, (byte) => String.fromCharCode(byte)).join('')];
        }""",
        plot.element_handle(),
    )
    return np.frombuffer(text.encode("latin-1"), np.uint8).reshape(sizes)


@pytest.fixture
def report(tmp_path):
    def make(*results, **kwargs):
        return write_report([ReportedRun(f"run {i}", run) for i, run in enumerate(results)], tmp_path / "r.html", **kwargs)

    return make


def test_everything_is_drawn_in_light_and_dark(browser, report):
    path = report(simulate(), simulate(td.SyncSGD(0.1)), simulate(replicas=5))
    backs = []
    for scheme in ("light", "dark"):
        with opened(browser, path, color_scheme=scheme) as page:
            assert page.title() == "run 0, run 1, run 2 · tardigrad report"
            assert page.locator("[data-failed]").count() == 0
            charts = page.locator('[data-plot="convergence"]')
            assert charts.count() == 2
            for chart in charts.all():
                paths = chart.locator("g path")
                assert paths.count() == 4  # three curves, and a band
                assert not re.search("NaN|Infinity", " ".join(p.get_attribute("d") for p in paths.all()))
            assert page.locator('[data-plot="histogram"] g rect').count() > 5
            for timeline in page.locator('[data-plot="timeline"]').all():
                drawn = pixels(page, timeline)
                assert (drawn[..., 3] > 0).sum() > 10_000
                assert len(np.unique(drawn.reshape(-1, 4), axis=0)) > 6
            backs.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backs[0] == "rgb(255, 255, 255)"
    assert max(map(int, re.findall(r"\d+", backs[1]))) < 50


def test_paper_is_light_whatever_the_screen_is(browser, report):
    with opened(browser, report(simulate()), color_scheme="dark") as page:
        plot = page.locator('[data-plot="timeline"]')
        bar = (27, 64 + 3)  # of worker 0's first task, in the first client's colour
        assert pixels(page, plot)[bar].tolist() == [88, 180, 238, 255]
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert pixels(page, plot)[bar].tolist() == [0, 114, 178, 255]
        assert not page.locator(".tools").is_visible()


def test_a_timeline_zooms_by_wheel_keys_and_buttons_and_moves(browser, report):
    result = simulate()
    with opened(browser, report(result)) as page:
        plot = page.locator('[data-plot="timeline"]')
        plot.scroll_into_view_if_needed()
        end = shown(plot)[1]
        assert shown(plot) == (0, pytest.approx(result.trace["received"].max()))
        box = plot.locator("canvas").bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + 30
        page.mouse.move(*middle)
        page.mouse.wheel(0, -300)  # the page scrolls, as long as nobody clicked
        page.wait_for_timeout(100)
        assert shown(plot) == (0, end)
        plot.scroll_into_view_if_needed()
        box = plot.locator("canvas").bounding_box()
        middle = box["x"] + box["width"] / 2, box["y"] + 30
        page.mouse.click(*middle)
        page.mouse.wheel(0, -500)
        page.wait_for_function(
            "e => Number(e.dataset.to) - Number(e.dataset.from) < 0.6 * " + str(end), arg=plot.element_handle()
        )
        low, high = shown(plot)
        assert 0 < low < end / 2 < high < end
        page.keyboard.press("+")
        closer = shown(plot)
        assert closer[1] - closer[0] == pytest.approx((high - low) / 2)
        page.keyboard.press("ArrowRight")
        assert shown(plot)[0] > closer[0]
        page.mouse.move(*middle)
        page.mouse.down()
        page.mouse.move(middle[0] + 100, middle[1])
        page.mouse.up()
        assert shown(plot)[0] < closer[0] + (closer[1] - closer[0]) / 4
        page.keyboard.press("0")
        assert shown(plot) == (0, end)
        page.get_by_role("button", name="zoom in").click()
        assert shown(plot)[1] - shown(plot)[0] == pytest.approx(end / 2)
        assert plot.locator("output").inner_text() != f"0 s to {end:.4g} s"
        plot.locator("canvas").dblclick(position={"x": 300, "y": 20})
        assert shown(plot) == (0, end)


def test_no_zoom_goes_beyond_the_run_or_below_a_task(browser, report):
    with opened(browser, report(simulate())) as page:
        plot = page.locator('[data-plot="timeline"]')
        end = shown(plot)[1]
        plot.focus()
        for _ in range(80):
            page.keyboard.press("+")
        low, high = shown(plot)
        assert 0 < high - low < 1e-2
        for key in ("ArrowLeft",) * 3 + ("-",) * 80 + ("ArrowLeft",) * 3:
            page.keyboard.press(key)
        assert shown(plot) == (0, pytest.approx(end))


def test_the_pointer_tells_a_task_from_the_trace(browser, report):
    result = simulate()
    with opened(browser, report(result)) as page:
        plot = page.locator('[data-plot="timeline"]')
        plot.scroll_into_view_if_needed()
        box = plot.locator("canvas").bounding_box()
        trace, end = result.trace, shown(plot)[1]
        mine = trace.table[trace["worker"] == 1]
        row = mine[np.argmax(mine["finished"] - mine["started"])]
        middle = (row["started"] + row["finished"]) / 2
        x = box["x"] + 64 + (box["width"] - 64 - 14) * middle / end
        page.mouse.move(x, box["y"] + 12 + 30 * 1.5)
        told = plot.get_attribute("data-hover")
        assert f"task {row['task']} of client {row['client']}, worker 1" in told
        late = row["version_applied"] - row["version_read"]
        assert f"read version {row['version_read']}, applied at {row['version_applied']}: staleness {late}" in told
        assert f"computed for {row['finished'] - row['started']:.4g} s" in told
        page.mouse.move(x, box["y"] - 200)
        assert plot.get_attribute("data-hover") == ""


def test_a_chart_zooms_tells_its_values_and_changes_its_measure(browser, report):
    result = simulate()
    with opened(browser, report(result)) as page:
        plot = page.locator('[data-plot="convergence"]').first
        assert shown(plot) == (0, 200)
        plot.scroll_into_view_if_needed()
        box = plot.locator("svg").last.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
        told = plot.get_attribute("data-hover")
        at = int(re.search(r"at (\d+)$", told).group(1))
        assert 80 <= at <= 120
        loss = result.evaluate(["loss"])["loss"][at // 10]
        assert told == f"loss\nrun 0: {float(f'{loss:.4g}'):g} at {at}"
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 120)
        page.mouse.up()
        low, high = shown(plot)
        assert 80 < low < 110
        assert 130 < high < 170
        page.mouse.wheel(0, 200)
        page.wait_for_function(f"e => e.dataset.from < {low}", arg=plot.element_handle())
        before = plot.locator("g path").get_attribute("d")
        page.locator("select").select_option("gradient_norm")
        assert plot.locator("g path").get_attribute("d") != before
        assert "gradient norm" in plot.locator("svg").last.text_content()
        page.get_by_label("log scale", exact=True).click()
        page.get_by_label("log scales").click()


def test_runs_of_every_kind_can_be_drawn(browser, report, monkeypatch):
    problem = td.LeastSquares((np.eye(4), np.ones(4)), td.Shared(2))
    free = td.run(td.Hogwild(0.1), problem, td.Threads(2, lock_free=True), stop=td.MaxUpdates(300))
    prescribed = td.run(td.AsyncSGD(0.01), problem, td.Prescribed(2), stop=td.MaxUpdates(50))
    none = simulate(stop=td.MaxSeconds(1e-9))
    diverged = simulate(td.AsyncSGD([0.1, 1e200]), updates=50)
    bad = simulate(updates=30)
    bad.history.measures = {"loss": np.full(len(bad.history), np.nan), "gradient_norm": np.zeros(len(bad.history))}
    with opened(browser, report(free, prescribed, none, diverged, bad), width=420) as page:
        assert page.locator("[data-failed]").count() == 0
        assert page.locator('[data-plot="timeline"]').count() == 2
        for measure in ("loss", "gradient_norm"):
            page.locator("select").select_option(measure)
        for box in page.get_by_role("checkbox").all():
            box.click()
        assert page.evaluate("document.documentElement.scrollWidth") == 420


def test_a_long_run_shows_shades_between_its_windows_and_incidents(browser, report, monkeypatch):
    monkeypatch.setattr(html_timeline, "FEWEST", 1000)
    monkeypatch.setattr(html_timeline, "BUDGET", 1000)
    engine = td.Simulated(td.Exponential(1.0))
    result = td.run(td.AsyncSGD(1e-3), Identity(4, 2), engine, stop=td.MaxUpdates(20_000), snapshot_every=1000)
    at = float(result.trace["received"][8000])
    result.incidents = [{"seconds": at, "kind": "died", "worker": 2, "task": 7, "text": "worker 2 was killed"}]
    with opened(browser, report(result)) as page:
        plot = page.locator('[data-plot="timeline"]')
        plot.scroll_into_view_if_needed()
        box = plot.locator("canvas").bounding_box()
        page.mouse.move(box["x"] + 64 + (box["width"] - 78) * 0.2, box["y"] + 20)
        assert re.fullmatch(r"worker 0: busy (9\d|100) % of the time about here", plot.get_attribute("data-hover"))
        page.get_by_role("button", name="next incident").click()
        low, high = shown(plot)
        assert low < at < high < at + 0.1 * result.trace["received"].max()
        page.mouse.move(box["x"] + 64 + (box["width"] - 78) * (at - low) / (high - low), box["y"] + 12 + 30 * 2.5)
        assert plot.get_attribute("data-hover").endswith("worker 2 was killed")


def test_a_name_that_is_code_does_not_run(browser, tmp_path):
    name = "</script><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"
    result = simulate()
    result.message = name
    path = write_report([ReportedRun(name, result), ReportedRun(name, result)], tmp_path / "r.html")
    with opened(browser, path) as page:
        assert page.title().startswith("</script>")
        assert page.locator("img").count() == 0
        assert page.locator(".legend li").first.inner_text().startswith("</script>")


def test_a_picture_that_cannot_be_drawn_says_so(browser, tmp_path):
    path = write_report([ReportedRun("run", simulate())], tmp_path / "r.html")
    text = path.read_text()
    path.write_text(text.replace('"tasks":"', '"tasks":"AAAA'))
    with opened(browser, path) as page:
        plot = page.locator('[data-plot="timeline"]')
        assert "This picture could not be drawn" in plot.inner_text()
