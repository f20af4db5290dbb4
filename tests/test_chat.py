"""The chat: its conversation alone, by lines of standard input, and in a terminal."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time

import pytest

import powersteer as ps
from powersteer.cli import COMMANDS, main
from powersteer.cli.conversation import Conversation

TEMPLATE = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
CONTEXT = 8192


@pytest.fixture(scope="module")
def folder(stories, tmp_path_factory):
    """The trained model with a chat template and a long context, without an end token: its answers never stop."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    shutil.copytree(stories, folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    for name in ("config.json", "generation_config.json"):
        config = {k: v for k, v in json.loads((folder / name).read_text()).items() if k != "eos_token_id"}
        (folder / name).write_text(json.dumps(config | ({"max_position_embeddings": CONTEXT} if name == "config.json" else {})))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return ps.load(folder)


@pytest.fixture(scope="module")
def file(model, folder):
    vec = model.jacobian("Once upon a time", 1, 3).svd(k=1).vectors[0]
    path = folder.parent / "v.safetensors"
    vec.save(path)
    return path


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def nothing(variant, piece):
    pass


def texts(folder, lines, *args, code=0):
    """Standard output and error of a chat of these lines."""
    command = [sys.executable, "-m", "powersteer", "chat", folder, "--max-new-tokens", 8, *args]
    done = subprocess.run([*map(str, command)], input="\n".join(lines), capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


# ---- the conversation


def test_every_answer_continues_the_whole_conversation(model):
    talk, pieces = Conversation(model, system="Be kind.", max_new_tokens=6), []
    first = talk.ask("A dog", lambda variant, piece: pieces.append((variant, piece)))
    start = [{"role": "system", "content": "Be kind."}, user("A dog")]
    assert first.text == model.generate(start, max_new_tokens=6).text and first.finish_reason == "length"
    assert "".join(piece for _, piece in pieces) == first.text and {variant for variant, _ in pieces} == {"steered"}
    second = talk.ask("A cat", nothing)
    assert second.text == model.generate([*start, assistant(first.text), user("A cat")], max_new_tokens=6).text
    assert talk.messages == [*start, assistant(first.text), user("A cat"), assistant(second.text)]
    talk.reset()
    assert talk.messages == start[:1] and talk.ask("A dog", nothing) == first


def test_it_is_steered_at_its_scale_and_positions(model, file):
    vec, talk = ps.SteeringVector.load(file), Conversation(model, positions=slice(1, None), max_new_tokens=6)
    for order, want in ((lambda: talk.steer(f"{file}:0.35"), vec.relative(0.35)), (lambda: talk.scale(-1.5), vec.relative(-1.5)),
                        (lambda: talk.scale(-1.5), vec.relative(-1.5)), (lambda: talk.scale(0.5, 1), vec.relative(0.5))):  # fmt: skip
        order()
        view = model.steered(want, positions=slice(1, None))
        answer = talk.ask("A dog", nothing)
        assert answer.text == view.generate([user("A dog")], max_new_tokens=6).text and answer.steering == view.steering
        talk.reset()
    talk.steer(str(file))
    assert talk.vectors == [vec.relative(0.5), vec]
    talk.scale(2.0, 2)
    assert talk.vectors == [vec.relative(0.5), vec.relative(2.0)] and "2 of the activation norm" in talk.steering()[1]
    talk.unsteer()
    assert talk.ask("A dog", nothing).steering == () and talk.steering() == []


def test_a_norm_that_a_file_lacks_is_that_of_a_greeting(model, file, tmp_path):
    vec = ps.SteeringVector.load(file)
    bare = ps.SteeringVector(vec.direction, vec.layer, vec.site)
    bare.save(tmp_path / "bare.safetensors")
    talk = Conversation(model)
    talk.steer(f"{tmp_path / 'bare.safetensors'}:0.5")
    norm = (model.activations([user("Hello")], vec.location).astype(float) ** 2).sum(1) ** 0.5
    assert talk.vectors[0].scale == pytest.approx(0.5 * norm.mean(), rel=1e-6)


def test_a_file_may_be_named_like_a_scale(model, file, tmp_path):
    name = tmp_path / "v:0.5"
    shutil.copy(file, name)
    talk = Conversation(model)
    talk.steer(str(name))
    talk.steer(f"{name}:2")
    assert talk.vectors == [(vec := ps.SteeringVector.load(file)), vec.relative(2.0)]


def test_a_comparison_goes_on_from_the_steered_answer(model, file):
    talk, order = Conversation(model, max_new_tokens=6), []
    talk.steer(f"{file}:3")
    answer = talk.ask("A dog", lambda variant, piece: order.append(variant), compare=True)
    assert answer.unsteered == model.generate([user("A dog")], max_new_tokens=6).text != answer.text
    assert order == sorted(order) and set(order) == {"steered", "unsteered"} and talk.messages[1]["content"] == answer.text
    assert talk.ask("A dog", nothing, compare=True, again=True) == answer and len(talk.turns) == 1


def test_draws_differ_by_turn_and_not_by_variant(model):
    talk = Conversation(model, max_new_tokens=6, temperature=1.0, seed=3)
    answer = talk.ask("A dog", nothing, compare=True)
    assert answer.text == answer.unsteered == model.generate([user("A dog")], max_new_tokens=6, temperature=1.0, seed=3).text
    second = talk.ask("A dog", nothing)
    before = [user("A dog"), assistant(answer.text), user("A dog")]
    assert second.text == model.generate(before, max_new_tokens=6, temperature=1.0, seed=4).text


@pytest.mark.parametrize("pieces", [0, 3])
def test_ctrl_c_keeps_what_was_said(model, pieces):
    talk, seen = Conversation(model, max_new_tokens=100), []

    def emit(variant, piece):
        if len(seen) == pieces:
            raise KeyboardInterrupt
        seen.append(piece)

    answer = talk.ask("A dog", emit)
    assert answer.finish_reason == "interrupted" and answer.text.startswith("".join(seen)) and len(talk.turns) == 1
    assert len(answer.text) < 40 and talk.messages[-1] == assistant(answer.text)


def test_ctrl_c_before_the_first_word_withdraws_the_message(model, monkeypatch):
    talk = Conversation(model)

    def generate(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ps.Model, "generate", generate)
    assert talk.ask("A dog", nothing).finish_reason == "interrupted" and talk.messages == []


def test_an_answer_takes_the_room_that_is_left(stories):
    model = ps.load(stories)
    talk = Conversation(model, template=TEMPLATE, max_new_tokens=10**6)
    long = "a dog " * 60
    answer = talk.ask(long, nothing)
    tokens = model.tokens([user(long)], chat_template=TEMPLATE)
    assert answer.finish_reason == "length" and answer.text == model.generate(tokens, max_new_tokens=512 - len(tokens)).text
    with pytest.raises(ps.InvalidInput, match="fills the context of 512.*/reset"):
        talk.ask("a dog " * 500, nothing)
    assert len(talk.turns) == 1


def test_an_error_leaves_the_steering_as_it_was(model, file, tmp_path):
    talk = Conversation(model)
    talk.steer(f"{file}:0.35")
    before = talk.vectors
    ps.SteeringVector.from_array([3.0, 4.0], 1, "mlp_out").save(tmp_path / "short.safetensors")
    wrong = [(lambda: talk.steer(str(tmp_path / "short.safetensors")), "2 numbers"),
             (lambda: talk.steer("none.safetensors:1"), "none.safetensors'"),
             (lambda: talk.scale(float("nan")), "nan"), (lambda: talk.scale(1.0, 2), "no vector 2: they are 1 to 1"),
             (lambda: Conversation(model).scale(1.0), "no vector to scale")]  # fmt: skip
    for call, said in wrong:
        with pytest.raises(ps.PowersteerError, match=said):
            call()
        assert talk.vectors == before
    ps.SteeringVector.load(file).ablate().save(tmp_path / "ablate.safetensors")
    talk.steer(str(tmp_path / "ablate.safetensors"))
    with pytest.raises(ps.InvalidInput, match="is not added"):
        talk.scale(1.0)
    assert talk.vectors[0] == before[0] and talk.steering()[1].startswith("ablate")


# ---- by lines of standard input


def test_lines_of_standard_input(folder, model, file, tmp_path):
    saved = tmp_path / "talk.json"
    out, err = texts(folder, ["A dog", "", "//A cat", "/steer", "/compare", f"/save {saved}"], "--steer", f"{file}:2")
    talk = Conversation(model, max_new_tokens=8)
    talk.steer(f"{file}:2")
    first, second = talk.ask("A dog", nothing), talk.ask("/A cat", nothing, compare=True)
    want = [first.text, second.text, f"1  {talk.steering()[0]}", "--- steered", second.text, "--- unsteered", second.unsteered,
            f"{saved} is written"]  # fmt: skip
    assert out == "\n".join([*want, ""])
    assert err.count("--max-new-tokens") == 3 == err.count("\n")
    data = json.loads(saved.read_text())
    assert data["messages"] == talk.messages and data["model"] == model.identity
    assert [a["unsteered"] for a in data["answers"]] == [None, second.unsteered] and data["answers"][0]["steering"] == list(first.steering)
    assert main(["generate", str(folder), "--prompts", str(saved), "--max-new-tokens", "1"]) == 0


def test_one_object_for_the_conversation(folder):
    out, err = texts(folder, ["A dog", "/steer none"], "--json")
    data = json.loads(out)
    keys = [*data, *(f"answers.{key}" for key in data["answers"][0])]
    assert sorted(keys) == sorted(COMMANDS["chat"].json) and "not steered" in err and data["answers"][0]["text"] in err


@pytest.mark.long
def test_an_error_ends_it_at_its_line(folder, tmp_path):
    out, err = texts(folder, ["/reset", "/sav x", "A dog"], code=2)
    assert out == "" and err == "powersteer: there is no /sav: did you mean /save?\n"
    for line, said in [
        ("/scale", "not steered"), ("/scale 1 2 3", "one number or two"), ("/scale one", "takes a number.*'one'"),
        ("/compare", "no message to compare"), ("/save", "name of a file"), (f"/save {tmp_path}/no/t.json", "no folder"),
        ("/steer none.safetensors", "none.safetensors"), ("/jump", "there is no /jump: /help lists"),
    ]:  # fmt: skip
        out, err = texts(folder, [line], code=0 if said == "not steered" else 2)
        assert re.search(said, out + err), (line, err)
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_not_text(folder):
    command = [sys.executable, "-m", "powersteer", "chat", str(folder)]
    done = subprocess.run(command, input=b"\xff\n", capture_output=True, timeout=600, env={**os.environ, "PYTHONUTF8": "1"})
    assert done.returncode == 2 and done.stderr.startswith(b"powersteer: standard input is not UTF-8 text")


def test_a_template_of_a_file(stories, folder, capsys, monkeypatch):
    assert main(["chat", str(stories)]) == 2
    assert re.fullmatch(r"powersteer: 'stories260K' has no chat template.*--template FILE.*generate\n", capsys.readouterr().err)
    out, _ = texts(stories, ["A dog"], "--template", folder / "chat_template.jinja")
    model = ps.load(stories)
    assert out == model.generate(model.tokens([user("A dog")], chat_template=TEMPLATE), max_new_tokens=8).text + "\n"


def test_a_terminal_needs_prompt_toolkit(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    assert main(["chat", "/no/such/model"]) == 2
    assert "pip install 'powersteer[chat]'" in capsys.readouterr().err


# ---- in a terminal

# A child that leads a session and opens its terminal is controlled by it, so that Ctrl-C reaches it
CONTROLLED = "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.executable, [sys.executable, '-m', *sys.argv[1:]])"


class Terminal:
    """A chat at the other end of a pseudo-terminal."""

    def __init__(self, *args):
        pytest.importorskip("prompt_toolkit", reason="prompt_toolkit is not installed")
        self.master, slave = __import__("pty").openpty()
        command = [sys.executable, "-c", CONTROLLED, "powersteer", "chat", *map(str, args)]
        env = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env=env)
        os.close(slave)

    def read(self, until, seconds=30):
        """What is shown up to a pattern."""
        text, end = "", time.monotonic() + seconds
        while not re.search(until, text):
            assert select.select([self.master], [], [], max(0, end - time.monotonic()))[0], f"{until!r} does not come: {text!r}"
            text += re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", os.read(self.master, 1 << 16).decode("utf-8", "replace"))
        return text

    def write(self, text):
        os.write(self.master, text.encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")
def test_ctrl_c_in_an_answer_and_at_the_prompt(folder, file, tmp_path):
    saved = tmp_path / "t.json"
    with Terminal(folder, "--steer", f"{file}:0.35", "--max-new-tokens", CONTEXT) as terminal:
        assert "/help" in terminal.read(r"activation norm.*\n>")
        terminal.write("A dog\r")
        terminal.read("[a-z ,.]{20}")
        time.sleep(0.3)  # the answer fills the terminal, which nobody reads
        terminal.write("\x03")
        terminal.read(r"\n>")
        terminal.write("half a mess\x03")
        terminal.read("Ctrl-C stops an answer")
        terminal.write("/nothing\r")
        terminal.read("powersteer: there is no /nothing")
        terminal.write("/sa")
        terminal.read("write the conversation as JSON")  # the menu of completions
        terminal.write(f"\t {saved}\r")
        terminal.read("is written")
        terminal.write("/quit\r")
        assert terminal.process.wait(timeout=60) == 0
    data = json.loads(saved.read_text())
    assert [m["role"] for m in data["messages"]] == ["user", "assistant"] and len(data["messages"][1]["content"]) > 20
    assert data["answers"][0]["finish_reason"] == "interrupted" and len(data["answers"][0]["steering"]) == 1


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals of POSIX")
def test_end_of_file_and_history(folder):
    with Terminal(folder, "--max-new-tokens", "3") as terminal:
        terminal.read(r"not steered\n>")
        terminal.write("/scale one\r")
        terminal.read(r"takes a number.*\n>")
        terminal.write("\x1b[A\r")  # the last line again
        terminal.read(r"takes a number.*\n>")
        terminal.write("\x04")
        assert terminal.process.wait(timeout=60) == 0
