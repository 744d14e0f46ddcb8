"""The gradient noise scale: its estimates are right on average whatever the sizes of the passes."""

import numpy as np
import pytest

from alidade_trainer.noise import WINDOW, noise_estimates, noise_scale

TRUE = np.array([1.0, -2.0, 0.5, 0.0])
SPREAD = np.array([3.0, 1.0, 2.0, 4.0])  # of one token's gradient


@pytest.mark.parametrize("sizes", [(4, 4), (1, 7, 12), (2,) * 16])
def test_estimates_are_unbiased_for_passes_of_any_size(sizes: tuple[int, ...]) -> None:
    draws, generator = 8_000, np.random.default_rng(0)
    weights = np.array(sizes, dtype=float)
    noise = generator.normal(size=(draws, len(sizes), 4)) * SPREAD / np.sqrt(weights)[None, :, None]
    passes = TRUE + noise  # (draws, passes, weights): mean gradients
    whole = (passes * weights[None, :, None]).sum(1) / weights.sum()
    found = [
        noise_estimates(
            weighted_norms=float((weights * (one**2).sum(1)).sum()),
            passes=len(sizes),
            learned=float(weights.sum()),
            grad_norm=float(np.linalg.norm(mean)),
            global_batch_size=int(weights.sum()),  # a token is a sequence here
        )
        for one, mean in zip(passes, whole, strict=True)
    ]

    variance, signal = np.array(found).mean(0)

    # Six standard errors of the widest of these, which is that of two passes.
    assert variance == pytest.approx((SPREAD**2).sum(), rel=0.07)
    assert signal == pytest.approx((TRUE**2).sum(), rel=0.07)


def test_a_sequence_of_many_tokens_varies_less_than_a_token() -> None:
    known = {"weighted_norms": 60.0, "passes": 2, "learned": 40.0, "grad_norm": 1.0}
    of_token = noise_estimates(**known, global_batch_size=40)
    of_sequence = noise_estimates(**known, global_batch_size=4)
    assert of_token == pytest.approx((20.0, 0.5))
    assert of_sequence == pytest.approx((2.0, 0.5))


def test_one_pass_tells_nothing_of_noise() -> None:
    assert noise_estimates(weighted_norms=4.0, passes=1, learned=4.0, grad_norm=1.0, global_batch_size=4) is None


def test_the_scale_is_the_ratio_of_means_over_the_last_steps() -> None:
    old = [{"gradient_variance": 1e9, "gradient_signal": 1.0}]
    last = [{"gradient_variance": 10.0, "gradient_signal": signal} for signal in (1.0, 3.0)] * (WINDOW // 2)
    assert noise_scale(old + last) == pytest.approx(5.0)
    assert noise_scale([]) is None
    assert noise_scale([{"loss": 1.0}]) is None
    assert noise_scale([{"gradient_variance": 1.0, "gradient_signal": -0.1}]) is None  # noise hides the signal
