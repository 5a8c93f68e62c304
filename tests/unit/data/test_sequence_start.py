"""Tokenizers that start or end a text: the start is in every sequence once, in training and export alike."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, decoders, normalizers, processors
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from rlhf.data.encode import Encoder
from rlhf.data.records import Demonstration, Message, Prompt, Ranking
from rlhf.data.sequence_start import ids_around
from rlhf.data.templates import PRESETS
from rlhf.data.tokenizer import ChatTokenizer, audited, load_tokenizer
from rlhf.errors import TokenizerError

BOS, EOS = 1, 2
LETTERS = "▁안녕하세요?네!#:\n."
VOCABULARY = {text: number for number, text in enumerate(("<unk>", "<s>", "</s>", "<pad>"))}
VOCABULARY |= {f"<0x{byte:02X}>": 4 + byte for byte in range(256)}
VOCABULARY |= {letter: 260 + place for place, letter in enumerate(LETTERS)}

ASK, ANSWER = Message("user", "안녕?"), Message("assistant", "네!")
TALK = (ASK, ANSWER, Message("user", "하세요?"), Message("assistant", "네 네."))


def llama(**settings) -> LlamaTokenizer:
    """As Llama's SentencePiece tokenizer, of single letters and bytes: without merges a whole is its pieces."""
    return LlamaTokenizer(vocab=VOCABULARY, merges=[], pad_token="<pad>", **settings)


def chat(tokenizer=None, template: str | None = "polyglot-chat") -> ChatTokenizer:
    return audited(tokenizer or llama(add_bos_token=True), template, where="모델")


def test_llamas_bos_is_in_every_sequence_once(tmp_path):
    plain = llama(add_bos_token=True)
    assert plain("네")["input_ids"][0] == BOS  # the trap is real
    found = chat(plain)
    assert found.start == (BOS,)
    assert "start with <s>" in found.notes[0]
    encoder = Encoder(found, 1000)
    (row,) = encoder.demonstrations([Demonstration(TALK)])
    (prompt,) = encoder.prompts([Prompt((ASK,))])
    (ranking,) = encoder.rankings([Ranking((ASK,), ("네!", "네."), (1, 2))])
    for ids in (row.ids, prompt.ids, ranking.prompt):
        assert ids[0] == BOS
        assert (ids == BOS).sum() == 1
    assert not row.answer_mask[0]
    found.save(tmp_path)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    rows = [{"role": "user", "content": "안녕?"}]
    rendered = exported.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
    assert rendered == prompt.ids.tolist()
    assert exported("안녕?")["input_ids"] == found.text_ids("안녕?")
    again = load_tokenizer(str(tmp_path))
    assert (again.template, again.start, again.notes) == (found.template, (BOS,), ())  # written once


def test_a_template_that_writes_bos_is_left_alone():
    found = chat(template="{{ bos_token }}" + PRESETS["kullm"])
    assert found.template == "{{ bos_token }}" + PRESETS["kullm"]
    assert (found.start, found.notes) == ((BOS,), ())


def test_without_bos_nothing_changes():
    found = chat(llama(add_bos_token=False))
    assert (found.start, found.notes, found.template) == ((), (), PRESETS["polyglot-chat"])
    assert found.text_ids("네") == found.token_ids(["네"])[0]


@pytest.mark.parametrize("switch", [True, False])
def test_an_end_behind_every_text_is_switched_off_in_the_export_too(switch, tmp_path):
    plain = llama(add_bos_token=True, add_eos_token=switch)
    if not switch:  # as a post-processor alone, without the tokenizer's own switch
        plain = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(plain.backend_tokenizer.to_str()),
            bos_token="<s>",
            eos_token="</s>",
            pad_token="<pad>",
        )
        ends = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)])
        plain.backend_tokenizer.post_processor = ends
    assert plain("네")["input_ids"][-1] == EOS
    found = chat(plain)
    assert found.start == (BOS,)
    assert "ended every text with </s>; switched off" in found.notes[0]
    found.save(tmp_path)
    ids = AutoTokenizer.from_pretrained(tmp_path)("네")["input_ids"]
    assert (ids[0], ids.count(BOS), ids.count(EOS)) == (BOS, 1, 0)


def test_a_start_that_is_not_read_as_itself_is_refused():
    plain = llama(add_bos_token=False)
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<0x41> $A", special_tokens=[("<0x41>", VOCABULARY["<0x41>"])]
    )
    with pytest.raises(TokenizerError, match="whose text '<0x41>' is read as others") as caught:
        chat(plain)
    assert caught.value.where == "모델"


def test_ids_around_by_hand():
    assert ids_around(llama(add_bos_token=True, add_eos_token=True), "") == ((BOS,), (EOS,))
    assert ids_around(llama(add_bos_token=False), "") == ((), ())


def test_text_ids_start_once():
    found = chat()
    assert found.text_ids("<s>네")[:2] == [BOS, *found.token_ids(["<s>네"])[0][1:2]]
    assert found.text_ids("<s>네").count(BOS) == 1
    assert found.text_ids("") == [BOS]


def test_a_cut_prompt_keeps_its_bos():
    found = chat()
    whole = Encoder(found, 1000)
    (long,) = whole.prompts([Prompt((ASK,))])
    (talk,) = whole.demonstrations([Demonstration((ASK, ANSWER))])
    (pair,) = whole.rankings([Ranking((ASK,), ("네!", "네."), (1, 2))])
    limit = len(long.ids) - 3
    encoder = Encoder(found, limit)
    (prompt,) = encoder.prompts([Prompt((ASK,))])
    assert prompt.ids.tolist() == [BOS, *long.ids[4:]]
    encoder = Encoder(found, len(talk) - 3)
    (row,) = encoder.demonstrations([Demonstration((ASK, ANSWER))])
    assert row.ids.tolist() == [BOS, *talk.ids[4:]]
    assert row.answer_mask.tolist() == [False, *talk.answer_mask[4:]]
    (ranking,) = encoder.rankings([Ranking((ASK,), ("네!", "네."), (1, 2))])
    assert ranking.prompt.tolist() == [BOS, *pair.prompt[4:]]


# The space before a text


def legacy() -> PreTrainedTokenizerFast:
    """As Llama 2's tokenizer.json: a normalizer writes the space, before every stretch between special tokens."""
    core = json.loads(llama(add_bos_token=True).backend_tokenizer.to_str())
    core["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(core))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.mark.parametrize("make", [llama, lambda: llama(add_bos_token=True, legacy=True), legacy])
@pytest.mark.parametrize("template", ["polyglot-chat", "kullm"])
def test_pieces_have_the_ids_of_the_whole(make, template):
    plain = make()
    assert plain("네", add_special_tokens=False)["input_ids"][0] == VOCABULARY["▁"]  # the space that no piece may add
    found = chat(plain, template)
    pieces = [piece.text for piece in found.pieces(TALK)]
    assert len(pieces) == 4
    (whole,) = found.token_ids(["".join(pieces)])
    assert [token for ids in found.piece_ids(pieces) for token in ids] == whole
    (row,) = Encoder(found, 10_000).demonstrations([Demonstration(TALK)])
    assert row.ids.tolist() == whole
