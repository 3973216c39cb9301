"""A run of a model of two numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inbol_jax.sharding import make_mesh
from inbol_jax.training.config import SftConfig
from inbol_jax.training.parallel import Jit
from inbol_jax.training.run import Evaluation, Run
from inbol_jax.training.step import init_state


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


def toy_run(out, steps, batches=toy_batches, settings=None, *, evaluation=None, **options):
    """Trains to a step, or goes on from the folder's checkpoint.

    Args:
      evaluation: what is called in the midst of each evaluation of the parameters, which has two
        batches.
      options: flat options of training.
    """
    parallel = Jit(toy_step, make_mesh())

    def score(state):
        for i in range(2):
            evaluation(int(state.step))
            yield {"a": (state.params["a"] * i, jnp.ones(()))}

    every = options.pop("eval_steps", 4)
    run = Run(
        SftConfig.from_options(data=out / "data", out=out, **options),
        settings or {"toy": "toy"},
        label="toy",
        parallel=parallel,
        total_steps=steps,
        evaluation=Evaluation(every, score) if evaluation else None,
    )
    frozen = parallel.place({"b": jnp.ones(())})
    with run:
        state = run.resume(init_state({"a": jnp.zeros(())}, toy_optimizer()))
        for _, batch in zip(range(run.step, steps), batches(run.step), strict=False):
            state, metrics = parallel.run(state, frozen, None, parallel.shard(batch))
            run.end_step(state, metrics)
        return run.finish(state)
