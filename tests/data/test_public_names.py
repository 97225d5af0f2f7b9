"""`pyseq.data` holds the names that users are promised, and stays light."""

import subprocess
import sys

import pyseq.data


def test_streams_are_there_without_a_further_import():
    code = (
        "import pyseq, sys; print(pyseq.data.streams.make('uniform', alphabet=4).entropy_rate);"
        "print(*{'scipy', 'matplotlib', 'lightning', 'tyro'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2.0"]


def test_every_listed_name_exists():
    for name in pyseq.data.__all__:
        assert hasattr(pyseq.data, name)
