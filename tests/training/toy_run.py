"""A run of a model of two numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inbol_jax.sharding import make_mesh, replicate
from inbol_jax.training.config import SftConfig
from inbol_jax.training.step import TrainProgram
from inbol_jax.training.trainer import Trainer


def toy_step(state, frozen, batch):
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


def toy_score(state, frozen, batch):
    return {"a": (state.params["a"] * batch["x"].sum(), jnp.ones(()))}


def toy_optimizer():
    return optax.adam(optax.linear_schedule(0.1, 0.01, 20))


def toy_batches(start, stop_at=None, steps=1000):
    for i in range(start, steps):
        if i == stop_at:
            raise KeyboardInterrupt
        x = np.random.default_rng(i).normal(size=8).astype(np.float32)
        yield {"x": x, "y": 3 * x + 1}


def toy_trainer(out, steps, settings=None, *, step=toy_step, **options):
    """Args: options: flat options of training."""
    mesh = make_mesh()
    a, b = replicate((jnp.zeros(()), jnp.ones(())), mesh)
    config = SftConfig.from_options(data=out / "data", out=out, **options)
    program = TrainProgram(toy_optimizer(), step, toy_score)
    settings = {"stage": "toy", **(settings or {})}
    return Trainer(config, program, {"a": a}, {"b": b}, mesh, settings, steps)


def toy_run(out, steps, batches=toy_batches, settings=None, *, evaluation=None, **options):
    """Trains to a step, or goes on from the folder's checkpoint.

    Args:
      evaluation: what is called in the midst of each evaluation, which has two batches.
      options: as of `toy_trainer`.
    """
    trainer = toy_trainer(out, steps, settings, **options)

    def score():
        for batch, _ in zip(toy_batches(0), range(2), strict=False):
            evaluation(trainer.step)
            yield batch

    def to_the_end(start):
        return (batch for _, batch in zip(range(start, steps), batches(start), strict=False))

    return trainer.fit(to_the_end, score if evaluation else None)
