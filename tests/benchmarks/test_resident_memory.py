"""The look at resident memory: every mode is looked at, stored and drawn."""

import csv

from benchmarks import resident_memory


def test_every_mode_is_measured_stored_and_drawn(tmp_path):
    looks = resident_memory.measure_each(symbols=1 << 23, batches=5)
    assert {look.mode for look in looks} == set(resident_memory.MODES)
    last = {look.mode: look for look in looks}
    assert all(look.symbols == 5 * 256 * 1024 for look in last.values())
    # 16 MiB, which "pread" does not hold and the others do; the rest is what batches need.
    assert last["pread"].file_bytes < 8 << 20
    assert last["numpy"].file_bytes > 8 << 20
    path = resident_memory.store(looks, tmp_path)
    assert resident_memory.store(looks, tmp_path) == path
    with path.open() as file:
        stored = list(csv.DictReader(file))
    assert len(stored) == 2 * len(looks)
    assert int(stored[0]["resident_bytes"]) == looks[0].resident_bytes
    resident_memory.draw(looks, tmp_path / "plot.svg")
    assert "numpy.memmap" in (tmp_path / "plot.svg").read_text()
