"""Prompts and responses as token ids, against transformers' own.

Tokenizers and templates are like those of the checkpoints that people use.
"""

import dataclasses
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

from inbol_jax.errors import InbolError
from inbol_jax.models.processor import TextEncoder, make_text_encoder
from inbol_jax.models.rendering import render
from inbol_jax.models.tiles import UNTILED
from inbol_jax.prompts import Prompt

CORPUS = [
    "USER: What is in the picture? ASSISTANT: A cat and a dog. user assistant "
    "No, I am not sure 0123456789 ?!.,<>|"
] * 3

VICUNA = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for content in message['content'] if content['type'] == 'image' %}"
    "{{ '<image>' }}{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'text' %}"
    "{{ content['text'] }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As llava-interleave's: a turn with an answer is rendered differently from an open one.
TWO_WAYS = CHATML.replace("message['role'] + '\n'", "message['role'] + ' \n'", 1)


def sentencepiece_like():
    """Llama's: words begin with a mark, <s> is put in front by the tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=160, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )


def byte_level():
    """Qwen2's: no token in front, <|im_end|> ends a turn."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


CASES = {
    "vicuna": (sentencepiece_like, VICUNA),
    "chatml": (byte_level, CHATML),
    "two ways": (byte_level, TWO_WAYS),
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def processor(case):
    make, template = CASES[case]
    tokenizer = make()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return LlavaProcessor(
        image,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )


def encoder_of(processor, max_tokens=200, system=""):
    tokenizer = processor.tokenizer
    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary[token] for token in ("<|endoftext|>", "<|im_end|>") if token in vocabulary]
    config = SimpleNamespace(
        image_token_id=vocabulary["<image>"],
        tiled=False,
        runs=lambda grid: [4],
        image_text=lambda processor, grid, token: token,
        eos_token_ids=ends or [tokenizer.eos_token_id],
        text=SimpleNamespace(max_positions=max_tokens, vocab_size=len(tokenizer)),
    )
    return TextEncoder(processor, config, Prompt("bare", system))


@pytest.fixture
def encoder(processor):
    return encoder_of(processor)


def theirs(processor, images, answer=None, system=""):
    """Ids by transformers' own path from messages and pictures to a model's input."""
    picture = Image.fromarray(np.zeros((30, 40, 3), np.uint8))
    content = [{"type": "image", "image": picture}] * images
    content.append({"type": "text", "text": "What is in the picture?"})
    messages = [{"role": "user", "content": content}]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    if answer:
        messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    batch = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=not answer
    )
    return tuple(batch["input_ids"][0])


@pytest.mark.parametrize("images", [0, 3])
@pytest.mark.parametrize("system", ["", r"Be { brief } \1, and say {{ nothing }}."])
def test_prompts_are_those_of_transformers(processor, images, system):
    encoder = encoder_of(processor, system=system)
    prompt = encoder.prompt("What is in the picture?", (UNTILED,) * images)
    assert prompt == theirs(processor, images, system=system)
    assert prompt.count(processor.image_token_id) == 4 * images
    response = encoder.response("What is in the picture?", "A cat.", (UNTILED,) * images)
    assert response == encoder_of(processor).response("What is in the picture?", "A cat.")


NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('No system, please') }}{% endif %}"
)
ONCE_IN_A_TURN = "{% for message in messages if message['role'] != 'system' %}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda text: NO_SYSTEM + text,
            "takes no --system: it fails with TemplateError: No system",
        ),
        (
            lambda text: text.replace("{% for message in messages %}", ONCE_IN_A_TURN, 1),
            "takes no --system: it writes the text 0 times",
        ),
        (lambda text: "hello", "writes the question 0 times"),
        (lambda text: "{{ nothing.at.all }}", "its chat template fails with UndefinedError"),
    ],
)
def test_templates_that_take_no_system_text(processor, change, message):
    """Nothing is said of a system text if a template cannot be used in any case."""
    processor.chat_template = change(processor.chat_template)
    with pytest.raises(InbolError, match=message):
        encoder_of(processor, system="Be brief.")


def test_templates_that_write_fewer_images_or_more(processor):
    template = processor.chat_template
    processor.chat_template = template.replace("<image>", "<image><image>")
    with pytest.raises(InbolError, match="its chat template writes 2 image tokens for 1 images"):
        encoder_of(processor)
    processor.chat_template = template
    processor.chat_template = re.sub(
        r"\{\{ ('<image>\n?') \}\}", r"{{ \1 if loop.first }}", processor.chat_template
    )
    encoder = encoder_of(processor)
    assert encoder.prompt("What?").count(processor.image_token_id) == 4
    with pytest.raises(InbolError, match="its chat template writes 1 image tokens for 2 images"):
        encoder.prompt("What?", (UNTILED,) * 2)


def test_responses_follow_their_prompt(case, processor, encoder):
    prompt = encoder.prompt("What is in the picture?")
    response = encoder.response("What is in the picture?", "A cat.")
    *said, end = response
    # Of several tokens that end a response, the one that the template writes.
    assert end == processor.tokenizer.eos_token_id
    assert processor.tokenizer.decode(response, skip_special_tokens=True).strip() == "A cat."
    whole = theirs(processor, 1, "A cat.")
    if case != "two ways":
        assert (*prompt, *said) == whole[: len(prompt) + len(said)]
        # What is left out of the template's text is the space or the end behind the answer.
        rest = processor.tokenizer.decode(whole[len(prompt) + len(said) :])
        assert re.fullmatch(r"(<\|im_end\|>)?\s*", rest)
    first = processor.tokenizer.decode([said[0]])
    assert first.strip() == first or case == "vicuna"


def test_images_are_never_cut(processor):
    words = (
        r"question 'What is in the picture\?': \d+ tokens, of which 8 are its images', and .* 12"
    )
    with pytest.raises(InbolError, match=words):
        encoder_of(processor, max_tokens=12).prompt("What is in the picture?", (UNTILED,) * 2)
    length = len(encoder_of(processor).prompt("What is in the picture?"))
    encoder = encoder_of(processor, max_tokens=length + 3)
    encoder.prompt("What is in the picture?")
    with pytest.raises(InbolError, match="with response 'A cat and a dog"):
        encoder.response("What is in the picture?", "A cat and a dog and a cat and a dog.")


def test_special_tokens_in_a_text_are_refused_and_never_control(processor, encoder):
    tokens = processor.tokenizer.all_special_tokens
    assert "<image>" in tokens
    assert processor.tokenizer.eos_token in tokens
    for token in tokens:
        about = "image placeholder" if token == "<image>" else "special token"
        message = re.escape(f"contains the model's {about} {token!r}")
        with pytest.raises(InbolError, match=f"question 'What is .*': {message}"):
            encoder.prompt(f"What is {token}?")
        with pytest.raises(InbolError, match=f"with response 'It is .*': {message}"):
            encoder.response("What is it?", f"It is {token}.")
    with pytest.raises(InbolError, match="its response is empty"):
        encoder.response("What is it?", "  ")
    # What only looks like one is text.
    assert encoder.response("What is it?", "It is < s > or USER: a man.")


@pytest.mark.parametrize(
    "question", [" What is it? ", "What\n is\tit?\n", "{{ 1 }} {question}", "\\1"]
)
def test_questions_are_put_in_as_the_template_does(processor, question):
    for template in (
        processor.chat_template,
        processor.chat_template.replace("']}}", "'] | trim}}"),
    ):
        processor.chat_template = template
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        assert encoder_of(processor)._template((UNTILED,)).prompt(question) == text


OPEN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
SWITCH = (
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% if enable_thinking is defined "
    "and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


@pytest.mark.parametrize("end", [OPEN, SWITCH], ids=["always on", "with a switch"])
def test_thinking_is_off(end):
    """A prompt ends behind an empty thought."""
    question = "Is it red?"
    template = render(CHATML.rpartition("{% if add")[0] + end, "{}", 1)
    assert template.prompt(question).endswith("assistant\n<think>\n\n</think>\n\n")
    assert template.between == ""


PLAIN = (
    "{% for m in messages %}{% for c in m.content %}"
    "{{ '<image>' if c.type == 'image' else c.text }}{% endfor %} {% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "cause"),
    [
        (PLAIN.replace("c.text", "c.text * 2"), "writes the question 2 times"),
        (PLAIN.replace("c.text", "c.text | lower"), "writes the question 0 times"),
        (PLAIN.replace("in messages", "in messages[:1]"), "writes the response 0 times"),
        ("{{ raise_exception('no\x1b[31m\nway') }}", "fails with TemplateError: no\\x1b[31m"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails with SecurityError"),
        ("{% for", "fails with TemplateSyntaxError"),
        ("{% for i in range(10**9) %}{% endfor %}", "fails with OverflowError"),
    ],
)
def test_templates_that_lose_something_or_are_hostile(template, cause):
    with pytest.raises(ValueError, match=re.escape(cause)) as caught:
        render(template, "{}", 1)
    assert "\n" not in str(caught.value)


def test_tokens_that_the_model_does_not_have(tiny):
    text = dataclasses.replace(tiny.config.text, vocab_size=1000)
    few = dataclasses.replace(tiny, config=dataclasses.replace(tiny.config, text=text))
    with pytest.raises(InbolError, match=r"tiny-llava: its tokenizer has a token .* 1000 tokens"):
        make_text_encoder(few)
    ends = dataclasses.replace(tiny.config, eos_token_ids=(2, 5000))
    with pytest.raises(InbolError, match="eos_token_id = 5000 is no token of its tokenizer"):
        make_text_encoder(dataclasses.replace(tiny, config=ends))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tokenizer.json", lambda text: text[:500]),
        ("tokenizer.json", lambda text: "[]"),
        ("tokenizer_config.json", lambda text: text.replace('"</s>"', "7")),
        ("processor_config.json", lambda text: '{"processor_class": 5}'),
        ("preprocessor_config.json", lambda text: "{}"),
        ("preprocessor_config.json", lambda text: text.replace("48", "24")),
        ("preprocessor_config.json", lambda text: text.replace("48", "-1")),
        ("preprocessor_config.json", lambda text: text.replace("0.5", '"half"')),
        ("chat_template.json", lambda text: '{"chat_template": 5}'),
    ],
)
def test_broken_processor_files(tiny, tmp_path, name, change):
    folder = shutil.copytree(tiny.path, tmp_path / "broken")
    (folder / "chat_template.jinja").unlink()
    (folder / name).write_text(change((folder / name).read_text()))
    with pytest.raises(InbolError) as caught:
        make_text_encoder(dataclasses.replace(tiny, path=folder))
    message = str(caught.value)
    assert message.startswith(f"{folder}: ")
    assert "\n" not in message
    assert len(message) < 600


@pytest.mark.parametrize("half", [True, False], ids=["half", "clip"])
@pytest.mark.parametrize("family", ["tiny", "smolvlm"])
def test_pixels_are_normalised_as_the_processor_does(request, family, half):
    """Bytes go to the device, and become there what the processor makes, padding included."""
    checkpoint = request.getfixturevalue(family)
    prepare = checkpoint.processor.image_processor
    other = (
        {} if half else {"image_mean": [0.481, 0.458, 0.408], "image_std": [0.269, 0.261, 0.276]}
    )
    prepare = prepare.__class__.from_dict(prepare.to_dict() | other)
    noise = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    picture = Image.fromarray(noise)
    arrays = checkpoint.image_inputs(picture, SimpleNamespace(image_processor=prepare))
    assert arrays["pixel_values"].dtype == np.uint8
    expected = np.asarray(prepare(picture, return_tensors="np")["pixel_values"])
    found = np.asarray(checkpoint.model.apply({}, arrays, method="normalised_pixels"))
    np.testing.assert_allclose(found, expected.reshape(found.shape), rtol=0, atol=1e-6)
