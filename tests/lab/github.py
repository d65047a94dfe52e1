#!/usr/bin/env python3
"""github.py ADDRESS PORT DIRECTORY - plays GitHub's release downloads over HTTPS.

DIRECTORY/OWNER/NAME/releases/download/TAG/… are the assets; DIRECTORY/server.pem is certificate and key. As
GitHub does, an asset's address answers with a redirect to a storage that serves it for a limited time.
"""

import http.server
import os
import ssl
import sys

STORAGE = "/storage"


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def send_head(self):
        if self.path.startswith(STORAGE):
            self.path = self.path.removeprefix(STORAGE)
            return super().send_head()
        if not os.path.isfile(self.translate_path(self.path)):
            self.send_error(404)
            return None
        self.send_response(302)
        self.send_header("Location", f"{STORAGE}{self.path}?sp=r&sig=lab")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None


def main():
    address, port, directory = sys.argv[1:]
    os.chdir(directory)
    server = http.server.ThreadingHTTPServer((address, int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("server.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


main()
