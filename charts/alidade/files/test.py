"""What `helm test` runs: asks every replica of the operator whether it is ready, and which one works."""

import http.client
import os
import socket
import sys
import time
from urllib.parse import urlsplit

# A replica that has just gone is replaced within the lease's 15 s.
PATIENCE_S = 60


def get(address, port, path):
    """Status and text of an answer."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def complaint(url):
    """What is wrong, or None."""
    place = urlsplit(url)
    try:
        found = socket.getaddrinfo(place.hostname, place.port, type=socket.SOCK_STREAM)
        addresses = sorted({entry[4][0] for entry in found})
        states = {address: get(address, place.port, "/readyz") for address in addresses}
        leaders = [one for one in addresses if "alidade_operator_leader 1.0" in get(one, place.port, "/metrics")[1]]
    except OSError as error:
        return f"{url} does not answer: {error}"
    unready = [f"{one} is not ready: {text.strip()}" for one, (status, text) in states.items() if status != 200]
    if unready:
        return "; ".join(unready)
    return None if len(leaders) == 1 else f"{len(leaders)} of {len(addresses)} replicas hold the lease, not one"


def main():
    """0 once all is well, 1 when it does not become so."""
    until = time.monotonic() + PATIENCE_S
    while (wrong := complaint(os.environ["OPERATOR"])) is not None:
        if time.monotonic() > until:
            print(wrong)
            return 1
        time.sleep(1)
    print("every replica is ready, and one of them works")
    return 0


sys.exit(main())
