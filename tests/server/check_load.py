"""Half a minute of 50 clients at once: `make test-bench`. `test_api.py` has them for three seconds."""

from tests.support.load import run_clients
from tests.support.process import PHOTOS
from tests.support.server import Server


def test_fifty_clients_for_half_a_minute(server: Server) -> None:
    load = run_clients(server, PHOTOS, 30, parts=3)
    assert load.wrong == []
    assert set(load.statuses) <= {200, 202, 429}
    assert load.statuses[202] > 16
    assert load.statuses[200] >= 150 + load.statuses[202]
    assert load.memory[2] < load.memory[1] + (8 << 20)  # the first part fills caches
    assert server.status.searches == 0
