"""The custom resource definitions: their schemas from the models, and the CEL rules of a spec."""

from finetune_api.crd.definitions import Schema as Schema
from finetune_api.crd.definitions import finetune_crd as finetune_crd
from finetune_api.crd.definitions import model_crd as model_crd
from finetune_api.crd.definitions import structural as structural
