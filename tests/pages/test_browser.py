"""The report in a real browser, at the widths of a phone and of a laptop."""

import json
import re
import shutil
import subprocess

import pytest
from made_predictions import HOSTILE, good_and_bad, measured, with_validation

from inbol_jax.evaluation.config import EvaluateConfig
from inbol_jax.evaluation.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

# Shows the report in a frame of a width, scrolls each table to its end, and says what is seen.
FRAME = """<!doctype html><iframe src="report.html" width="{width}" height="800"></iframe>
<pre id="said"></pre><script>
window.seen = [];
window.alert = text => seen.push(text);
document.querySelector('iframe').onload = event => {{
  try {{ look(event); }} catch (error) {{ document.getElementById('said').textContent = error; }}
}};
function look(event) {{
  const page = event.target.contentDocument;
  event.target.contentWindow.alert = window.alert;
  page.querySelectorAll('details').forEach(fold => fold.open = true);
  const filled = [...page.querySelectorAll('table:has(tbody th[scope=row])')];
  const tables = filled.map(table => {{
    const box = table.closest('.scroll') ?? table;
    box.scrollLeft = box.scrollWidth;
    const first = table.querySelector('tbody th[scope=row]').getBoundingClientRect();
    const rows = [...table.querySelectorAll('tbody tr')];
    const last = rows.at(-1).lastElementChild.getBoundingClientRect();
    const edges = box.getBoundingClientRect();
    return {{caption: table.caption?.innerText ?? '', box: [edges.left, edges.right],
            first: [first.left, first.right], last: [last.left, last.right]}};
  }});
  const body = page.documentElement;
  document.getElementById('said').textContent = JSON.stringify(
    {{width: body.clientWidth, needs: body.scrollWidth, tables, alerts: window.seen}});
}}
</script>"""


def browse(folder, width):
    """What the browser says of a report that is shown in so many pixels."""
    (folder / "frame.html").write_text(FRAME.format(width=width))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += [f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files"]
    command += ["--window-size=1600,1000", "--virtual-time-budget=60000"]
    done = subprocess.run(
        [*command, (folder / "frame.html").as_uri()], capture_output=True, text=True, check=True
    )
    said = re.search(r'<pre id="said">(.+?)</pre>', done.stdout, re.S)
    assert said, done.stderr
    return json.loads(said[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("browsed")
    config = EvaluateConfig((out / "worlds",), out, models=(("base", out / HOSTILE),))
    write_report(out, config, *measured(with_validation(good_and_bad())), image_folders={})
    return out


@pytest.mark.parametrize("width", [390, 1280])
def test_no_column_is_cut_off(folder, width):
    """The page never scrolls sideways; a table that is wider scrolls in its own box, to its last
    column, with the names of its rows in sight.
    """
    said = browse(folder, width)
    assert said["needs"] <= said["width"] <= width
    assert len(said["tables"]) > 5
    for table in said["tables"]:
        left, right = table["box"]
        assert left - 1 <= table["first"][0] < table["first"][1] <= right + 1, table
        assert table["last"][1] <= right + 1, table
    assert said["alerts"] == []
