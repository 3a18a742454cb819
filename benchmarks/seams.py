"""What seams and stripes the best estimate of one thick scan has: by how much a bar of 1.02 and 1.1 asks for more.

Run: python benchmarks/seams.py

Lines along z are drawn from Gaussian processes whose covariance is known, so the best estimate in mean squares of what
their slices leave over is known too: C A^T (A C A^T + noise)^-1 b. Its steps are larger across the borders of slices,
which the scan shows, than inside, where it leaves out what nobody measured. The metrics are those of the tables.
"""

import numpy as np

from headsr.evaluate.metrics.comparison import Comparison
from headsr.evaluate.metrics.seams import seam_ratio, stripe_peak
from headsr.seeds import seed_of

SHAPE = (48, 48, 144)  # voxels of 1 mm; whole slices at every factor
AWAY = 12  # voxels at both ends that are not scored
FACTORS, NOISE = (2, 4, 6), 0.05  # of the deviation of a line
LENGTHS_MM = (2.0, 4.0, 8.0)


def matern(length_mm, n):
    """Covariance of a line that is once differentiable, (n, n): tissues with soft borders."""
    d = np.sqrt(3) * np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / length_mm
    return (1 + d) * np.exp(-d)


def exponential(length_mm, n):
    """Covariance of a line with steps in it, (n, n): tissues with sharp borders. Power falls as 1/f^2."""
    return np.exp(-np.abs(np.subtract.outer(np.arange(n), np.arange(n))) / length_mm)


def best_estimate(truth, covariance, factor, generator):
    """The best estimate of lines (X, Y, n) from noisy means over ``factor`` voxels."""
    n = truth.shape[-1]
    means = np.kron(np.eye(n // factor), np.full((1, factor), 1 / factor))
    slices = truth @ means.T
    slices = slices + NOISE * generator.standard_normal(slices.shape)
    known = means @ covariance @ means.T + NOISE**2 * np.eye(n // factor)
    return (slices @ np.linalg.solve(known, means @ covariance)).astype(np.float32)


def drawn(covariance, generator):
    """Lines (X, Y, n) of a process."""
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance)))
    return (generator.standard_normal(SHAPE) @ root.T).astype(np.float32)


def main():
    inside = np.zeros(SHAPE, dtype=bool)
    inside[..., AWAY:-AWAY] = True
    print("| borders | correlated over, mm | slices | seam ratio | stripe peak |\n|---|---:|---:|---:|---:|")
    for borders, covariance_of in {"sharp": exponential, "soft": matern}.items():
        for length in LENGTHS_MM:
            covariance = covariance_of(length, SHAPE[-1])
            generator = np.random.default_rng(seed_of("seams", borders, str(length)))
            truth = drawn(covariance, generator)
            for factor in FACTORS:
                best = best_estimate(truth, covariance, factor, generator)
                spacings = (1.0, 1.0, float(factor))
                scored = Comparison(best, truth, inside, 1.0, (1.0,) * 3, spacings)
                traces = f"{seam_ratio(scored):.2f} | {stripe_peak(scored):.2f}"
                print(f"| {borders} | {length:g} | x{factor} | {traces} |")


if __name__ == "__main__":
    main()
