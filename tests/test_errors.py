from inbol_jax.cli import main
from inbol_jax.errors import printable
from inbol_jax.progress import progress, say

HOSTILE = "q\x1b[2J\x9b1m\r\n\u202e\udc80\0"
ESCAPED = r"q\x1b[2J\x9b1m\r\n\u202e\udc80\x00"


def test_a_terminal_gets_escapes_and_no_controls():
    assert printable(HOSTILE) == ESCAPED
    assert printable("è \N{NO-BREAK SPACE}▲ 猫 \\") == "è \N{NO-BREAK SPACE}▲ 猫 \\"


def test_results_progress_and_errors_go_through_it(capsys, monkeypatch):
    say(HOSTILE)
    monkeypatch.setattr("inbol_jax.progress._SECONDS_PER_LINE", -1)
    with progress(HOSTILE, 1, "questions") as advance:
        advance()
    assert main(["confidence", "--data", HOSTILE.rstrip("\0"), "--out", "/dev/null"]) == 2
    output, error = capsys.readouterr()
    assert output == f"{ESCAPED}\n"
    assert error.startswith(f"{ESCAPED}: 100% 1/1 [")
    assert error.count("\n") == 2
    assert not {*error} & {*HOSTILE} - {*ESCAPED, "\n"}
