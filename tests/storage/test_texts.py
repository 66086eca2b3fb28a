"""Embeddings of texts: made by an encoder and kept in a file: pipelines/storage/texts.py."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import IFPipeline
from transformers import AutoTokenizer, T5EncoderModel

from flowferry import Pipeline
from flowferry.configs.validation import UserError
from flowferry.pipelines.storage import texts
from tiny_diffusers import PROMPTS, WIDTH, encoder, stage_1

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(stage_1(tmp_path_factory.mktemp("first")))


def test_texts_are_encoded_as_their_pipeline_does(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    parts = {"text_encoder": T5EncoderModel.from_pretrained(folder / "text_encoder"), "tokenizer": tokenizer}
    theirs = IFPipeline.from_pretrained(folder, requires_safety_checker=False, **parts)
    asked = f"  {PROMPTS[0].upper()} {'wearing ' * 90}"  # in capitals, and longer than the encoder takes
    found = texts.encode(folder, [asked, PROMPTS[1], asked], device=CPU, dtype=torch.float32)
    assert list(found) == [asked, PROMPTS[1], ""]
    for text in (asked, PROMPTS[1]):
        expected, none = theirs.encode_prompt(text, device=CPU)
        torch.testing.assert_close(found[text], expected[0])
        torch.testing.assert_close(found[""], none[0])
    assert found[""].shape == (77, WIDTH)
    assert (found[asked] - found[PROMPTS[1]]).abs().max() > 0.1


def test_a_file_keeps_embeddings_by_their_texts(folder: Path, tmp_path: Path) -> None:
    found = texts.encode(folder, PROMPTS, device=CPU, dtype=torch.float32)
    texts.save(tmp_path / "texts.safetensors", found)
    read = texts.read(tmp_path / "texts.safetensors")
    assert read.keys() == {*PROMPTS, ""} and all(torch.equal(read[text], found[text]) for text in found)
    pipe = Pipeline.from_diffusers(folder, device="cpu")
    x, labels = torch.randn(1, 3, 32, 32), torch.tensor([1])
    options = (tmp_path / "texts.safetensors", dict(found), None)
    first, *others = (pipe.with_prompts(PROMPTS, which).velocity(x, labels)(x, torch.tensor(0.5)) for which in options)
    assert all(torch.equal(first, other) for other in others)
    texts.save(tmp_path / "batched", {text: tensor[None] for text, tensor in found.items()})  # as others keep them
    assert torch.equal(texts.read(tmp_path / "batched")[""], found[""])


def test_what_is_missing_is_told_in_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, file = Pipeline.from_diffusers(folder, device="cpu"), tmp_path / "texts"
    texts.save(file, {"a cat": torch.zeros(77, WIDTH)})
    with pytest.raises(UserError, match="texts: got no embedding of 'a dog', expected 'a cat'"):
        pipe.with_prompts(["a dog"], file)
    with pytest.raises(UserError, match="texts: got no embedding of ''"):
        pipe.with_prompts(["a cat"], file)
    with pytest.raises(UserError, match=rf"embeddings: got the shape \[77, 5\], expected \[77, {WIDTH}\]"):
        pipe.with_prompts(["a"], {"a": torch.zeros(77, 5), "": torch.zeros(77, 5)})
    for content in (None, b"PK not safetensors"):
        if content:
            file.write_bytes(content)
        with pytest.raises(UserError, match=r"no embeddings, expected a file that launch.py embed wrote"):
            pipe.with_prompts(["a"], file if content else tmp_path / "none")
    with pytest.raises(UserError, match="has no text_encoder: expected a file of embeddings"):
        texts.encode(tmp_path, ["a"], device=CPU, dtype=torch.float32)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"not installed: pip install 'flowferry\[pretrained\]'"):
        pipe.with_prompts(["a"])
