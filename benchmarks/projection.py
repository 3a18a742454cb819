"""By how much a projection changes the distance to the truth, over random studies with and without faults.

Run: python benchmarks/projection.py [--studies 100] [--first 0]

The heads and their studies are those of the tests (tests/unit/random_studies.py), other ones; every study is projected
from five estimates. Printed for every fault and every estimate: mean, 95th percentile and worst loss in dB (below zero
is a gain), how often it is more than 0.1 dB, and how the projections ended.
"""

import argparse
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit"))

from random_studies import FAULTS, estimates_of, random_case

from headsr.acquisition.consistency import project
from headsr.seeds import seed_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    losses, outcomes, seconds = defaultdict(list), defaultdict(Counter), 0.0
    for index in range(arguments.first, arguments.first + arguments.studies):
        rng = np.random.default_rng(seed_of("benchmark of projections", index))
        fault = (None, *FAULTS)[index % (len(FAULTS) + 1)]
        case = random_case(rng, fault)
        for method, estimate in estimates_of(case, rng).items():
            start = time.process_time()
            projection = project(estimate, case.study.scans)
            seconds += time.process_time() - start
            loss = case.loss(estimate, projection.volume)
            for group in (fault or "consistent", f"from {method}", "inconsistent" if fault else "all without fault"):
                losses[group].append(loss)
                outcomes[group][projection.outcome] += 1
            if loss > 0.1:
                print(f"{loss:.2f} dB lost: {method}, {case.words}, {projection.outcome}")
    for group, found in losses.items():
        print(line(group, np.array(found), outcomes[group]))
    print(f"{seconds / sum(map(len, losses.values())) * 3:.2f} s of the processor for a projection")


def line(group: str, losses: np.ndarray, outcomes: Counter) -> str:
    ends = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    return (
        f"{group:18} {len(losses):4}: mean {losses.mean():+.2f} dB, 95 % below {np.percentile(losses, 95):+.2f}, worst "
        f"{losses.max():+.2f}; {np.mean(losses > 0.1):.1%} lose more than 0.1 ({ends})"
    )


if __name__ == "__main__":
    main()
