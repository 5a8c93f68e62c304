"""Presets of published models, byte by byte against strings written out from the models' own templates and cards."""

from __future__ import annotations

import pytest
from tokenizers import processors
from transformers import AutoTokenizer

from rlhf.data.encode import Encoder
from rlhf.data.records import Demonstration, Message, Prompt
from rlhf.data.templates import preset_tokens
from rlhf.data.tokenizer import ChatTokenizer, audited
from rlhf.demo.tiny_base import train_tokenizer
from rlhf.errors import DataError, TokenizerError
from tests.conftest import TEXTS, VOCABULARY

TALK = (
    Message("user", "밥 먹었어?"),
    Message("assistant", "네!"),
    Message("user", "뭐?"),
    Message("assistant", "국수요."),
)
SYSTEM = Message("system", "짧게.")
BOS, EOS = "<s>", "</s>"
QWEN = "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
NO_TOOLS = "<|im_start|>tool_list\n<|im_end|>\n"
ASSISTANT = "<|start_header_id|>assistant<|end_header_id|>\n\n"

# name: (end of an answer, [first prompt, second prompt after the first answer], first prompt with a system turn)
WRITTEN = {
    "chatml": (
        "<|im_end|>",
        "<|im_start|>user\n밥 먹었어?<|im_end|>\n<|im_start|>assistant\n",
        "\n<|im_start|>user\n뭐?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\n짧게.<|im_end|>\n<|im_start|>user\n밥 먹었어?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "qwen2.5": (
        "<|im_end|>",
        QWEN + "<|im_start|>user\n밥 먹었어?<|im_end|>\n<|im_start|>assistant\n",
        "\n<|im_start|>user\n뭐?<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\n짧게.<|im_end|>\n<|im_start|>user\n밥 먹었어?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "llama3": (
        "<|eot_id|>",
        f"<s><|start_header_id|>user<|end_header_id|>\n\n밥 먹었어?<|eot_id|>{ASSISTANT}",
        f"<|start_header_id|>user<|end_header_id|>\n\n뭐?<|eot_id|>{ASSISTANT}",
        "<s><|start_header_id|>system<|end_header_id|>\n\n짧게.<|eot_id|>"
        f"<|start_header_id|>user<|end_header_id|>\n\n밥 먹었어?<|eot_id|>{ASSISTANT}",
    ),
    "gemma3": (
        "<end_of_turn>",
        "<s><start_of_turn>user\n밥 먹었어?<end_of_turn>\n<start_of_turn>model\n",
        "\n<start_of_turn>user\n뭐?<end_of_turn>\n<start_of_turn>model\n",
        "<s><start_of_turn>user\n짧게.\n\n밥 먹었어?<end_of_turn>\n<start_of_turn>model\n",
    ),
    "exaone3.5": (
        "[|endofturn|]",
        "[|system|][|endofturn|]\n[|user|]밥 먹었어?\n[|assistant|]",
        "\n[|user|]뭐?\n[|assistant|]",
        "[|system|]짧게.[|endofturn|]\n[|user|]밥 먹었어?\n[|assistant|]",
    ),
    "exaone4": (
        "[|endofturn|]",
        "[|user|]\n밥 먹었어?[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
        "\n[|user|]\n뭐?[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
        "[|system|]\n짧게.[|endofturn|]\n[|user|]\n밥 먹었어?[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
    ),
    "solar": (
        "</s>",
        "### User:\n밥 먹었어?\n\n### Assistant:\n",
        "### User:\n뭐?\n\n### Assistant:\n",
        "### System:\n짧게.\n\n### User:\n밥 먹었어?\n\n### Assistant:\n",
    ),
    "hyperclova-x-seed": (
        "<|im_end|><|endofturn|>",
        NO_TOOLS + "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n밥 먹었어?<|im_end|>\n<|im_start|>assistant\n",
        "\n<|im_start|>user\n뭐?<|im_end|>\n<|im_start|>assistant\n",
        NO_TOOLS
        + "<|im_start|>system\n짧게.<|im_end|>\n<|im_start|>user\n밥 먹었어?<|im_end|>\n<|im_start|>assistant\n",
    ),
    "mistral": (
        "</s>",
        "<s>[INST]밥 먹었어?[/INST]",
        "[INST]뭐?[/INST]",
        "<s>[SYSTEM_PROMPT]짧게.[/SYSTEM_PROMPT][INST]밥 먹었어?[/INST]",
    ),
}
names = pytest.mark.parametrize("name", WRITTEN)


def made(name: str, *, starts: bool = False) -> ChatTokenizer:
    """A tokenizer with the tokens of the preset, which starts every text with BOS if `starts`."""
    plain = train_tokenizer(TEXTS, VOCABULARY)
    plain.add_special_tokens(
        {"additional_special_tokens": preset_tokens(name), "bos_token": BOS, "eos_token": EOS, "pad_token": "<pad>"}
    )
    if starts:
        plain.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", special_tokens=[(BOS, plain.bos_token_id)]
        )
    return audited(plain, name, where="모델")


@names
def test_one_turn_several_and_a_system_turn(name):
    end, first, second, with_system = WRITTEN[name]
    tokenizer = made(name)
    assert [tuple(piece) for piece in tokenizer.pieces(TALK)][:4] == [
        (first, False), ("네!" + end, True), (second, False), ("국수요." + end, True),
    ]  # fmt: skip
    assert [tuple(piece) for piece in tokenizer.pieces((SYSTEM, *TALK[:2]))][:2] == [
        (with_system, False), ("네!" + end, True),
    ]  # fmt: skip
    assert "".join(piece.text for piece in tokenizer.pieces(TALK[:3], open_answer=True)) == first + "네!" + end + second
    assert end.endswith(tokenizer.tokenizer.eos_token)


def test_qwen_3_writes_an_empty_thought_before_the_last_answer_alone():
    tokenizer = made("qwen3")
    before = "<|im_start|>user\n밥 먹었어?<|im_end|>\n<|im_start|>assistant\n"
    thought = "<think>\n\n</think>\n\n"
    assert [tuple(piece) for piece in tokenizer.pieces(TALK)] == [
        (f"{before}네!<|im_end|>\n<|im_start|>user\n뭐?<|im_end|>\n<|im_start|>assistant\n{thought}", False),
        ("국수요.<|im_end|>", True),
        ("\n", False),
    ]
    assert tokenizer.pieces(TALK[:1], open_answer=True)[0].text == before + thought
    assert tokenizer.pieces((SYSTEM, *TALK[:2]))[0].text == f"<|im_start|>system\n짧게.<|im_end|>\n{before}{thought}"
    with pytest.raises(DataError, match="only the last can be learnt"):
        Encoder(tokenizer, 512).demonstrations([Demonstration(TALK)])


@pytest.mark.parametrize("name", [*WRITTEN, "qwen3"])
@pytest.mark.parametrize("starts", [True, False])
def test_the_export_renders_the_ids_of_training_with_one_bos(name, starts, tmp_path):
    tokenizer = made(name, starts=starts)
    tokenizer.save(tmp_path)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    for turns in (TALK[:1], TALK[:3], (SYSTEM, *TALK[:1])):
        rows = [{"role": each.role, "content": each.content} for each in turns]
        (prompt,) = Encoder(tokenizer, 512).prompts([Prompt(turns)])
        assert exported.apply_chat_template(rows, add_generation_prompt=True, return_dict=False) == prompt.ids.tolist()
        writes = starts or name in ("llama3", "gemma3", "mistral")
        assert prompt.ids.tolist().count(exported.bos_token_id) == writes
        assert (prompt.ids[0] == exported.bos_token_id) == writes


@pytest.mark.parametrize("name", [*WRITTEN, "qwen3"])
def test_a_tokenizer_without_the_tokens_of_a_preset_is_refused(name):
    plain = train_tokenizer(TEXTS, VOCABULARY)
    if not preset_tokens(name):
        assert audited(plain, name, where="모델").tokenizer.eos_token == "<|endoftext|>"
        return
    with pytest.raises(TokenizerError, match=f"the preset {name} writes") as caught:
        audited(plain, name, where="모델")
    assert all(token in caught.value.problem for token in preset_tokens(name) if "system" not in token)
    assert "data.template=null" in caught.value.fix
    assert "kullm, kullm-input, vaiv-reward, polyglot-chat, solar" in caught.value.fix
