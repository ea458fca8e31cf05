"""How requests are answered beside each other, and what is too slow, too large or impossible.

Apart from the tests in a browser, whose thread has an event loop of its own.
"""

import asyncio
import re
import threading

import httpx
import pytest

from client.predict.requests import NAME_HEADER, Answers
from client.predict.serve import serve
from common.errors import ConfigError
from tests.client.predict.fakes import Model, image

HOST, TOKEN = "127.0.0.1:8000", "secret"


class Slow(Model):
    """Waits for a signal before it answers; fails where the image is ten pixels high."""

    def __init__(self):
        super().__init__()
        self.go, self.begun = threading.Event(), threading.Event()
        self.at_once, self.most = 0, 0

    def answer(self, files, *, evidence):
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.begun.set()
        assert self.go.wait(60)
        self.at_once -= 1
        if files[0].name == "fail.jpg":
            raise RuntimeError("out of memory")
        return super().answer(files, evidence=evidence)


def conversation(talk, model, **limits):
    """Talk to a server in this process."""

    async def go():
        answers = Answers(model, **limits)
        app = answers.app([HOST], TOKEN)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(
            transport=transport, base_url=f"http://{HOST}/{TOKEN}/"
        ) as client:
            try:
                return await talk(client)
            finally:
                model.go.set()
                answers.close()

    return asyncio.run(go())


def post(client, name="x.jpg", content=None):
    return client.post("answer", content=content or image(), headers={NAME_HEADER: name})


def test_the_page_is_served_while_the_model_works_on_one_image_at_a_time():
    model = Slow()

    async def talk(client):
        asked = [asyncio.ensure_future(post(client, f"{number}.jpg")) for number in range(6)]
        await asyncio.to_thread(model.begun.wait, 60)
        assert (await client.get("")).status_code == 200
        assert not any(each.done() for each in asked)
        model.go.set()
        return await asyncio.gather(*asked)

    replies = conversation(talk, model)
    assert [reply.status_code for reply in replies] == [200] * 6
    assert all(f"{number}.jpg" in reply.text for number, reply in enumerate(replies))
    assert model.most == 1


def test_what_takes_too_long_or_fails_has_a_card_and_the_next_is_answered():
    model = Slow()

    async def talk(client):
        late = await post(client, "late.jpg")
        model.go.set()
        return late, await post(client, "fail.jpg"), await post(client, "good.jpg")

    late, failed, good = conversation(talk, model, seconds=2.0)
    assert (late.status_code, "no answer within 2 s" in late.text) == (408, True)
    assert (failed.status_code, "the model failed (out of memory)" in failed.text) == (500, True)
    assert good.status_code == 200


def test_a_body_is_not_kept_beyond_the_limit():
    model = Slow()
    model.go.set()
    sent = 0

    async def parts():
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield bytes(1000)

    async def talk(client):
        return await post(client, content=parts()), await post(client, content=bytes(9_999))

    large, exact = conversation(talk, model, largest=10_000)
    assert (large.status_code, "larger than 0.01 MB" in large.text) == (413, True)
    assert sent == 100
    assert exact.status_code == 200
    assert model.asked == []


@pytest.mark.parametrize(
    ("host", "port", "why"),
    [
        ("0.0.0.0", 0, "no address that a browser opens"),
        ("example.org", 0, "is no address"),
        ("192.0.2.1", 0, "cannot listen at 192.0.2.1:0"),
        ("127.0.0.1", 99_999, "cannot listen at 127.0.0.1:99999"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(host, port, why):
    with pytest.raises(ConfigError, match=re.escape(why)):
        serve(Model(), host, port)
