"""Plain names say what a route does and how data lie, and no two are the same."""

from dataclasses import replace

from common.methods import METHODS
from common.task import HAM10000
from simulations.study.cells import Arm
from simulations.study.definition import Study
from simulations.study.names import Names, diagnosis

STUDY = {
    "routes": {
        "linear": {},
        "rbf": {"kernel": "rbf"},
        "lda": {"head": "lda"},
        "slow": {"method": "finetune", "lr": [0.001]},
        "fast": {"method": "finetune", "lr": [0.01]},
        "secret": {"method": "private", "epsilon": 3},
    },
    "spreads": {
        "pooled": {"scheme": "pooled"},
        "sources": {"scheme": "natural"},
        "mild": {"scheme": "dirichlet", "sites": 5, "alpha": 10.0},
        "wild": {"scheme": "dirichlet", "sites": 5, "alpha": 0.1},
        "few": {"scheme": "dirichlet", "sites": 2, "alpha": 0.1},
        "quarter": {"scheme": "natural", "unlabelled": 0.75},
        "without": {"scheme": "natural", "unlabelled": {"clinic": 1, "city": 0.5}},
        "alone": {"scheme": "alone"},
    },
    "arms": [{"route": "linear", "spreads": ["pooled"]}],
}


def test_names_are_plain_and_different():
    names = Names.of(Study.model_validate(STUDY), [])
    assert names.routes == {
        "linear": "linear SVM",
        "rbf": "RBF SVM",
        "lda": "linear LDA",
        "slow": "fine-tuning [slow]",
        "fast": "fine-tuning [fast]",
        "secret": "private linear (ε = 3)",
    }
    assert names.spreads == {
        "pooled": "pooled",
        "sources": "natural sites",
        "mild": "5 uneven sites [mild]",
        "wild": "5 uneven sites [wild]",
        "few": "2 uneven sites",
        "quarter": "natural sites, 75% unlabelled",
        "without": "natural sites, clinic and 50% of city unlabelled",
        "alone": "alone",
    }
    assert (
        names.arm(Arm("rbf", "alone", "clinic", 0.25))
        == "RBF SVM, clinic alone, 25% of the lesions"
    )
    assert diagnosis(HAM10000, "akiec") == "actinic keratosis"


def test_a_method_without_a_title_goes_by_its_name(monkeypatch):
    for name, method in METHODS.items():
        monkeypatch.setitem(METHODS, name, replace(method, title=""))
    names = Names.of(Study.model_validate(STUDY), [])
    assert names.routes["secret"] == "private (ε = 3)"
