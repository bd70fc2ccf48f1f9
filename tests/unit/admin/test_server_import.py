"""What importing the admin server loads, and what it leaves as it was."""

import subprocess
import sys

import pytest

LOOKS = """
import mimetypes, ssl, sys
files = list(mimetypes.knownfiles)
{first}
import stickyproxy.admin.server
import aiohttp.connector, http.client, urllib.request
assert sys.modules["ssl"] is ssl
assert mimetypes.knownfiles == files
assert http.client.HTTPSConnection and urllib.request.HTTPSHandler, "the standard library is whole"
print(aiohttp.connector._SSL_CONTEXT_VERIFIED is not None)
"""


@pytest.mark.parametrize(("first", "client_has_tls"), [("", "False"), ("import aiohttp", "True")])
def test_aiohttp_makes_no_tls_for_a_client_unless_one_has_imported_it(first: str, client_has_tls: str) -> None:
    code = LOOKS.format(first=first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == client_has_tls
