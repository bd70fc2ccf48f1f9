"""DNS discovery as on fly.io, ECS or compose: the real command, the system's resolver, a real DNS server."""

import shutil
import subprocess
import sys
from pathlib import Path

from needs import missing

LIMIT_S = 100.0

NAMESPACES = ["unshare", "--map-root-user", "--mount", "--net", "--fork", "--kill-child"]


def test_dns_discovery_with_a_real_server() -> None:
    """What must be true is in `dns_inside.py`, each as a test of its own."""
    for program, package in {"dnsmasq": "dnsmasq-base", "ip": "iproute2", "unshare": "util-linux"}.items():
        if not shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"):
            missing(f"{program} (apt-get install {package})")
    if subprocess.run([*NAMESPACES, "true"], capture_output=True, timeout=LIMIT_S).returncode:
        missing("namespaces of one's own (unshare, as root or with user namespaces)")
    inside = Path(__file__).with_name("dns_inside.py")
    done = subprocess.run(
        [*NAMESPACES, "sh", "-c", 'PATH=/usr/sbin:/sbin:$PATH exec "$@"', "sh",
         sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=60", str(inside)],
        capture_output=True, text=True, timeout=LIMIT_S, cwd=inside.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout, done.stdout
