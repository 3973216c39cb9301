"""A run of a model of two numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import CheckpointConfig
from inbol_jax.training.parallel import Jit
from inbol_jax.training.run import RunOptions, run_training
from inbol_jax.training.step import init_state
from inbol_jax.training.trainer import Trainer


def toy_step(state, frozen, reference, batch):
    """Gradient descent on a straight line; learning rate and moments make the state matter."""
    optimizer = toy_optimizer()

    def loss(params):
        return jnp.mean((params["a"] * batch["x"] + frozen["b"] - batch["y"]) ** 2)

    value, gradient = jax.value_and_grad(loss)(state.params)
    update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    one = jnp.ones(())
    metrics = {"loss": (value, one), "weighted": (batch["x"].sum(), jnp.float32(batch["x"].size))}
    return state._replace(
        step=state.step + 1, params=optax.apply_updates(state.params, update), opt_state=opt_state
    ), metrics


def toy_optimizer():
    return optax.adam(optax.linear_schedule(0.1, 0.01, 20))


def toy_batches(start, stop_at=None, steps=1000):
    for i in range(start, steps):
        if i == stop_at:
            raise KeyboardInterrupt
        x = np.random.default_rng(i).normal(size=8).astype(np.float32)
        yield {"x": x, "y": 3 * x + 1}


def toy_run(out, steps, batches=toy_batches, fingerprint="toy", **options):
    """Trains to a step, or goes on from the folder's checkpoint. Options are those of `RunOptions`,
    and of its `checkpoint`."""
    names = {field.name for field in dataclasses.fields(CheckpointConfig)} & options.keys()
    options["checkpoint"] = CheckpointConfig(**{name: options.pop(name) for name in names})
    state = init_state({"a": jnp.zeros(())}, toy_optimizer())
    trainer = Trainer(Jit(toy_step, make_mesh()), steps, frozen={"b": jnp.ones(())}, label="toy")
    run_options = RunOptions(out=out, **{"settings": {"toy": fingerprint}} | options)
    return run_training(trainer, state, batches, run_options)
