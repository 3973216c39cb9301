import numpy as np
from PIL import Image

from inbol_jax.data.likeness import Gallery, appearance


def test_the_most_alike_is_found_among_many(monkeypatch):
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)) for _ in range(50)]
    names = [str(i) for i in range(50)]

    def named(images):
        return dict(zip(names, map(appearance, images), strict=False))

    monkeypatch.setattr("inbol_jax.data.likeness._BLOCK", 7)
    gallery = Gallery()
    assert gallery.find(named(pictures[:1])) == {}
    gallery.add("a", named(pictures))
    gallery.add("b", {"again": appearance(pictures[3])})
    assert gallery.find(named(pictures)) == {name: ("a", name, 1.0) for name in names}
    brighter = [Image.fromarray((np.asarray(p) * 0.9).astype(np.uint8)) for p in pictures]
    found = gallery.find(named(brighter))
    assert {name: match.image for name, match in found.items()} == {name: name for name in names}
    assert gallery.find(named([p.rotate(90) for p in pictures[:9]])) == {}
    assert gallery.find({}) == {}
