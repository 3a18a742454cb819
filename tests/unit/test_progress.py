from headsr.progress import Progress


def test_a_line_every_few_seconds_tells_the_time_left(capsys):
    now = iter(range(0, 100, 2))
    progress = Progress("edsr", first=10, last=30, every=5.0, clock=lambda: next(now))
    for step in range(11, 18):
        progress.report(step, 0.5)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == "edsr: step 13 of 30, loss 0.5, 45 s left"
