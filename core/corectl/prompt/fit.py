"""Makes a prompt fit a context: by dropping the oldest messages, else by cutting from the middle."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import msgspec

from corectl.errors import BadRequest, TooLong
from corectl.messages import ChatPrompt, Prompt
from corectl.prompt.budget import OutOfTime, rendering_budget

# Text is taken to have so many characters a token where it is not tokenised.
_TOKEN_CHARS = 4
_MIN_CHARS = 1 << 16
_CHARS_PER_CELL = 64
# A chat that is this large and too long for any text is not rendered whole, which would take the time that the
# shorter ones need. Messages are taken to be in the text, and to have a token at least.
_LARGE_CHARS = 8 << 20
_LARGE_CHAT = 10_000
# How many shorter chats are offered to a template that refuses one.
_MAX_RETRIES = 4


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that leaves room for output.

    `text` is what was tokenised, before tokens were cut from it. `dropped_tokens` counts what was cut from the
    middle, and not the tokens of dropped messages. Where a text was too long to be tokenised, the characters
    that were cut from it count as one token for each four.
    """

    tokens: list[int]
    text: str
    dropped_messages: int = 0
    dropped_tokens: int = 0


class _Trial(msgspec.Struct, frozen=True):
    """A rendered prompt. It has no tokens where its text alone shows that it is too long."""

    text: str
    tokens: list[int] | None
    dropped_messages: int = 0


class _Fitter(msgspec.Struct, frozen=True):
    """What stays the same while one prompt is made to fit."""

    tokenize: Callable[[str], list[int]]
    render: Callable[[Prompt], str]
    num_ctx: int
    max_chars: int

    def trial(self, prompt: Prompt, dropped_messages: int = 0) -> _Trial:
        text = self.render(prompt)
        tokens = self.tokenize(text) if len(text) <= self.max_chars else None
        return _Trial(text, tokens, dropped_messages)

    def may_fit(self, messages: int, characters: int) -> bool:
        """Whether a chat is worth a rendering."""
        return messages <= max(self.num_ctx, _LARGE_CHAT) and characters <= max(self.max_chars, _LARGE_CHARS)

    def fits(self, trial: _Trial) -> bool:
        return trial.tokens is not None and len(trial.tokens) < self.num_ctx


def fit(
    prompt: Prompt,
    tokenize: Callable[[str], list[int]],
    render: Callable[[Prompt], str],
    *,
    num_ctx: int,
    num_keep: int,
    truncate: bool,
    shift: bool,
    bos: bool = False,
    max_chars: int | None = None,
    cuttable: Callable[[str], bool] = lambda text: True,
) -> Fitted:
    """Render and tokenise a prompt so that at least one of `num_ctx` cells stays free for output.

    `bos` says that `tokenize` puts a token in front; a cut keeps it besides the `num_keep` first ones. A
    prompt that fits is tokenised once; otherwise the number of messages to drop is searched for. A text of
    more than `max_chars` characters is known not to fit and never tokenised; by default that is 64 for each
    cell, and at least 65,536. A text that is not `cuttable` is refused where its middle would have to go. All
    renderings share one `rendering_budget`.
    """
    if max_chars is None:
        max_chars = max(num_ctx * _CHARS_PER_CELL, _MIN_CHARS)
    fitter = _Fitter(tokenize, render, num_ctx, max_chars)
    with rendering_budget():
        best = _whole(prompt, fitter, truncate)
        if not fitter.fits(best) and isinstance(prompt, ChatPrompt):
            best = _drop_messages(prompt, best, fitter)
    if fitter.fits(best):
        return Fitted(tokens=best.tokens or [], text=best.text, dropped_messages=best.dropped_messages)
    if not shift:
        raise TooLong(
            "the prompt is longer than the context length currently available to the model; shorten the "
            "prompt, adjust the context length in settings, or use a model with a longer context length"
        )
    if not cuttable(best.text):
        raise BadRequest(
            f"the prompt has {_count(best, fitter)} tokens, {num_ctx - 1} is the most for a context of {num_ctx}, and "
            "nothing can be cut from a prompt with images; raise num_ctx, or send less text or fewer images"
        )
    return _cut_middle(best, fitter, num_keep + bos)


def cut_limit(num_ctx: int, keep: int) -> int:
    """How many tokens of a prompt that is too long stay: the kept ones and half of the rest."""
    # Go's division, which the documented figures come from, rounds towards zero.
    return num_ctx - max(int((num_ctx - keep) / 2), 1)


def _whole(prompt: Prompt, fitter: _Fitter, truncate: bool) -> _Trial:
    """The prompt, or where that is far too long, all of a chat that may fit."""
    if isinstance(prompt, ChatPrompt) and truncate:
        messages, characters = len(prompt.messages), sum(len(message.content) for message in prompt.messages)
        oldest = _oldest(prompt)
        dropped = 0
        while dropped < len(oldest) and not fitter.may_fit(messages - dropped, characters):
            characters -= len(prompt.messages[oldest[dropped]].content)
            dropped += 1
        shorter = _without(prompt, oldest, dropped, fitter) if dropped else None
        if shorter is not None:
            return shorter
    trial = fitter.trial(prompt)
    if truncate or fitter.fits(trial):
        return trial
    raise TooLong(
        f"request ({_count(trial, fitter)} tokens) exceeds the available context size ({fitter.num_ctx} tokens), "
        "try increasing it"
    )


def _count(trial: _Trial, fitter: _Fitter) -> str:
    return f"more than {fitter.num_ctx}" if trial.tokens is None else str(len(trial.tokens))


def _cut_middle(trial: _Trial, fitter: _Fitter, keep: int) -> Fitted:
    limit = cut_limit(fitter.num_ctx, keep)
    if limit < 1:
        raise BadRequest(
            f"num_ctx: a context of {fitter.num_ctx} tokens has no room for a prompt and its answer"
        )
    # The newest token always stays: it is what the model continues.
    head = min(max(keep, 0), limit - 1)
    text, tokens, dropped = trial.text, trial.tokens, 0
    if tokens is None:
        text = _cut_text(text, fitter, head)
        tokens = fitter.tokenize(text)
        dropped = -(-(len(trial.text) - len(text)) // _TOKEN_CHARS)
    if len(tokens) >= fitter.num_ctx:
        dropped += len(tokens) - limit
        tokens = tokens[:head] + tokens[head - limit :]
    return Fitted(tokens=tokens, text=text, dropped_messages=trial.dropped_messages, dropped_tokens=dropped)


def _cut_text(text: str, fitter: _Fitter, keep: int) -> str:
    """A text without its middle, `max_chars` long. The head gets its share of the kept tokens."""
    head = fitter.max_chars * keep // fitter.num_ctx
    return text[:head] + text[len(text) - (fitter.max_chars - head) :]


def _oldest(prompt: ChatPrompt) -> list[int]:
    """The places of the messages that may be dropped."""
    last = len(prompt.messages) - 1
    return [at for at, message in enumerate(prompt.messages) if message.role != "system" and at < last]


def _drop_messages(prompt: ChatPrompt, whole: _Trial, fitter: _Fitter) -> _Trial:
    """The prompt with as few messages dropped as make it fit, or with all that may be dropped.

    The search begins at a guess and goes away from it in growing steps until it has passed the place, which
    it then closes in on by halves. So most chats are rendered a few times at about the length that fits.
    """
    oldest = _oldest(prompt)
    best, low, high = whole, whole.dropped_messages + 1, len(oldest)
    probe, step = _guess(prompt, oldest, whole, fitter), max(len(oldest) // 64, 1)
    longer = shorter = False
    while low <= high:
        trial = _without(prompt, oldest, probe, fitter)
        if trial is not None and fitter.fits(trial):
            best, high, longer = trial, probe - 1, True
            following = probe - step
        else:
            if trial is not None and len(trial.text) < len(best.text) and not fitter.fits(best):
                best = trial
            low, shorter = probe + 1, True
            following = probe + step
        step *= 4
        probe = (low + high) // 2 if longer and shorter else min(max(following, low), high)
    return best


def _guess(prompt: ChatPrompt, oldest: list[int], whole: _Trial, fitter: _Fitter) -> int:
    """About how many messages must go, if all text has as many characters a token."""
    count = len(whole.tokens) if whole.tokens else len(whole.text) // _TOKEN_CHARS
    excess = len(whole.text) * (count - fitter.num_ctx + 1) // max(count, 1)
    dropped = whole.dropped_messages
    contents = sum(len(message.content) for message in prompt.messages)
    contents -= sum(len(prompt.messages[at].content) for at in oldest[:dropped])
    share = max((len(whole.text) - contents) / (len(prompt.messages) - dropped), 0)
    gone = itertools.accumulate(len(prompt.messages[at].content) + share for at in oldest[dropped:])
    found = (number for number, size in enumerate(gone, dropped + 1) if size >= excess)
    return next(found, max(len(oldest), 1))


def _without(prompt: ChatPrompt, oldest: list[int], count: int, fitter: _Fitter) -> _Trial | None:
    """The prompt without its `count` oldest messages, or None when the template refuses shorter chats too.

    A few more are dropped where it wants that, as many do for a chat that does not begin with a user's turn.
    """
    for dropped in itertools.islice(_drops(prompt, oldest, count), _MAX_RETRIES):
        gone = set(oldest[:dropped])
        kept = tuple(message for at, message in enumerate(prompt.messages) if at not in gone)
        try:
            return fitter.trial(msgspec.structs.replace(prompt, messages=kept), dropped)
        except OutOfTime:
            raise
        except BadRequest:
            continue
    return None


def _drops(prompt: ChatPrompt, oldest: list[int], count: int) -> Iterator[int]:
    """`count`, the next one, and after that those that leave a user's turn first, or only the last message."""
    yield count
    for dropped in range(count + 1, len(oldest) + 1):
        first = prompt.messages[oldest[dropped]].role if dropped < len(oldest) else "user"
        if dropped == count + 1 or first == "user":
            yield dropped
