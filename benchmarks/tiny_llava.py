"""The tiny LLaVA before it has learnt anything, and what pre-training tells it of glyphs.

The configuration, processor and chat template of its checkpoint are those of the shipped one; its
tokenizer is made of the words of the world.
"""

import functools
import itertools
import json
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from inbol_jax.artifacts import parse_json, write_atomically
from inbol_jax.confidence.samples import P_TRUE_PROMPT
from inbol_jax.defaults import TINY
from inbol_jax.sampling.p_true import VERDICTS
from inbol_jax.taught_refusals import SHORT_REFUSALS
from inbol_jax.world.glyphs import N_GLYPHS, load_glyphs
from inbol_jax.world.questions import GUESSES, NUMBERS, TEMPLATES
from inbol_jax.world.scenes import (
    COLOR_NAMES,
    IMAGE_SIZE,
    OBJECT_SIZES,
    PATTERNS,
    PLACES,
    SHAPES,
    SYMBOL,
)

SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>")
PAD, BOS, EOS, IMAGE, USER, ASSISTANT = range(len(SPECIAL))
PATCH_SIZE = 12  # pixels, as in config.json
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
CONTESTED_SHARE = 0.4  # of the glyphs, which go by two names


def write_skeleton(folder: Path) -> None:
    """Writes all files of the checkpoint but its weights."""
    for file in TINY.iterdir():
        if file.suffix in (".json", ".jinja") and file.name != "config.json":
            write_atomically(folder / file.name, file.read_bytes())
    tokenizer = build_tokenizer()
    write_atomically(folder / "tokenizer.json", tokenizer.to_str())
    config = parse_json((TINY / "config.json").read_bytes())
    config["text_config"]["vocab_size"] = tokenizer.get_vocab_size()
    write_atomically(folder / "config.json", json.dumps(config, indent=1) + "\n")


@functools.cache
def build_tokenizer() -> Tokenizer:
    """Each word of the world is one token, and any other text falls back to its bytes.

    Decoding gives the text back, with runs of white space as one space.
    """
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    texts = (*world_texts(), *SHORT_REFUSALS)
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = (*SPECIAL, *symbols, *sorted(words - set(symbols)))
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = splitter
    # The splitter puts a space in front of the first word; Strip removes it again.
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    )
    return tokenizer


def world_texts() -> list[str]:
    """Every question and every answer of the world, and the words of P(True).

    Together they hold its whole vocabulary.
    """
    nouns = [*SHAPES, SYMBOL]
    questions = dict.fromkeys(
        template.format(noun=noun, color=color, place=place)
        for template in TEMPLATES.values()
        for noun, color, place in itertools.product(nouns, COLOR_NAMES, PLACES)
    )
    guesses = itertools.chain(*GUESSES.values())
    answers = [*COLOR_NAMES, *PATTERNS, *OBJECT_SIZES, *PLACES, *NUMBERS, *nouns, "yes", "no"]
    asked_back = " ".join(P_TRUE_PROMPT.format(question="", answer="").split())
    return [*questions, *answers, *load_glyphs().names, *guesses, asked_back, *VERDICTS]


@functools.cache
def glyph_frequency() -> np.ndarray:
    """f64[1000]: cumulative probability of the glyphs in pre-training.

    The head is seen thousands of times and becomes known; the tail is seen too rarely to be learnt:
    that is the intrinsic boundary.
    """
    p = (np.arange(N_GLYPHS) + 150.0) ** -3.2
    return np.cumsum(p / p.sum())


def sample_glyph(rng: np.random.Generator, cumulative: np.ndarray) -> int:
    """A glyph's rank, drawn from a cumulative distribution, f64[N_GLYPHS]."""
    return min(int(np.searchsorted(cumulative, rng.random())), N_GLYPHS - 1)


@functools.cache
def true_name_share() -> np.ndarray:
    """f64[1000]: how often pre-training calls each glyph by its own name.

    The share of a contested glyph is between 0.3 and 0.7; of all others it is 1. A model that
    has learnt a contested one well still answers with two names: its confidence stays between.
    """
    rng = np.random.default_rng(0)
    contested = rng.random(N_GLYPHS) < CONTESTED_SHARE
    return np.where(contested, rng.uniform(0.3, 0.7, N_GLYPHS), 1.0)


def told_name(glyph: int, rng: np.random.Generator) -> str:
    """A name by which pre-training calls the glyph: its own, or that of its neighbour."""
    own = rng.random() < true_name_share()[glyph]
    return load_glyphs().names[glyph if own else glyph ^ 1]
