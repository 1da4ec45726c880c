"""The Trainer does what a loop written by hand does, tells its callbacks when, and refuses what it cannot use."""

from __future__ import annotations

import numpy as np
import pytest
import retrograd as rg
from retrograd.train import Callback, EarlyStopping, History, Schedule, Trainer, metrics, supervised

F = rg.nn.functional


@pytest.fixture(autouse=True)
def _no_kernels_to_compile(monkeypatch):
    monkeypatch.setenv("RETROGRAD_KERNELS", "array")


def loader(samples=24, batch_size=6, seed=0, shuffle=True):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((samples, 4)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)
    return rg.data.DataLoader(rg.data.ArrayDataset(x, y), batch_size, shuffle=shuffle, seed=seed)


def net(dropout=0.0):
    rg.manual_seed(0)
    return rg.nn.Sequential(rg.nn.Linear(4, 6), rg.nn.Tanh(), rg.nn.Dropout(dropout), rg.nn.Linear(6, 3))


def made(model=None, loss=None, lr=0.05, **options):
    model = model or net()
    optimizer = rg.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    options = {"progress": False, "compile": False} | options
    return Trainer(model, optimizer, loss or supervised(F.cross_entropy), **options)


def weights(model):
    return [p.numpy().copy() for p in model.parameters()]


def by_hand(dropout=0.0, epochs=3, accumulate=1, clip=None):
    """The losses of every step, and the weights at the end."""
    model = net(dropout)
    rg.manual_seed(9)
    optimizer = rg.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = rg.optim.lr_scheduler.WarmupCosineLR(optimizer, 3, 20)
    losses, batches = [], loader()
    for _ in range(epochs):
        epoch = list(batches)
        for start in range(0, len(epoch), accumulate):
            group = epoch[start : start + accumulate]
            values = []
            for x, y in group:
                loss = F.cross_entropy(model(x), y)
                (loss * (1 / len(group))).backward()
                values.append(loss.item())
            if clip:
                rg.optim.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            losses.append(sum(values) / len(values))
    return losses, weights(model)


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize(
    "variant",
    [{}, {"dropout": 0.4, "clip": 0.5}, {"accumulate": 3}],
    ids=["plain", "dropout and clipping", "accumulated"],
)
def test_fit_is_the_loop_that_one_writes_by_hand(compile, variant):
    losses, expected = by_hand(**variant)
    model = net(variant.get("dropout", 0.0))
    optimizer = rg.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    trainer = Trainer(
        model,
        optimizer,
        supervised(F.cross_entropy),
        schedule=rg.optim.lr_scheduler.WarmupCosineLR(optimizer, 3, 20),
        clip_grad_norm=variant.get("clip"),
        accumulate=variant.get("accumulate", 1),
        compile=compile,
        log_every=1,
        progress=False,
        seed=9,
    )
    history = trainer.fit(loader(), epochs=3)
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    for a, b in zip(weights(model), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)
    assert ("grad_norm" in history.columns) == ("clip" in variant)
    assert all(p.grad is None for p in model.parameters())


def test_every_counted_step_is_a_replay(monkeypatch):
    from retrograd.autograd_core.compile.program import Program

    runs = []
    monkeypatch.setattr(
        Program, "run", lambda self, arguments, run=Program.run: runs.append(self) or run(self, arguments)
    )
    trainer = made(compile=True, accumulate=2)
    trainer.fit(loader(samples=27), epochs=2)  # five batches, the last of three
    assert trainer.step == 6
    assert len(runs) == 10


# -- batches of every form --------------------------------------------------------------------------------------------


class Named(rg.nn.Module):
    """A model that is called by names, as those of published checkpoints are."""

    def __init__(self):
        super().__init__()
        rg.manual_seed(0)
        self.table, self.head = rg.nn.Embedding(11, 6), rg.nn.Linear(6, 2)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.astype("float32")[..., None]
        return self.head((self.table(input_ids) * mask).sum(axis=1) / mask.sum(axis=1))


def dicts(n=5):
    rng = np.random.default_rng(1)
    return [
        {
            "input_ids": rng.integers(0, 11, (4, 7)),
            "attention_mask": np.ones((4, 7), np.int64),
            "labels": rng.integers(0, 2, 4),
        }
        for _ in range(n)
    ]


@pytest.mark.parametrize("compile", [False, True])
def test_batches_that_are_dicts(compile):
    trainer = made(Named(), metrics=[metrics.accuracy], compile=compile, lr=0.5)
    history = trainer.fit(dicts(), epochs=12, validation=dicts(2))
    assert history["loss"][-1] < history["loss"][0]
    assert 0 <= history["val_accuracy"][-1] <= 1
    assert trainer.predict(dicts(3)).shape == (12, 2)
    unlabelled = [{name: value for name, value in batch.items() if name != "labels"} for batch in dicts(3)]
    np.testing.assert_array_equal(trainer.predict(unlabelled), trainer.predict(dicts(3)))


def test_a_language_model():
    tokens = np.arange(200).reshape(10, 20) % 7
    model = rg.nn.Sequential(rg.nn.Embedding(7, 8), rg.nn.Linear(8, 7))

    def loss(model, batch):
        scores = model(batch[:, :-1])
        return F.cross_entropy(scores.reshape(-1, 7), batch[:, 1:].reshape(-1))

    trainer = made(model, loss, lr=1.0, metrics=[metrics.perplexity], compile=True)
    history = trainer.fit([tokens[:5], tokens[5:]], steps=30, validation=[tokens])
    assert history["val_perplexity"][-1] == pytest.approx(np.exp(history["val_loss"][-1]))
    assert history["val_perplexity"][-1] < 1.5
    assert trainer.predict([tokens]).shape == (10, 20, 7)


def test_a_loss_that_names_its_targets():
    def loss(model, batch):
        ids, mask, extra = batch
        out = model(ids, mask)
        return F.cross_entropy(out, extra["wanted"]), out, extra["wanted"]

    batches = [(b["input_ids"], b["attention_mask"], {"wanted": b["labels"]}) for b in dicts()]
    trainer = made(Named(), loss, metrics={"f1": lambda p, t: metrics.f1(p, t, "micro")})
    found = trainer.evaluate(batches)
    assert found.keys() == {"loss", "f1"}
    assert found["f1"] == metrics.accuracy(trainer.predict(batches), np.concatenate([b["labels"] for b in dicts()]))


def test_predictions_keep_their_nest():
    class Two(rg.nn.Module):
        def forward(self, x):
            return {"double": x * 2, "pair": (x[:, 0], x + 1)}

    optimizer = rg.optim.SGD([rg.nn.Parameter(rg.zeros(1))], lr=0.1)
    trainer = Trainer(Two(), optimizer, lambda model, batch: rg.sum(batch), progress=False)
    x = np.arange(6.0).reshape(3, 2)
    found = trainer.predict([x[:2], x[2:]])
    np.testing.assert_array_equal(found["double"], x * 2)
    np.testing.assert_array_equal(found["pair"][0], x[:, 0])
    np.testing.assert_array_equal(found["pair"][1], x + 1)
    found = trainer.predict([(x, "text")], forward=lambda model, batch: model(batch[0])["double"])
    np.testing.assert_array_equal(found, x * 2)


# -- evaluating -------------------------------------------------------------------------------------------------------


def test_the_mean_is_over_samples_and_nothing_is_changed():
    trainer = made(net(dropout=0.5), metrics=[metrics.accuracy])
    trainer.model[2].eval()
    trainer.model[0].train()
    before, stream = weights(trainer.model), rg.default_generator().state()
    found = trainer.evaluate(loader(samples=25, batch_size=8, shuffle=False))
    whole = trainer.evaluate(loader(samples=25, batch_size=25, shuffle=False))
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-6)
    assert found["accuracy"] == whole["accuracy"]
    assert [m.training for m in trainer.model] == [True, True, False, True]
    for a, b in zip(weights(trainer.model), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert rg.default_generator().state() == stream
    assert all(p.grad is None for p in trainer.model.parameters())


# -- when things happen -----------------------------------------------------------------------------------------------


class Watching(Callback):
    def __init__(self):
        self.seen = []

    def on_fit_start(self, trainer):
        self.seen.append("start")

    def on_row(self, trainer, row):
        self.seen.append(f"row {row['step']}" + (" validated" if row["val_loss"] is not None else ""))

    def on_step_end(self, trainer):
        self.seen.append(f"step {trainer.step}")

    def on_epoch_end(self, trainer):
        self.seen.append(f"epoch {trainer.epoch}")

    def on_fit_end(self, trainer):
        self.seen.append("end")

    def close(self):
        self.seen.append("closed")


MOMENTS = {
    "epochs": (
        {"epochs": 2},
        None,
        "step 1,step 2,row 2 validated,epoch 1,step 3,step 4,row 4 validated,epoch 2,end,closed",
    ),
    "steps, ending within an epoch": (
        {"steps": 3},
        None,
        "step 1,step 2,row 2 validated,epoch 1,step 3,row 3 validated,end,closed",
    ),
    "rows and validations of their own": (
        {"steps": 5, "validate_every": 4},
        3,
        "step 1,step 2,row 2,epoch 1,row 3,step 3,row 4 validated,step 4,epoch 2,step 5,row 5 validated,end,closed",
    ),
    "whichever is first": ({"steps": 9, "epochs": 1}, None, "step 1,step 2,row 2 validated,epoch 1,end,closed"),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_when_callbacks_are_called(name):
    options, log_every, expected = MOMENTS[name]
    watching = Watching()
    trainer = made(callbacks=[watching], log_every=log_every)
    trainer.fit(loader(samples=12), validation=loader(samples=6, shuffle=False), **options)
    assert ",".join(watching.seen) == f"start,{expected}"
    epochs = {row["step"]: row["epoch"] for row in trainer.history}
    assert all(epoch == -(-step // 2) for step, epoch in epochs.items())


def test_fit_goes_on_where_it_stopped():
    whole, parts = made(), made()
    whole.fit(loader(), steps=10)
    batches = loader()
    for steps in (3, 4, 9, 10):  # an epoch has four
        parts.fit(batches, steps=steps)
    for a, b in zip(weights(parts.model), weights(whole.model), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (parts.step, parts.epoch) == (10, 2)


def test_a_callback_is_closed_where_the_run_fails():
    watching = Watching()

    def loss(model, batch):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        made(loss=loss, callbacks=[watching]).fit(loader(), epochs=1)
    assert watching.seen == ["start", "closed"]


def test_a_schedule_by_epochs():
    trainer = made(lr=1e-3)
    trainer.callbacks.insert(0, Schedule(rg.optim.lr_scheduler.StepLR(trainer.optimizer, 1, 0.5), every="epoch"))
    history = trainer.fit(loader(), epochs=3)
    assert history["lr"] == [1e-3, 5e-4, 2.5e-4]
    with pytest.raises(ValueError, match="'step' or every 'epoch', got 'batch'"):
        Schedule(rg.optim.lr_scheduler.StepLR(trainer.optimizer, 1), every="batch")


class Pretend(Callback):
    def __init__(self, *values):
        self.values = list(values)

    def on_row(self, trainer, row):
        row["val_loss"] = self.values.pop(0)


@pytest.mark.parametrize(
    ("options", "values", "epochs"),
    [
        ({"patience": 2}, [3.0, 2.0, 2.0, 2.5, 0.0], 4),
        ({"patience": 2}, [3.0, 2.0, 2.5, 1.0, 1.0], 5),
        ({"patience": 1, "min_delta": 0.5}, [3.0, 2.6, 0.0, 0.0, 0.0], 2),
        ({"patience": 1, "mode": "max"}, [1.0, 2.0, 3.0, 0.0, 9.0], 4),
        ({"patience": 1}, [3.0, float("nan"), 1.0, 1.0, 1.0], 2),
    ],
)
def test_early_stopping(options, values, epochs):
    trainer = made(callbacks=[Pretend(*values), EarlyStopping(**options)])
    trainer.fit(loader(), epochs=5, validation=loader(6))
    assert trainer.epoch == epochs
    assert (trainer.stopped is not None) == (epochs < 5)


def test_early_stopping_of_what_is_not_there():
    with pytest.raises(ValueError, match=r"no row of this run has 'val_loss'; the columns are step, epoch, loss, lr"):
        made(callbacks=[EarlyStopping()]).fit(loader(), epochs=1)
    with pytest.raises(ValueError, match="patience"):
        EarlyStopping(patience=0)


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_what_compile_refuses_runs_eagerly_after_one_warning():
    def loss(model, batch):
        x, y = batch
        return F.cross_entropy(model(x), y) * float(x.sum().item() > -1e9)

    trainer, eager = made(loss=loss, compile=True), made(loss=loss)
    with pytest.warns(UserWarning, match="steps run eagerly, compile refused them") as caught:
        trainer.fit(loader(), epochs=2)
    assert [warning.filename for warning in caught] == [__file__]
    eager.fit(loader(), epochs=2)
    for a, b in zip(weights(trainer.model), weights(eager.model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batches_of_too_many_shapes(monkeypatch):
    monkeypatch.setattr("retrograd.autograd_core.compile.programs.MAX_PROGRAMS", 2)
    batches = [(np.ones((n, 4), np.float32), np.zeros(n, np.int64)) for n in (2, 3, 4, 5)]
    trainer = made(compile=True)
    with pytest.raises(rg.RecordingError, match=r"more than 2 signatures.* pad .* Or train with compile=False\."):
        trainer.fit(batches, epochs=1)
    assert trainer.step == 2


def test_a_loss_that_is_no_number_ends_the_run():
    def loss(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1]) + float("inf")

    with pytest.raises(FloatingPointError, match="the loss is inf at step 1, in epoch 1: try a lower learning rate"):
        made(loss=loss).fit(loader(), epochs=1)


def test_what_the_optimizer_does_not_train_keeps_no_gradients():
    model = net()
    optimizer = rg.optim.SGD(model[3].parameters(), lr=0.1)
    before = model[0].weight.numpy().copy()
    trainer = Trainer(model, optimizer, supervised(F.cross_entropy), clip_grad_norm=1.0, progress=False)
    trainer.fit(loader(), epochs=1)
    np.testing.assert_array_equal(model[0].weight.numpy(), before)
    assert model[0].weight.grad is None


RESULTS = {
    "a vector": (lambda model, batch: model(batch[0]), r"got a Tensor of shape \(6, 3\)"),
    "a number": (lambda model, batch: 1.0, "got float"),
    "too much": (lambda model, batch: (1, 2, 3, 4), "got tuple"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_what_a_loss_returns(name):
    loss, message = RESULTS[name]
    with pytest.raises(TypeError, match=message):
        made(loss=loss).fit(loader(), epochs=1)


def test_metrics_need_outputs():
    trainer = made(loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]), metrics=[metrics.accuracy])
    with pytest.raises(TypeError, match=r"loss must return \(loss, outputs\)"):
        trainer.evaluate(loader())
    with pytest.raises(TypeError, match="a metric is a function with a name"):
        made(metrics=[lambda p, t: 0.0])


@pytest.mark.parametrize("batch", [np.zeros((2, 4), np.float32), (np.zeros((2, 4), np.float32),), {"x": np.zeros(2)}])
def test_batches_without_a_target(batch):
    model = (
        rg.nn.Linear(4, 1) if not isinstance(batch, dict) else type("M", (rg.nn.Module,), {"forward": lambda s, x: x})()
    )
    with pytest.raises(TypeError, match=r"expected a batch \(…, target\) or a dict with 'labels'"):
        supervised(F.mse_loss)(model, rg.train.batches.as_tensors(batch))


ARGUMENTS = {
    "model must be a Module, got": lambda: Trainer(len, rg.optim.SGD([rg.nn.Parameter(rg.zeros(1))]), print),
    "optimizer must be a Optimizer": lambda: Trainer(net(), net().parameters(), print),
    r"loss must be a function of \(model, batch\)": lambda: Trainer(net(), rg.optim.SGD(net().parameters()), 3),
    "the optimizer has none of the model's parameters": lambda: Trainer(
        net(), rg.optim.SGD(net().parameters(), 0.1), print
    ),
    r"callbacks is a list, got a single EarlyStopping": lambda: made(callbacks=rg.train.EarlyStopping()),
    "got <class .*EarlyStopping'>: write it with parentheses": lambda: made(callbacks=[rg.train.EarlyStopping]),
    "a callback is an instance of a subclass of rg.train.Callback, got <built-in": lambda: made(callbacks=[print]),
    "the metric 'confusion_matrix' gave 9 numbers, a row has place for one": lambda: made(
        metrics=[metrics.confusion_matrix]
    ).evaluate(loader()),
    "accumulate must be a whole number of at least 1, got 0": lambda: made(accumulate=0),
    "log_every must be a whole number of at least 1, got 2.5": lambda: made(log_every=2.5),
    "clip_grad_norm must be above 0": lambda: made(clip_grad_norm=0.0),
    "say how long": lambda: made().fit(loader()),
    "epochs must be a whole number of at least 1": lambda: made().fit(loader(), epochs=0),
    "validate_every must be": lambda: made().fit(loader(), epochs=1, validate_every=0),
    "must be iterable anew for each epoch, got generator": lambda: made().fit((b for b in loader()), epochs=1),
    "the training loader gave no batch": lambda: made().fit([], epochs=1),
    "the loader to evaluate gave no batch": lambda: made().evaluate([]),
    "the loader to predict for gave no batch": lambda: made().predict([]),
}


@pytest.mark.parametrize("message", ARGUMENTS)
def test_arguments(message):
    with pytest.raises((TypeError, ValueError), match=message):
        ARGUMENTS[message]()


def test_the_two_loaders_are_two():
    batches = loader()
    with pytest.raises(ValueError, match="the training loader itself"):
        made().fit(batches, epochs=1, validation=batches)


def test_history():
    history = History([{"step": 1, "loss": 2.0, "val_accuracy": None}, {"step": 2, "loss": 1.0, "val_accuracy": 0.5}])
    assert history["val_accuracy"] == [0.5]
    assert history.best("loss")["step"] == history.best("val_accuracy")["step"] == 2
    assert history.best("loss", "max")["step"] == 1
    assert len(history) == 2
    assert repr(history) == "<History: 2 rows: step 2  loss 1.0000  val_accuracy 0.5000>"
    with pytest.raises(KeyError, match="no row has 'lr'"):
        history["lr"]


def test_parameters_lie_end_to_end_though_a_step_ends_without_gradients():
    model = rg.nn.Sequential(rg.nn.Linear(3, 4), rg.nn.Tanh(), rg.nn.Linear(4, 2))
    optimizer = rg.optim.AdamW(model.parameters(), lr=0.01)
    trainer = Trainer(model, optimizer, supervised(rg.nn.functional.cross_entropy), progress=False)
    x, y = np.ones((4, 3), np.float32), np.zeros(4, np.int64)
    trainer.fit([(x, y)], steps=3)
    (flat,) = optimizer._flats
    assert [id(p) for p in flat.parameters] == [id(p) for p in model.parameters()]
    assert all(p.backend.shares_memory(p.array, flat.parameter.array) for p in model.parameters())
