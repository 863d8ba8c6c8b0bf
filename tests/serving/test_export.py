"""An exported run, loaded without this package, says what the run says."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from er.errors import UserError
from er.results import Result
from er.serving.answering import module_of
from er.serving.export import export
from er.serving.trained import load_run
from er.testing import FAMILIES, padded_batch, tiny_checkpoint
from er.training import adapters
from tests.training.test_kinds import own

__all__ = ["own"]

Train = Callable[..., Result]

QUICK = ["optim.epochs=1", "optim.lr=1e-2", "model.attention=eager"]
PLAIN = {
    "classification": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "extractive_qa": AutoModelForQuestionAnswering,
}
ADAPTER = ["method=reduced_adapters", "method.adapter.bottleneck=8"]


def folder_of(result: Result, tmp_path: Path) -> Path:
    (path,) = tmp_path.rglob(f"*-{result.run_id}")
    return path


@pytest.fixture
def trained(train: Train, own: Train, tmp_path: Path) -> Callable[..., Path]:
    """Train a run of a kind with an encoder of a family, for a moment."""

    def trained_run(kind: str, family: str, *overrides: str) -> Path:
        head = {"classification": "sequence", "extractive_qa": "qa"}.get(kind) if family.startswith("t5") else None
        path = tiny_checkpoint(tmp_path / family, family, head, layers=3)  # T5's own heads want its decoder, too
        options = [f"model.path={path}", "cut=2", *QUICK, *overrides]
        result = train(*options) if kind == "classification" else own(kind, *options)
        return folder_of(result, tmp_path)

    return trained_run


def logits(output: Any) -> Tensor:
    if "start_logits" in output:
        return torch.stack([output.start_logits, output.end_logits], dim=-1)
    return output.logits  # type: ignore[no-any-return]


@torch.no_grad()
def compare(run: Path, model: Any, exact: bool, first: bool = False) -> None:
    module = module_of(load_run(run)).eval()
    inputs = padded_batch(model.config)
    ours, theirs = module({"inputs": inputs}), logits(model.eval()(**inputs))
    if first:
        theirs = theirs[:, 0]
    if ours.ndim == 3:
        real = inputs["attention_mask"].bool()
        ours, theirs = ours[real], theirs[real]
    if exact:
        assert torch.equal(ours, theirs)
    else:
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def matrix(families: list[str]) -> list[Any]:
    """Every family, kind and head; the fast tests take all of BERT, and of the others the head that needs most care."""
    cells = product(families, PLAIN, ["linear", "stock"])
    return [pytest.param(*cell, marks=() if _fast(*cell) else pytest.mark.slow) for cell in cells]


def _fast(family: str, kind: str, head: str) -> bool:
    return family == "bert" or ((kind, head) == ("classification", "linear") and family != "t5+gated")


@pytest.mark.parametrize(("family", "kind", "head"), matrix(FAMILIES))
def test_a_checkpoint_that_plain_transformers_loads_gives_the_same_logits(
    trained: Callable[..., Path], tmp_path: Path, family: str, kind: str, head: str
) -> None:
    run = trained(kind, family, "method=reduced", f"method.head={head}")
    to = tmp_path / "exported"
    export(run, to)

    as_tags = family.startswith("t5") and head == "linear"
    kind_of = AutoModelForTokenClassification if as_tags else PLAIN[kind]
    model = kind_of.from_pretrained(to, attn_implementation="eager")
    rounds = head == "linear" and (kind == "classification" or family == "modernbert")
    compare(run, model, exact=not rounds, first=as_tags and kind == "classification")
    assert list(model.config.id2label.values()) == load_run(run).labels
    assert AutoTokenizer.from_pretrained(to)("the cat")["input_ids"]


@pytest.mark.parametrize("method", ["finetune", "bitfit", "probe"])
def test_every_method_without_adapters_becomes_a_checkpoint(
    trained: Callable[..., Path], tmp_path: Path, method: str
) -> None:
    run = trained("classification", "bert", f"method={method}", "method.head=stock")
    export(run, tmp_path / "exported")

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported", attn_implementation="eager")
    compare(run, model, exact=True)


@pytest.mark.parametrize(
    ("family", "kind", "head"), matrix(["bert", "roberta", "distilbert", "deberta-v2", "electra", "xlm-roberta"])
)
def test_an_adapter_that_plain_adapters_loads_gives_the_same_logits(
    trained: Callable[..., Path], tmp_path: Path, family: str, kind: str, head: str
) -> None:
    from adapters import AutoAdapterModel

    run = trained(kind, family, *ADAPTER, f"method.head={head}")
    to = tmp_path / "exported"
    export(run, to)

    model = AutoAdapterModel.from_pretrained(tmp_path / family, attn_implementation="eager")
    model.load_adapter(str(to), set_active=True)
    compare(run, model, exact=not (head == "linear" and kind == "classification"))
    assert model.get_labels_dict() == dict(enumerate(load_run(run).labels))


WIDE = ["bert", "roberta", "mpnet"]


@pytest.mark.parametrize(
    "family", [pytest.param(each, marks=() if each == "bert" else pytest.mark.slow) for each in WIDE]
)
@pytest.mark.parametrize("adapter", [pytest.param([], id="whole"), pytest.param(ADAPTER, id="adapter")])
def test_our_own_head_is_the_same_to_the_bit_where_it_fits_into_the_stock_one(
    train: Train, tmp_path: Path, family: str, adapter: list[str]
) -> None:
    from adapters import AutoAdapterModel

    path = tiny_checkpoint(tmp_path / family, family, layers=3, hidden_size=256)
    method = adapter or ["method=reduced"]
    run = folder_of(train(*method, f"model.path={path}", "cut=2", *QUICK), tmp_path)
    to = tmp_path / "exported"
    export(run, to)

    if not adapter:
        model = AutoModelForSequenceClassification.from_pretrained(to, attn_implementation="eager")
    elif family == "mpnet":
        model = by_the_card(to)
    else:
        model = AutoAdapterModel.from_pretrained(path, attn_implementation="eager")
        model.load_adapter(str(to), set_active=True)
    compare(run, model, exact=True)


@pytest.mark.parametrize("kind", adapters.KINDS)
def test_adapters_of_every_kind_are_loaded_whole(trained: Callable[..., Path], tmp_path: Path, kind: str) -> None:
    from adapters import AutoAdapterModel

    run = trained("tagging", "bert", *ADAPTER, f"method.adapter.kind={kind}", "method.head=stock")
    export(run, tmp_path / "exported")

    model = AutoAdapterModel.from_pretrained(tmp_path / "bert", attn_implementation="eager")
    model.load_adapter(str(tmp_path / "exported"), set_active=True)
    compare(run, model, exact=True)


def by_the_card(to: Path, attention: str = "eager") -> Any:
    """Do what the model card says."""
    code = (to / "README.md").read_text().split("```python\n")[1].split("```")[0]
    place: dict[str, Any] = {}
    exec(code.replace('"DIR', f'"{to}').replace("config=", f'attn_implementation="{attention}", config='), place)
    return place["model"]


@pytest.mark.parametrize(("family", "kind", "head"), matrix(["mpnet", "modernbert", "t5", "t5+gated"]))
def test_an_adapter_of_a_family_without_such_a_class_is_loaded_as_the_card_says(
    trained: Callable[..., Path], tmp_path: Path, family: str, kind: str, head: str
) -> None:
    run = trained(kind, family, *ADAPTER, f"method.head={head}")
    export(run, tmp_path / "exported")

    model = by_the_card(tmp_path / "exported")
    as_tags = family.startswith("t5") and head == "linear"
    rounds = head == "linear" and (kind == "classification" or family == "modernbert")
    compare(run, model, exact=not rounds, first=as_tags and kind == "classification")
    assert model.config.id2label == dict(enumerate(load_run(run).labels))
    assert sum(path.stat().st_size for path in (tmp_path / "exported").glob("*.bin")) < 1 << 17  # no encoder in it


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), [("modernbert", "lora"), ("modernbert", "compacter"), ("mpnet", "ia3")])
def test_adapters_of_other_kinds_too(trained: Callable[..., Path], tmp_path: Path, family: str, kind: str) -> None:
    run = trained("classification", family, *ADAPTER, f"method.adapter.kind={kind}", "method.head=stock")
    export(run, tmp_path / "exported")

    compare(run, by_the_card(tmp_path / "exported"), exact=True)


@pytest.mark.parametrize("family", [pytest.param("bert", marks=pytest.mark.slow), "mpnet"])
def test_an_adapter_fits_the_bare_base_model(trained: Callable[..., Path], tmp_path: Path, family: str) -> None:
    import adapters as library
    from transformers import AutoModel

    run = trained("classification", family, *ADAPTER)
    export(run, tmp_path / "exported")

    model = AutoModel.from_pretrained(tmp_path / family, attn_implementation="eager")
    described = tmp_path / "exported" / "adapter_interface.json"
    said = json.loads(described.read_text())["interface"] if described.exists() else None
    library.init(model, interface=said and library.AdapterModelInterface(**said))
    model.load_adapter(str(tmp_path / "exported"), set_active=True, with_head=False)
    module, inputs = module_of(load_run(run)), padded_batch(model.config)
    with torch.no_grad():
        ours = module({"inputs": inputs})
        assert torch.equal(module.head(model.eval()(**inputs)), ours)


def test_the_card_says_what_it_was_trained_on_and_how(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = trained("classification", "bert", "method=reduced")
    export(run, tmp_path / "exported")

    said = (tmp_path / "exported" / "README.md").read_text()
    record = json.loads((run / "result.json").read_text())
    for part in (record["run_id"], record["identity"]["task"]["source"], "layer 2", "`animal`, `tool`", "accuracy"):
        assert part in said
    assert json.loads((tmp_path / "exported" / "result.json").read_text()) == record


def test_what_no_single_model_can_do_is_refused(own: Train, train: Train, tmp_path: Path) -> None:
    apart = own("pair_classification", "method=reduced", "cut=2", "task.encode=separate", *QUICK[:2])
    with pytest.raises(UserError, match=r"task.encode=separate runs the two texts of an input apart"):
        export(folder_of(apart, tmp_path), tmp_path / "exported")

    crossed = train("method=cross_model", "cut=2", *QUICK[:2])
    with pytest.raises(UserError, match="method=cross_model adds what one model made"):
        export(folder_of(crossed, tmp_path), tmp_path / "exported")


def test_what_is_there_is_overwritten_only_if_asked_for_and_only_an_export(
    trained: Callable[..., Path], tmp_path: Path
) -> None:
    run, to = trained("classification", "bert", "method=reduced"), tmp_path / "exported"
    export(run, to)
    (to / "left.txt").write_text("")
    with pytest.raises(UserError, match=r"exists already.*overwrite=true"):
        export(run, to)
    export(run, to, overwrite=True)
    assert not (to / "left.txt").exists()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match="something else than an export"):
        export(run, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


@pytest.mark.parametrize(
    "break_it, says",
    [
        ("nothing", "there is no such folder"),
        ("empty", "is no run: it has no result.json"),
        ("unfinished", "is not finished"),
        ("newer", "written by a newer er"),
        ("garbled", "is not a result of er"),
        ("unknown", "configuration that this er does not know"),
        ("weights", "cannot be read"),
        ("base", "are not those that the run was trained on"),
    ],
)
def test_a_run_that_cannot_be_taken_away_is_refused_with_the_reason(
    trained: Callable[..., Path], tmp_path: Path, break_it: str, says: str
) -> None:
    run = trained("classification", "bert", "method=reduced")
    record = run / "result.json"
    said = json.loads(record.read_text())
    if break_it == "nothing":
        run = tmp_path / "nowhere"
    elif break_it == "empty":
        record.unlink()
    elif break_it == "unfinished":
        record.unlink()
        (run / "checkpoints").mkdir()
    elif break_it == "newer":
        record.write_text(json.dumps(said | {"version": 99, "more": 1}))
    elif break_it == "garbled":
        record.write_text(record.read_text()[:100])
    elif break_it == "unknown":
        record.write_text(json.dumps(said | {"config": said["config"] | {"more": 1}}))
    elif break_it == "weights":
        (run / "weights.safetensors").write_bytes(b"short")
    else:
        tiny_checkpoint(tmp_path / "bert", layers=3, hidden_size=16)

    with pytest.raises(UserError, match=says):
        export(run, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
