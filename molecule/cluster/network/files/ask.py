# SPDX-License-Identifier: GPL-3.0-or-later
"""usage: ask.py ADDRESS HOST CA PATH COUNT [SECONDS]

Ask the Gateway at ADDRESS for PATH, COUNT times within SECONDS (0 for as fast as can be), and print how often which status and body came, as JSON.
"""

import collections
import http.client
import json
import socket
import ssl
import sys
import time


def main(address: str, host: str, authority: str, path: str, count: str, seconds: str = "0") -> None:
    context = ssl.create_default_context(cafile=authority)
    sock = context.wrap_socket(socket.create_connection((address, 443), 10), server_hostname=host)
    connection = http.client.HTTPSConnection(host, context=context)
    connection.sock = sock
    seen: collections.Counter[str] = collections.Counter()
    for _number in range(int(count)):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        seen[f"{answer.status} {body}" if answer.status == 200 else str(answer.status)] += 1
        time.sleep(float(seconds) / int(count))
    print(json.dumps(seen))


main(*sys.argv[1:])
