"""Serve the page: `python -m ui`.

HOTLORA_ADDRESS names the service ("127.0.0.1:50051" by default), HOTLORA_UI_ADDRESS where to listen
("127.0.0.1:7860"; port 0 takes a free one; only loopback, since whoever opens the page may train). Prints
the URL once it listens.
"""

import os
import signal
import sys
import threading

from starlette.middleware import Middleware

from hotlora import addresses, lifeline
from ui.uploads import BrokenUploads

DEFAULT_UI_ADDRESS = "127.0.0.1:7860"
# As the service's own limit on a dataset: what it would refuse need not be copied to it first.
MAX_UPLOAD = "512mb"


def main() -> int:
    """Serve until asked to stop; 2 where the address cannot be taken."""
    try:
        address = addresses.loopback(os.environ.get("HOTLORA_UI_ADDRESS") or DEFAULT_UI_ADDRESS)
    except ValueError as error:
        print(f"HOTLORA_UI_ADDRESS: {error}", file=sys.stderr)
        return 2
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from ui.page import CSS, build  # noqa: PLC0415  gradio reads the environment when it is imported

    host, _, port = address.rpartition(":")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    lifeline.hold(stop.set)
    page = build(os.environ.get("HOTLORA_ADDRESS", "127.0.0.1:50051"))
    _, url, _ = page.launch(
        server_name=host,
        server_port=int(port) or None,
        prevent_thread_lock=True,
        quiet=True,
        run_history=False,
        footer_links=[],
        ssr_mode=False,
        max_file_size=MAX_UPLOAD,
        css=CSS,
        app_kwargs={"middleware": [Middleware(BrokenUploads)]},
    )
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()
    stop.wait()
    page.close(verbose=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
