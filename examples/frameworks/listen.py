"""Listens with nothing but the standard library:

    python3 examples/frameworks/listen.py [URL]
"""

import email.utils
import http.client
import json
import random
import sys
import time
import urllib.error
import urllib.request

SILENCE = 75  # seconds without even a heartbeat: the line is dead
LEAST_WAIT, USUAL_WAIT, MOST_WAIT = 0.1, 30, 3600  # seconds between two tries
LARGEST = 256 << 20  # bytes of a message


def events(url):
    """Yields (name, data), and resumes where it was, until the server answers 204: there is nothing more to come."""
    last_id, retry, tries = "", 1, 0
    while True:
        least, why = 0, "the connection ended"
        try:
            request = urllib.request.Request(url, headers={"Accept": "text/event-stream"})
            if last_id:
                request.add_header("Last-Event-ID", last_id)
            with urllib.request.urlopen(request, timeout=SILENCE) as response:
                if response.status == 204:
                    return
                if response.status != 200 or response.headers.get_content_type() != "text/event-stream":
                    sys.exit(f"refused: {response.status} {response.headers.get_content_type()}")
                name, data, size, seen, mark = "message", [], 0, last_id, "\ufeff"
                while line := response.readline(LARGEST):
                    size += len(line)
                    if size > LARGEST:
                        sys.exit("refused: a message is too large")  # it would come again
                    text, mark = line.decode("utf-8", "replace").removeprefix(mark).rstrip("\r\n"), ""
                    field, _, value = text.partition(":")
                    value = value.removeprefix(" ")
                    if field == "id" and "\0" not in value:
                        seen = value  # an empty one clears the last
                    elif field == "event":
                        name = value or "message"
                    elif field == "data":
                        data.append(value)
                    elif field == "retry" and value.isascii() and value.isdigit():
                        retry = float(value) / 1000
                    elif text == "":  # an empty line ends the event, whose ID counts from now on
                        last_id = seen
                        if data:
                            tries = 0
                            yield name, "\n".join(data)
                        name, data, size = "message", [], 0
        except urllib.error.HTTPError as refused:
            if refused.code != 429 and refused.code < 500:
                sys.exit(f"refused: {refused.code}")  # asking again would not help
            least, why = retry_after(refused.headers.get("Retry-After", "")), refused.code
        except (OSError, ValueError, http.client.HTTPException) as lost:
            why = lost
        wait = pause(retry, tries, least)
        print(f"{why}; next try in {wait:.3f} s", file=sys.stderr, flush=True)
        time.sleep(wait)
        tries += 1


def pause(retry, tries, least):
    """Doubles the wait from try to try, to half a minute or what the server asks for. Chance parts a crowd."""
    retry = min(max(retry, LEAST_WAIT), MOST_WAIT)
    wait = min(retry * 2 ** min(tries, 10), max(USUAL_WAIT, retry))
    return max(least, wait * random.uniform(0.75, 1.25))


def retry_after(header):
    """Reads seconds or a date."""
    if header.isascii() and header.isdigit():
        return min(float(header), MOST_WAIT)
    try:
        return min(max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0), MOST_WAIT)
    except (TypeError, ValueError, OverflowError):
        return 0


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8080/events?topic=news"
    for name, data in events(address):
        if name == "connected":
            data = json.loads(data)["resume"]  # "gap" if something was missed
        print(name, data, flush=True)
