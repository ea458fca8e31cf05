"""A run's task is read from its settings, or refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.run import RunConfig
from common.config.task_settings import settings_for
from common.errors import ConfigError
from common.task import BINARY, HAM10000, ISIC2019, KNOWN, Task

codes = st.lists(
    st.sampled_from(sorted(KNOWN)) | st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
    min_size=2,
    max_size=9,
    unique=True,
)


def test_the_default_is_ham10000s_and_known_tasks_have_names():
    assert RunConfig.read({}).task == RunConfig.read({"diagnoses": ""}).task == HAM10000
    assert RunConfig.read({"diagnoses": "isic2019"}).task == ISIC2019
    assert RunConfig.read({"diagnoses": "binary"}).task == BINARY


def test_everything_can_be_said_of_a_task():
    values = {
        "diagnoses": "mel, NV,kc",
        "malignant": "mel",
        "mapping": "akiec+bcc->kc, SCC -> kc",
        "names": "kc:keratinocyte carcinoma",
    }
    config = RunConfig.read(values)
    assert config.task == Task(
        ("mel", "nv", "kc"),
        ("melanoma", "melanocytic naevus", "keratinocyte carcinoma"),
        ("mel",),
        (("akiec", "kc"), ("bcc", "kc"), ("scc", "kc")),
    )
    assert RunConfig.read(config.flat()) == config


@given(codes=codes, data=st.data())
def test_a_task_survives_its_settings_and_flowers_flat_strings(codes, data):
    malignant = data.draw(st.lists(st.sampled_from(codes), unique=True, min_size=1))
    others = st.from_regex(r"x_[a-z]{1,5}", fullmatch=True).filter(lambda code: code not in codes)
    mapping = data.draw(st.dictionaries(others, st.sampled_from(codes), max_size=3))
    task = Task.of(codes, {}, malignant, mapping)
    assert RunConfig.read(RunConfig.read(settings_for(task)).flat()).task == task


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"diagnoses": "isic2018"}, "'diagnoses' is isic2018.*did you mean 'isic2019'"),
        ({"diagnoses": "mel,nv,mel"}, "'mel' stands twice"),
        ({"diagnoses": "mel,n/v"}, "'diagnoses' is 'n/v': write a diagnosis"),
        ({"diagnoses": "mel,nv", "malignant": "scc"}, "'scc' is no diagnosis of the task"),
        ({"mapping": "scc-bcc"}, "'mapping' is 'scc-bcc': write scc->bcc"),
        ({"mapping": "mel->nv"}, "'mel' is mapped and is in the task"),
        ({"mapping": "scc->bcc,scc->mel"}, "'mapping' says two things of 'scc'"),
        ({"names": "mel"}, "'names' is 'mel': write code:name"),
    ],
)
def test_nonsense_is_refused_in_one_line(values, message):
    with pytest.raises(ConfigError, match=message) as refusal:
        RunConfig.read(values)
    assert "\n" not in str(refusal.value)


@given(
    values=st.dictionaries(
        st.sampled_from(["diagnoses", "malignant", "mapping", "names"]),
        st.text(st.sampled_from("ab,->+: \n\0é"), max_size=20) | st.integers() | st.none(),
    )
)
def test_whatever_is_set_is_a_task_or_one_line(values):
    try:
        task = RunConfig.read(values).task
    except ConfigError as error:
        said = str(error)
    else:
        said = task.codes[0]
        assert task.n_classes == len(set(task.codes)) >= 2
        assert set(task.malignant) <= set(task.codes)
    assert said
    assert "\n" not in said
