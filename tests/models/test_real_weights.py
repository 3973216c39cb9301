"""A published model within both layouts of a vision-language model, against transformers.

SmolLM2-135M-Instruct comes from PyPI (`benchmarks/real_model.py`); text alone is asked.
"""

import json
import math

import pytest
import real_model
import torch
import transformers

from inbol_jax.models.loading import load_pretrained
from inbol_jax.models.processor import make_text_encoder
from inbol_jax.prompts import PRESETS, Prompt
from inbol_jax.records import VQAExample
from inbol_jax.sampling.config import SamplingOptions
from inbol_jax.sampling.generate import generate

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of transformers, which reads GGUF
]
TOKENS = 12
TOLERANCE = 2.7e-4  # of a token's log-probability, in nats; 7e-5 for the likeliest tokens
COUNTRIES = ("France", "Italy", "Japan", "Peru", "Kenya", "Norway", "Egypt", "Chile", "Nepal")
QUESTIONS = [
    *(VQAExample(f"c{i}", (), f"What is the capital of {c}?") for i, c in enumerate(COUNTRIES)),
    *(VQAExample(f"s{i}", (), f"What is {3 * i} plus {i + 4}?") for i in range(8)),
    VQAExample("o0", (), "Which of these is a metal?", options=("iron", "wood", "glass")),
    VQAExample("o1", (), "Which of these is the largest?", options=("an ant", "a whale")),
    VQAExample("w", (), '  Who wrote "Hamlet"?\nSay {it}.  '),
]
PROMPTS = [Prompt(name, system) for name in PRESETS for system in ("", "Answer like a pirate.")]
MARKS = ("<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<end_of_utterance>")


def write_smolvlm(folder, llava):
    """The same decoder in SmolVLM's layout."""
    source = transformers.LlavaForConditionalGeneration.from_pretrained(llava, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(llava)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", *MARKS]})
    source.resize_token_embeddings(len(tokenizer))
    tower = {"image_size": 28, "patch_size": 7, "hidden_size": 32, "num_hidden_layers": 1}
    tower |= {"intermediate_size": 64, "num_attention_heads": 2}
    config = transformers.SmolVLMConfig(
        text_config=source.config.text_config.to_dict() | {"vocab_size": len(tokenizer)},
        vision_config={"model_type": "smolvlm_vision", **tower},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=True,
    )
    model = transformers.SmolVLMForConditionalGeneration(config)
    model.model.text_model.load_state_dict(source.model.language_model.state_dict())
    model.tie_weights()
    model.generation_config = source.generation_config
    model.save_pretrained(folder)
    images = transformers.Idefics3ImageProcessorPil(
        size={"longest_edge": 56}, max_image_size={"longest_edge": 28}
    )
    template = (llava / "chat_template.jinja").read_text()
    processor = transformers.Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=template
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    return real_model.smollm2(folder / "llava", folder / "packages")


@pytest.fixture(scope="module", params=["llava", "smolvlm"])
def folder(request, llava, tmp_path_factory):
    if request.param == "llava":
        return llava
    return write_smolvlm(tmp_path_factory.mktemp("smollm2") / "smolvlm", llava)


@pytest.fixture(scope="module")
def ours(folder):
    return load_pretrained(folder, dtype="float32")


def ids_of(processor, question, prompt):
    """A question's token ids by transformers' own path."""
    messages = [{"role": "user", "content": [{"type": "text", "text": prompt.text(question)}]}]
    if prompt.system:
        system = {"role": "system", "content": [{"type": "text", "text": prompt.system}]}
        messages.insert(0, system)
    batch = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt"
    )
    return batch["input_ids"]


@pytest.mark.parametrize("prompt", PROMPTS, ids=str)
def test_prompts(ours, prompt):
    encoder = make_text_encoder(ours.asked_by(prompt))
    for question in QUESTIONS:
        expected = ids_of(ours.processor, question, prompt)[0].tolist()
        assert list(encoder.prompt(encoder.text(question), ())) == expected


@pytest.mark.parametrize("prompt", [PROMPTS[0], PROMPTS[3]], ids=str)
def test_greedy_answers(folder, ours, prompt, tmp_path):
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, kind).from_pretrained(folder, dtype=torch.float32).eval()
    said = generate(
        ours.asked_by(prompt),
        QUESTIONS,
        tmp_path,
        # Ten of the same to each: on a CPU a batch of one answer each has more prompts to compute.
        options=SamplingOptions(n=10, temperature=0.0, max_new_tokens=TOKENS),
        seed=0,
        batch_size=len(QUESTIONS),
        label=None,
        set_aside=lambda example, reason: pytest.fail(reason),
    )
    answers = {example.id: answer for batch in said for example, (answer, *_) in batch}
    assert len({answer.text for answer in answers.values()}) > len(QUESTIONS) / 2
    for question in QUESTIONS:
        ids = ids_of(ours.processor, question, prompt)
        with torch.inference_mode():
            theirs = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=TOKENS,
                output_logits=True,
                return_dict_in_generate=True,
            )
        tokens = theirs.sequences[0, ids.shape[1] :].tolist()
        text = ours.processor.tokenizer.decode(tokens, skip_special_tokens=True)
        answer = answers[question.id]
        assert (answer.text, answer.tokens) == (text.strip(), len(tokens)), question.id
        logprobs = [
            float(torch.log_softmax(logits[0].float(), -1)[token])
            for token, logits in zip(tokens, theirs.logits, strict=True)
        ]
        assert answer.logprob == pytest.approx(math.fsum(logprobs), abs=TOLERANCE * len(tokens))
