"""Where images stand in a prompt, in every kind of prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.messages import ChatPrompt, Message, Prompt, RawPrompt, Template, TextPrompt
from corectl.prompt.images import PlacedImages, place_images, with_places
from corectl.prompt.render import render

GO = Template(kind="go", text="{{ .System }}{{ .Prompt }} {{ .Response }}")
CHATML = Template(
    kind="go",
    text="{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n",
)
JINJA = Template(
    kind="jinja", text="{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
)


def user(content: str, *images: str) -> Message:
    return Message(role="user", content=content, images=images)


def chat(*messages: Message, template: Template = CHATML, given: int = 0) -> ChatPrompt:
    return ChatPrompt(template=template, messages=messages, given=given)


def rendered(prompt: Prompt) -> str:
    return render(prompt, bos_token="<s>", eos_token="</s>")


def shown(prompt: Prompt) -> str:
    """What people see of a rendered prompt."""
    placed = place_images(prompt)
    return placed.shown(rendered(placed.prompt))


def order(prompt: Prompt) -> list[str]:
    """The images of a rendered prompt, in the order in which the model sees them."""
    placed = place_images(prompt)
    pieces = placed.split(rendered(placed.prompt))
    return [placed.images[piece] for piece in pieces if isinstance(piece, int)]


@pytest.mark.parametrize(
    ("content", "images", "text"),
    [
        ("What is it?", ("a",), "[img-0]What is it?"),
        ("Differ?", ("a", "b"), "[img-0][img-1]Differ?"),
        ("This [img] or that [img]?", ("a", "b"), "This [img-0] or that [img-1]?"),
        ("This [img] or that?", ("a", "b"), "[img-1]This [img-0] or that?"),
        ("This [img] or that [img]?", ("a",), "This [img-0] or that [img]?"),
        ("", ("a",), "[img-0]"),
        ("no [img]", (), "no [img]"),
        ("text like [img-0] and <__media__>", ("a",), "[img-0]text like [img-0] and <__media__>"),
    ],
)
def test_places_in_a_message(content: str, images: tuple[str, ...], text: str) -> None:
    assert shown(chat(user(content, *images), template=GO)).strip() == text
    assert shown(chat(user(content, *images), template=JINJA)).strip() == f"user: {text}"
    assert shown(TextPrompt(template=GO, prompt=content, images=images)).strip() == text
    assert sorted(order(chat(user(content, *images)))) == list(images)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([None, "What is it?"], "[img-0]What is it?"),
        (["This", None, "or", None], "This|[img-0]|or|[img-1]"),
        ([None, "or", None], "[img-0]|or|[img-1]"),
        (["no [img]"], "no [img]"),
        ([None, "an [img] in text"], "[img-0]|an [img] in text"),
        (["This", None, "an [img]"], "This|[img-0]|an [img]"),
        (["an [img]", None, "or", None], "[img-0]|[img-1]|an [img]|or"),
        ([None], "[img-0]"),
    ],
)
def test_places_of_parts(parts: list[str | None], text: str) -> None:
    images = tuple("ab"[: parts.count(None)])
    prompt = chat(user(with_places(parts, "|"), *images), template=JINJA)
    assert shown(prompt).strip() == f"user: {text}"
    assert order(prompt) == list(images)


def test_numbers_run_through_all_messages() -> None:
    prompt = chat(user("First", "a"), Message(role="assistant", content="ok"), user("[img] then", "b", "c"))
    assert shown(prompt) == (
        "<|im_start|>user\n[img-0]First<|im_end|>\n<|im_start|>assistant\nok<|im_end|>\n"
        "<|im_start|>user\n[img-2][img-1] then<|im_end|>\n<|im_start|>assistant\n"
    )
    assert order(prompt) == ["a", "c", "b"]


def test_messages_that_are_merged_keep_their_images() -> None:
    template = Template(kind="go", text="{{ .Prompt }} {{ .Response }} ")
    prompt = chat(
        user("You're a test, Harry!"),
        user("", "a"),
        user("", "b"),
        Message(role="assistant", content="I-I'm a what?"),
        user("A test."),
        template=template,
    )
    assert shown(prompt).startswith("You're a test, Harry!\n\n[img-0]\n\n[img-1] I-I'm a what? A test.")


def test_what_was_dropped_is_not_counted() -> None:
    placed = place_images(chat(user("one", "a"), user("two", "b", "c")))
    assert isinstance(placed.prompt, ChatPrompt)
    rest = msgspec.structs.replace(placed.prompt, messages=placed.prompt.messages[1:])
    text = rendered(rest)
    assert "[img-0][img-1]two" in placed.shown(text)
    assert placed.missing(text) == [0]


def test_templates_see_that_there_are_images_but_not_their_bytes() -> None:
    template = Template(kind="go", text="{{ range .Messages }}{{ len .Images }} {{ .Images }}{{ end }}")
    assert shown(chat(user("x", "QUJD"), template=template)) == "1 [[img-0]]"


def test_raw_text_may_name_its_images() -> None:
    assert (
        shown(RawPrompt(text="see [img-1], then [img-0]", images=("a", "b"))) == "see [img-1], then [img-0]"
    )
    assert order(RawPrompt(text="see [img-1], then [img-0]", images=("a", "b"))) == ["b", "a"]
    assert (
        shown(RawPrompt(text="see [img-7] and [img-1]", images=("a", "b")))
        == "[img-0]see [img-7] and [img-1]"
    )
    assert shown(RawPrompt(text="see [img-0]")) == "see [img-0]"


def test_a_template_may_show_an_image_twice_or_not_at_all() -> None:
    twice = Template(kind="jinja", text="{{ messages[0].content }}{{ messages[0].content }}")
    assert order(chat(user("x", "a"), template=twice)) == ["a", "a"]
    never = Template(kind="jinja", text="nothing")
    placed = place_images(chat(user("x", "a"), template=never))
    assert placed.missing(rendered(placed.prompt)) == [0]


def test_errors_name_images_as_the_client_does() -> None:
    messages = (Message(role="system", content="s"), user("one", "a"), user("two", "b", "c"))
    assert place_images(chat(*messages, given=2)).fields == (
        "messages[0].images[0]",
        "messages[1].images[0]",
        "messages[1].images[1]",
    )
    assert place_images(chat(*messages[::2])).fields == ("images[0]", "images[1]")
    assert place_images(RawPrompt(text="x", images=("a",))).fields == ("images[0]",)


@given(
    st.lists(
        st.tuples(
            st.text(st.sampled_from("[img]-0:1 \n"), max_size=30),
            st.lists(st.sampled_from("abc"), max_size=3),
        ),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([CHATML, GO]),
)
def test_no_text_is_taken_for_an_image(turns: Sequence[tuple[str, list[str]]], template: Template) -> None:
    messages = [user(text, *images) for text, images in turns]
    placed = place_images(chat(*messages, template=template))
    text = rendered(placed.prompt)
    wanted = [image for _, images in turns for image in images]
    found = sorted(piece for piece in placed.split(text) if isinstance(piece, int))
    assert found == list(range(len(wanted))) and list(placed.images) == wanted
    assert re.search(r":[0-9a-f]{16}\]", placed.shown(text)) is None


def test_a_prompt_without_images_is_left_alone() -> None:
    prompt = chat(user("plain"))
    assert place_images(prompt) == PlacedImages(prompt=prompt)
    assert place_images(prompt).split("any text") == ["any text"]
