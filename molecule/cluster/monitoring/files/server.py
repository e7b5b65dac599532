# SPDX-License-Identifier: GPL-3.0-or-later
"""Answer every path with one metric (Prometheus' text format)."""

import http.server


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(b"sophia_catalogue_age_seconds 1000\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
