"""Text and tokens of files from before GGUF, beside what other code makes of the same vocabularies."""

from __future__ import annotations

from pathlib import Path

import pytest
from ctransformers.llm import LLM, Config
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import BPE

from corectl.constrain.vocabulary import Vocabulary as Constrained
from corectl_ctransformers.header import Vocabulary, read_header, read_vocabulary
from corectl_ctransformers.tokenizer import GgmlTokenizer
from corectl_ctransformers.words import ByteLevel, Likeliest, Scored, merge
from tests.legacy_ggml import BLANK, END, FAMILIES, PIECES, byte_level, merges, write_ggml
from tests.tiny_qwen import byte_tokens

ASCII = (
    "The quick brown fox and the lazy dog",
    "  two  blanks\n\n\tand a tab ",
    "it's 12 o'clock; they'll say: \"over there!\"",
    "def f(x):\n    return x ** 2 # over_and_over",
)
ANY = (*ASCII, "Grüße aus Österreich", "日本語 and 🦙👩‍👩‍👧", "a\u0301\U0010ffff\x01\x7f", "")
BYTE_LEVEL = [family for family in FAMILIES if family not in ("replit", "llama")]


def load(folder: Path, family: str) -> GgmlTokenizer:
    path = write_ggml(folder / f"{family}.bin", family)
    header = read_header(path)
    return GgmlTokenizer(header, read_vocabulary(path, header), header.sizes.vocabulary)


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> GgmlTokenizer:
    return load(tmp_path_factory.mktemp("vocabulary"), request.param)


@pytest.fixture(scope="module")
def reference() -> Tokenizer:
    """The same vocabulary in the library tokenizers: real byte-pair encoding."""
    letters = str.maketrans({chr(byte): letter for byte, letter in enumerate(byte_tokens())})
    tokens = [*byte_tokens(), *(piece.translate(letters) for piece in PIECES)]
    pairs = [(left.translate(letters), right.translate(letters)) for left, right in merges()]
    found = Tokenizer(BPE({token: id for id, token in enumerate(tokens)}, pairs))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    return found


@pytest.mark.parametrize("text", ANY)
def test_gpt2_and_its_kin_read_text_as_they_were_trained(reference: Tokenizer, text: str) -> None:
    assert ByteLevel(byte_level(END)).encode(text) == reference.encode(text).ids


@pytest.mark.parametrize("text", ASCII)
@pytest.mark.parametrize("family", ["llama", "falcon"])
def test_llama_and_falcon_read_text_as_the_library_does(tmp_path: Path, family: str, text: str) -> None:
    mine = load(tmp_path, family)
    native = LLM(str(tmp_path / f"{family}.bin"), family, config=Config(context_length=64), lib="basic")
    given = f" {text}" if family == "llama" else text
    assert mine.encode(text) == native.tokenize(given)


@pytest.mark.parametrize("text", ASCII)
def test_replit_reads_text_as_the_library_does(tmp_path: Path, text: str) -> None:
    mine = load(tmp_path, "replit")
    native = LLM(str(tmp_path / "replit.bin"), "replit", config=Config(context_length=64), lib="basic")
    # A tab has no token; the library makes one unknown token of the whole text then.
    assert mine.encode(text.replace("\t", "")) == native.tokenize(text.replace("\t", ""))


@pytest.mark.parametrize("family", BYTE_LEVEL)
@pytest.mark.parametrize("text", ANY)
def test_any_text_comes_back(tmp_path: Path, family: str, text: str) -> None:
    tokenizer = load(tmp_path, family)
    tokens = tokenizer.encode(text, special=False)
    assert tokenizer.decode(tokens) == text
    assert b"".join(map(tokenizer.piece, tokens)).decode() == text


@pytest.mark.parametrize("text", ANY)
def test_llama_puts_a_blank_in_front_of_any_text(tmp_path: Path, text: str) -> None:
    tokenizer = load(tmp_path, "llama")
    tokens = tokenizer.encode(text, special=False, add_special=False)
    assert tokenizer.decode(tokens) == (f" {text}" if text else "")
    assert tokenizer.encode(text) == [1, *tokens]
    assert (tokenizer.adds_bos, tokenizer.bos_token, tokenizer.eos_token) == (True, "<s>", "</s>")


def test_replit_writes_letters_that_it_does_not_know_as_one_token(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "replit")
    tokens = tokenizer.encode("the 日 fox ü")
    assert tokenizer.decode(tokens) == "the <unk> fox ü"
    assert tokens.count(0) == 1


def test_a_byte_that_is_not_in_the_vocabulary(tmp_path: Path) -> None:
    tokens = [token for token in byte_level(END) if token != b"\xbc"]
    assert ByteLevel(tokens).encode("aüb") == [97, 0xC3 - 1, 98]


def test_files_whose_tokens_were_written_as_text() -> None:
    """All tokens that are no text by themselves look the same there, and the last one is repeated."""
    texts = [bytes([byte]).decode("utf-8", "replace") for byte in range(256)]
    tokens = [text.encode() for text in (*texts, "ü", "日", "本", "日本", "nd", "end", "end", "end")]
    words = ByteLevel(tokens)
    assert words.encode("aü日b") == [97, 256, 257, 98]
    assert words.encode("日本") == [259]
    assert words.encode("end") == [261]
    assert words.encode("🦙ok") == [*b"ok"]


def test_the_pair_that_was_learned_first_is_put_together_first() -> None:
    ranks = {b"bc": 1.0, b"ab": 2.0, b"abc": 3.0, b"cd": 4.0}
    assert merge([b"a", b"b", b"c", b"d"], ranks.get) == [b"abc", b"d"]
    assert merge([b"a", b"b", b"a", b"b"], {b"ab": 1.0, b"ba": 0.5}.get) == [b"a", b"ba", b"b"]
    assert merge([b"a"] * 5, {b"aa": 1.0, b"aaaa": 2.0}.get) == [b"aaaa", b"a"]
    assert merge([], ranks.get) == []


def test_long_words_take_no_stack_and_little_time() -> None:
    tokens = byte_level(END)
    assert len(ByteLevel(tokens).encode("a" * 100_000)) == 100_000
    assert len(ByteLevel(tokens).encode("the" * 50_000)) < 150_000
    scored = Vocabulary(tokens, [-float(place) for place in range(len(tokens))])
    assert len(Scored(scored).encode("the quick " * 10_000)) < 80_000
    assert len(Likeliest(scored, ()).encode("quick" * 10_000)) == 10_000


def test_control_tokens_are_read_only_when_asked(tokenizer: GgmlTokenizer) -> None:
    end = tokenizer.eos_token
    (token,) = tokenizer.encode(end, add_special=False)
    assert tokenizer.is_end(token)
    assert tokenizer.encode(f"the{end}ing", add_special=False).count(token) == 1
    assert token not in tokenizer.encode(end, special=False, add_special=False)
    assert tokenizer.piece(token) == b""
    assert tokenizer.piece(token, special=True) == end.encode()
    assert tokenizer.decode([token]) == end


@pytest.mark.parametrize(
    ("family", "ends"),
    [
        ("gpt2", [END]),
        ("starcoder", [END, "<|end|>"]),
        ("dollyv2", [END, "### End"]),
        ("mpt", [END, "<|im_end|>"]),
        ("replit", [END]),
        ("llama", ["</s>"]),
        ("falcon", [END]),
    ],
)
def test_what_ends_an_answer(tmp_path: Path, family: str, ends: list[str]) -> None:
    tokenizer = load(tmp_path, family)
    found = [token for token in range(tokenizer.size) if tokenizer.is_end(token)]
    assert [tokenizer.decode([token]) for token in found] == ends


def test_the_prompt_of_dolly(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "dollyv2")
    tokens = tokenizer.encode("### Instruction:\nSay hi\n\n### Response:\n")
    names = [tokenizer.decode([token]) for token in tokens if tokenizer.piece(token) == b""]
    assert names == ["### Instruction:", "### Response:"]


def test_lone_surrogates_do_no_harm(tokenizer: GgmlTokenizer) -> None:
    assert "a" in tokenizer.decode(tokenizer.encode("a\ud800b"))


def test_constraints_know_all_pieces(tokenizer: GgmlTokenizer) -> None:
    known = Constrained(tokenizer)
    assert known.size == tokenizer.size
    assert known.control(tokenizer.eos_token) is not None
    spelled = b"".join(map(known.text, known.tokens(b"the quick")))
    assert spelled == b"the quick"


def test_the_library_may_have_fewer_tokens_than_the_file(tmp_path: Path) -> None:
    path = write_ggml(tmp_path / "x.bin", "falcon")
    header = read_header(path)
    tokenizer = GgmlTokenizer(header, read_vocabulary(path, header), header.sizes.vocabulary - 1)
    assert tokenizer.size == header.sizes.vocabulary - 1
    assert max(tokenizer.encode("the zy \n\n fox")) < tokenizer.size


def test_blanks_of_replit(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "replit")
    assert all(BLANK.encode() not in tokenizer.piece(token) for token in range(tokenizer.size))
