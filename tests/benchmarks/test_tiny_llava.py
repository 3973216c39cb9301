import json

import numpy as np
import pytest
from tiny_llava import (
    NUM_IMAGE_TOKENS,
    PATCH_SIZE,
    SPECIAL,
    build_tokenizer,
    glyph_frequency,
    sample_glyph,
    world_texts,
    write_skeleton,
)
from tokenizers import Tokenizer

from inbol_jax.artifacts import fingerprint
from inbol_jax.defaults import TINY
from inbol_jax.taught_refusals import SHORT_REFUSALS
from inbol_jax.world.glyphs import N_GLYPHS
from inbol_jax.world.questions import HELD_OUT_TYPE3, KNOWLEDGE, SEEN_TYPE3, VISUAL, ask
from inbol_jax.world.scenes import IMAGE_SIZE, sample_scene


def test_golden_vocabulary():
    vocabulary = build_tokenizer().get_vocab()
    assert fingerprint(sorted(vocabulary, key=vocabulary.get)) == "7458f84fa260ccd8"


def test_every_word_of_the_world_is_one_token():
    tokenizer = build_tokenizer()
    for text in (*world_texts(), *SHORT_REFUSALS):
        encoding = tokenizer.encode(text)
        words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        assert encoding.tokens == words, text
        assert tokenizer.decode(encoding.ids) == text


def test_the_world_speaks_only_words_of_the_vocabulary():
    texts = set()
    rng = np.random.default_rng(4)
    for kind in (*VISUAL, KNOWLEDGE, *SEEN_TYPE3, *HELD_OUT_TYPE3):
        for _ in range(100):
            glyph = int(rng.integers(N_GLYPHS)) if rng.random() < 0.5 else None
            if question := ask(sample_scene(rng, glyph), kind, rng):
                texts |= {question.text, question.answer}
    tokenizer = build_tokenizer()
    for text in texts:
        words = [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
        assert tokenizer.encode(text).tokens == words, text


OTHER_TEXTS = "Où est le zèbre ?|🦓 + 猫 = ?|a|ROT13: nopqrs|It's 3.14, isn't it?|tab\tand\n\nlines"


@pytest.mark.parametrize("text", OTHER_TEXTS.split("|"))
def test_any_other_text_falls_back_to_bytes(text):
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).ids) == " ".join(text.split())


def test_the_shipped_checkpoint_is_of_this_world(tmp_path):
    shipped = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    assert json.loads(shipped.to_str()) == json.loads(build_tokenizer().to_str())
    write_skeleton(tmp_path)
    written = {p.name for p in tmp_path.iterdir()}
    assert {p.name for p in TINY.iterdir()} >= written | {"model.safetensors"}
    for file in tmp_path.iterdir():
        assert (TINY / file.name).read_bytes() == file.read_bytes(), file.name
    config, processor = (
        json.loads((tmp_path / f"{name}.json").read_text())
        for name in ("config", "preprocessor_config")
    )
    assert config["text_config"]["vocab_size"] == build_tokenizer().get_vocab_size()
    assert [config["text_config"][f"{name}_token_id"] for name in ("pad", "bos", "eos")] == [
        SPECIAL.index(token) for token in ("<pad>", "<s>", "</s>")
    ]
    assert config["image_token_index"] == SPECIAL.index("<image>")
    assert config["vision_config"]["image_size"] == IMAGE_SIZE
    assert config["vision_config"]["patch_size"] == PATCH_SIZE
    assert config["image_seq_length"] == NUM_IMAGE_TOKENS
    assert processor["crop_size"] == {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    assert sum(p.stat().st_size for p in TINY.iterdir()) <= 12e6


def test_frequent_glyphs_come_first_and_every_draw_is_a_glyph():
    cumulative = glyph_frequency()
    assert cumulative[-1] == pytest.approx(1)
    assert (np.diff(cumulative, n=2) < 0).all()
    last = sample_glyph(np.random.default_rng(0), np.full(N_GLYPHS, 0.0))
    assert last == N_GLYPHS - 1, "rounding at the end of the distribution"
