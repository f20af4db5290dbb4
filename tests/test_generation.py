"""From tokens to text, and when to stop: the loop around a decoder that says what it is told."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from tiny import BOS, EOS, N_VOCAB, byte_tokenizer, ids, tiny

import powersteer as ps
from powersteer._core import _core64
from powersteer.model.generation import Row, Stops, Stream, TextReader, decode_rows, row_seeds

TOKENIZER = byte_tokenizer()
NEVER = Stops()


class Script:
    """A decoder whose rows say the given tokens."""

    def __init__(self, *rows):
        self.rows, self.at, self.stopped = rows, 0, set()

    def step(self):
        said = [-1 if i in self.stopped else row[self.at] for i, row in enumerate(self.rows)]
        self.at += 1
        return np.array(said, np.int32)

    def stop(self, i):
        assert i not in self.stopped
        self.stopped.add(i)


def run(tokens, stops=NEVER, prompt=(BOS,), n=None):
    """(pieces, Generation) of one row that says `tokens`."""
    row = Row(np.array(prompt, np.int32), n or len(tokens), stops, TOKENIZER, 0, ())
    return [piece for _, piece in decode_rows(Script(tokens), [row])], row.generation()


texts = st.text(st.sampled_from("ab é€😀\n"), max_size=12)


@given(texts, texts)
def test_pieces_are_whole_characters_and_join_to_the_text(before, text):
    assume(text)
    pieces, out = run(ids(text), prompt=[BOS, *ids(before)] if before else [BOS])
    assert "".join(pieces) == out.text == text
    assert len(pieces) == len(text)  # one a character, as soon as its last byte is there
    assert (out.finish_reason, out.stop) == ("length", None)


@given(st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=12), st.integers(0, 3))
def test_any_bytes_at_all(tokens, n_prompt):
    """Broken characters too: streaming says what decoding at once says, up to how a broken one is shown."""
    prompt = [BOS, *[tokens[-1]] * n_prompt]
    pieces, out = run(tokens, prompt=prompt)
    assert "".join(pieces) == out.text and out.tokens.tolist() == tokens
    whole = TOKENIZER.decode([*prompt, *tokens])
    assert (
        out.text.replace("\ufffd", "")
        == whole.replace("\ufffd", "")[-len(out.text.replace("\ufffd", "")) or len(whole) :]
    )


def test_half_a_character_at_the_end_is_shown_as_such():
    tokens = ids("a€")
    assert run(tokens[:-1])[0] == ["a", "\ufffd"]
    assert run([*tokens[:-1], EOS], Stops(frozenset([EOS])))[1].text == "a\ufffd"


def test_a_leading_space_is_the_models():
    """Llama's decoder drops the first space of a text; the text after a prompt keeps it."""
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"▁": 0, "a": 1, "b": 2}, []))
    backend.decoder = tokenizers.decoders.Metaspace()
    tokenizer = type(TOKENIZER)(backend, 3)
    assert tokenizer.decode([0, 1]) == "a"
    for prompt, text in (([2], " a"), ([0], "a")):
        reader = TextReader(tokenizer, prompt)
        assert "".join(map(reader.push, [0, 1] if prompt == [2] else [1])) + reader.rest() == text


def first_complete(text, stops):
    """The oracle: character by character, the first stop string that is complete."""
    for end in range(1, len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, None


@settings(max_examples=300)
@given(st.text("ab", min_size=1, max_size=14), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
@example("aab", ["ab"])
@example("abab", ["abb", "ba"])
def test_stop_strings_are_found_across_tokens(text, stops):
    pieces, out = run(ids(text), Stops(strings=tuple(stops)))
    want, stop = first_complete(text, stops)
    assert out.text == "".join(pieces) == want and out.stop == stop
    assert out.finish_reason == ("length" if stop is None else "stop")
    assert len(out.tokens) == (len(text) if stop is None else len(want) + len(stop))


def test_a_stop_string_inside_one_token():
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"one.": 0, ".two": 1, "x.y.z": 2}, unk_token="one."))
    backend.decoder = tokenizers.decoders.Fuse()
    row = Row(np.array([0], np.int32), 5, Stops(strings=(".y",)), type(TOKENIZER)(backend, 3), 0, ())
    assert list(decode_rows(Script([1, 2, 0]), [row])) == [(0, ".two"), (0, "x")]
    assert row.generation().text == ".twox" and row.generation().tokens.tolist() == [1, 2]


def test_what_may_become_a_stop_is_held_back_no_longer_than_needed():
    pieces, out = run(ids("xaabaay"), Stops(strings=("aab!",)))
    assert pieces == ["x", "aaba", "ay"] or "".join(pieces) == "xaabaay"
    assert out.text == "xaabaay"
    assert run(ids("xaa"), Stops(strings=("aab",)))[0] == ["x", "aa"]  # the end of the row lets it go


def test_rows_stop_one_by_one():
    rows = [Row(np.array([BOS], np.int32), 4, Stops(frozenset([EOS])), TOKENIZER, s, ()) for s in range(3)]
    script = Script([*ids("a"), EOS], ids("wxyz"), [EOS])
    said = list(decode_rows(script, rows))
    assert said == [(0, "a"), (1, "w"), (1, "x"), (1, "y"), (1, "z")] and script.stopped == {0, 1, 2}
    assert [row.generation().text for row in rows] == ["a", "wxyz", ""]
    assert [row.generation().finish_reason for row in rows] == ["stop", "length", "stop"]


@pytest.mark.parametrize("how", ["forgotten", "closed", "failed", "ended"])
def test_a_stream_that_is_left_frees_its_cache(how):
    script = Script(ids("abc"))
    if how == "failed":
        script.rows = (ids("a"),)  # the second step raises IndexError
    rows = [Row(np.array([BOS], np.int32), 3, Stops(), TOKENIZER, 0, ())]
    stream = Stream((piece for _, piece in decode_rows(script, rows)), rows, is_batch=False)
    cache = weakref.ref(script)
    del script
    assert next(stream) == "a"
    assert cache() is not None
    if how == "forgotten":
        del stream
    elif how == "closed":
        stream.close()
        assert list(stream) == []
    elif how == "ended":
        assert list(stream) == ["b", "c"] and stream.result.text == "abc"
    else:
        with pytest.raises(IndexError):
            next(stream)
    gc.collect()
    assert cache() is None


def test_leaving_a_models_stream_frees_its_decoder():
    model, _ = tiny()
    made = []

    class Watched:
        """Forwards to a core decoder, and can be watched."""

        def __init__(self, *args):
            core = _core64.Decoder(*args)
            self.step, self.stop = core.step, core.stop
            made.append(weakref.ref(self))

    class Module:
        Decoder = Watched

    view = dataclasses.replace(model, _loaded=dataclasses.replace(model._loaded, module=Module))
    stream = view.generate([BOS], max_new_tokens=9, stream=True)
    assert next(stream) and made[0]() is not None
    del stream
    gc.collect()
    assert len(made) == 1 and made[0]() is None


def test_row_seeds():
    assert row_seeds(5, 3).tolist() == [5, 6, 7]
    assert row_seeds(2**64 - 1, 2).tolist() == [2**64 - 1, 0]
    assert row_seeds([3, 3], 2).tolist() == row_seeds(np.array([3, 3]), 2).tolist() == [3, 3]
    assert row_seeds(np.uint8(7), 1).tolist() == [7]
    for bad in ([1], [1, -1], "ab", 1.0, None, -1, [True, 2.0]):
        with pytest.raises(ps.InvalidInput, match="seed"):
            row_seeds(bad, 2)


def test_continuations_compare_by_what_they_say():
    tokens = ids("ab")
    out, same, longer = (run(t)[1] for t in (tokens, tokens, [*tokens, *ids("c")]))
    assert out == same == "ab" and hash(out) == hash(same) == hash("ab") and out != longer and out != "a" and out != tokens
    assert len({out, same, longer}) == 2 and "b" in out and "c" not in out and out in ["ab"]
    stopped = run([*tokens, EOS], Stops(frozenset([EOS])))[1]
    assert stopped.text == out.text and stopped != out  # the stop is a token, too
    mute = dataclasses.replace(out, text=None)
    assert mute == dataclasses.replace(same, text=None) != out and hash(mute) == hash(dataclasses.replace(same, text=None))
    assert mute != dataclasses.replace(longer, text=None) and mute != "ab"
    with pytest.raises(ps.InvalidInput, match="no text, as its model has no tokenizer; compare its tokens"):
        assert "a" in mute
