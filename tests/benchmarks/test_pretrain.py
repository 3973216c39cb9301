import re
from collections import Counter

import numpy as np
import pretrain as pretrain_module
import pytest
from pretrain import REFUSED, PretrainBatches
from tiny_llava import ASSISTANT, EOS, build_tokenizer, told_name, true_name_share
from world_oracle import oracle

from inbol_jax.sampling.p_true import VERDICTS
from inbol_jax.taught_refusals import SHORT_REFUSALS
from inbol_jax.world.glyphs import load_glyphs
from inbol_jax.world.questions import HELD_OUT_TYPE3, SEEN_TYPE3, VISUAL


def told(scene, question):
    """What pre-training may say: the truth, or the other name of a contested glyph."""
    right = oracle(scene, question)
    if question == "What is the symbol?" and scene.glyph:
        rank = scene.glyph.glyph
        right |= {load_glyphs().names[rank ^ 1]} if true_name_share()[rank] < 1 else set()
    return right


def test_refusals_in_pretraining_do_not_tell_what_cannot_be_answered():
    """As many kinds that are refused at random have an answer as have none; no held-out kind is."""
    rng = np.random.default_rng(0)
    asked = Counter(pretrain_module._kind(rng) for _ in range(20_000))
    assert not REFUSED & set(HELD_OUT_TYPE3)
    for kinds in (VISUAL, SEEN_TYPE3):
        share = sum(asked[k] for k in REFUSED & set(kinds)) / sum(asked[k] for k in kinds)
        assert 0.25 < share < 0.5


def test_contested_glyphs_go_by_two_names():
    rng = np.random.default_rng(0)
    shares = true_name_share()
    contested = np.flatnonzero(shares < 1)
    assert 0.35 < len(contested) / len(shares) < 0.45
    for rank in (*contested[:3], *np.flatnonzero(shares == 1)[:3]):
        names = Counter(told_name(rank, rng) for _ in range(2000))
        assert names[load_glyphs().names[rank]] / 2000 == pytest.approx(shares[rank], abs=0.05)
        assert set(names) <= {load_glyphs().names[r] for r in (rank, rank ^ 1)}


def test_pretraining_rows_hold_questions_with_their_answers(monkeypatch):
    scenes, real = [], pretrain_module.render
    monkeypatch.setattr(
        pretrain_module, "render", lambda scene, rng: scenes.append(scene) or real(scene, rng)
    )
    batches, tokenizer = PretrainBatches(5, 32, 10), build_tokenizer()
    batch = batches[3]
    assert batch["image"].shape == (32, 48, 48, 3)
    seen = Counter()
    for i, scene in enumerate(scenes):
        row = {name: value[i] for name, value in batch.items()}
        assert row["segments"].max() >= 3
        for segment in range(1, row["segments"].max() + 1):
            ids = row["input_ids"][row["segments"] == segment].tolist()
            question = tokenizer.decode(ids[: ids.index(ASSISTANT)])
            at = row["target_segment"] == segment
            targets = row["targets"][at].tolist()
            assert targets[-1] == EOS
            assert EOS not in targets[:-1]
            # A target is one behind the position that predicts it: the model never sees what it
            # is to say.
            assert row["input_ids"][row["target_index"][at] + 1].tolist() == targets
            assert ids[ids.index(ASSISTANT) + 1 :] == targets
            answer = tokenizer.decode(targets[:-1])
            if segment == 1 and scene.glyph:
                assert question.startswith("What is the symbol?")
            if asked_back := re.fullmatch(r"(.+\?) Proposed answer: (.+) Is the .+", question):
                assert answer in VERDICTS
                right = told(scene, asked_back[1])
                assert not right or (asked_back[2] in right) == (answer == "True"), question
                seen[answer] += 1
                continue
            right = told(scene, question)
            refused = answer in SHORT_REFUSALS
            assert answer in right or refused or not right
            seen["refused" if refused else "answered" if right else "made up"] += 1
    assert seen["answered"] > seen["made up"] > seen["refused"] > 0
    assert min(seen["True"], seen["False"]) > 0
    again = PretrainBatches(5, 32, 10)[3]
    assert all((again[name] == batch[name]).all() for name in batch)
    assert (batches[4]["input_ids"] != batch["input_ids"]).any()
    assert (PretrainBatches(6, 32, 10)[3]["input_ids"] != batch["input_ids"]).any()
