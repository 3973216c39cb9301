"""The tiny LLaVA before it has learnt anything: all files of its checkpoint but the weights.

Its configuration, processor and chat template are those of the shipped checkpoint; its tokenizer is
made of the words of the world.
"""

import functools
import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from inbol_jax.artifacts import parse_json, write_atomically
from inbol_jax.defaults import TINY
from inbol_jax.taught_refusals import SHORT_REFUSALS
from inbol_jax.world.questions import world_texts
from inbol_jax.world.scenes import IMAGE_SIZE

SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<|user|>", "<|assistant|>")
PAD, BOS, EOS, IMAGE, USER, ASSISTANT = range(len(SPECIAL))
PATCH_SIZE = 12  # pixels, as in config.json
NUM_IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2


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
