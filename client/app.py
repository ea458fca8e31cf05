"""The app that runs at a site: one door in, one door out."""

import importlib
import logging
from collections.abc import Mapping
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import pins
from client.site import Site, open_site
from common.dataset import DIAGNOSES
from common.errors import FedDermError, RefusalError
from common.wire import Value, bind, digest, pack, unpack_arrays, unpack_values

METHODS = {
    "svm": "client.svm",
    "finetune": "client.finetune",
    "private": "client.private",
    "private_finetune": "client.private_finetune",
}
"""Modules, imported when they are asked for: not every method needs PyTorch."""

_log = logging.getLogger(__name__)

app = ClientApp()


@app.query()
def answer(message: Message, context: Context) -> Message:
    """Answer a question with sums, or refuse it with a reason."""
    name: dict[str, Value] = {}
    question = digest(message.content)  # as it arrived, before anything could change it
    try:
        site = open_site(context)
        name = {"site": site.name}
        content = _answer(site, message.content, context)
    except FedDermError as error:
        content = pack({}, {"refused": str(error), **name})
    except Exception as error:
        # Its text may quote the site's data, and Flower would send it to the coordinator.
        _log.exception("a question could not be answered")
        reason = f"{type(error).__name__}, which the site's log explains"
        content = pack({}, {"refused": reason, **name})
    return Message(bind(content, question), reply_to=message)


def _answer(site: Site, content: RecordDict, context: Context) -> RecordDict:
    values = unpack_values(content)
    question = str(values["question"])
    if question == "close":
        site.close(context.run_id, bool(values["finished"]))
        return pack({}, {})
    if site.rules.least_sites and not site.config.secure:
        raise RefusalError(
            f"this site answers in secure sums only, over {site.rules.least_sites} sites or more; "
            "set secure=true"
        )
    pins.check(site)
    method = _method(site)
    if question == "join":
        return pack({}, {**_describe(site), **method.describe(site)})

    def sums() -> Any:
        return method.answer(site, question, unpack_arrays(content), values, context)

    if not site.config.secure:
        return pack(sums().to_record(), {})
    from client import secure

    if question in secure.QUESTIONS:
        return secure.respond(site, question, values)
    return secure.answer(site, content, sums)


def _method(site: Site) -> Any:
    if site.config.method not in METHODS:
        raise RefusalError(f"this site does not know the method '{site.config.method}'")
    return importlib.import_module(METHODS[site.config.method])


def _describe(site: Site) -> Mapping[str, Value]:
    """Say who this site is; nothing about a patient."""
    return {
        "site": site.name,
        "classes": list(DIAGNOSES),
        "images": len(site.dataset),
        "lesions": len(site.dataset.by_lesion.sizes),
        "synthetic": site.dataset.synthetic,
        "fingerprint": site.fingerprint,
    }
