"""Each way in which a tokenizer trains a broken model without an error is an error here."""

from __future__ import annotations

import json
import shutil

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPTNeoXConfig, PreTrainedTokenizerFast

from rlhf.data.records import Message
from rlhf.data.templates import PRESETS
from rlhf.data.tokenizer import audited, load_tokenizer
from rlhf.errors import TemplateError, TokenizerError

EOS, PAD = "<|endoftext|>", "<|padding|>"


def core_tokenizer(*special: str) -> Tokenizer:
    """Byte-level, without merges; `special` first, so EOS is usually token 0."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(special),
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(["가"], trainer)
    return core


def fast(core: Tokenizer, **settings) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=core, **settings)


def checked(tokenizer, template: str | None = "kullm"):
    return audited(tokenizer, template, where="모델")


def test_a_good_tokenizer_is_left_as_it_is():
    chat = checked(fast(core_tokenizer(EOS, PAD), eos_token=EOS, pad_token=PAD))
    assert (chat.eos_id, chat.pad_id) == (0, 1)
    assert len(chat.tokenizer) == 258
    assert chat.special_texts == (EOS, PAD)
    assert chat.template == PRESETS["kullm"]


def test_no_eos_is_refused():
    with pytest.raises(TokenizerError, match="has no EOS token") as caught:
        checked(fast(core_tokenizer(EOS, PAD), pad_token=PAD))
    assert caught.value.where == "모델"
    assert "eos_token" in caught.value.fix


def test_eos_in_several_tokens_is_refused():
    tokenizer = fast(core_tokenizer(EOS, PAD), eos_token=EOS, pad_token=PAD, split_special_tokens=True)
    with pytest.raises(TokenizerError, match=r"EOS text '<\|endoftext\|>' becomes tokens \[.*\], not \[0\]") as caught:
        checked(tokenizer)
    assert "add_special_tokens" in caught.value.fix


@pytest.mark.parametrize("pad", [{"pad_token": EOS}, {}])
@pytest.mark.parametrize("unused", ["<|padding|>", "<|unused0|>", "[PAD]", "<pad>"])
def test_padding_takes_an_unused_token(pad, unused):
    chat = checked(fast(core_tokenizer(EOS, "<|sep|>", unused), eos_token=EOS, **pad))
    assert (chat.pad_id, chat.eos_id) == (2, 0)
    assert chat.tokenizer.pad_token == unused
    assert len(chat.tokenizer) == 259  # nothing added


@pytest.mark.parametrize("pad", [{"pad_token": EOS}, {}])
def test_padding_extends_the_vocabulary_when_nothing_is_unused(pad):
    chat = checked(fast(core_tokenizer(EOS), eos_token=EOS, **pad))
    assert chat.pad_id == 257  # after EOS and 256 bytes
    assert len(chat.tokenizer) == 258
    assert chat.tokenizer.pad_token == PAD
    assert PAD in chat.special_texts


def test_padding_named_like_eos_is_not_taken():
    # EOS itself carries a name from the list of padding tokens
    chat = checked(fast(core_tokenizer("<pad>"), eos_token="<pad>", pad_token="<pad>"))
    assert chat.pad_id != chat.eos_id == 0


def test_hangul_that_is_decomposed_is_refused():
    core = core_tokenizer(EOS, PAD)
    core.normalizer = normalizers.NFD()
    with pytest.raises(TokenizerError, match="Hangul does not survive") as caught:
        checked(fast(core, eos_token=EOS, pad_token=PAD))
    assert "NFD" in caught.value.fix


def test_rare_hangul_that_is_unknown_is_refused():
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=[EOS, PAD, "<unk>"], show_progress=False)
    core.train_from_iterator(["안녕하세요? 오늘은 날씨가 참 좋네요! 값어치 닭볶음탕"], trainer)
    with pytest.raises(TokenizerError, match="Hangul does not survive"):
        checked(fast(core, eos_token=EOS, pad_token=PAD, unk_token="<unk>"))


def test_no_template_is_refused():
    with pytest.raises(TokenizerError, match="has no chat template") as caught:
        checked(fast(core_tokenizer(EOS, PAD), eos_token=EOS, pad_token=PAD), None)
    assert "kullm" in caught.value.fix


def test_the_tokenizers_own_template_is_audited():
    tokenizer = fast(core_tokenizer(EOS, PAD), eos_token=EOS, pad_token=PAD)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(TemplateError, match="puts no special token after an answer"):
        checked(tokenizer, None)
    tokenizer.chat_template = PRESETS["polyglot-chat"]
    assert checked(tokenizer, None).template == PRESETS["polyglot-chat"]
    assert checked(tokenizer, "kullm").tokenizer.chat_template == PRESETS["kullm"]  # asked for: it replaces the own


def typed_tokenizer() -> PreTrainedTokenizerFast:
    core = core_tokenizer(EOS, PAD)
    core.post_processor = processors.TemplateProcessing(single="$A:1", pair="$A:0 $B:1", special_tokens=[])
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return fast(core, eos_token=EOS, pad_token=PAD, model_input_names=names)


def test_token_type_ids_are_never_produced(tmp_path):
    tokenizer = typed_tokenizer()
    assert "token_type_ids" in tokenizer("안녕")  # the trap is real: GPT-NeoX refuses them
    tokenizer.save_pretrained(tmp_path / "before")
    chat = load_tokenizer(str(tmp_path / "before"), "kullm")
    assert set(chat.tokenizer("안녕")) == {"input_ids", "attention_mask"}
    chat.save(tmp_path / "after")
    assert set(AutoTokenizer.from_pretrained(tmp_path / "after")("안녕")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("template", sorted(PRESETS))
def test_saving_keeps_template_padding_and_fingerprint(template, tmp_path):
    fast(core_tokenizer(EOS), eos_token=EOS, pad_token=EOS).save_pretrained(tmp_path / "base")
    chat = load_tokenizer(str(tmp_path / "base"), template)
    chat.save(tmp_path / "model")
    again = load_tokenizer(str(tmp_path / "model"))
    assert (again.template, again.eos_id, again.pad_id) == (PRESETS[template], 0, 257)
    assert again.special_texts == chat.special_texts
    assert again.fingerprint() == chat.fingerprint()
    messages = [Message("user", "안녕?"), Message("assistant", "네 뷁")]
    assert again.pieces(messages) == chat.pieces(messages)
    plain = AutoTokenizer.from_pretrained(tmp_path / "model")
    rows = [{"role": message.role, "content": message.content} for message in messages]
    assert plain.apply_chat_template(rows, tokenize=False) == "".join(piece.text for piece in chat.pieces(messages))


def test_fingerprint_tells_template_vocabulary_and_padding_apart():
    def one(template="kullm", special=(EOS, PAD), **settings):
        return checked(fast(core_tokenizer(*special), **({"eos_token": EOS, "pad_token": PAD} | settings)), template)

    prints = [
        one().fingerprint(),
        one(template="kullm-input").fingerprint(),
        one(special=(EOS, PAD, "<|sep|>")).fingerprint(),
        one(special=(PAD, EOS)).fingerprint(),
        one(special=(EOS, PAD, "<pad>"), pad_token="<pad>").fingerprint(),
    ]
    assert len(set(prints)) == 5
    assert prints[4] != one(special=(EOS, PAD, "<pad>")).fingerprint()  # the same vocabulary, another padding
    assert one().fingerprint() == prints[0]
    assert one(template="kullm-input").vocabulary_hash() == one().vocabulary_hash()
    assert one(special=(PAD, EOS)).vocabulary_hash() != one().vocabulary_hash()
    other_pad = one(special=(EOS, "<pad>"), pad_token="<pad>")  # the same id under another name
    assert other_pad.vocabulary_hash() == one().vocabulary_hash()
    assert other_pad.fingerprint() != one().fingerprint()


def test_ids_are_those_of_the_text_alone(tiny_tokenizer_dir):
    chat = load_tokenizer(str(tiny_tokenizer_dir), "kullm")
    assert chat.token_ids([]) == []
    (ids,) = chat.token_ids(["네, 뷁!" + EOS])
    assert ids[-1] == 0  # special-token text is read as the token
    assert chat.text(ids) == "네, 뷁!"  # and left out again
    assert chat.text(chat.token_ids([" 점 , 빼기 . "])[0]) == " 점 , 빼기 . "  # no clean-up of spaces


def test_nothing_is_added_around_a_text():
    core = core_tokenizer(EOS, PAD)
    core.post_processor = processors.TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, 0)])
    chat = checked(fast(core, eos_token=EOS, pad_token=PAD, bos_token=EOS))
    assert chat.tokenizer("네")["input_ids"][0] == 0  # as some tokenizers do: a BOS before every piece
    (ids,) = chat.token_ids(["네"])
    assert len(ids) == 3  # three bytes
    assert 0 not in ids


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(TokenizerError, match="cannot load a tokenizer from"):
        load_tokenizer(str(tmp_path / "nowhere"), "kullm")


def test_a_model_folder_without_tokenizer_files_is_refused(tmp_path):
    # DeepSpeed-Chat loads such a folder, shrinks the vocabulary and trains to NaN
    GPTNeoXConfig(hidden_size=32, num_attention_heads=4).save_pretrained(tmp_path)
    with pytest.raises(TokenizerError):
        load_tokenizer(str(tmp_path), "kullm")


def test_a_damaged_tokenizer_file_is_named(tmp_path, tiny_tokenizer_dir):
    shutil.copytree(tiny_tokenizer_dir, tmp_path / "damaged")
    (tmp_path / "damaged" / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(TokenizerError, match="cannot load a tokenizer"):
        load_tokenizer(str(tmp_path / "damaged"), "kullm")


def test_saved_template_is_inside_the_folder(tmp_path, chat_tokenizer):
    chat_tokenizer.save(tmp_path)
    files = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    stored = files.get("chat_template.jinja") or json.loads(files["tokenizer_config.json"])["chat_template"]
    assert stored == PRESETS["kullm"]
