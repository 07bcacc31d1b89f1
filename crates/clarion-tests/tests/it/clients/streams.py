"""Publishes, streams, resumes and acks with `requests` or `httpx`, and reads events with `sseclient`."""

import json
import sys

import httpx
import requests
import sseclient


class Requests:
    """The API with requests."""

    def __init__(self, base):
        self.base = base
        self.session = requests.Session()

    def call(self, method, path, body=None):
        return self.session.request(method, self.base + path, json=body, timeout=30)

    def stream(self, path, headers):
        response = self.session.get(self.base + path, headers=headers, stream=True, timeout=30)
        response.raise_for_status()
        return response.headers, response, response.close


class Httpx:
    """The API with httpx."""

    def __init__(self, base):
        self.client = httpx.Client(base_url=base, timeout=30)

    def call(self, method, path, body=None):
        return self.client.request(method, path, json=body)

    def stream(self, path, headers):
        request = self.client.build_request("GET", path, headers=headers)
        response = self.client.send(request, stream=True)
        response.raise_for_status()
        return response.headers, response.iter_bytes(), response.close


def read(api, path, count, token=None):
    """Reads so many events; returns their texts and ids."""
    headers = {"accept": "text/event-stream"}
    if token is not None:
        headers["last-event-id"] = token
    answer, chunks, close = api.stream(path, headers)
    assert answer["content-type"] == "text/event-stream", answer
    texts, ids = [], []
    for event in sseclient.SSEClient(chunks).events():
        assert event.event == "message", event
        texts.append(json.loads(event.data)["text"])
        ids.append(event.id)
        if len(texts) == count:
            break
    close()
    return texts, ids


def main(base, library):
    api = {"requests": Requests, "httpx": Httpx}[library](base)
    user = "user-" + library
    for number in range(1, 6):
        body = {"address": "user:" + user, "text": f"{number} \u00e9\n\U0001f600"}
        answer = api.call("POST", "/api/v1/publish", body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["seq"] == number, answer.text
    all_texts = [f"{number} \u00e9\n\U0001f600" for number in range(1, 6)]
    path = f"/api/v1/stream?user={user}&device=d"
    texts, ids = read(api, path, 5)
    assert texts == all_texts, texts
    texts, _ = read(api, path, 3, token=ids[1])
    assert texts == all_texts[2:], texts
    answer = api.call("POST", "/api/v1/ack", {"token": ids[3]})
    assert answer.json() == {"moved": True}, answer.text
    texts, _ = read(api, path, 1)
    assert texts == all_texts[4:], texts
    page = api.call("GET", f"/api/v1/channels/user%3A{user}/messages?limit=2").json()
    assert [message["seq"] for message in page["messages"]] == [1, 2], page
    assert page["next"] == 2, page
    refused = api.call("POST", "/api/v1/publish", {"address": "nobody", "text": ""})
    assert refused.status_code == 400, refused.text
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["name"] == "bad_address", refused.text
    print(library, "ok")


main(*sys.argv[1:])
