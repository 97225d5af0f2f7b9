"""Views of digits against plain loops over pixels."""

import cmath
import math

import numpy as np
import pytest

from pyseq.data.modalities import digits
from pyseq.data.modalities.digit_views import orientation_histograms, sums_and_moments

SOME = (0, 7, 1796)


@pytest.fixture(scope="module")
def data():
    return digits()


@pytest.fixture(scope="module")
def images(data):
    return data["pixels"].values.astype(np.float64).reshape(-1, 8, 8)


def test_all_images_with_ten_classes(data):
    assert len(data) == 1797
    assert data.names == ("pixels", "fourier", "scalars", "gradients")
    assert [m.values.shape[1] for m in data.modalities] == [64, 34, 25, 32]
    assert data.classes == 10
    assert data.present.all()
    assert data["pixels"].values.max() == 16


@pytest.mark.parametrize("which", SOME)
def test_fourier_magnitudes_are_the_different_ones_of_the_sum(data, images, which):
    image = images[which]
    seen, expected = set(), []
    for u in range(8):
        for v in range(5):
            if ((-u) % 8, (-v) % 8) in seen:
                continue  # its mirror image is there
            seen.add((u, v))
            total = sum(
                image[y, x] * cmath.exp(-2j * math.pi * (u * y + v * x) / 8)
                for y in range(8)
                for x in range(8)
            )
            expected.append(math.log(1 + abs(total)))
    np.testing.assert_allclose(data["fourier"].values[which], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("which", SOME)
def test_sums_and_moments(data, images, which):
    image = images[which]
    pixels = [(y, x, image[y, x]) for y in range(8) for x in range(8)]
    mass = sum(value for *_, value in pixels)
    cy = sum(y * value for y, _, value in pixels) / mass
    cx = sum(x * value for _, x, value in pixels) / mass
    expected = [sum(value for row, _, value in pixels if row == y) for y in range(8)]
    expected += [sum(value for _, column, value in pixels if column == x) for x in range(8)]
    expected += [cy, cx]
    for p, q in ((2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3)):
        expected.append(sum(v * (y - cy) ** p * (x - cx) ** q for y, x, v in pixels) / mass)
    np.testing.assert_allclose(data["scalars"].values[which], expected, rtol=1e-5, atol=1e-5)


def test_an_empty_image_has_finite_scalars():
    assert np.isfinite(sums_and_moments(np.zeros((1, 8, 8)))).all()


@pytest.mark.parametrize("which", SOME)
def test_orientation_histograms(data, images, which):
    image = images[which]

    def slope(before, here, after):
        if before is None:
            return after - here
        if after is None:
            return here - before
        return (after - before) / 2

    expected = np.zeros((2, 2, 8))
    for y in range(8):
        for x in range(8):
            gy = slope(
                image[y - 1, x] if y else None, image[y, x], image[y + 1, x] if y < 7 else None
            )
            gx = slope(
                image[y, x - 1] if x else None, image[y, x], image[y, x + 1] if x < 7 else None
            )
            # nearest of the eight directions by the cosine of the angle to it
            cosines = [
                gx * math.cos(k * math.pi / 4) + gy * math.sin(k * math.pi / 4) for k in range(8)
            ]
            expected[y // 4, x // 4, int(np.argmax(cosines))] += math.hypot(gx, gy)
    np.testing.assert_allclose(
        data["gradients"].values[which], expected.ravel(), rtol=1e-5, atol=1e-5
    )


def test_a_ramp_along_x_points_along_x():
    ramp = np.tile(np.arange(8.0), (8, 1))[None]
    histogram = orientation_histograms(ramp).reshape(4, 8)
    np.testing.assert_array_equal(histogram[:, 0], 16)
    np.testing.assert_array_equal(histogram[:, 1:], 0)
