"""What --search tries, and which it takes; nothing is compiled."""

import search
from costs import Time
from plan import SHAPES, Config, Plan

from inbol_jax.models.families import load_config


def test_meshes_do_not_cut_through_heads():
    """SmolVLM-256M has 9 heads and 3 of keys, LLaVA-1.5-7B has 32."""
    small = [*search.meshes(load_config(SHAPES / "smolvlm-256m"), 4)]
    assert small == [(1, 4, 1), (4, 1, 1)]
    large = [*search.meshes(load_config(SHAPES / "llava-1.5-7b"), 16)]
    assert (1, 8, 2) in large
    assert (1, 4, 4) in large
    assert all(a * b * c == 16 for a, b, c in large)
    several = [*search.meshes(load_config(SHAPES / "llava-1.5-7b"), 32, slices=4)]
    assert (4, 8, 1) in several
    assert (4, 4, 2) in several
    assert all(a * b * c == 32 and a % 4 == 0 for a, b, c in several)


def test_every_device_keeps_a_row():
    config = Config("sft", batch_size=8)
    assert [*search.settings(config, 4)] == [
        (remat, count) for remat in ("none", "selective", "full") for count in (1, 2)
    ]
    assert [*search.settings(Config("sample", batch_size=8), 4)] == [("none", 1)]


def test_the_fastest_that_fits_is_taken(monkeypatch, capsys):
    """A mesh is left at its first settings that fit; what fills no memory may still be slower."""
    tried = []

    def made(config, folder, mesh):
        tried.append((config.mesh, config.remat))
        if config.remat != "full":
            return "no room"
        cost = Time(1.0, 0.0, 0.0)
        rate = 5.0 if config.mesh == (1, 4, 1) else 7.0
        size = 17.0 if config.mesh == (4, 1, 1) else 12.0
        return Plan({"trained": size}, 16.0, 1e12, [], cost, rate, 4, 1.0)

    monkeypatch.setattr(search, "make_plan", made)
    monkeypatch.setattr(search, "mesh_for", lambda config, devices: None)
    config = Config("sft", model="smolvlm-256m", batch_size=4)
    assert search.search(config, [None] * 4) == 0
    assert len(tried) == 6
    out = capsys.readouterr().out
    assert "| 4 1 1 | full | 1 | 17.0 of 16: does not fit |  |" in out
    assert "best of those that fit: --mesh 1 4 1 --remat full" in out
    monkeypatch.setattr(search, "make_plan", lambda *_: "no room")
    assert search.search(config, [None] * 4) == 2
