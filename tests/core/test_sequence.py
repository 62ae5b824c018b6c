"""From a request with images to a job: what is counted, dropped, decoded and refused."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image

from corectl.errors import BadRequest
from corectl.messages import (
    ChatPrompt,
    Completion,
    Message,
    Prompt,
    RawPrompt,
    SamplingOptions,
    Template,
    TextPrompt,
)
from corectl.runner.prepare import Prepared, prepare_completion, render_prompt
from corectl.runner.vision import IMAGE, Picture, Seen
from tests.core.fake import BOS, FIRST, FakeTokenizer, FakeVision, engine_info

JINJA = Template(kind="jinja", text="{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}")


def image(width: int, height: int, shade: int = 0) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (shade, 0, 0)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(tokens: list[int]) -> str:
    """Tokens as text; a cell of an image is a dot."""
    return "".join("^" if token == BOS else "." if token == IMAGE else chr(token - FIRST) for token in tokens)


def completion(prompt: Prompt, **changes: Any) -> Completion:
    return Completion(prompt=prompt, sampling=SamplingOptions(num_keep=2), **changes)


def prepare(
    prompt: Prompt, vision: FakeVision | None, *, bos: bool = False, num_ctx: int = 64, **changes: Any
) -> Prepared:
    tokenizer = FakeTokenizer(adds_bos=bos)
    info = engine_info(num_ctx=num_ctx)
    return prepare_completion(7, completion(prompt, **changes), tokenizer, info, {}, vision)


def chat(*messages: Message) -> ChatPrompt:
    return ChatPrompt(template=JINJA, messages=messages, given=len(messages))


def user(content: str, *images: str) -> Message:
    return Message(role="user", content=content, images=images)


def test_an_image_takes_its_cells() -> None:
    vision = FakeVision()
    prepared = prepare(chat(user("What?", image(20, 10))), vision, bos=True)
    assert shape(prepared.job.tokens) == "^u:<..>What?;"
    (span,) = prepared.job.spans
    assert (span.start, span.cells) == (4, 2)
    assert [found.handle for found in vision.loaded] == [span.handle]
    assert prepared.job.text == [token for token in prepared.job.tokens if token != IMAGE]
    assert prepared.notices == ()


def test_what_is_known_of_an_image_is_known_within_a_salt() -> None:
    vision = FakeVision()
    for salt in ("", "a", "b", "a"):
        prepare(chat(user("What?", image(20, 10))), vision, cache_salt=salt)
    plain, first, other, again = (picture.digest for picture in vision.pictures)
    assert first == again and len({plain, first, other}) == 3


def test_images_stand_in_their_order() -> None:
    vision = FakeVision()
    parts = chat(user("One [img] two [img]!", image(10, 10), image(20, 20)), user("[img]?", image(10, 30)))
    prepared = prepare(parts, vision)
    assert shape(prepared.job.tokens) == "u:One <.> two <....>!;u:<...>?;"
    assert [(span.start, span.cells) for span in prepared.job.spans] == [(7, 1), (15, 4), (25, 3)]
    assert [picture.width for picture in vision.pictures] == [10, 20, 10]


def test_text_that_looks_like_an_image_is_text() -> None:
    prepared = prepare(chat(user("[img-0] <__media__>", image(10, 10))), FakeVision())
    assert shape(prepared.job.tokens) == "u:<.>[img-0] <__media__>;"


def test_context_goes_in_front() -> None:
    context = tuple(FIRST + byte for byte in b"before")
    prepared = prepare(
        RawPrompt(text="[img]?", images=(image(10, 10),)), FakeVision(), bos=True, context=context
    )
    assert shape(prepared.job.tokens) == "before<.>?"
    assert prepared.job.spans[0].start == 7


def test_a_begin_token_that_the_template_wrote_is_not_doubled() -> None:
    prepared = prepare(RawPrompt(text="<s>[img]?", images=(image(10, 10),)), FakeVision(), bos=True)
    assert shape(prepared.job.tokens) == "^<.>?"


def test_images_of_dropped_messages_are_not_decoded() -> None:
    vision = FakeVision()
    broken = base64.b64encode(base64.b64decode(image(40, 40))[:60]).decode()
    prepared = prepare(chat(user("old", broken), user("new", image(20, 20))), vision, num_ctx=16)
    assert shape(prepared.job.tokens) == "u:<....>new;"
    assert (prepared.fit.dropped_messages, prepared.notices) == (1, ())
    assert len(vision.loaded) == 1
    rendered = render_prompt(
        completion(chat(user("old", broken), user("new", image(20, 20)))),
        FakeTokenizer(),
        engine_info(num_ctx=16),
        FakeVision(),
    )
    assert (rendered.text, rendered.images, rendered.prompt_tokens) == ("u:[img-0]new;", 1, 12)


def test_a_broken_image_is_named() -> None:
    broken = base64.b64encode(base64.b64decode(image(40, 40))[:60]).decode()
    with pytest.raises(BadRequest, match=r"messages\[1\]\.images\[0\]: the image is damaged"):
        prepare(chat(user("a", image(10, 10)), user("b", broken)), FakeVision())


def test_a_shape_that_the_model_cannot_see_is_named() -> None:
    class Picky(FakeVision):
        def see(self, picture: Picture) -> Seen:
            raise BadRequest("this model cannot see that")

    with pytest.raises(BadRequest, match=r"images\[0\]: this model cannot see that"):
        prepare(RawPrompt(text="x", images=(image(10, 10),)), Picky())


@pytest.mark.parametrize(
    "prompt",
    [
        chat(user("x", image(10, 10))),
        RawPrompt(text="x", images=(image(10, 10),)),
        TextPrompt(template=JINJA, prompt="x", images=(image(10, 10),)),
    ],
)
def test_a_model_that_cannot_see(prompt: Prompt) -> None:
    with pytest.raises(BadRequest, match=r"images\[0\]: this model does not support images"):
        prepare(prompt, None)


def test_nothing_is_cut_from_a_prompt_with_images() -> None:
    with pytest.raises(
        BadRequest, match=r"the prompt has 25 tokens, 15 is the most for a context of 16, and noth"
    ):
        prepare(chat(user("x" * 15, image(20, 20))), FakeVision(), num_ctx=16, bos=True)
    with pytest.raises(BadRequest, match="longer than the context length"):
        prepare(chat(user("x" * 15, image(20, 20))), FakeVision(), num_ctx=16, shift=False)
    # Once the images are gone with their messages, the rest is a text like any other.
    prepared = prepare(chat(user("a", image(10, 10)), user("x" * 40)), FakeVision(), num_ctx=16)
    assert (len(prepared.job.tokens), prepared.job.spans) == (9, ())
    assert prepared.fit.dropped_messages == 1 and prepared.fit.dropped_tokens > 0


def test_a_prompt_that_ends_in_an_image() -> None:
    class Bare(FakeVision):
        def see(self, picture: Picture) -> Seen:
            seen = super().see(picture)
            return Seen(seen.tokens[:-1], seen.spans)

    with pytest.raises(BadRequest, match="the prompt ends in an image; put some text after it"):
        prepare(RawPrompt(text="What is [img]", images=(image(10, 10),)), Bare())


def test_a_template_that_leaves_images_out() -> None:
    silent = Template(
        kind="jinja", text="{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    messages = (user("a", image(10, 10)), Message(role="tool", content="b", images=(image(10, 10),)))
    prepared = prepare(ChatPrompt(template=silent, messages=messages, given=2), FakeVision())
    (notice,) = prepared.notices
    assert (notice.code, notice.message) == (
        "images_not_rendered",
        "the template leaves out messages[1].images[0]",
    )
    assert len(prepared.job.spans) == 1
