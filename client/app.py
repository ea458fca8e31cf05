"""The app that runs at a site: one door in, one door out."""

import importlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from client import declared, pins
from client.egress import (
    REFUSED,
    Asked,
    check_sums,
    printable,
    refuse_beyond_a_day,
    release,
    release_refusal,
)
from client.gate import Gated
from client.operator import Operator
from client.site import SITE, Site, open_site
from common.dataset import DIAGNOSES
from common.errors import ConfigError, FedDermError, RefusalError, ReplyError
from common.wire import Value, bind, digest, pack, size, unpack_arrays, unpack_values

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
    """Answer a question with sums, or refuse it with a reason; whatever leaves is checked."""
    started = time.monotonic()
    received = digest(message.content)  # as it arrived, before anything could change it
    operator, name, deployed = None, {}, SITE in context.node_config
    asked = Asked(context.run_id, message.metadata.group_id, "", {})
    try:
        if deployed:
            operator = Operator.read(Path(str(context.node_config[SITE])))
        values = unpack_values(message.content)
        asked = asked._replace(
            question=str(values["question"]), arrays=unpack_arrays(message.content)
        )
        site = open_site(context)
        name = {"site": site.name}
        hidden: dict[str, NDArray[np.generic]] = {}
        content = _answer(site, asked, values, message.content, context, hidden)
        content = release(site, asked, content, hidden)
        _log.info(
            "%s: answered in %.1f s with %d bytes",
            *(_named(asked), time.monotonic() - started, size(content)),
        )
    except Exception as error:
        content = _refusal(operator, asked, {REFUSED: _reason(error, deployed), **name})
    return Message(bind(content, received), reply_to=message)


def _refusal(operator: Operator | None, asked: Asked, values: Mapping[str, Value]) -> RecordDict:
    """Return a refusal, which is logged too; where it cannot be, it tells nothing but that."""
    _log.warning("%s: refused: %s", _named(asked), printable(str(values[REFUSED])))
    try:
        return release_refusal(operator, asked, pack({}, values))
    except FedDermError as error:
        _log.error("%s", error)
        return pack({}, {REFUSED: "this site cannot log what leaves it, so nothing does"})


def _named(asked: Asked) -> str:
    return printable(f"run {asked.run}, round {asked.round}, {asked.question}")


def _reason(error: Exception, deployed: bool) -> str:
    """Return what the coordinator may read of an error; a hospital's own log has the whole of it.

    The text of most quotes paths or names of images.
    """
    if isinstance(error, RefusalError | ReplyError):  # about the question alone
        return str(error)
    if not isinstance(error, FedDermError):
        _log.error("a question could not be answered", exc_info=error)
        return f"{type(error).__name__}, which the site's log explains"
    if not deployed:
        return str(error)
    _log.error("%s", error)
    what = "configuration" if isinstance(error, ConfigError) else "data or disk"
    return f"this site's {what} cannot be used, which its log explains"


def _answer(
    site: Site,
    asked: Asked,
    values: Mapping[str, Value],
    content: RecordDict,
    context: Context,
    hidden: dict[str, NDArray[np.generic]],
) -> RecordDict:
    """Return an answer; sums that are in it under masks are put into ``hidden`` too."""
    if asked.question == "close":
        site.close(context.run_id, bool(values["finished"]))
        return pack({}, {})
    if site.operator is not None:
        _obey(site, site.operator)
    pins.check(site)
    method = _method(site)
    if asked.question == "join":
        return pack({}, {**_describe(site), **method.describe(site)})

    from client import secure

    if asked.question not in {*declared.SUMS[site.config.method], *secure.QUESTIONS}:
        raise RefusalError(f"no question '{asked.question}' in method {site.config.method}")

    def sums() -> Any:
        found = method.answer(site, asked.question, asked.arrays, values, context)
        record = (found.sums if isinstance(found, Gated) else found).to_record()
        check_sums(site, asked, record, hidden=site.config.secure)
        if site.config.secure:
            hidden.update(record)
        return found

    if not site.config.secure:
        return pack(sums().to_record(), {})
    if asked.question in secure.QUESTIONS:
        return secure.respond(site, asked.question, values)
    return secure.answer(site, content, sums)


def _obey(site: Site, operator: Operator) -> None:
    """Refuse what the operator's rules forbid, before anything is computed.

    Raises
    ------
    RefusalError
        If they do.
    """
    rules, config = operator.rules, site.config
    if config.method not in rules.methods:
        raise RefusalError(
            f"the operator does not allow method {config.method}, but {', '.join(rules.methods)}"
        )
    if rules.least_sites and not config.secure:
        raise RefusalError(
            f"this site answers in secure sums only, over {rules.least_sites} sites or more; "
            "set secure=true"
        )
    if rules.least_lesions:
        labels = site.dataset.by_lesion.labels
        counts = np.bincount(labels, minlength=len(DIAGNOSES))
        if ((counts > 0) & (counts < rules.least_lesions)).any():
            raise RefusalError(
                f"a class of this site has fewer than the {rules.least_lesions} lesions with "
                "which its operator lets it take part"
            )
    refuse_beyond_a_day(operator)


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
