"""A plan as text, in plain aligned lines: importing a table library would double the time that `validate` takes."""

from __future__ import annotations

from convrun.plan import Plan, checkpoint_bytes, kept_checkpoints, warnings
from convrun.recipe import Recipe
from convrun.text.units import duration_text, size_text
from convrun.text.wording import printable


def plan_text(recipe: Recipe, plan: Plan) -> str:
    """The plan, one labelled line for each thing a user should check before a run."""
    rows = [
        ("recipe", f"{recipe.name}: {recipe.summary}" if recipe.summary else recipe.name),
        ("model", _model(plan)),
        *_if_any("init", _init(plan)),
        ("data", plan.data.text()),
        (
            "",
            f"{plan.train_images:,} training and {plan.val_images:,} validation images, {plan.data_classes:,} classes",
        ),
        ("batch", _batch(plan)),
        ("length", _length(plan)),
        *_if_any("", _stop_after(plan.stop_after_seconds)),
        ("lr", _learning_rates(plan)),
        ("optimizer", _optimizer(plan)),
        ("precision", plan.precision or "bf16 on a GPU that has it, else float32"),
        *_if_any("memory", _distributed(plan)),
        ("EMA", _ema(plan)),
        *_numbered("training", plan.training_pipeline()),
        *_numbered("evaluation", _evaluation(plan)),
        ("checkpoints", _checkpoints(plan)),
        *_if_any("expect", _expected(recipe)),
        *(("note", line) for line in recipe.notes.strip().splitlines() if line.strip()),
        *(("warning", text) for text in warnings(plan)),
    ]
    # A recipe's text must not control the terminal: the lines below it say which plugins would run.
    return "\n".join(f"{label:<12} {printable(text)}" for label, text in rows)


def _if_any(label: str, text: str) -> list[tuple[str, str]]:
    return [(label, text)] if text else []


def _numbered(label: str, steps: list[str]) -> list[tuple[str, str]]:
    return [(label if i == 1 else "", f"{i}. {step}") for i, step in enumerate(steps, 1)]


def _model(plan: Plan) -> str:
    count = plan.parameters()
    size = f"{count:,} parameters" if count is not None else "parameters: see --build"
    return f"{plan.model.text()}, {size}, input {plan.input_size} × {plan.input_size}"


def _init(plan: Plan) -> str:
    if plan.init is None:
        return ""
    scale = f", times {plan.init.head_init_scale:g}" if plan.init.head_init_scale != 1 else ""
    if plan.init.from_ is None:
        return f"new weights, the head's{scale}"
    head = "with its head" if plan.init.head == "keep" else f"a new head of {plan.num_classes:,} classes{scale}"
    ema = " (its EMA)" if plan.init.weights == "ema" else ""
    return f"weights of {plan.init.from_}{ema}, {head}"


def _batch(plan: Plan) -> str:
    processes = f"{plan.processes} process{'es' if plan.processes > 1 else ''}"
    parts = f"{processes} × micro-batch {plan.micro_batch} × accumulation {plan.accumulation}"
    return f"{parts} = {plan.training.batch_size:,} images"


def _length(plan: Plan) -> str:
    left_out = f", {plan.images_left_out:,} images left out of each" if plan.images_left_out else ""
    epochs = f"{plan.epochs} epoch{'s' if plan.epochs > 1 else ''}"
    if plan.total_steps % plan.steps_per_epoch:
        share = plan.total_steps / plan.steps_per_epoch
        return f"{plan.total_steps:,} steps = {share:.3g} epochs of {plan.steps_per_epoch:,} steps{left_out}"
    return f"{epochs} × {plan.steps_per_epoch:,} steps = {plan.total_steps:,} steps{left_out}"


def _stop_after(seconds: int | None) -> str:
    if seconds is None:
        return ""
    return f"each start saves and stops after {duration_text(seconds)} with exit code 75; start it again to resume"


def _learning_rates(plan: Plan) -> str:
    steps = plan.horizon.warmup_steps
    warmup = f"{steps:,} warm-up steps from {plan.lr(0):.4g}, " if steps else ""
    return f"{plan.scheduler.name}: {warmup}peak {plan.peak_lr:.6g}, final {plan.lr(plan.total_steps - 1):.4g}"


def _optimizer(plan: Plan) -> str:
    extras, settings = [], plan.optimizer.settings
    if settings.layer_decay != 1:
        extras.append(f"layer decay {settings.layer_decay:g} a {settings.layer_decay_levels}")
    if plan.training.clip_grad_norm is not None:
        extras.append(f"gradient norm clipped at {plan.training.clip_grad_norm:g}")
    return ", ".join([plan.optimizer.text(), *extras])


def _distributed(plan: Plan) -> str:
    """How memory is saved."""
    parts = []
    if plan.is_sharded:
        parts.append(f"fsdp: each process holds 1/{plan.processes} of weights, gradients, moments and EMA")
    if plan.distributed.activation_checkpointing:
        parts.append("activations inside of blocks are recomputed in the backward pass")
    return "; ".join(parts)


def _ema(plan: Plan) -> str:
    horizon = plan.ema_horizon()
    if plan.ema is None or horizon is None:
        return "none"
    epochs = horizon / plan.steps_per_epoch
    return f"decay {plan.ema.decay:g}: remembers about {horizon:,.0f} steps ({epochs:.3g} epochs), float32"


def _evaluation(plan: Plan) -> list[str]:
    if plan.evaluation_interval is None:
        return ["never"]
    epochs = plan.evaluation_interval / plan.steps_per_epoch
    when = f"every {epochs:g} epoch{'s' if epochs != 1 else ''}" if epochs >= 1 and epochs.is_integer() else ""
    when = when or f"every {plan.evaluation_interval:,} steps"
    weights = "the weights and their EMA" if plan.ema is not None else "the weights"
    return [
        *plan.evaluation_pipeline(),
        f"top-1, top-5 and loss of {weights} {when} and at the end; {plan.report} counts",
    ]


def _checkpoints(plan: Plan) -> str:
    size = checkpoint_bytes(plan)
    each = (
        f"{size_text(size)} each, at most {size_text(size * kept_checkpoints(plan))} on disk"
        if size
        else "size: --build"
    )
    keep = plan.checkpoints.keep
    kept = [f"the last {keep.last}"]
    if keep.best and plan.evaluation:
        kept.append(f"the best {keep.best}")
    if plan.keep_interval:
        kept.append(f"every {plan.keep_interval:,}th")
    return f"every {plan.checkpoint_interval:,} steps, {_listed(kept)} kept, {each}"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _expected(recipe: Recipe) -> str:
    expect = recipe.expect
    if expect is None:
        return ""
    parts = [f"{name} {value:g} %" for name, value in (("top-1", expect.top1), ("top-5", expect.top5)) if value]
    text = ", ".join(parts) + f" ({expect.weights})" if parts else ""
    return "; ".join(part for part in (text, expect.source, expect.needs) if part)
