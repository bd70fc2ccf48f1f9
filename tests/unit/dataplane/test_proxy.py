import subprocess
import sys


def test_the_data_plane_loads_without_aiohttp_kubernetes_and_prometheus() -> None:
    # 50 MB and half a second of imports that no byte of a request ever needs.
    program = (
        "import sys, stickyproxy.dataplane.proxy;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'aiohttp', 'kubernetes', 'prometheus_client', 'click', 'stickyproxy'}))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert loaded.stdout.split() == ["stickyproxy"]
