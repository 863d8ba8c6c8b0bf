"""The model card of an export: what it is, how to load it, what it learned from, and how well."""

from __future__ import annotations

import json
from typing import Any

from er.choices import Head
from er.config import Config, Model
from er.encoders.locate import folder
from er.results import Result
from er.serving.trained import Trained
from er.training.adapters import WIDE

FRONT = """\
---
library_name: {library}
pipeline_tag: {pipeline}
base_model: {base}
tags: {tags}
---

# {task}: {model}, {method}

{what}

```python
{code}
```

{note}Labels: {labels}.

## Data

Task `{task}` from {source}. Splits: {splits}. Contents: `{digest}`. Inputs: columns {text}, {length} tokens at most.

## How it was trained

{how}

## How well it does, on test

| measure | value |
|---|---|
{metrics}

The whole record is in `result.json`.
"""

PIPELINES = {"sequence": "text-classification", "token": "token-classification", "span": "question-answering"}

CHECKPOINT = """\
from transformers import AutoTokenizer, {auto}

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = {auto}.from_pretrained("DIR")"""

ADAPTER = """\
from adapters import AutoAdapterModel
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = AutoAdapterModel.from_pretrained({base})
model.load_adapter("DIR", set_active=True)"""

OWN_CLASS = """\
import json

import adapters
from transformers import AutoConfig, AutoTokenizer, {auto}

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = {auto}.from_pretrained({base}, config=AutoConfig.from_pretrained("DIR"))
{init}
model.load_adapter("DIR", set_active=True)"""

INIT = "adapters.init(model)"

WITH_INTERFACE = """\
with open("DIR/adapter_interface.json") as file:
    adapters.init(model, interface=adapters.AdapterModelInterface(**json.load(file)["interface"]))"""

WITHOUT_BIAS = """
for module in model.modules():  # adapters 1.3 gives these layers a random bias that ModernBERT does not have
    if type(module).__name__ == "LoRAMergedLinear":
        module.register_parameter("bias", None)"""

LINEAR = """\
The run trained a head of linear layers without activations between them. Here it is a stock head whose weights make it
that, or one layer: equal to rounding at most in float32 and bfloat16, not in float16.
"""

FIRST_TOKEN = """\
This architecture's own class for whole texts reads a decoder. Of these logits, those of the first token are the text's.
"""

SPAN_AS_TAGS = """\
This architecture's own class for answers reads a decoder. Of these logits, the first is the start's, the second is the
end's.
"""


def card(trained: Trained, name: str) -> str:
    """Write the card of a run that was exported as a class of this name."""
    config, result = trained.config, trained.result
    adapter, auto = config.method.adapter, _auto(name)
    return FRONT.format(
        library="adapters" if adapter else "transformers",
        pipeline=PIPELINES[trained.head],
        base=json.dumps(config.model.path),
        tags=json.dumps(["embedding-recycling", *(["adapters"] if adapter else [])]),
        task=config.task.name,
        model=config.model.name,
        method=config.method.name,
        what=f"{'An adapter and a head for' if adapter else 'A copy of'} `{config.model.path}`, trained by `er` "
        f"(embedding recycling) and written as a `{name}`.",
        code=_code(config, name, auto),
        note=_note(trained, auto),
        labels=", ".join(f"`{label}`" for label in trained.labels),
        source=_source(trained),
        splits=", ".join(f"{split} {how}" for split, how in result.split.items()),
        digest=result.identity["task"]["source"],
        text=", ".join(f"`{column}`" for column in config.task.text),
        length=config.task.max_length,
        how=_how(trained),
        metrics=_metrics(result),
    )


def _code(config: Config, name: str, auto: str) -> str:
    """Say how it is loaded."""
    base = json.dumps(_base(config.model))
    if config.method.adapter is None:
        return CHECKPOINT.format(auto=auto)
    if name.endswith("AdapterModel"):
        return ADAPTER.format(base=base)
    init = INIT if name.startswith("T5") else WITH_INTERFACE
    if name.startswith("ModernBert") and config.method.adapter.kind not in WIDE:
        init += WITHOUT_BIAS
    return OWN_CLASS.format(auto=auto, base=base, init=init)


def _base(model: Model) -> str:
    """Return what `from_pretrained` knows the base model by: where only `er` knows a path, the folder it stands for."""
    return str(folder(model)) if "://" in model.path else model.path


def _auto(name: str) -> str:
    ends = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
    return next((f"AutoModel{end}" for end in ends if name.endswith(end)), name)


def _note(trained: Trained, auto: str) -> str:
    if trained.config.method.head is Head.stock:
        return ""
    tags = auto == "AutoModelForTokenClassification"
    said = {"sequence": FIRST_TOKEN, "span": SPAN_AS_TAGS}.get(trained.head, "") if tags else ""
    return f"{LINEAR}{said}\n"


def _source(trained: Trained) -> str:
    task = trained.config.task
    return f"`{task.path or task.builtin or task.folder}`"


def _how(trained: Trained) -> str:
    config, result = trained.config, trained.result
    method, optim = config.method, config.optim
    said: dict[str, Any] = {
        "cut": f"layer {trained.k}; " + ("all below it frozen" if method.recycles else "nothing frozen because of it"),
        "what trained": f"{method.trains.value}, {method.head.value} head; {result.parameters['trained']:,} weights",
        "activations": f"cached as {config.cache.dtype.value}" if result.cache else "recomputed",
        "optimiser": f"AdamW, learning rate {optim.lr:g}, batches of {optim.batch_size}, {result.steps:,} steps",
        "seed": config.seed,
        "precision": config.trainer.precision.value,
        "base model's files": f"`{result.identity['model']['source']}`",
        "versions": ", ".join(f"{name} {number}" for name, number in result.env.get("packages", {}).items()),
        "run": f"`{result.run_id}`, {result.env.get('finished', '')}",
    }
    return "\n".join(f"- {name}: {value}" for name, value in said.items())


def _metrics(result: Result) -> str:
    shown = {name.removeprefix("test/"): v for name, v in result.metrics.items() if name.startswith("test/")}
    return "\n".join(f"| {name} | {value:.4f} |" for name, value in shown.items())
