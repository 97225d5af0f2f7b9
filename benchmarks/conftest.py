"""The option that turns a check of the benchmarks into a measurement."""


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="measure at full size (minutes)")
