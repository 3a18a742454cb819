import pickle
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from headsr.render.ahead import Lanes, StoppedError


class Watched:
    """Work that counts how many of it are at work."""

    def __init__(self):
        self.now = self.most = 0
        self.lock = threading.Lock()

    def __call__(self, piece):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.001 * (piece % 3))
        with self.lock:
            self.now -= 1
        return piece


@pytest.mark.parametrize("number", [1, 2, 5])
def test_results_come_in_order_and_no_more_are_at_work_than_there_are_lanes(number):
    work = Watched()
    assert list(Lanes(number).in_order(work, range(40))) == list(range(40))
    assert min(number, 2) <= work.most <= number


def test_who_shares_lanes_shares_their_number_and_nobody_waits_for_ever():
    work, lanes = Watched(), Lanes(3)
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: list(lanes.in_order(work, range(30))), range(6)))
    assert results == [list(range(30))] * 6
    assert work.most <= 3


def test_the_last_one_is_not_left_with_one_lane():
    work, lanes = Watched(), Lanes(4)
    list(lanes.in_order(work, range(10)))
    work.most = 0
    list(lanes.in_order(work, range(40)))
    assert 2 <= work.most <= 4


def test_a_failure_and_a_reader_that_stops_give_their_lanes_back():
    lanes = Lanes(2)
    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            list(lanes.in_order(lambda piece: 1 // (piece - 3), range(10)))
        results = lanes.in_order(lambda piece: piece, range(10))
        assert next(results) == 0
        results.close()
    assert list(lanes.in_order(lambda piece: piece, range(5))) == list(range(5))


def test_pieces_are_taken_no_further_ahead_than_there_are_lanes():
    taken = []
    results = Lanes(2).in_order(lambda piece: piece, (taken.append(piece) or piece for piece in range(10)))
    next(results)
    assert len(taken) <= 3


def test_in_another_process_there_is_one_lane():
    assert pickle.loads(pickle.dumps(Lanes(8))).number == 1  # noqa: S301 - our own bytes


@pytest.mark.parametrize("pieces", [range(2), range(10)])
def test_once_stopped_nobody_begins_a_piece_or_yields_a_result(pieces):
    lanes, begun = Lanes(2), []
    readers = [lanes.in_order(lambda piece: begun.append(piece) or piece, pieces), lanes.in_order(pytest.fail, pieces)]
    assert next(readers[0]) == 0
    lanes.stop()
    for reader in readers:
        with pytest.raises(StoppedError):
            next(reader)
    assert set(begun) <= {0, 1}


def test_a_stop_reaches_those_that_wait_for_a_result_or_a_lane_within_one_piece():
    lanes, ended = Lanes(2), []

    def read():
        try:
            list(lanes.in_order(time.sleep, [0.3] * 100))
        except StoppedError as error:
            ended.append(error)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(5)]  # of which three find no lane
    for reader in readers:
        reader.start()
    time.sleep(0.1)
    lanes.stop()
    begin = time.monotonic()
    for reader in readers:
        reader.join(10)
    assert len(ended) == 5
    assert time.monotonic() - begin < 2


def test_a_stop_at_any_time_leaves_nobody_waiting():
    chance = random.Random(0)
    for _ in range(200):
        lanes, work = Lanes(chance.randint(1, 3)), Watched()
        ended = []

        def read(lanes=lanes, work=work, ended=ended):
            try:
                ended.append(list(lanes.in_order(work, range(20))))
            except StoppedError:
                ended.append(None)

        readers = [threading.Thread(target=read, daemon=True) for _ in range(4)]
        for reader in readers:
            reader.start()
        time.sleep(chance.uniform(0, 0.01))
        lanes.stop()
        for reader in readers:
            reader.join(20)
        assert len(ended) == 4
        assert all(result is None or result == list(range(20)) for result in ended)
