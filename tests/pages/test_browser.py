"""The pages of an evaluation in a real browser, at the widths of a phone and of a laptop."""

import html
import json
import re
import shutil
import subprocess

import pytest
from made_predictions import HOSTILE, good_and_bad, measured, with_validation
from PIL import Image

from inbol_jax.evaluation.browser import write_browser
from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# Shows a page in a frame of a width, and writes down what `look` finds there.
FRAME = """<!doctype html><iframe width="WIDTH" height="800"></iframe><pre id="said"></pre><script>
const said = document.getElementById('said'), frame = document.querySelector('iframe');
const alerts = [];
window.alert = text => alerts.push(text);
const wait = seconds => new Promise(done => setTimeout(done, 1000 * seconds));
async function look(page) {
  LOOK
}
frame.onload = async () => {
  frame.contentWindow.alert = window.alert;
  try {
    const found = await look(frame.contentDocument), body = frame.contentDocument.documentElement;
    said.textContent = JSON.stringify(
      {...found, width: body.clientWidth, needs: body.scrollWidth, alerts});
  } catch (error) { said.textContent = JSON.stringify({error: String(error)}); }
};
frame.src = 'PAGE';
</script>"""


def browse(folder, page, width, look):
    """What a function of the page's document finds if the page is `width` pixels wide."""
    frame = folder / f"frame-{width}.html"
    parts = {"WIDTH": str(width), "LOOK": look, "PAGE": page}
    frame.write_text(re.sub("|".join(parts), lambda part: parts[part[0]], FRAME))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files"]
    command += ["--window-size=1600,1000", "--virtual-time-budget=60000"]
    done = subprocess.run([*command, frame.as_uri()], capture_output=True, text=True, check=True)
    said = re.search(r'<pre id="said">(.+?)</pre>', done.stdout, re.DOTALL)
    assert said, done.stderr
    found = json.loads(html.unescape(said[1]))
    assert "error" not in found, found
    assert found["needs"] <= found["width"] <= width, "the page scrolls sideways"
    assert found["alerts"] == []
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An evaluation with hostile words everywhere and one picture."""
    out = tmp_path_factory.mktemp("browsed")
    predicted = with_validation(good_and_bad())
    tested, metrics = measured(predicted)
    config = EvaluateConfig((out / "worlds",), out, models=(("base", out / HOSTILE),))
    (out / "pictures").mkdir()
    Image.new("RGB", (16, 12), "red").save(out / "pictures" / tested[0].images[0])
    folders = {tested[0].dataset: out / "pictures"}
    write_report(out, config, tested, metrics, image_folders=folders)
    write_browser(out, tested, folders)
    return out, tested


TABLES = """
  page.querySelectorAll('details').forEach(fold => fold.open = true);
  const filled = [...page.querySelectorAll('table:has(tbody th[scope=row])')];
  return {tables: filled.map(table => {
    const box = table.closest('.scroll');
    box.scrollLeft = box.scrollWidth;
    const edges = element => {
      const {left, right} = element.getBoundingClientRect();
      return [left, right];
    };
    const rows = [...table.querySelectorAll('tbody tr')];
    return {caption: table.caption.innerText, box: edges(box),
            first: edges(table.querySelector('tbody th[scope=row]')),
            last: edges(rows.at(-1).lastElementChild)};
  })};
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_no_column_of_the_report_is_cut_off(folder, width):
    """A table that is wider than the page scrolls in its own box, to its last column, with the
    names of its rows in sight.
    """
    tables = browse(folder[0], "report.html", width, TABLES)["tables"]
    assert len(tables) > 5
    for table in tables:
        left, right = table["box"]
        assert left - 1 <= table["first"][0] < table["first"][1] <= right + 1, table
        assert table["last"][1] <= right + 1, table


FILTERS = """
  const $ = id => page.getElementById(id);
  const set = (id, value) => { $(id).value = value; $(id).dispatchEvent(new Event('change')); };
  const count = () => $('count').textContent;
  const found = {all: count(), models: [...page.querySelectorAll('#model option')].length - 1};
  found.columns = [...page.querySelectorAll('thead th')].map(head => head.textContent).slice(3);
  set('outcome', 'refused'); found.refused = count();
  set('model', '0'); found.refused_by_base = count();
  set('model', ''); set('outcome', ''); set('type', 'Type 3'); found.type3 = count();
  set('type', ''); set('domain', 'Out of domain'); found.out_of_domain = count();
  set('domain', ''); $('disagree').click(); found.disagree = count();
  $('disagree').click(); $('search').value = 'SEARCHED';
  $('search').dispatchEvent(new Event('input')); await wait(1); found.searched = count();
  page.querySelector('tbody button').click(); await wait(1);
  const detail = page.querySelector('.details');
  found.detail = detail.innerText;
  found.picture = detail.querySelector('img').naturalWidth;
  page.querySelector('tbody button').click();
  found.closed = page.querySelector('.details') === null;
  return found;
"""


@pytest.mark.parametrize("width", [390, 1280])
def test_predictions_are_filtered_searched_and_opened(folder, width):
    out, tested = folder
    answers = {}
    for p in tested:
        answers.setdefault((p.dataset, p.id), []).append(p)
    asked = list(answers.values())

    def count(keep):
        return f"{sum(map(keep, asked))} of {len(asked)} questions"

    look = FILTERS.replace("SEARCHED", asked[0][0].id.upper())
    found = browse(out, "predictions.html", width, look)
    assert found["columns"] == [p.model for p in asked[0]]
    assert found["models"] == len(asked[0])
    assert found["all"] == count(lambda of: True)
    assert found["refused"] == count(lambda of: any(p.outcome == "refused" for p in of))
    assert found["refused_by_base"] == count(lambda of: of[0].outcome == "refused")
    assert found["type3"] == count(lambda of: of[0].type == 3)
    assert found["out_of_domain"] == count(lambda of: of[0].domain == "out_of_domain")
    of_two = [
        len({"answered" if p.type == 3 and p.outcome != "refused" else p.outcome for p in of})
        for of in asked
    ]
    assert found["disagree"] == f"{sum(n > 1 for n in of_two)} of {len(asked)} questions"
    assert int(found["searched"].split()[0]) >= 1
    assert asked[0][0].prediction.split()[0] in found["detail"]
    assert found["picture"] == 16
    assert found["closed"]


def test_nothing_but_the_page_s_own_script_may_run(folder):
    page = (folder[0] / "predictions.html").read_text()
    assert "script-src 'sha256-" in page
    assert "unsafe-eval" not in page
    assert HOSTILE not in page
    assert len(re.findall(r"</?script", page)) == 4
