"""The picture of a training."""

import numpy as np
import pytest
from PIL import Image

from instpt_assets.training.log import LogLine, StepTime
from instpt_assets.training.plots import plot_training, smoothed


@pytest.mark.parametrize("num_steps", [1, 3000])
def test_a_picture_fits_into_the_ui_however_long_and_noisy_the_training(tmp_path, num_steps):
    noise = np.random.default_rng(0).normal(size=num_steps)
    lines = [
        LogLine(step, 3 + 8 / step + noise[step - 1], 1e-3, abs(noise[step - 1]) + 0.1, 1000 * step, 1000, 3.5 if step % 100 == 0 else None)
        for step in range(1, num_steps + 1)
    ]
    plot_training(
        lines, [StepTime(line.step, 0.5 + abs(noise[line.step - 1]), 0.0) for line in lines[num_steps // 2 :]], tmp_path / "a.png"
    )
    plot_training(lines, [], tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).stat().st_size < 100_000 and Image.open(tmp_path / name).size[0] > 600
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_smoothing_takes_the_mean_around_each_step_and_moves_nothing_in_time():
    values = np.zeros(9)
    values[4] = 3.0
    assert smoothed(values, 3).tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert smoothed(np.array([2.0, 4.0, 6.0]), 3).tolist() == [3, 4, 5]
    assert smoothed(values, 1) is values
