"""Watch slices and do nothing else: print the moment at which each event came in, and its endpoints' addresses' digest.

A process of its own, so that what it measures does not wait for the work of whom it is compared with.
"""

import http.client
import json
import ssl
import sys
import time


def main(port: str, authority: str, certificate: str, key: str, path: str) -> None:
    """Print one line of JSON for each event: seconds of the monotonic clock, and the slice's resource version."""
    context = ssl.create_default_context(cafile=authority)
    context.load_cert_chain(certificate, key)
    connection = http.client.HTTPSConnection("127.0.0.1", int(port), context=context)
    connection.request("GET", path)
    answer = connection.getresponse()
    assert answer.status == 200, answer.read()
    print("watching", flush=True)
    while line := answer.readline():
        came = time.monotonic()
        version = json.loads(line)["object"]["metadata"]["resourceVersion"]
        print(json.dumps([came, version]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
