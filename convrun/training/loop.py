"""The training loop. It reads only the plan; every draw follows from (seed, position, purpose).

One optimizer step, from here: `data.pipeline` hands out its micro-batches, `training.step` makes a gradient of them and
applies it, `distributed.replicas` sums it over the ranks. What can go wrong is in `training.faults`, around the step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from convrun.contracts.callback import Callback
from convrun.contracts.metrics import EvalRow, Weights
from convrun.data.pipeline import TrainingBatches
from convrun.plan import Plan
from convrun.training.evaluation import Evaluation, EvaluationStopped
from convrun.training.faults.memory import Memory
from convrun.training.faults.non_finite import Health
from convrun.training.recording.contract import Recorder
from convrun.training.state import RunState
from convrun.training.step import Step


class Loop:
    """Trains to the end of a plan, or until told to stop.

    Args:
        plan: the plan, made for this machine.
        state: where it stands; all that a checkpoint holds.
        batches: the training images.
        step: trains on them.
        evaluation: the validation images.
        callbacks: see evaluations, may end the run.
        recorder: logs and saves.
        should_stop: asked after each step, and during evaluations; by all ranks alike.
    """

    def __init__(
        self,
        plan: Plan,
        state: RunState,
        batches: TrainingBatches,
        step: Step,
        evaluation: Evaluation,
        callbacks: Sequence[Callback],
        recorder: Recorder,
        should_stop: Callable[[], bool],
    ) -> None:
        self.plan, self.state, self.progress = plan, state, state.progress
        self.batches, self.step, self.evaluation, self.callbacks = batches, step, evaluation, callbacks
        self.recorder, self.should_stop = recorder, should_stop
        self.memory = Memory(plan, state.progress, step, recorder, self.save_unless_saved)
        self.health = Health(plan, state, step, step.strategy, recorder)

    def run(self) -> None:
        """Goes on from the state; it is saved when this returns."""
        plan, progress, figures = self.plan, self.progress, self.state.figures
        self.state.model.train()
        self.memory.try_first()
        with self.batches:
            self.finish_step()  # a run that was stopped between a step and its evaluation evaluates first
            while not self.is_over():
                lr = plan.lr(progress.step)
                batches = self.batches.of_step(progress.step)  # asked twice for a step, it rewinds
                gradient = self.memory.retried(self.step.gradient, batches)  # out of memory: again, in smaller parts
                figures.add(gradient, lr)  # they stay on the device until a row is due
                if self.health.accepts(gradient):  # non-finite: skipped, or the end, as the recipe says
                    self.memory.applied(self.step.update, gradient, lr)
                progress.step += 1
                self.recorder.advance(progress.step)
                self.finish_step()
        self.save_unless_saved()

    def is_over(self) -> bool:
        """Whether there is nothing left to do, or something asks to stop."""
        # Among several ranks `should_stop` gives the result of the vote after the step before: nothing waits for it.
        return self.progress.step >= self.plan.total_steps or bool(self.progress.stopped_because) or self.should_stop()

    def finish_step(self) -> None:
        """Logs, evaluates and saves what is due after the step that the state stands at."""
        plan, step, figures = self.plan, self.progress.step, self.state.figures
        if figures.is_full:
            self.health.check_steps()
        if plan.is_logged_after(step) and figures.steps:
            self.log()
        with figures.paused():
            is_best = self.is_evaluation_due() and self.evaluate()
            if plan.is_saved_after(step) or (is_best and plan.checkpoints.keep.best > 0):
                self.save_unless_saved()

    def log(self) -> None:
        """One row about the steps since the last; but for saves and evaluations, only here the loop waits."""
        self.health.check_steps()
        row = self.state.figures.take_row(
            step=self.progress.step,
            epoch=self.plan.epoch_after(self.progress.step),
            batch_size=self.plan.training.batch_size,
            wait_seconds=self.batches.wait_seconds,
            overflow_steps=self.progress.overflow_steps,
        )
        self.batches.wait_seconds = 0.0
        with self.state.figures.paused():
            self.recorder.log(row)

    def is_evaluation_due(self) -> bool:
        """Whether the weights as they stand are still to be evaluated."""
        return self.plan.is_evaluated_after(self.progress.step) and self.progress.evaluated_step < self.progress.step

    def evaluate(self) -> bool:
        """Evaluates the weights and their EMA, logs both; whether the reported result is the best so far."""
        self.health.check_weights()
        try:
            rows = self.memory.evaluated(self._evaluated)  # out of memory: again, in smaller parts
        except EvaluationStopped:
            return False  # the state says that this evaluation is still to be done
        self.progress.evaluated_step = self.progress.step
        self.state.saved_step = -1
        for row in rows:
            self.recorder.log(row)
            self._show_callbacks(row)
        reported = next(row["top1"] for row in rows if row["weights"] == self.plan.report)
        return self.progress.note_result(reported, self.plan.checkpoints.keep.best)

    def _evaluated(self, parts: int) -> list[EvalRow]:
        """The rows of the weights and of their EMA, batches in so many parts."""
        state, step, epoch = self.state, self.progress.step, self.plan.epoch_after(self.progress.step)

        def row(weights: Weights) -> EvalRow:
            score = self.evaluation.score(
                state.model, parts=parts, should_stop=self.should_stop, passes=self.memory.passes
            )
            return score.row(step, epoch, weights)

        rows = [row("model")]
        if state.ema is not None:
            with state.ema.swapped_in():
                rows.append(row("ema"))
        return rows

    def _show_callbacks(self, row: EvalRow) -> None:
        """Rank 0's may end the run: one may look at a clock or a file, and all ranks must end after the same step."""
        reasons = [reason for c in self.callbacks if (reason := c.on_evaluation(row))]
        because = self.step.strategy.group.from_first(lambda: "; ".join(reasons))
        self.progress.stopped_because = self.progress.stopped_because or because

    def save_unless_saved(self) -> None:
        """Saves the state, unless it is that of the last checkpoint, or the weights are not finite."""
        if self.state.saved_step != self.progress.step:
            self.health.check_weights()
            self.recorder.save(self.state)
            self.state.saved_step = self.progress.step
