"""The client app: it answers the coordinator's questions; all that leaves a site passes here."""

import logging
import time
from collections.abc import Mapping

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.counts.known_diagnoses import known_diagnoses
from client.egress.activity_gate import Gated
from client.egress.allowlist import allowlist_of
from client.egress.answer import Answer
from client.egress.guard import release, release_refusal
from client.egress.log import refuse_beyond_quota
from client.egress.questions import CLOSE, JOIN, Question
from client.egress.questions import check as check_question
from client.egress.quota import REFUSED
from client.method import ClientMethod, client_method
from client.open_site import SITE, open_site, operator_of
from client.operator import pins
from client.operator.site_rules import Operator
from client.site import Site
from common.config.run import RunConfig
from common.errors import ConfigError, FedDermError, Reason, RefusalError, described
from common.methods import METHODS
from common.text import printable
from common.wire.messages import Value, bind, digest, pack, same_program, size
from common.wire.secure_sums import KEY, PEERS, UNMASK

_log = logging.getLogger(__name__)

app = ClientApp()


@app.query()
def answer(message: Message, context: Context) -> Message:
    """Answer a question with sums, or refuse it with a reason; whatever leaves is checked."""
    started = time.monotonic()
    received = digest(message.content)  # as it arrived, before anything could change it
    operator, name, deployed = None, {}, SITE in context.node_config
    question = Question(context.run_id, message.metadata.group_id)
    try:
        operator = operator_of(context)
        question = question.read(message.content)
        site = open_site(context, operator)
        name = {"site": site.name}
        content = release(site, question, _answer(site, question, message.content))
        _log.info(
            "%s: answered in %.1f s with %d bytes",
            *(_named(question), time.monotonic() - started, size(content)),
        )
    except Exception as error:
        detail = _detail(error)
        _log.warning("%s: refused: %s", _named(question), printable(detail))
        reason = _reason(error).value if deployed else detail
        content = _refusal(operator, question, {REFUSED: reason, **name})
    return Message(bind(content, received), reply_to=message)


def _refusal(
    operator: Operator | None, question: Question, values: Mapping[str, Value]
) -> RecordDict:
    """Log a refusal and return it; where it cannot be logged, return only that fact."""
    try:
        return release_refusal(operator, question, values)
    except Exception as error:
        _log.error("a refusal cannot be logged", exc_info=error)
        return pack({}, {REFUSED: str(Reason.UNLOGGED)})


def _named(question: Question) -> str:
    return printable(f"run {question.run}, round {question.round}, {question.name}")


def _reason(error: Exception) -> Reason:
    """Return the reason that a coordinator may read of an error; it depends on no image."""
    match error:
        case RefusalError():
            return error.reason
        case ConfigError():
            return Reason.CONFIGURATION
        case FedDermError():
            return Reason.DATA
    return Reason.FAILED


def _detail(error: Exception) -> str:
    """Return an error's detail for the site's own log, and for the user of a simulation."""
    if isinstance(error, FedDermError):
        return described(error)
    _log.error("a question could not be answered", exc_info=error)
    return f"{type(error).__name__}, which the site's log explains"


def _answer(site: Site, question: Question, content: RecordDict) -> Answer:
    """Return an answer, which the guard has yet to check.

    Parameters
    ----------
    content : the content of the question's message.
    """
    operator = site.operator
    if question.name != CLOSE:
        _refuse_other_program(content)
    if operator is not None and question.name != CLOSE:
        _obey(site.config, operator, question.name)
    method = client_method(site.config)
    check_question(site, question, allowlist_of(site.config.method).QUESTIONS)
    if question.name == CLOSE:
        site.close(question.run, bool(question.values["finished"]))
        return Answer()
    pins.check(site)
    if operator is not None:
        _refuse_rare(site)
    if question.name == JOIN:
        site.state.begin(question.run)
        if not METHODS[site.config.method].model:
            return Answer(values={"site": site.name, **method.describe(site)})
        if words := site.dataset.left_out_in_words:
            _log.warning("%s: %s", printable(site.name), words)
        return Answer(values={**_describe(site), **method.describe(site)})
    if question.name in (KEY, PEERS, UNMASK):
        return _respond(site, question)
    return _sums(site, method, question, content)


def _refuse_other_program(content: RecordDict) -> None:
    """Refuse a coordinator of another version: sums of two versions need not add up to a model.

    Raises
    ------
    RefusalError
        If it is one; a site may be upgraded between any two questions.
    """
    if not same_program(content):
        raise RefusalError(
            Reason.PROGRAM,
            "the coordinator's program is not the one that is installed here; put back the version "
            "with which the run began, or begin a new one when all have the new version",
        )


def _respond(site: Site, question: Question) -> Answer:
    from client.secure import answers  # a plain run needs no cryptography

    if not site.config.secure:
        raise RefusalError(Reason.SETTINGS, "this run's sums are not secure")
    return answers.respond(site, question)


def _sums(site: Site, method: ClientMethod, question: Question, content: RecordDict) -> Answer:
    """Return a method's sums, masked where those of the run are secure."""
    if not site.config.secure:
        sums = method.answer(site, question)
        return Answer((sums.sums if isinstance(sums, Gated) else sums).to_record())
    from client.secure import answers

    with answers.masking(site, content) as mask:
        return mask(method.answer(site, question))


def _obey(config: RunConfig, operator: Operator, question: str) -> None:
    """Refuse what the operator's rules forbid, without reading the site's data.

    Raises
    ------
    RefusalError
        If they forbid the run or the question.
    """
    rules = operator.rules
    if config.method not in rules.methods:
        raise RefusalError(
            Reason.METHOD,
            f"the operator does not allow method {config.method}, but {', '.join(rules.methods)}",
        )
    if rules.least_sites and not config.secure:
        raise RefusalError(
            Reason.SECURE,
            f"this site answers in secure sums only, over {rules.least_sites} sites or more",
        )
    exact = config.metadata and not (config.without_metadata or METHODS[config.method].private)
    of_groups = exact or config.balance_groups
    if of_groups and not config.secure and (rules.least_count or rules.least_lesions):
        raise RefusalError(
            Reason.SECURE,
            "sums with metadata or by 'balance_groups' hold counts of small groups, as of a place "
            "and a diagnosis; this site gives them in secure sums only",
        )
    in_rounds = "min_active" in METHODS[config.method].settings and config.head == "svm"
    if in_rounds and config.min_active < rules.min_active:
        raise RefusalError(
            Reason.MIN_ACTIVE,
            f"'min_active' is {config.min_active}, and the operator's least {rules.min_active}",
        )
    refuse_beyond_quota(operator, question)


def _refuse_rare(site: Site) -> None:
    """Refuse plain sums where a class of the site has too few lesions.

    A sum over few lesions shows these lesions. Training gives a rare class a large weight, so its
    part stands out of the sum over all classes. A single class has no other class to hide it. A
    method without a model leaves small groups out itself.

    Raises
    ------
    RefusalError
        If a class has too few, or the site has a single class.
    """
    least, config = site.rules.least_lesions, site.config
    method = METHODS[config.method]
    if not least or config.secure or method.private or not method.model:
        return
    training = site.dataset.select(~site.held_out).by_lesion
    _, present = np.unique(training.labels, return_counts=True)
    if (present < least).any() or len(present) == 1:
        raise RefusalError(
            Reason.FEW,
            f"plain sums need two classes or more, each of {least} lesions or more, the operator's "
            "'least_lesions'; set secure=true",
        )


def _of_images(site: Site) -> Mapping[str, Value]:
    return {
        "smaller_images": bool(site.smaller_images),
        "unknown_lesions": bool(site.dataset.unknown_lesions),
        "metadata": site.known_metadata(),
    }


def _describe(site: Site) -> Mapping[str, Value]:
    """Describe this site, and nothing of a patient; a private site does not say of its images."""
    return {
        **({} if METHODS[site.config.method].private else _of_images(site)),
        "site": site.name,
        **known_diagnoses(site),
        "images": len(site.dataset) + len(site.unlabelled),
        "lesions": len({*site.dataset.lesions, *site.unlabelled.lesions}),
        "synthetic": site.dataset.synthetic,
        "fingerprint": site.data_name,
    }
