"""Listens with nothing but the standard library:

    python3 examples/frameworks/listen.py [URL]
"""

import http.client
import json
import random
import sys
import time
import urllib.error
import urllib.request

MOST_WAIT = 30  # seconds between two tries
SILENCE = 75  # seconds without even a heartbeat: the line is dead


def events(url):
    """Yields (name, data) for as long as the program runs, and resumes where it was."""
    last_id, retry, tries = None, 1, 0
    while True:
        least = 0
        try:
            request = urllib.request.Request(url, headers={"Accept": "text/event-stream"})
            if last_id:
                request.add_header("Last-Event-ID", last_id)
            with urllib.request.urlopen(request, timeout=SILENCE) as response:
                name, data, seen = "message", [], last_id
                for line in response:
                    field, _, value = line.decode().rstrip("\n").partition(": ")
                    if field == "id":
                        seen = value
                    elif field == "event":
                        name = value
                    elif field == "data":
                        data.append(value)
                    elif field == "retry":
                        retry = int(value) / 1000
                    elif field == "":  # an empty line ends the event, whose ID counts from now on
                        last_id = seen
                        if data:
                            tries = 0
                            yield name, "\n".join(data)
                        name, data = "message", []
        except urllib.error.HTTPError as refused:
            if refused.code != 429 and refused.code < 500:
                raise  # asking again would not help
            least = int(refused.headers.get("Retry-After", 0))
        except (OSError, ValueError, http.client.HTTPException) as lost:
            print("lost", lost, file=sys.stderr)
        time.sleep(max(least, min(retry * 2**tries, MOST_WAIT) * random.uniform(0.75, 1.25)))
        tries += 1


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080/events?topic=news"
    for name, data in events(address):
        if name == "connected":
            data = json.loads(data)["resume"]  # "gap" if something was missed
        print(name, data, flush=True)
