"""From token bytes to text: UTF-8, stop strings, probabilities, endless repetition."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.messages import Logprob, TokenLogprob
from corectl.output.text import REPEAT_LIMIT, Piece, TextStream


def logprob(number: int) -> Logprob:
    return Logprob(TokenLogprob(str(number), -1.0, b"x"), ())


def feed(stream: TextStream, tokens: list[bytes]) -> tuple[str, str, list[str]]:
    """The text, the end, and the names of the tokens whose probabilities came out, each being its place."""
    text, names = "", []
    for place, token in enumerate(tokens):
        piece = stream.push(token, logprob(place))
        text += piece.text
        names += [item.chosen.token for item in piece.logprobs]
        if piece.end:
            return text, piece.end, names
    piece = stream.flush()
    return text + piece.text, piece.end, names + [item.chosen.token for item in piece.logprobs]


def test_text_passes_at_once_where_no_stop_string_may_begin() -> None:
    stream = TextStream(("END",))
    assert stream.push(b"hello ").text == "hello "


def test_a_character_is_held_until_its_last_byte() -> None:
    stream = TextStream(())
    heart = "❤".encode()
    assert [stream.push(heart[place : place + 1]).text for place in range(3)] == ["", "", "❤"]


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert feed(TextStream(()), [b"a\xff", b"b"])[0] == "a\ufffdb"
    assert feed(TextStream(()), [b"a", b"\xe2\x9d"])[0] == "a\ufffd"


def test_the_start_of_a_stop_string_is_held_back_and_given_when_it_was_none() -> None:
    stream = TextStream(("END",))
    assert stream.push(b"an E").text == "an "
    assert stream.push(b"N").text == ""
    assert stream.push(b"ORMOUS").text == "ENORMOUS"


def test_a_stop_string_over_several_tokens_ends_without_itself() -> None:
    assert feed(TextStream(("END",)), [b"the ", b"E", b"ND", b" more"]) == ("the ", "stop", ["0"])


def test_many_long_stop_strings_take_no_longer_for_each_token() -> None:
    stream = TextStream((*("c" * (3800 + number) for number in range(255)), "ab" * 2000))
    began = time.thread_time()
    for _ in range(600):
        assert stream.push(b"aba").text == stream.push(b"bab").text == ""
    assert time.thread_time() - began < 5


@given(
    st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=6), max_size=3), st.integers(1, 4)
)
def test_as_much_is_held_as_may_begin_a_stop_string(text: str, stops: list[str], size: int) -> None:
    stream = TextStream(tuple(stops))
    given = shown = ""
    for at in range(0, len(text), size):
        piece = stream.push(text[at : at + size].encode())
        given, shown = text[: at + size], shown + piece.text
        if piece.end:
            first = min(given.find(stop) for stop in stops if stop in given)
            assert piece.end == "length" or shown == given[:first]
            return
        held = max((n for stop in stops for n in range(1, len(stop)) if given.endswith(stop[:n])), default=0)
        assert shown == given[: len(given) - held]


def test_the_earliest_stop_string_wins() -> None:
    assert feed(TextStream(("bc", "b")), [b"abc"])[:2] == ("a", "stop")
    assert feed(TextStream(("c", "ab")), [b"xabc"])[:2] == ("x", "stop")


def test_the_end_says_which_stop_string_it_was() -> None:
    assert TextStream(("never", "END")).push(b"the END").stop == "END"
    assert TextStream(("never",)).push(b"the END").stop == ""


def test_an_empty_stop_string_stops_nothing() -> None:
    assert feed(TextStream(("",)), [b"a", b"b"])[:2] == ("ab", "")


def test_overlapping_starts_are_tried_again() -> None:
    assert feed(TextStream(("aab",)), [b"a", b"a", b"a", b"b", b"c"])[:2] == ("a", "stop")


def test_flush_gives_what_is_held_and_then_nothing() -> None:
    stream = TextStream(("END",))
    stream.push(b"EN")
    assert stream.flush().text == "EN"
    assert stream.flush() == Piece()


def test_probabilities_come_with_the_text_that_their_token_begins_in() -> None:
    stream = TextStream(("END",))
    assert [item.chosen.token for item in stream.push(b"one", logprob(1)).logprobs] == ["1"]
    assert stream.push(b"EN", logprob(2)).logprobs == ()
    assert [item.chosen.token for item in stream.push(b"O", logprob(3)).logprobs] == ["2", "3"]


def test_probabilities_of_a_part_of_a_character_wait_for_the_rest() -> None:
    stream = TextStream(())
    heart = "❤".encode()
    assert stream.push(heart[:1], logprob(1)).logprobs == ()
    assert [item.chosen.token for item in stream.push(heart[1:], logprob(2)).logprobs] == ["1", "2"]


def test_probabilities_of_a_token_that_is_held_in_part() -> None:
    """The token begins in text that is shown; the next one does not."""
    stream = TextStream(("END",))
    assert [item.chosen.token for item in stream.push(b"an E", logprob(1)).logprobs] == ["1"]
    assert stream.push(b"N", logprob(2)).logprobs == ()
    assert stream.push(b"D", logprob(3)) == Piece("", (), "stop", "END")


def test_probabilities_of_a_token_without_text_are_not_lost() -> None:
    stream = TextStream(())
    stream.push(b"", logprob(1))
    assert [item.chosen.token for item in stream.flush().logprobs] == ["1"]


def test_endless_repetition_is_cut_off_after_the_limit() -> None:
    stream = TextStream(())
    ends = [stream.push(b" ha").end for _ in range(REPEAT_LIMIT + 1)]
    assert ends == [""] * REPEAT_LIMIT + ["length"]


@pytest.mark.parametrize("token", [b"\n", b"  "])
def test_blanks_may_repeat(token: bytes) -> None:
    stream = TextStream(())
    assert not any(stream.push(token).end for _ in range(4 * REPEAT_LIMIT))


def test_a_different_piece_starts_the_count_again() -> None:
    stream = TextStream(())
    for _ in range(4):
        assert not any(stream.push(b"ha").end for _ in range(REPEAT_LIMIT))
        assert not stream.push(b"!").end


def test_repetition_that_may_be_a_stop_string_loses_no_text() -> None:
    text, end, names = feed(TextStream(("aab",)), [b"a"] * 40)
    assert (text, end) == ("a" * (REPEAT_LIMIT + 1), "length")
    assert len(names) == REPEAT_LIMIT + 1


STOPS = st.lists(st.text(alphabet="ab❤", min_size=1, max_size=4), max_size=3)


@given(st.text(alphabet="ab❤é", max_size=60), STOPS, st.lists(st.integers(1, 4), min_size=1, max_size=8))
def test_any_cutting_into_tokens_gives_the_text_before_the_first_stop_string(
    text: str, stops: list[str], sizes: list[int]
) -> None:
    data, tokens, turn = text.encode(), [], 0
    while data:
        size = sizes[turn % len(sizes)]
        tokens.append(data[:size])
        data, turn = data[size:], turn + 1
    shown, end, names = feed(TextStream(tuple(stops)), tokens)
    if end == "length":
        assert text.startswith(shown)
        return
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    # A token may bring a whole stop string and the start of an earlier, longer one: only full ones count.
    assert end == ("stop" if places else "")
    assert text.startswith(shown)
    assert names == [str(place) for place in range(len(names))]
    if not places:
        assert shown == text and len(names) == len(tokens)
    else:
        assert not any(stop in shown for stop in stops)
        assert any(text[len(shown) :].startswith(stop) for stop in stops)
