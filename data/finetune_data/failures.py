"""The catalog of the failures of the prepare and the deletion Job, except those of storage.

Messages about single lines of a data file are in `read`, and those about the data as a whole in
`lint.checks`. Both kinds become a part of a failure here.
"""

from __future__ import annotations

from finetune_api.errors import Audience
from finetune_api.names import ENV_TASK, Reason
from finetune_api.outcome import Failure
from finetune_api.uris import HubUri, S3Uri

# --- the pod --------------------------------------------------------------------------------------


def invalid_task(kind: str, error: Exception) -> Failure:
    """kind: the name of the class that the task must be."""
    return _internal(f"{ENV_TASK} is not a {kind}: {error}"[:500])


def full_volume(folder: str) -> Failure:
    return _internal(f"the volume at {folder} is full: give it more space")


def crashed(job: str, error: BaseException, log: list[str] | None = None) -> Failure:
    return _internal(f"the {job} Job crashed: {type(error).__name__}: {error}"[:500], log)


def exhausted(  # noqa: PLR0917 - the parts of one sentence, in its order
    what: str, excess: str, place: str, remedy: str, code: str, param: str | None
) -> Failure:
    """A hostile or broken file that took too much of something.

    what: "the chat template of base model 'curie'". excess: "did not finish within 10 seconds".
    place: " for line 17 of trainingFile", or empty.
    """
    return Failure(code=code, message=f"{what} {excess}{place}", hint=remedy, param=param)


def _internal(message: str, log: list[str] | None = None) -> Failure:
    return Failure(code=Reason.INTERNAL, message=message, log=log)


# --- the training method --------------------------------------------------------------------------


def no_dropout_of_experts() -> Failure:
    """An adapter of a mixture of experts adds its weights to those of all experts at once."""
    return Failure(
        code=Reason.INVALID_SPEC,
        message="an adapter for the experts of the base model cannot have dropout",
        hint="remove method.dropout; or set method.targets to the layers of the attention",
        param="method.dropout",
    )


# --- data files -----------------------------------------------------------------------------------


REPAIR_DATA = "write the file again with a usual program, and check it with finetune prepare-data"


def invalid_address(error: Exception, param: str | None = None) -> Failure:
    where = f"{param}: " if param else ""
    return Failure(code=Reason.INVALID_SPEC, message=f"{where}{error}", param=param)


def repeated_file(param: str, other: str) -> Failure:
    """param, other: the fields that name the same file."""
    return Failure(
        code=Reason.INVALID_SPEC,
        message=f"{param} is the same file as {other}: list each file once, and repeat its "
        "examples with a weight",
        param=f"{param}.uri",
    )


def excessive_weight(
    param: str, uri: str, *, examples: str, repeats: str, most: int, weights: str | None
) -> Failure:
    """uri: of the file that is too small for its weight. examples: their number, with the noun.

    repeats: of an example in an epoch. weights: of all files, with which it is at most `most`.
    """
    return Failure(
        code=Reason.INVALID_SPEC,
        message=f"{param}: {uri} has only {examples}, each of which would occur {repeats} times in "
        f"an epoch; at most {most} are allowed",
        param=param,
        hint=f"use the weights {weights}, or add examples to the file"
        if weights
        else "add examples to the file, or leave it out",
    )


def no_data_file(message: str) -> Failure:
    """message: says which address has no data file."""
    return Failure(code=Reason.DATA_NOT_FOUND, message=message)


def invalid_file(message: str, param: str, lines: list[str]) -> Failure:
    """lines: the first findings."""
    return Failure(code=Reason.INVALID_DATA, message=message, param=param, lines=lines or None)


def invalid_classes(param: str, message: str, hint: str | None = None) -> Failure:
    return Failure(code=Reason.INVALID_DATA, message=message, param=param, hint=hint)


def no_chat_template(name: str) -> Failure:
    """name: of the base model."""
    return Failure(
        code=Reason.INVALID_DATA,
        message=f"the data has chats, but base model {name!r} has no chat template: use prompts "
        "and completions, or a model that was made for chats",
        param="model",
    )


def damaged_dataset(uri: S3Uri, damage: str) -> Failure:
    return _internal(f"the dataset at {uri} is damaged: {damage}")


def no_dataset(uri: S3Uri) -> Failure:
    return Failure(
        code=Reason.DATA_NOT_FOUND,
        message=f"there is no complete dataset at {uri}: the prepare Job has not finished",
    )


# --- base models ----------------------------------------------------------------------------------


def unusable_model(name: str, problem: str) -> Failure:
    return Failure(
        code=Reason.BASE_MODEL_INVALID,
        message=f"base model {name!r} cannot be used: {problem}",
        param="model",
    )


REPAIR_MODEL = "use another base model, or repair its files: no usual model needs so much"
REPAIR_TEMPLATE = "use another base model, or repair its chat template and test it on this line"


def slow_template(name: str, seconds: str) -> Failure:
    """name: of the base model. seconds: that its renderings have taken beyond their length."""
    return Failure(
        code=Reason.BASE_MODEL_INVALID,
        message=f"the chat template of base model {name!r} is too slow: it needed {seconds} "
        "seconds for a few conversations",
        hint=REPAIR_TEMPLATE,
        param="model",
    )


def invalid_model_address(name: str, uri: object, error: Exception) -> Failure:
    return _base_model(Reason.BASE_MODEL_INVALID, name, uri, f"has an invalid address: {error}")


def broken_model(name: str, uri: object, problem: str) -> Failure:
    return _base_model(Reason.BASE_MODEL_INVALID, name, uri, f"cannot be used: {problem}")


def unsafe_model(name: str, uri: object, error: Exception) -> Failure:
    return _base_model(Reason.BASE_MODEL_INVALID, name, uri, f"is unsafe: {error}")


def missing_model(name: str, uri: object, why: str = "no file has that prefix") -> Failure:
    return _base_model(Reason.BASE_MODEL_NOT_FOUND, name, uri, f"does not exist: {why}")


def changed_model(name: str, uri: object, expected: str | None, found: str | None) -> Failure:
    """expected, found: revisions. found: None if the hub no longer has the expected commit."""
    now = f"it now has {found}" if found else "the hub no longer has this commit"
    return _base_model(
        Reason.BASE_MODEL_CHANGED,
        name,
        uri,
        f"changed after this fine-tune had started from revision {expected}: {now}",
        hint="put the former files back and create the fine-tune again, or create it again with "
        "the changed model, on which it then trains from the first step",
    )


def no_config(name: str, uri: object, file: str) -> Failure:
    return _base_model(
        Reason.BASE_MODEL_NOT_FOUND,
        name,
        uri,
        f"has no {file}: expected the Hugging Face layout directly below that address",
    )


def no_safetensors(name: str, uri: object, pickled: str | None) -> Failure:
    """pickled: a file of weights in another format."""
    found = f" but pickled weights ({pickled}), which are never loaded" if pickled else ""
    return _base_model(
        Reason.BASE_MODEL_INVALID,
        name,
        uri,
        f"has no safetensors weights{found}: save the model as model.safetensors",
    )


def not_in_hub_cache(name: str, uri: HubUri, audience: Audience) -> Failure:
    return _base_model(
        Reason.BASE_MODEL_NOT_FOUND,
        name,
        uri,
        "is not in the hub's cache, and HF_HUB_OFFLINE forbids downloads",
        hint="copy it to S3 and use its s3:// address, or fill the cache",
    )


def gated_model(name: str, uri: HubUri, audience: Audience) -> Failure:
    return _base_model(
        Reason.BASE_MODEL_NOT_FOUND,
        name,
        uri,
        "is gated",
        hint=f"accept its license on the hub, and {_TOKEN[audience]}",
    )


def no_revision(name: str, uri: HubUri, audience: Audience) -> Failure:
    return _base_model(Reason.BASE_MODEL_NOT_FOUND, name, uri, f"has no revision {uri.revision!r}")


def not_on_hub(name: str, uri: HubUri, audience: Audience) -> Failure:
    return _base_model(
        Reason.BASE_MODEL_NOT_FOUND,
        name,
        uri,
        "is not on the hub, or is private",
        hint=f"check the address, or {_TOKEN[audience]}",
    )


def unreachable_hub(name: str, uri: HubUri, audience: Audience, hub: str, problem: str) -> Failure:
    """problem: an HTTP status, or the name of an exception."""
    return _base_model(
        Reason.S3_UNAVAILABLE,
        name,
        uri,
        f"cannot be downloaded: the hub at {hub} does not answer ({problem})",
        hint=NO_HUB[audience],
    )


def no_way_to_hub(name: str, uri: HubUri, hub: str, problem: str, hint: str) -> Failure:
    """problem: why no request reached the hub."""
    what = f"cannot be downloaded from the hub at {hub}: {problem}"
    return _base_model(Reason.S3_UNAVAILABLE, name, uri, what, hint=hint)


def no_space(
    name: str, uri: object, audience: Audience, *, needed: str, free: str, folder: object
) -> Failure:
    """needed, free: with their units."""
    return _base_model(
        Reason.INTERNAL,
        name,
        uri,
        f"needs {needed} of disk space, but {folder} has only {free} free",
        hint=_SPACE[audience],
    )


_SPACE = {
    Audience.POD: "set resources.ephemeralStorage, so that the pods run on nodes with enough disk, "
    "or configure a model cache on another volume (chart value runtimes[].modelCache)",
    Audience.SHELL: "free disk space, or use a folder on another disk",
}
_TOKEN = {
    Audience.POD: "put HF_TOKEN into the storage Secret",
    Audience.SHELL: "set HF_TOKEN in the environment",
}
NO_HUB = {
    Audience.POD: "in a cluster without internet access, copy the model to S3",
    Audience.SHELL: "check the connection of this machine, and HF_ENDPOINT if you use a mirror",
}


def _base_model(
    code: str, name: str, uri: object, what: str, *, hint: str | None = None
) -> Failure:
    message = f"base model {name!r} at {uri} {what}"
    return Failure(code=code, message=message, param="model", hint=hint)


def exceeds_gpu_memory(model: str, *, needed: str, usable: str, alternative: str | None) -> Failure:
    """model: its name and size. alternative: settings that fit, and the memory that they need."""
    return Failure(
        code=Reason.INVALID_SPEC,
        message=f"{model} does not fit the GPUs: about {needed}, but only {usable} can be used",
        param="deepspeed" if alternative else "resources.gpusPerNode",
        hint=f"omit deepspeed: {alternative}"
        if alternative
        else "use more GPUs, method.type lora, a shorter maxSequenceLength, or a smaller model",
    )


def exceeds_host_memory(
    model: str,
    *,
    least: str,
    available: str,
    settings: str,
    enough: str,
    alternative: str | None,
) -> Failure:
    """All amounts are per pod. least: certainly needed with settings; enough: a quantity."""
    hint = f"set resources.memory to {enough}, or use more nodes"
    return Failure(
        code=Reason.INVALID_SPEC,
        message=f"{model} does not fit the pods: at least {least} of host memory with {settings}, "
        f"but resources.memory is {available}",
        param="resources.memory",
        hint=f"omit deepspeed, because {alternative} fits; or {hint}" if alternative else hint,
    )


# --- deletion -------------------------------------------------------------------------------------


def foreign_address(uri: S3Uri, expected: str) -> Failure:
    """expected: the form of the address of this Model's files."""
    message = f"{uri} is not the address of the files of this Model ({expected})"
    return Failure(code=Reason.FOREIGN_FILES, message=message, param="uri")


def no_model_owner(uri: S3Uri) -> Failure:
    message = f"the Model does not name the FineTune (spec.fineTune) that published {uri}"
    return Failure(code=Reason.FOREIGN_FILES, message=message, param="fineTune")


def no_model_manifest(uri: S3Uri) -> Failure:
    return _undeleted(f"{uri} is not the manifest of a model")


def other_model(uri: S3Uri, model: str, difference: str) -> Failure:
    """difference: what the manifest says, and what the Model says."""
    return _undeleted(f"{uri} does not hold {model}: its manifest has {difference}")


def invalid_manifest_path(uri: S3Uri, path: str) -> Failure:
    return _undeleted(f"the manifest of {uri} lists an invalid path, {path!r}")


def _undeleted(message: str) -> Failure:
    """Nothing was deleted, which the operator adds."""
    return Failure(code=Reason.FOREIGN_FILES, message=message)


# --- lookup ---------------------------------------------------------------------------------------


def foreign_model(uri: object, fine_tune: str, uid: str) -> Failure:
    return Failure(
        code=Reason.FOREIGN_OBJECT,
        message=f"{uri} belongs to the FineTune {fine_tune} (uid {uid})",
        hint="choose another spec.output",
    )


def no_published_model(uri: S3Uri) -> Failure:
    return Failure(code=Reason.DATA_NOT_FOUND, message=f"there is no published model at {uri}")


def unreadable_manifest(uri: S3Uri) -> Failure:
    return Failure(
        code=Reason.INTERNAL,
        message=f"{uri} is not the manifest of a model",
        hint="see who wrote the object; the model's files and the checkpoints are next to it",
    )
